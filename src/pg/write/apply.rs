//! One operation inside a transaction.
//!
//! Invariants: a version is compared while the row is locked, so what is compared is what is changed; nothing is changed that the
//! caller is not shown.

use super::order::{Expected, Fault, Operation, RowKey, Verb, Written, hushed};
use super::statement::{self, Look, Source, Statement};
use crate::change::Key;
use crate::filter::{Filter, Image};
use crate::pg::PgError;
use crate::pg::log::Json;
use crate::wire::{Projection, merge, strict};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

/// `json` and `jsonb`: the types that a patch is merged into.
const MERGED: [u32; 2] = [114, 3802];

/// What an operation did.
pub(super) struct Applied {
    pub written: Written,
    /// The transaction.
    pub xid: u64,
}

/// The row of a statement about one: none, or one, and never one of several.
async fn run(client: &Client, statement: &Statement) -> Result<Option<Row>, PgError> {
    let params: Vec<(&(dyn ToSql + Sync), Type)> =
        statement.params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let mut rows = client.query_typed(&statement.text, &params).await.map_err(hushed)?;
    match rows.len() {
        0 | 1 => Ok(rows.pop()),
        _ => Err(PgError::Unexpected("several rows of one key".to_owned())),
    }
}

fn unreadable(error: impl std::fmt::Display) -> PgError {
    PgError::Unexpected(format!("{error}"))
}

/// A row as its writer is shown it.
fn written(operation: &Operation, row: &Row, created: bool) -> Result<Written, PgError> {
    let Json(json) = row.try_get("row")?;
    let key: &str = row.try_get("key")?;
    let (table, permit) = (&*operation.table, &operation.permit);
    let projection = Projection::parse(None, false, permit.seen(table)).map_err(unreadable)?;
    let row_shown = match projection.is_whole() {
        true => json,
        false => projection.apply(&json, &Image::parse(&json).map_err(unreadable)?).map_err(unreadable)?,
    };
    let key = Key::from_log(key, table.key.len() > 1);
    Ok(Written { key, version: row.try_get("version")?, row: row_shown, columns: permit.columns_tag(), created })
}

/// The row of a key as it is now.
pub(super) async fn look(
    client: &Client,
    operation: &Operation,
    which: &Filter,
    how: Look,
) -> Result<Option<Written>, PgError> {
    match run(client, &statement::look(&operation.table, which, how)).await? {
        Some(row) => written(operation, &row, false).map(Some),
        None => Ok(None),
    }
}

/// The row once more, as it is at the end of the transaction: an AFTER trigger may have changed it, and capture itself
/// gives a row that was inserted while its predecessor was deleted a higher version. As it was if it is gone.
///
/// And the caller must be shown it: what it wrote is not to vanish from its sight, nor to appear in somebody else's.
pub(super) async fn reread(client: &Client, operation: &Operation, was: Written) -> Result<Written, Fault> {
    let permit = &operation.permit;
    let Ok(key) = Filter::of_key(was.key.as_str(), &operation.table) else { return Ok(was) };
    if let Some(now) = look(client, operation, &key.and(&permit.filter), Look::Only).await? {
        return Ok(Written { created: was.created, ..now });
    }
    match look(client, operation, &key, Look::Only).await? {
        Some(_) => Err(Fault::Forbidden),
        None => Ok(was),
    }
}

/// Of a row that was made: only if the caller is shown it, as it is before what AFTER triggers may do to it, such as remove it.
fn made(operation: &Operation, row: Option<Row>, created: bool) -> Result<Applied, Fault> {
    let row = row.ok_or(Fault::Swallowed)?;
    if !row.try_get::<_, bool>("shown")? {
        return Err(Fault::Forbidden);
    }
    applied(operation, Some(row), created)
}

fn applied(operation: &Operation, row: Option<Row>, created: bool) -> Result<Applied, Fault> {
    let row = row.ok_or(Fault::Swallowed)?;
    let xid: &str = row.try_get("xid")?;
    let xid = xid.parse().map_err(|_| PgError::Unexpected("a transaction id that is no number".to_owned()))?;
    Ok(Applied { written: written(operation, &row, created)?, xid })
}

