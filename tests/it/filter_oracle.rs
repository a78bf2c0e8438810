//! Postgres as the oracle of the filter language: random tables, random filters, both sides asked.
//!
//! Every round makes a table of every type with hard values, reads each row's image together with what
//! Postgres says of each filter's SQL, and compares with the matcher on that image. It also holds that
//! Postgres never refuses what the parser let through, that a literal means to Postgres what it means to
//! the parser, and that `index_key` finds exactly the rows an equality selects.
//!
//! A failure prints its seed; `ROWCAST_SEED=<seed>` replays it, `ROWCAST_ORACLE_ROUNDS=<n>` runs longer.

mod columns;
mod compare;
mod generate;
mod rules;
mod values;

use std::collections::BTreeMap;
use std::env;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rowcast::filter::{Filter, FilterError};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use columns::{World, quoted};
use compare::Case;
use generate::Generator;

const ROWS: usize = 96;
/// And as many opposites.
const FILTERS: usize = 320;
const LITERALS: usize = 600;
/// Four rounds are some 250,000 cases and take a second or two.
const ROUNDS: u64 = 4;

/// What a run looked at, so that a run that refused everything is not taken for a success.
#[derive(Debug, Default)]
pub(crate) struct Report {
    cases: u64,
    naive: u64,
    selected: u64,
    literals: u64,
    errors: BTreeMap<&'static str, u64>,
}

#[tokio::test]
async fn the_matcher_says_what_postgres_says() {
    let database = crate::support::World::bare().await;
    let client = database.sql().await;
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed = crate::support::seed();
    let report = run(&client, seed, number("ROWCAST_ORACLE_ROUNDS").unwrap_or(ROUNDS)).await;
    eprintln!("{report:?}");
}

/// Runs `rounds` rounds and panics, naming the seed, at the first difference.
pub(crate) async fn run(client: &Client, seed: u64, rounds: u64) -> Report {
    let world = World::prepare(client).await;
    let mut report = Report::default();
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
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
    let mut cases = Vec::new();
    while cases.len() < FILTERS {
        let pairs = generator.pairs();
        match Filter::parse(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())), &world.table) {
            Ok(filter) => cases.push(Case::new(world, pairs, filter)),
            Err(error) => *report.errors.entry(explain(&error)).or_default() += 1,
        }
    }
    let mut literals = Vec::new();
    for _ in 0..LITERALS {
        let (column, written) = generator.equality();
        let value = format!("eq.{written}");
        if let Ok(filter) = Filter::parse([(quoted(column).as_str(), value.as_str())], &world.table) {
            let understood = filter.equalities().next().expect("an equality").1.to_owned();
            // Of spaces the parser is more tolerant than some types of Postgres.
            literals.push((column, written.trim_matches(' ').to_owned(), understood));
        }
    }
    compare::cases(client, world, &cases, seed, report).await;
    compare::literals(client, world, &literals, seed, report).await;
}

fn explain(error: &FilterError) -> &'static str {
    assert!(!error.to_string().is_empty());
    error.code()
}

/// Makes the rows anew and returns their images.
async fn fill(client: &Client, world: &World, rng: &mut StdRng) -> Vec<String> {
    client.batch_execute("truncate filter_oracle.everything").await.expect("truncate");
    let values: Vec<Vec<Option<String>>> =
        world.specs.iter().map(|spec| (0..ROWS).map(|_| values::value(spec.shape, rng)).collect()).collect();
    let params: Vec<&(dyn ToSql + Sync)> = values.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
    client.execute(&world.insert_sql(), &params).await.expect("insert");
    let rows = client.query("select pg_catalog.row_to_json(t.*)::text from filter_oracle.everything t", &[]).await;
    rows.expect("images").iter().map(|row| row.get(0)).collect()
}
