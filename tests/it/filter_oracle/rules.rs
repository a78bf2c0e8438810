//! The filters of rules: what the database lets be declared is read here, and a claim means what the same value means in an address.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rowcast::change::{Rule, Table};
use rowcast::filter::{Claim, Claims, Filter, FilterError};
use rowcast::permit::Permit;
use serde_json::value::RawValue;
use tokio_postgres::Client;

use super::columns::World;
use super::compare::{self, Case};
use super::generate::Generator;
use super::values::pick;
use super::{FILTERS, Report, fill};

/// Two rounds are some 120,000 cases.
const ROUNDS: u64 = 2;
/// Templates that both sides are asked about.
const TEMPLATES: usize = 4_000;

/// A rule with one caller's claims, and what the caller would have written in an address instead.
pub(super) struct Ruled {
    /// With `{c0}` and so on in the place of values.
    pub filter: String,
    /// Name and JSON.
    pub claims: Vec<(String, String)>,
    /// The same without claims.
    pub pairs: Vec<(String, String)>,
}

#[tokio::test]
async fn a_rule_with_claims_is_the_filter_it_stands_for() {
    let database = crate::support::World::bare().await;
    let client = database.sql().await;
    let world = World::prepare(&client).await;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (seed, mut report, mut given) = (crate::support::seed(), Report::default(), BTreeMap::<&str, u64>::new());
    for round in 0..number("ROWCAST_ORACLE_ROUNDS").unwrap_or(ROUNDS) {
        self::round(&client, &world, seed.wrapping_add(round), &mut report, &mut given).await;
    }
    eprintln!("{report:?} {given:?}");
    assert!(report.cases >= 100_000 && report.naive > 10_000 && report.selected * 50 > report.cases, "{report:?}");
    assert!(given["something"] > 0 && given["nothing"] > 100, "{given:?}");
}

async fn round(
    client: &Client,
    world: &World,
    seed: u64,
    report: &mut Report,
    given: &mut BTreeMap<&'static str, u64>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let images = fill(client, world, &mut rng).await;
    let mut generator = Generator::new(world, &images, &mut rng);
    let mut cases = Vec::new();
    while cases.len() < FILTERS {
        let ruled = generator.ruled();
        let table = under(&world.table, &ruled.filter);
        let context = || format!("ROWCAST_SEED={seed} {} {:?}", ruled.filter, ruled.claims);
        let permit = Permit::of(&table, "member", &object(&ruled.claims));
        let pairs = ruled.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        match (permit, Filter::parse(pairs, &world.table)) {
            (Ok(permit), Ok(filter)) => {
                assert_eq!(permit.filter, filter, "{}", context());
                *given.entry("something").or_default() += 1;
                cases.push(Case::new(world, ruled.pairs, permit.filter));
            }
            // declared as such it keeps nothing away; as a claim it gives nothing
            (Err(why), Ok(_)) if why.to_string().contains("an empty list behind `not`") => {
                *given.entry("nothing").or_default() += 1;
            }
            (Err(_), Err(_)) => *given.entry("nothing").or_default() += 1,
            (permit, filter) => panic!("{}: {permit:?} and {filter:?}", context()),
        }
    }
    compare::cases(client, world, &cases, seed, report).await;
}

fn object(claims: &[(String, String)]) -> String {
    let members: Vec<String> = claims.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
    format!("{{{}}}", members.join(","))
}

fn under(table: &Table, filter: &str) -> Table {
    let rule = Rule {
        role: "member".to_owned(),
        filter: Some(filter.to_owned()),
        columns: None,
        write: false,
        version_required: true,
    };
    Table { rules: vec![rule], ..table.clone() }
}

/// What `allow` says of filters, without declaring them.
const TRY: &str = "create function pg_temp.fault(f text) returns text language plpgsql as $$ begin
      perform rowcast._check_filter('filter_oracle.everything'::pg_catalog.regclass, null, f, true); return null;
    exception when others then return sqlstate; end $$";

