//! Asks Postgres and the matcher the same, and panics where they differ.

use std::fmt::Write as _;

use rowcast::filter::{Filter, Image, index_key};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::Report;
use super::columns::{World, quoted};

/// A filter, its opposite, and where it is one simple test, the same test in naive SQL.
pub(super) struct Case {
    pairs: Vec<(String, String)>,
    filter: Filter,
    opposite: Filter,
    naive: Option<(String, String)>,
    /// Its equalities are all there is to it.
    only_equalities: bool,
}

impl Case {
    pub(super) fn new(world: &World, pairs: Vec<(String, String)>, filter: Filter) -> Self {
        let canonical = format!("({})", filter.canonical());
        let again = Filter::parse([("and", canonical.as_str())], &world.table);
        assert_eq!(again.as_ref().map(Filter::canonical), Ok(filter.canonical()), "{pairs:?}");
        let opposite = Filter::parse([("not.and", canonical.as_str())], &world.table).expect("opposite");
        let text = filter.to_sql("t", 1).text;
        let only_equalities =
            text.matches(" and ").count() + 1 == filter.equalities().count() && !text.contains(" or ");
        Self { naive: naive(world, &pairs), pairs, filter, opposite, only_equalities }
    }
}

/// What the test means without this crate's parser between: the operator by hand, the literal as written.
fn naive(world: &World, pairs: &[(String, String)]) -> Option<(String, String)> {
    let [(column, value)] = pairs else { return None };
    let cast = world.literal_type(column)?;
    let (not, value) = value.strip_prefix("not.").map_or(("", value.as_str()), |rest| ("not ", rest));
    let (operator, literal) = value.split_once('.')?;
    let (operator, cast, collate) = match operator {
        "eq" => ("=", cast, ""),
        "neq" => ("<>", cast, ""),
        "lt" => ("<", cast, ""),
        "lte" => ("<=", cast, ""),
        "gt" => (">", cast, ""),
        "gte" => (">=", cast, ""),
        // `*` is no wildcard to Postgres.
        "like" if !literal.contains('*') => ("~~", "text", ""),
        "ilike" if !literal.contains('*') => ("~~*", "text", " collate pg_catalog.\"C\""),
        _ => return None,
    };
    let literal = if matches!(cast, "text" | "bpchar") { literal } else { literal.trim_matches(' ') };
    let column = quoted(column.trim_matches('"'));
    Some((
        format!("({not}((t.{column}{collate}) operator(pg_catalog.{operator}) ($?::text)::{cast}))"),
        literal.to_owned(),
    ))
}

/// A query whose columns come one by one.
#[derive(Default)]
struct Query {
    sql: String,
    params: Vec<String>,
    columns: usize,
}

impl Query {
    /// Returns the number of the column.
    fn column(&mut self, text: &str, params: impl IntoIterator<Item = String>) -> usize {
        let _ = write!(self.sql, "{}{text}", if self.columns == 0 { "select " } else { ", " });
        self.params.extend(params);
        self.columns += 1;
        self.columns - 1
    }

    fn filter(&mut self, filter: &Filter) -> usize {
        let sql = filter.to_sql("t", self.params.len() + 1);
        self.column(&sql.text, sql.params)
    }

    fn naive(&mut self, (text, param): &(String, String)) -> usize {
        let text = text.replace("$?", &format!("${}", self.params.len() + 1));
        self.column(&text, [param.clone()])
    }

    async fn run(mut self, client: &Client, from: &str, seed: u64) -> Vec<Row> {
        self.sql.push_str(from);
        let params: Vec<&(dyn ToSql + Sync)> = self.params.iter().map(|param| param as &(dyn ToSql + Sync)).collect();
        let rows = client.query(&self.sql, &params).await;
        rows.unwrap_or_else(|error| panic!("ROWCAST_SEED={seed}: Postgres refused what the parser took: {error:?}"))
    }
}

/// Every row against every filter.
pub(super) async fn cases(client: &Client, world: &World, cases: &[Case], seed: u64, report: &mut Report) {
    let mut query = Query::default();
    query.column("pg_catalog.row_to_json(t.*)::text", []);
    let places: Vec<(usize, usize, Option<usize>)> = cases
        .iter()
        .map(|case| {
            let naive = case.naive.as_ref().map(|naive| query.naive(naive));
            (query.filter(&case.filter), query.filter(&case.opposite), naive)
        })
        .collect();
    for row in query.run(client, " from filter_oracle.everything t", seed).await {
        let json: &str = row.get(0);
        let image = Image::parse(json.as_bytes()).expect("image");
        for (case, (plain, opposite, naive)) in cases.iter().zip(&places) {
            let truth: Option<bool> = row.get(*plain);
            let context = || {
                let Case { pairs, filter, .. } = case;
                format!(
                    "ROWCAST_SEED={seed}\n  pairs {pairs:?}\n  filter {filter:?}\n  sql {:?}\n  row {json}",
                    filter.to_sql("t", 1)
                )
            };
            assert_eq!(row.get::<_, Option<bool>>(*opposite), truth.map(|truth| !truth), "no opposite, {}", context());
            assert_eq!(
                case.filter.try_matches(&image),
                Ok(truth == Some(true)),
                "left the matcher, right Postgres, {}",
                context()
            );
            assert_eq!(
                case.opposite.matches(&image),
                truth == Some(false),
                "left the matcher, right Postgres, {}",
                context()
            );
            if let Some(naive) = naive {
                assert_eq!(
                    truth,
                    row.get::<_, Option<bool>>(*naive),
                    "left the compiled, right the naive SQL, {}",
                    context()
                );
                report.naive += 1;
            }
            let found = is_found(world, &image, &case.filter);
            assert!(found || truth != Some(true), "an index over equalities misses a row, {}", context());
            assert!(
                !case.only_equalities || found == (truth == Some(true)),
                "equal keys of unequal values, {}",
                context()
            );
            report.cases += 2;
            report.selected += u64::from(truth == Some(true)) + u64::from(truth == Some(false));
        }
    }
}

/// Whether an index over the filter's equalities leads from the row to the filter.
fn is_found(world: &World, image: &Image<'_>, filter: &Filter) -> bool {
    filter.equalities().all(|(column, literal)| {
        let raw = image.get(column).expect("column");
        index_key(world.table.column(column).expect("column"), raw).as_deref() == Some(literal)
    })
}

/// The parser's reading of a literal is Postgres's reading of it.
pub(super) async fn literals(
    client: &Client,
    world: &World,
    literals: &[(&str, String, String)],
    seed: u64,
    report: &mut Report,
) {
    let mut query = Query::default();
    for (column, written, understood) in literals {
        let cast = world.literal_type(column).expect("a literal has a type");
        let (one, two) = (query.params.len() + 1, query.params.len() + 2);
        let text = format!("(${one}::text)::{cast} operator(pg_catalog.=) (${two}::text)::{cast}");
        query.column(&text, [written.clone(), understood.clone()]);
    }
    for row in query.run(client, "", seed).await {
        for (n, literal) in literals.iter().enumerate() {
            assert!(row.get::<_, bool>(n), "ROWCAST_SEED={seed}: Postgres reads a literal otherwise, {literal:?}");
            report.literals += 1;
        }
    }
}