/// Carries out one operation.
pub(super) async fn apply(client: &Client, operation: &Operation) -> Result<Applied, Fault> {
    let table = &*operation.table;
    let Some(key) = &operation.key else { return insert(client, operation, None).await };
    let in_values = |(name, _): &&(String, _)| table.key.contains(name);
    if operation.values.iter().any(|value| in_values(&value)) {
        let given = operation.values.iter().filter(in_values).map(|(n, r)| (n.clone(), r.get().to_owned())).collect();
        let json = object(&completed(given, key));
        let row = run(client, &statement::same_key(table, &key.filter, json)).await?;
        if !row.is_some_and(|row| row.get("same")) {
            return Err(Fault::OtherKey);
        }
    }
    let how = match operation.verb {
        Verb::Insert | Verb::Create => Look::Only,
        Verb::Update | Verb::Replace | Verb::Put => Look::Update,
        Verb::Delete => Look::Delete,
    };
    let now = look(client, operation, &operation.shown(key), how).await?;
    let now = match (operation.verb, now) {
        (Verb::Insert | Verb::Create | Verb::Put, None) => return insert(client, operation, Some(key)).await,
        (Verb::Insert | Verb::Create, Some(now)) => return Err(Fault::Exists(now)),
        (_, None) => return Err(Fault::NotFound),
        (_, Some(now)) => now,
    };
    if let Expected::OneOf(versions) = &operation.expected
        && !versions.contains(&now.version)
    {
        return Err(Fault::Stale(Some(now)));
    }
    if operation.verb == Verb::Delete {
        let mut gone = applied(operation, run(client, &statement::delete(table, &operation.shown(key))).await?, false)?;
        // the tombstone's: every later version of this key is higher
        gone.written.version += 1;
        return Ok(gone);
    }
    update(client, operation, key, &now).await
}

async fn insert(client: &Client, operation: &Operation, key: Option<&RowKey>) -> Result<Applied, Fault> {
    let mut values: Vec<(String, String)> =
        operation.values.iter().map(|(name, raw)| (name.clone(), raw.get().to_owned())).collect();
    if let Some(key) = key {
        values = completed(values, key);
    }
    let columns: Vec<&str> = values.iter().map(|(name, _)| name.as_str()).collect();
    let statement = statement::insert(&operation.table, &columns, object(&values), &operation.permit.filter);
    made(operation, run(client, &statement).await?, true)
}

async fn update(client: &Client, operation: &Operation, key: &RowKey, now: &Written) -> Result<Applied, Fault> {
    let table = &*operation.table;
    let free = |name: &str| name != "row_version" && !table.key.iter().any(|k| k == name);
    let image = Image::parse(&now.row).map_err(unreadable)?;
    let mut values: Vec<(String, String)> = Vec::new();
    for (name, raw) in operation.values.iter().filter(|(name, _)| free(name)) {
        let merges = operation.verb == Verb::Update && table.column(name).is_some_and(|c| MERGED.contains(&c.type_oid));
        let text = match image.get(name) {
            Some(old) if merges => merge(old, raw.get()).map_err(|_| Fault::Unmergeable(name.clone()))?,
            _ => raw.get().to_owned(),
        };
        values.push((name.clone(), text));
    }
    let mut columns: Vec<(&str, Source)> = values.iter().map(|(name, _)| (name.as_str(), Source::Given)).collect();
    if operation.verb != Verb::Update {
        let absent = |name: &str| free(name) && !values.iter().any(|(n, _)| n == name);
        columns
            // what the caller is not shown stays as it is
            .extend(
                operation
                    .permit
                    .seen(table)
                    .columns()
                    .map(|(_, c)| c.name.as_str())
                    .filter(|n| absent(n))
                    .map(|n| (n, Source::Default)),
            );
    }
    if columns.is_empty() {
        // a write all the same: it has a version and a place in the stream
        columns.push(("row_version", Source::Same));
    }
    let statement = statement::update(table, &key.filter, &columns, object(&values), &operation.permit.filter);
    made(operation, run(client, &statement).await?, false)
}

fn object(values: &[(String, String)]) -> String {
    strict::write_object(values.iter().map(|(name, raw)| (name.as_str(), raw.as_str())))
}

/// `values` with the columns of `key` that are not among them, as strings: a type reads its own text.
fn completed(mut values: Vec<(String, String)>, key: &RowKey) -> Vec<(String, String)> {
    for (column, text) in &key.parts {
        if !values.iter().any(|(name, _)| name == column) {
            values.push((column.clone(), strict::quoted(text)));
        }
    }
    values
}
