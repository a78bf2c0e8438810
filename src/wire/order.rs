//! The order of a list: `order=score.desc.nullslast,id`.
//!
//! Must not know: SQL. Invariant: every name is a published column of a type that Postgres can sort, so that nothing
//! the caller wrote ever stands in a statement.

use crate::change::{Column, Seen};

/// One term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderTerm {
    /// A published column.
    pub column: String,
    /// Highest first.
    pub descending: bool,
    /// Where null stands; none leaves it to Postgres (last when ascending, first when descending).
    pub nulls_first: Option<bool>,
}

/// The terms as asked for. The key comes behind them in any case, so that the order is total.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Order(Vec<OrderTerm>);

/// Why an order is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such published column.
    #[error("unknown column `{}` in `order`; use a name that the table's rows show", shown(.0))]
    UnknownColumn(String),
    /// Not the grammar.
    #[error("malformed order at `{}`; write `column.desc.nullslast,other`: `asc` or `desc`, then `nullsfirst` or `nullslast`", shown(.0))]
    Malformed(String),
    /// The type has none.
    #[error(
        "column `{}` is of type `{type_sql}`, which has no order that is known here; order by another column",
        shown(column)
    )]
    NoOrder {
        /// The column.
        column: String,
        /// Its type.
        type_sql: String,
    },
    /// Too long.
    #[error("an order has at most {MAX_TERMS} terms")]
    TooMany,
}

/// Terms of one order. Nobody reads a list sorted by more.
const MAX_TERMS: usize = 16;

/// `pg_type.oid` of the types of Postgres's own that have a btree operator class which does not depend on another
/// type: bool bytea name int8 int2 int4 text oid cidr float4 float8 macaddr inet bpchar varchar date time timestamp
/// timestamptz interval timetz numeric uuid jsonb macaddr8.
const SORTED: &[u32] = &[
    16, 17, 19, 20, 21, 23, 25, 26, 650, 700, 701, 774, 829, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1700,
    2950, 3802,
];

/// The caller's text, shortened, without control characters.
fn shown(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() || c == '`' { '?' } else { c }).collect()
}

impl OrderError {
    /// Slug of the problem.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            OrderError::UnknownColumn(_) => "unknown-column",
            OrderError::Malformed(_) | OrderError::NoOrder { .. } | OrderError::TooMany => "malformed-order",
        }
    }
}

impl Order {
    /// Reads an order.
    ///
    /// # Errors
    /// It is none, names no published column, or one that cannot be sorted.
    pub fn parse<'t>(text: &str, seen: impl Into<Seen<'t>>) -> Result<Order, OrderError> {
        let seen = seen.into();
        let mut terms: Vec<OrderTerm> = Vec::new();
        for part in text.split(',') {
            let term = term(part, seen)?;
            if terms.iter().any(|seen| seen.column == term.column) {
                return Err(OrderError::Malformed(part.to_owned()));
            }
            terms.push(term);
            if terms.len() > MAX_TERMS {
                return Err(OrderError::TooMany);
            }
        }
        Ok(Order(terms))
    }

    /// The terms.
    #[must_use]
    pub fn terms(&self) -> &[OrderTerm] {
        &self.0
    }
}

fn term(text: &str, seen: Seen<'_>) -> Result<OrderTerm, OrderError> {
    let (rest, nulls_first) = match text.rsplit_once('.') {
        Some((rest, "nullsfirst")) => (rest, Some(true)),
        Some((rest, "nullslast")) => (rest, Some(false)),
        _ => (text, None),
    };
    let (name, descending) = match rest.rsplit_once('.') {
        Some((name, "desc")) => (name, true),
        Some((name, "asc")) => (name, false),
        _ => (rest, false),
    };
    if name.is_empty() {
        return Err(OrderError::Malformed(text.to_owned()));
    }
    let Some((_, column)) = seen.column(name) else {
        // a known column with something behind it is a matter of spelling, everything else of the name
        let known = name.split_once('.').is_some_and(|(column, _)| seen.column(column).is_some());
        return Err(if known {
            OrderError::Malformed(text.to_owned())
        } else {
            OrderError::UnknownColumn(name.to_owned())
        });
    };
    if !sorted(column) {
        return Err(OrderError::NoOrder { column: column.name.clone(), type_sql: column.type_sql.clone() });
    }
    Ok(OrderTerm { column: column.name.clone(), descending, nulls_first })
}

fn sorted(column: &Column) -> bool {
    column.is_enum || SORTED.contains(&column.type_oid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Collation, Table};
    use proptest::prelude::*;

    fn table() -> Table {
        let column = |name: &str, type_oid, type_sql: &str| Column {
            name: name.to_owned(),
            type_oid,
            type_sql: type_sql.to_owned(),
            is_enum: false,
            collation: Collation::None,
        };
        Table {
            relid: 1,
            schema: "public".into(),
            name: "t".into(),
            columns: vec![
                column("id", 23, "pg_catalog.int4"),
                column("score", 1700, "pg_catalog.numeric"),
                column("doc", 114, "pg_catalog.json"),
                column("at", 600, "pg_catalog.point"),
            ],
            key: vec!["id".into()],
            key_sql: String::new(),
            row_sql: String::new(),
            public: true,
            ttl: std::time::Duration::ZERO,
            stale: std::time::Duration::ZERO,
            snapshot_every: std::time::Duration::ZERO,
            rules: Vec::new(),
            broken: None,
            fingerprint: String::new(),
        }
    }

    #[test]
    fn terms_are_read() {
        let order = Order::parse("score.desc.nullslast,id", &table()).unwrap();
        let term = |column: &str, descending, nulls_first| OrderTerm { column: column.into(), descending, nulls_first };
        assert_eq!(order.terms(), [term("score", true, Some(false)), term("id", false, None)]);
        assert_eq!(Order::parse("id.asc.nullsfirst", &table()).unwrap().terms(), [term("id", false, Some(true))]);
    }

    #[test]
    fn everything_else_is_refused() {
        for (text, code) in [
            ("", "malformed-order"),
            ("id,", "malformed-order"),
            ("id.down", "malformed-order"),
            ("id.desc.desc", "malformed-order"),
            ("id.nullsfirst.desc", "malformed-order"),
            ("id,id.desc", "malformed-order"),
            ("doc", "malformed-order"),
            ("at.desc", "malformed-order"),
            ("nope", "unknown-column"),
            ("ID", "unknown-column"),
            ("id desc", "unknown-column"),
            ("id;drop table t", "unknown-column"),
            ("count(*)", "unknown-column"),
            ("(select 1)", "unknown-column"),
            ("id::text", "unknown-column"),
            ("doc->>a", "unknown-column"),
            ("\"id\"", "unknown-column"),
        ] {
            let error = Order::parse(text, &table()).unwrap_err();
            assert_eq!(error.code(), code, "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_names_columns(text in "(id|score|doc|x|\\.desc|\\.asc|\\.nullslast|,|\"| |;){0,8}") {
            if let Ok(order) = Order::parse(&text, &table()) {
                prop_assert!(order.terms().iter().all(|t| table().column(&t.column).is_some()));
            }
        }
    }
}
