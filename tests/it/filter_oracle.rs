//! Postgres as the oracle of the filter language: random tables, random filters, both sides asked.
//!
//! Every round makes a table of every type with hard values, reads each row's image together with what
//! Postgres says of each filter's SQL, and compares with the matcher on that image. It also holds that
//! Postgres never refuses what the parser let through, that a literal means to Postgres what it means to
//! the parser, and that `index_key` finds exactly the rows an equality selects.
//!
//! A failure prints its seed; `ROWCAST_SEED=<seed>` replays it, `ROWCAST_ORACLE_ROUNDS=<n>` runs longer.

mod columns;
mod generate;

use std::collections::BTreeMap;
use std::env;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rowcast::filter::{Filter, FilterError, Image, index_key};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use columns::World;
use generate::Generator;

const ROWS: usize = 96;
const FILTERS: usize = 320;
/// Four rounds are some 100,000 cases and take a few seconds.
const ROUNDS: u64 = 4;

/// What a run looked at, so that a run that refused everything is not taken for a success.
#[derive(Debug, Default)]
pub struct Report {
    pub cases: u64,
    pub selected: u64,
    pub literals: u64,
    pub errors: BTreeMap<&'static str, u64>,
}

#[tokio::test]
async fn the_matcher_says_what_postgres_says() {
    let url = env::var("ROWCAST_TEST_URL").expect("ROWCAST_TEST_URL names a database that may be written to");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connect");
    let driver = tokio::spawn(connection);
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed = number("ROWCAST_SEED").unwrap_or_else(|| rand::rng().random());
    let report = run(&client, seed, number("ROWCAST_ORACLE_ROUNDS").unwrap_or(ROUNDS)).await;
    println!("{report:?}");
    drop(client);
    driver.await.expect("driver").expect("connection");
}

/// Runs `rounds` rounds and panics, naming the seed, at the first difference.
pub async fn run(client: &Client, seed: u64, rounds: u64) -> Report {
    let world = World::prepare(client).await;
    let mut report = Report::default();
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        println!("filter oracle: ROWCAST_SEED={seed}");
        self::round(client, &world, seed, &mut report).await;
    }
    assert!(report.selected * 50 > report.cases, "filters select next to nothing: {report:?}");
    assert!(report.errors.contains_key("operator-not-exact"), "nothing was refused: {report:?}");
    report
}

async fn round(client: &Client, world: &World, seed: u64, report: &mut Report) {
    let mut rng = StdRng::seed_from_u64(seed);
    let images = fill(client, world, &mut rng).await;
    let mut generator = Generator::new(world, &images, &mut rng);
    let mut filters = Vec::new();
    let mut literals = Vec::new();
    while filters.len() < FILTERS {
        let pairs = generator.pairs();
        let borrowed = || pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        match Filter::parse(borrowed(), &world.table) {
            Ok(filter) => {
                let canonical = format!("({})", filter.canonical());
                let again = Filter::parse([("and", canonical.as_str())], &world.table);
                assert_eq!(again.as_ref().map(Filter::canonical), Ok(filter.canonical()), "seed {seed}, {pairs:?}");
                let opposite = Filter::parse([("not.and", canonical.as_str())], &world.table).expect("opposite");
                literals.extend(lone_literal(&pairs, &filter));
                filters.extend([(pairs.clone(), filter), (pairs, opposite)]);
            }
            Err(error) => *report.errors.entry(explain(&error)).or_default() += 1,
        }
    }
    compare(client, world, &filters, seed, report).await;
    compare_literals(client, world, &literals, seed, report).await;
}

fn explain(error: &FilterError) -> &'static str {
    assert!(!error.to_string().is_empty());
    error.code()
}

/// Makes the rows anew and returns their images.
async fn fill(client: &Client, world: &World, rng: &mut StdRng) -> Vec<String> {
    client.batch_execute("truncate filter_oracle.everything").await.expect("truncate");
    let values: Vec<Vec<Option<String>>> =
        world.specs.iter().map(|spec| (0..ROWS).map(|_| generate::value(spec.shape, rng)).collect()).collect();
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    client.execute(&world.insert_sql(), &params).await.expect("insert");
    let rows = client.query("select pg_catalog.row_to_json(t.*)::text from filter_oracle.everything t", &[]).await;
    rows.expect("images").iter().map(|row| row.get(0)).collect()
}

