//! The text of the statements.
//!
//! Must not know: connections, values. Invariant: names come from the catalog and are quoted; whatever the client sent
//! is a parameter.

use crate::change::Table;
use crate::filter::Filter;
use crate::pg::select::{qualified, quoted};
use std::fmt::Write as _;

/// A statement and its parameters, all of type text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub text: String,
    pub params: Vec<String>,
}

/// What a column is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The value given.
    Given,
    /// What the table says.
    Default,
    /// What it was: the row is written and nothing else changes.
    Same,
}

/// The parameter `$1`, a JSON object, as one row of these columns.
///
/// A record and not the table's row type: that one checks the domains of columns that are not given. Domains and
/// lengths are checked when the value is assigned. `json` and not `jsonb`: it keeps every digit.
fn record(table: &Table, columns: &[&str], alias: &str) -> String {
    let mut list = String::new();
    for column in columns.iter().filter_map(|c| table.column(c)) {
        let _ = write!(list, "{}{} {}", if list.is_empty() { "" } else { ", " }, quoted(&column.name), column.type_sql);
    }
    format!("pg_catalog.json_to_record($1::pg_catalog.text::pg_catalog.json) as {alias}({list})")
}

/// What every write returns, and every look at a row.
fn returning(table: &Table) -> String {
    format!("{} as key, t.row_version as version, {} as row", table.key_sql, table.row_sql)
}

const XID: &str = "pg_catalog.pg_current_xact_id()::pg_catalog.text as xid";

/// How a row is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Without waiting for anybody.
    Only,
    /// To change it. Who refers to the row does not wait: its key stays.
    Update,
    /// To remove it.
    Delete,
}

/// The row of a key, if the caller is shown it: `shown` is both.
pub(super) fn look(table: &Table, shown: &Filter, look: Look) -> Statement {
    let sql = shown.to_sql("t", 1);
    let lock = match look {
        Look::Only => "",
        Look::Update => " for no key update of t",
        Look::Delete => " for update of t",
    };
    let text = format!("select {} from {} as t where {}{lock}", returning(table), qualified(table), sql.text);
    Statement { text, params: sql.params }
}

/// Whether the key columns in `json` are those of `key`.
pub(super) fn same_key(table: &Table, key: &Filter, json: String) -> Statement {
    let columns: Vec<&str> = table.key.iter().map(String::as_str).collect();
    let sql = key.to_sql("t", 2);
    let text = format!("select ({}) is true as same from {}", sql.text, record(table, &columns, "t"));
    Statement { text, params: std::iter::once(json).chain(sql.params).collect() }
}

/// What a write that makes a row returns beside [`returning`]: whether the caller is shown the row as it was written, whatever becomes
/// of it afterwards.
fn shown(rule: &Filter, params: &mut Vec<String>) -> String {
    let sql = rule.to_sql("t", params.len() + 1);
    params.extend(sql.params);
    format!("({}) is true as shown", sql.text)
}

/// A new row, of which `rule` says whether its writer is shown it. Only columns that are given are named, so that defaults, identity and generated columns do what they do.
pub(super) fn insert(table: &Table, columns: &[&str], json: String, rule: &Filter) -> Statement {
    let (name, returning) = (qualified(table), returning(table));
    if columns.is_empty() {
        let mut params = Vec::new();
        let shown = shown(rule, &mut params);
        let text = format!("insert into {name} as t default values returning {returning}, {shown}, {XID}");
        return Statement { text, params };
    }
    let mut params = vec![json];
    let shown = shown(rule, &mut params);
    let list = |alias: &str| columns.iter().map(|c| format!("{alias}{}", quoted(c))).collect::<Vec<_>>().join(", ");
    let text = format!(
        "insert into {name} as t ({}) select {} from {} returning {returning}, {shown}, {XID}",
        list(""),
        list("r."),
        record(table, columns, "r")
    );
    Statement { text, params }
}

