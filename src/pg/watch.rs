//! `rowcast.watch`, `rowcast.allow` and their kin, for the command line.

use super::{PgError, connect, parse};
use crate::tasks::Tasks;
use tokio_postgres::types::{ToSql, Type};

/// Arguments of `rowcast.watch`; what is none keeps the function's default.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// Fresh for so long, as an interval (`3 s`).
    pub ttl: Option<String>,
    /// Served stale for so long while it is refreshed.
    pub stale: Option<String>,
    /// Published columns.
    pub columns: Vec<String>,
    /// Columns left out.
    pub exclude: Vec<String>,
    /// Key columns, for tables without a primary key.
    pub key: Vec<String>,
    /// Period of repair snapshots.
    pub snapshot_every: Option<String>,
    /// Rows of one statement above which the table is read anew instead.
    pub bulk_limit: Option<i32>,
    /// Reachable without a token.
    pub public: bool,
}

/// Watches a table, named as in SQL.
///
/// # Errors
/// The database refuses, with the reason and the remedy.
pub async fn watch(url: &str, table: &str, options: &WatchOptions) -> Result<(), PgError> {
    let list = |columns: &[String]| (!columns.is_empty()).then(|| columns.to_vec());
    let (columns, exclude, key) = (list(&options.columns), list(&options.exclude), list(&options.key));
    let mut sql = String::from("select rowcast.watch($1::text::regclass, public => $2");
    let mut params: Vec<(&(dyn ToSql + Sync), Type)> = vec![(&table, Type::TEXT), (&options.public, Type::BOOL)];
    let given: [(&str, &str, Option<&(dyn ToSql + Sync)>, Type); 7] = [
        ("ttl", "::text::interval", options.ttl.as_ref().map(|v| v as _), Type::TEXT),
        ("stale", "::text::interval", options.stale.as_ref().map(|v| v as _), Type::TEXT),
        ("snapshot_every", "::text::interval", options.snapshot_every.as_ref().map(|v| v as _), Type::TEXT),
        ("columns", "", columns.as_ref().map(|v| v as _), Type::TEXT_ARRAY),
        ("exclude", "", exclude.as_ref().map(|v| v as _), Type::TEXT_ARRAY),
        ("key", "", key.as_ref().map(|v| v as _), Type::TEXT_ARRAY),
        ("bulk_limit", "", options.bulk_limit.as_ref().map(|v| v as _), Type::INT4),
    ];
    for (name, cast, value, ty) in given {
        if let Some(value) = value {
            params.push((value, ty));
            sql.push_str(&format!(", {name} => ${}{cast}", params.len()));
        }
    }
    sql.push(')');
    run(url, &sql, &params).await
}

/// Stops watching a table.
///
/// # Errors
/// The database refuses.
pub async fn unwatch(url: &str, table: &str, drop_version: bool) -> Result<(), PgError> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::TEXT), (&drop_version, Type::BOOL)];
    run(url, "select rowcast.unwatch($1::text::regclass, drop_version => $2)", &params).await
}

/// What a role is allowed; see `rowcast.allow`.
#[derive(Clone, Debug, Default)]
pub struct AllowOptions {
    /// Which rows; none: all.
    pub filter: Option<String>,
    /// Which columns; empty: all.
    pub columns: Vec<String>,
    /// Insert, update and delete them.
    pub write: bool,
    /// Also without naming the version that a write is based on.
    pub without_version: bool,
    /// The table has row level security, which is not asked.
    pub ignore_row_security: bool,
}

/// Allows a role to reach a table, named as in SQL.
///
/// # Errors
/// The database refuses, with the reason and the remedy.
pub async fn allow(url: &str, table: &str, role: &str, options: &AllowOptions) -> Result<(), PgError> {
    let columns = (!options.columns.is_empty()).then(|| options.columns.clone());
    let required = !options.without_version;
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&table, Type::TEXT),
        (&role, Type::TEXT),
        (&options.filter, Type::TEXT),
        (&columns, Type::TEXT_ARRAY),
        (&options.write, Type::BOOL),
        (&required, Type::BOOL),
        (&options.ignore_row_security, Type::BOOL),
    ];
    let sql = "select rowcast.allow($1::text::regclass, $2, filter => $3, columns => $4, write => $5, version_required => $6, ignore_row_security => $7)";
    run(url, sql, &params).await
}

/// Takes back what a role was allowed.
///
/// # Errors
/// The database refuses.
pub async fn deny(url: &str, table: &str, role: &str) -> Result<(), PgError> {
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::TEXT), (&role, Type::TEXT)];
    run(url, "select rowcast.deny($1::text::regclass, $2)", &params).await
}

async fn run(url: &str, sql: &str, params: &[(&(dyn ToSql + Sync), Type)]) -> Result<(), PgError> {
    let client = connect(&parse(url)?, &Tasks::here(), "command connection").await?;
    super::migrate::check(&client).await?;
    client.query_typed(sql, params).await?;
    Ok(())
}