type Case = (Vec<(String, String)>, Filter);

async fn compare(client: &Client, world: &World, filters: &[Case], seed: u64, report: &mut Report) {
    let mut sql = String::from("select pg_catalog.row_to_json(t.*)::text");
    let mut params = Vec::new();
    for (_, filter) in filters {
        let part = filter.to_sql("t", params.len() + 1);
        sql.push_str(", ");
        sql.push_str(&part.text);
        params.extend(part.params);
    }
    sql.push_str(" from filter_oracle.everything t");
    let borrowed: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param as &(dyn ToSql + Sync)).collect();
    let rows = match client.query(&sql, &borrowed).await {
        Ok(rows) => rows,
        Err(error) => panic!("seed {seed}: Postgres refused what the parser took: {error:?}"),
    };
    for row in rows {
        let json: String = row.get(0);
        let image = Image::parse(json.as_bytes()).expect("image");
        for (n, (pairs, filter)) in filters.iter().enumerate() {
            let theirs = row.get::<_, Option<bool>>(n + 1) == Some(true);
            let ours = filter.try_matches(&image);
            assert_eq!(
                ours,
                Ok(theirs),
                "ROWCAST_SEED={seed}: left the matcher, right Postgres\n  pairs {pairs:?}\n  filter {filter:?}\n  sql {:?}\n  row {json}",
                filter.to_sql("t", 1)
            );
            assert_eq!(filter.matches(&image), theirs);
            check_index_key(world, &image, filter, theirs, seed);
            report.cases += 1;
            report.selected += u64::from(theirs);
        }
    }
}

/// A filter of one equality selects the rows whose key is the literal's text, and only those.
fn check_index_key(world: &World, image: &Image<'_>, filter: &Filter, selected: bool, seed: u64) {
    let equalities: Vec<(&str, &str)> = filter.equalities().collect();
    let mut all = true;
    for (column, literal) in &equalities {
        let raw = image.get(column).expect("column");
        all &= index_key(world.table.column(column).expect("column"), raw).as_deref() == Some(*literal);
    }
    let text = filter.to_sql("t", 1).text;
    let whole = text.matches(" and ").count() + 1 == equalities.len() && !text.contains(" or ");
    assert!(!selected || all, "seed {seed}: {filter:?} selects a row its index keys miss");
    assert!(selected || !all || !whole, "seed {seed}: {filter:?} misses a row its index keys find");
}

/// The literal of a filter that is one equality, as written and as understood.
fn lone_literal(pairs: &[(String, String)], filter: &Filter) -> Option<(String, String, String)> {
    let [(column, value)] = pairs else { return None };
    let written = value.strip_prefix("eq.")?;
    let (_, understood) = filter.equalities().next()?;
    Some((column.clone(), written.to_owned(), understood.to_owned()))
}

/// The parser's reading of a literal is Postgres's reading of it.
async fn compare_literals(client: &Client, world: &World, literals: &[(String, String, String)], seed: u64, report: &mut Report) {
    let mut sql = String::from("select true");
    let mut params: Vec<&(dyn ToSql + Sync)> = Vec::new();
    for (column, written, understood) in literals {
        let Some(cast) = world.literal_type(column) else { continue };
        let at = params.len();
        let (one, two) = (at + 1, at + 2);
        sql.push_str(&format!(", (${one}::text)::{cast} operator(pg_catalog.=) (${two}::text)::{cast}"));
        params.extend([written as &(dyn ToSql + Sync), understood]);
    }
    let row = client.query_one(&sql, &params).await;
    let row = row.unwrap_or_else(|error| panic!("seed {seed}: Postgres cannot read a literal: {error:?}"));
    for n in 0..row.len() {
        assert!(row.get::<_, bool>(n), "seed {seed}: a literal means something else to Postgres, number {n} of {literals:?}");
        report.literals += 1;
    }
}
