//! What holds of filters without a database. What they mean is held against Postgres elsewhere.

mod grammar;
mod literals;
mod meaning;
mod patterns;
mod random;
mod statement;

use std::time::Duration;

use super::{Filter, FilterError, Image};
use crate::change::{Collation, Column, Table};

fn column(name: &str, type_oid: u32, type_sql: &str, collation: Collation) -> Column {
    let is_enum = type_sql.contains("Mood");
    Column { name: name.to_owned(), type_oid, type_sql: type_sql.to_owned(), is_enum, collation }
}

/// A table with a column of every kind.
fn table() -> Table {
    let plain = |name, oid, sql| column(name, oid, sql, Collation::None);
    Table {
        relid: 1,
        schema: "public".to_owned(),
        name: "games".to_owned(),
        columns: vec![
            plain("id", 20, "pg_catalog.int8"),
            plain("score", 23, "pg_catalog.int4"),
            plain("small", 21, "pg_catalog.int2"),
            plain("ref", 26, "pg_catalog.oid"),
            plain("price", 1700, "pg_catalog.numeric"),
            plain("f4", 700, "pg_catalog.float4"),
            plain("f8", 701, "pg_catalog.float8"),
            plain("on", 16, "pg_catalog.bool"),
            column("league", 25, "pg_catalog.text", Collation::Deterministic),
            column("code", 1043, "pg_catalog.\"varchar\"", Collation::C),
            column("pad", 1042, "pg_catalog.bpchar", Collation::C),
            column("odd", 25, "pg_catalog.text", Collation::Nondeterministic),
            plain("uid", 2950, "pg_catalog.uuid"),
            plain("day", 1082, "pg_catalog.date"),
            plain("clock", 1083, "pg_catalog.\"time\""),
            plain("local", 1114, "pg_catalog.\"timestamp\""),
            plain("at", 1184, "pg_catalog.timestamptz"),
            plain("raw", 17, "pg_catalog.bytea"),
            plain("mood", 90_001, "public.\"Mood\""),
            plain("doc", 3802, "pg_catalog.jsonb"),
            plain("span", 3904, "pg_catalog.int4range"),
            plain("or", 23, "pg_catalog.int4"),
            plain("select", 23, "pg_catalog.int4"),
            plain("a.b \"c\"", 23, "pg_catalog.int4"),
        ],
        key: vec!["id".to_owned()],
        key_sql: String::new(),
        row_sql: String::new(),
        public: true,
        ttl: Duration::ZERO,
        stale: Duration::ZERO,
        snapshot_every: Duration::ZERO,
        rules: Vec::new(),
        broken: None,
        fingerprint: String::new(),
    }
}

fn filter(pairs: &[(&str, &str)]) -> Result<Filter, FilterError> {
    Filter::parse(pairs.iter().copied(), &table())
}

fn canonical(pairs: &[(&str, &str)]) -> String {
    filter(pairs).unwrap().canonical().to_owned()
}

/// The code of the refusal.
fn refused(key: &str, value: &str) -> &'static str {
    match filter(&[(key, value)]) {
        Ok(filter) => panic!("{key}={value} was taken as {filter:?}"),
        Err(error) => error.code(),
    }
}

fn matches(key: &str, value: &str, image: &str) -> bool {
    filter(&[(key, value)]).unwrap().try_matches(&Image::parse(image.as_bytes()).unwrap()).unwrap()
}
