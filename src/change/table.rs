//! What the gateway knows of a watched table. Filled by `pg::catalog`, read by everyone.
//!
//! Must not know: Postgres connections. Invariant: a `Table` is immutable; a changed table is a new
//! `Table` with another `fingerprint`.

use std::sync::Arc;
use std::time::Duration;

/// One published column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// Name as Postgres stores it (not quoted, case kept).
    pub name: String,
    /// Oid of the type, domains replaced by their base type (`pg_type.oid`).
    pub type_oid: u32,
    /// The type as SQL, fully qualified and quoted (`pg_catalog.int4`, `public."Mood"`): safe to paste after `::`.
    pub type_sql: String,
    /// True for an enum type: equality is text equality, order is not known here.
    pub is_enum: bool,
    /// How the column's text compares.
    pub collation: Collation,
}

/// How text in a column compares, as far as an in-process matcher can reproduce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Collation {
    /// The type has no collation (numbers, uuid, timestamps).
    None,
    /// `C` or `POSIX` (also as the database default): byte order, ASCII-only case folding.
    C,
    /// Another deterministic collation: equality is byte equality, order is the library's.
    Deterministic,
    /// Nondeterministic: not even equality can be reproduced.
    Nondeterministic,
}

/// A watched table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `pg_class.oid` of the table (of the root when partitioned).
    pub relid: u32,
    /// Schema name, not quoted.
    pub schema: String,
    /// Table name, not quoted.
    pub name: String,
    /// Published columns in table order; always holds the key columns and `row_version`.
    pub columns: Vec<Column>,
    /// Key column names in key order.
    pub key: Vec<String>,
    /// SQL expression for the key text of a row of alias `t` (`rowcast.key_sql`).
    pub key_sql: String,
    /// SQL expression for the JSON text of a row of alias `t` (`rowcast.row_sql`).
    pub row_sql: String,
    /// Watched with `public => true`. What that comes to is among the rules.
    pub public: bool,
    /// How long a cached answer is fresh.
    pub ttl: Duration,
    /// How long after `ttl` a cached answer may still be served while it is refreshed.
    pub stale: Duration,
    /// Period of the repair snapshots; zero turns them off.
    pub snapshot_every: Duration,
    /// Why the table cannot be served now, with the remedy (a key column was renamed, a trigger is missing).
    pub broken: Option<String>,
    /// Changes whenever the shape of the table or of what is published changes.
    pub fingerprint: String,
    /// Who is shown and may write what. Not in the fingerprint: a change of one resets only whom it is about.
    pub rules: Vec<Rule>,
}

/// What a role is shown of a table and may write, as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The role of a token; `anon`: whoever has none, or a role without a rule here.
    pub role: String,
    /// Rows, as a filter with claims in it; none: all.
    pub filter: Option<String>,
    /// Columns; none: all.
    pub columns: Option<Vec<String>>,
    /// May be written.
    pub write: bool,
    /// A write must name the version it is based on.
    pub version_required: bool,
}

/// A table with those of its columns that somebody is shown. Whatever a caller names is looked up here, so that a hidden
/// column and one that does not exist are told apart by nobody.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'t> {
    table: &'t Table,
    only: Option<&'t [String]>,
}

impl<'t> Seen<'t> {
    /// With these columns; none: all.
    #[must_use]
    pub fn new(table: &'t Table, only: Option<&'t [String]>) -> Seen<'t> {
        Seen { table, only }
    }

    /// The columns, with where each stands in the table.
    pub fn columns(self) -> impl Iterator<Item = (usize, &'t Column)> {
        let shown = move |name: &String| self.only.is_none_or(|only| only.contains(name));
        self.table.columns.iter().enumerate().filter(move |(_, column)| shown(&column.name))
    }

    /// A column by name.
    #[must_use]
    pub fn column(self, name: &str) -> Option<(usize, &'t Column)> {
        self.columns().find(|(_, column)| column.name == name)
    }

    /// Is nothing hidden?
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.only.is_none()
    }
}

impl<'t> From<&'t Table> for Seen<'t> {
    fn from(table: &'t Table) -> Seen<'t> {
        Seen::new(table, None)
    }
}

impl<'t> From<&'t Arc<Table>> for Seen<'t> {
    fn from(table: &'t Arc<Table>) -> Seen<'t> {
        Seen::new(table, None)
    }
}

impl Table {
    /// The name on the wire: `scores` for a table in `public`, otherwise `schema.table`.
    #[must_use]
    pub fn wire_name(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    /// A published column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}
