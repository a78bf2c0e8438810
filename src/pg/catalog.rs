//! The watched tables, as the database describes them.

use super::log::Json;
use super::{PgError, queries};
use crate::change::{Collation, Column, Rule, Table};
use crate::hub::Tables;
use serde::Deserialize;
use std::time::Duration;
use tokio_postgres::{Client, Row};

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    type_oid: u32,
    type_sql: String,
    is_enum: bool,
    collation: String,
}

#[derive(Deserialize)]
struct RuleRow {
    role: String,
    filter: Option<String>,
    columns: Option<Vec<String>>,
    write: bool,
    version_required: bool,
}

/// Reads all watched tables.
///
/// # Errors
/// The connection broke.
pub async fn load(client: &Client) -> Result<Tables, PgError> {
    let rows = client.query_typed(queries::SOURCES, &[]).await?;
    rows.iter().map(table).collect::<Result<Vec<_>, _>>().map(Tables::new)
}

fn table(row: &Row) -> Result<Table, PgError> {
    let Json(columns) = row.try_get("columns")?;
    let columns: Vec<ColumnRow> =
        serde_json::from_slice(&columns).map_err(|e| PgError::Unexpected(format!("the columns of a table: {e}")))?;
    let columns = columns
        .into_iter()
        .map(|c| {
            let collation = match c.collation.as_str() {
                "none" => Collation::None,
                "c" => Collation::C,
                "deterministic" => Collation::Deterministic,
                // whatever else: nothing about it is known
                _ => Collation::Nondeterministic,
            };
            Column { name: c.name, type_oid: c.type_oid, type_sql: c.type_sql, is_enum: c.is_enum, collation }
        })
        .collect();
    let Json(rules) = row.try_get("rules")?;
    let rules: Vec<RuleRow> =
        serde_json::from_slice(&rules).map_err(|e| PgError::Unexpected(format!("the rules of a table: {e}")))?;
    let rules = rules
        .into_iter()
        .map(|r| Rule {
            role: r.role,
            filter: r.filter,
            columns: r.columns,
            write: r.write,
            version_required: r.version_required,
        })
        .collect();
    let millis = |name: &str| -> Result<Duration, PgError> {
        Ok(Duration::from_millis(u64::try_from(row.try_get::<_, i64>(name)?).unwrap_or_default()))
    };
    Ok(Table {
        relid: row.try_get("relid")?,
        schema: row.try_get("schema")?,
        name: row.try_get("name")?,
        columns,
        key: row.try_get("key")?,
        key_sql: row.try_get::<_, Option<String>>("key_sql")?.unwrap_or_default(),
        row_sql: row.try_get::<_, Option<String>>("row_sql")?.unwrap_or_default(),
        public: row.try_get("public")?,
        ttl: millis("ttl_ms")?,
        stale: millis("stale_ms")?,
        snapshot_every: millis("snapshot_ms")?,
        broken: row.try_get("broken")?,
        fingerprint: row.try_get("fingerprint")?,
        rules,
    })
}