/// Changes a row that the caller is shown. The rule again and not the key alone: two rows may share a deferrable key for a while.
pub(super) fn update(
    table: &Table,
    key: &Filter,
    columns: &[(&str, Source)],
    json: String,
    rule: &Filter,
) -> Statement {
    let set = |(column, source): &(&str, Source)| {
        let column = quoted(column);
        match source {
            Source::Given => format!("{column} = r.{column}"),
            Source::Default => format!("{column} = default"),
            Source::Same => format!("{column} = t.{column}"),
        }
    };
    let sets = columns.iter().map(set).collect::<Vec<_>>().join(", ");
    let given: Vec<&str> = columns.iter().filter(|(_, s)| *s == Source::Given).map(|(c, _)| *c).collect();
    let (from, json) = if given.is_empty() {
        (String::new(), None)
    } else {
        (format!(" from {}", record(table, &given, "r")), Some(json))
    };
    let sql = key.and(rule).to_sql("t", if json.is_some() { 2 } else { 1 });
    let mut params: Vec<String> = json.into_iter().chain(sql.params).collect();
    let shown = shown(rule, &mut params);
    let text = format!(
        "update {} as t set {sets}{from} where {} returning {}, {shown}, {XID}",
        qualified(table),
        sql.text,
        returning(table)
    );
    Statement { text, params }
}

/// Removes a row that the caller is shown: see [`update`].
pub(super) fn delete(table: &Table, shown: &Filter) -> Statement {
    let sql = shown.to_sql("t", 1);
    let text =
        format!("delete from {} as t where {} returning {}, {XID}", qualified(table), sql.text, returning(table));
    Statement { text, params: sql.params }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Collation, Column};
    use std::time::Duration;

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
            schema: "app".to_owned(),
            name: "T\" t".to_owned(),
            columns: vec![
                column("id", 23, "integer"),
                column("a;\"b", 1700, "numeric"),
                column("row_version", 20, "bigint"),
            ],
            key: vec!["id".to_owned()],
            key_sql: "K".to_owned(),
            row_sql: "R".to_owned(),
            public: true,
            ttl: Duration::ZERO,
            stale: Duration::ZERO,
            snapshot_every: Duration::ZERO,
            broken: None,
            fingerprint: String::new(),
            rules: Vec::new(),
        }
    }

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let table = table();
        let key = Filter::of_key("7", &table).unwrap();
        let all = Filter::everything();
        let json = "{\"a;\\\"b\": \"$$); drop table x\"}".to_owned();
        let statement = update(&table, &key, &[("a;\"b", Source::Given), ("id", Source::Default)], json.clone(), &all);
        assert_eq!(
            statement.text,
            "update \"app\".\"T\"\" t\" as t set \"a;\"\"b\" = r.\"a;\"\"b\", \"id\" = default from \
             pg_catalog.json_to_record($1::pg_catalog.text::pg_catalog.json) as r(\"a;\"\"b\" numeric) where \
             (t.\"id\" operator(pg_catalog.=) ($2::pg_catalog.text)::pg_catalog.int4) returning K as key, \
             t.row_version as version, R as row, (true) is true as shown, pg_catalog.pg_current_xact_id()::pg_catalog.text as xid"
        );
        assert_eq!(statement.params, [json, "7".to_owned()]);
        let touch = update(&table, &key, &[("row_version", Source::Same)], String::new(), &all);
        assert!(
            touch.text.contains("set \"row_version\" = t.\"row_version\" where") && touch.params == ["7"],
            "{touch:?}"
        );
        assert!(insert(&table, &[], String::new(), &all).text.contains("default values returning"));
        // the rule counts for the row as it was and as it is, each with parameters of its own
        let rule = Filter::parse([("a;\"b", "gt.1")], &table).unwrap();
        let statement = update(&table, &key, &[("a;\"b", Source::Given)], "{}".to_owned(), &rule);
        assert_eq!(statement.params.len(), 4, "{statement:?}");
        assert!(
            statement.text.contains("$4::pg_catalog.text") && statement.text.contains(") is true as shown"),
            "{statement:?}"
        );
        let statement = insert(&table, &["id"], "{}".to_owned(), &rule);
        assert!(statement.params == ["{}", "1"] && statement.text.contains("$2::pg_catalog.text"), "{statement:?}");
    }
}