#[tokio::test]
async fn what_may_be_declared_is_read_here() {
    let database = crate::support::World::new().await;
    let client = database.sql().await;
    let world = World::prepare(&client).await;
    client.batch_execute(TRY).await.unwrap();
    let seed = crate::support::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let images = fill(&client, &world, &mut rng).await;
    let mut noise = StdRng::seed_from_u64(seed ^ 1);
    let mut generator = Generator::new(&world, &images, &mut rng);
    let templates: Vec<String> = (0..TEMPLATES).map(|n| template(&mut generator, n, &mut noise)).collect();
    let sql =
        "select pg_temp.fault(f) from pg_catalog.unnest($1::pg_catalog.text[]) with ordinality as u (f, n) order by n";
    let faults = client.query(sql, &[&templates]).await.unwrap();
    let mut counts = BTreeMap::<(String, &str), u32>::new();
    for (template, fault) in templates.iter().zip(&faults) {
        let fault: Option<&str> = fault.get(0);
        let read = Filter::of_rule(template, &world.table, &Claims::Any);
        let ours = read.as_ref().map_or_else(FilterError::code, |_| "read");
        if fault.is_none() {
            assert!(read.is_ok(), "ROWCAST_SEED={seed}: `{template}` may be declared: {read:?}");
            filled(template, &world.table, seed);
        }
        assert!(
            matches!(fault, None | Some("22023" | "42703" | "0A000")),
            "ROWCAST_SEED={seed}: `{template}` is refused with {fault:?}"
        );
        *counts.entry((fault.unwrap_or("declared").to_owned(), ours)).or_default() += 1;
    }
    eprintln!("ROWCAST_SEED={seed} {counts:?}");
    let count = |fault: &str, ours: &str| counts.get(&(fault.to_owned(), ours)).copied().unwrap_or_default();
    let read: u32 = counts.iter().filter(|((_, ours), _)| *ours == "read").map(|(_, n)| n).sum();
    assert!(count("declared", "read") > 1_000, "{counts:?}");
    // stricter than it must be, but not much
    assert!(count("declared", "read") * 10 > read * 7, "{counts:?}");
    assert!(["0A000", "22023", "42703"].iter().all(|code| counts.keys().any(|(fault, _)| fault == code)), "{counts:?}");
}

/// With values that fit nothing in particular it gives a filter, or a claim is to blame.
fn filled(template: &str, table: &Table, seed: u64) {
    for text in ["1", "true", "a,)\"'", "2026-11-21", ""] {
        let value = |_: &str| Ok(Claim::Text(text.to_owned()));
        let list = |_: &str| Ok(vec![Claim::Text(text.to_owned()), Claim::Bool(true)]);
        match Filter::of_rule(template, table, &Claims::Of { value: &value, list: &list }) {
            Ok(_) | Err(FilterError::Claim { .. }) => {}
            Err(error) => panic!("ROWCAST_SEED={seed}: `{template}` with `{text}`: {error}"),
        }
    }
}

/// Filters of addresses, of rules, and either with something wrong with it.
fn template(generator: &mut Generator<'_>, n: usize, rng: &mut StdRng) -> String {
    let mut text = match n % 3 {
        0 => generator.ruled().filter,
        1 => generator.simple().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&"),
        _ => generator.pairs().iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&"),
    };
    text.retain(|c| c != '\0');
    if rng.random_ratio(1, 3) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = rng.random_range(0..=chars.len());
        let odd = ['{', '}', '"', '\\', '&', '=', '(', ')', ',', '.', ' ', 'x', '0', '-', 'é'];
        match rng.random_range(0..3) {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 if at < chars.len() => chars[at] = pick(rng, &odd),
            _ => chars.insert(at, pick(rng, &odd)),
        }
        text = chars.into_iter().collect();
    }
    text
}

/// A JSON string, or the number itself where it is one.
pub(super) fn claim(text: &str, rng: &mut StdRng) -> String {
    let number = !text.starts_with('"') && text.bytes().all(|b| b"+-0123456789.eE".contains(&b));
    let raw = number.then(|| RawValue::from_string(text.to_owned()).ok()).flatten();
    match raw.filter(|_| rng.random()) {
        Some(raw) => raw.get().to_owned(),
        None => serde_json::Value::from(text).to_string(),
    }
}
