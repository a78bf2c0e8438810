//! Rows of a table as SQL and back: what snapshots and reads share.
//!
//! Must not know: positions, caches. Invariants: the statement holds names of the catalog and nothing a caller wrote,
//! whose values are parameters; rows are read in the notation of the log.

use super::log::Json;
use super::{NOTATION, PgError};
use crate::change::{Key, Table};
use crate::hub::{SourceError, Spec, TOO_LARGE};
use crate::wire::{Order, WireRow};
use futures_util::TryStreamExt;
use std::fmt::Write as _;
use std::pin::pin;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, RowStream};

/// The first statements of a transaction that reads `table`.
///
/// Locks first, snapshot second: an older snapshot reads an empty table after a TRUNCATE or a rewriting ALTER, and an
/// emptied log; `also` is locked with it. LOCK itself takes no snapshot. Whoever holds the table exclusively holds up its own subscribers, not
/// the few reads that all tables share: after `wait` it is tried again later.
pub(super) fn begin(table: &Table, also: &str, wait: &str) -> String {
    let name = qualified(table);
    format!("set local lock_timeout = '{wait}'; lock table {name}{also} in access share mode; {NOTATION}")
}

/// The log's tables, for [`begin`].
pub(super) const LOGS: &str = ", rowcast.log_0, rowcast.log_1, rowcast.log_2";

/// Some of the rows, sorted.
pub(super) struct Select {
    text: String,
    params: Vec<String>,
}

impl Select {
    /// The rows of `spec`, sorted by `order` and then by key.
    pub(super) fn new(spec: &Spec, order: &Order) -> Select {
        let table = &spec.table;
        let filter = spec.filter.to_sql("t", 1);
        let mut text = format!(
            "select {} as key, t.row_version as version, {} as row from {} as t where {} order by ",
            table.key_sql,
            table.row_sql,
            qualified(table),
            filter.text
        );
        for term in order.terms() {
            let direction = if term.descending { " desc" } else { "" };
            let nulls = match term.nulls_first {
                Some(true) => " nulls first",
                Some(false) => " nulls last",
                None => "",
            };
            let _ = write!(text, "t.{}{direction}{nulls}, ", quoted(&term.column));
        }
        let key = table.key.iter().map(|k| format!("t.{}", quoted(k))).collect::<Vec<_>>().join(", ");
        text.push_str(&key);
        Select { text, params: filter.params }
    }

    /// At most `limit` of them after `offset`.
    pub(super) fn window(mut self, limit: usize, offset: u64) -> Select {
        let _ = write!(self.text, " limit {limit} offset {offset}");
        self
    }

    /// Sends it. The rows come when they are asked for.
    pub(super) async fn send(&self, client: &Client) -> Result<RowStream, PgError> {
        let params = self.params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT));
        Ok(client.query_typed_raw(&self.text, params).await?)
    }
}

/// The rows of a [`Select`], projected; an error when they exceed `limit` bytes.
pub(super) async fn collect(stream: RowStream, spec: &Spec, limit: usize) -> Result<Vec<WireRow>, ReadError> {
    let mut stream = pin!(stream);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = stream.try_next().await.map_err(PgError::from)? {
        let key: &str = row.try_get("key").map_err(PgError::from)?;
        let Json(json) = row.try_get("row").map_err(PgError::from)?;
        let row = WireRow {
            key: Key::from_log(key, spec.table.key.len() > 1),
            version: row.try_get("version").map_err(PgError::from)?,
            row: Some(spec.project_read(&json).map_err(|_| ReadError::Stale)?),
        };
        bytes += row.row.as_ref().map_or(0, bytes::Bytes::len);
        if bytes > limit {
            return Err(ReadError::TooLarge(limit));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The table's name as it stands in a statement.
pub(super) fn qualified(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// An identifier in double quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Why rows could not be read.
pub(super) enum ReadError {
    Pg(PgError),
    TooLarge(usize),
    /// A column is not there any more and the catalog does not know yet.
    Stale,
    /// Nobody waits for the rows any more.
    Unwanted,
}

impl ReadError {
    /// Is the connection of no use any more? It would have to read a large result to its end, or still waits for an
    /// answer that never comes.
    pub(super) fn spoils(&self) -> bool {
        matches!(self, ReadError::TooLarge(_) | ReadError::Pg(PgError::Unreachable(_)))
    }
}

impl From<PgError> for ReadError {
    fn from(error: PgError) -> ReadError {
        ReadError::Pg(error)
    }
}

impl From<ReadError> for SourceError {
    fn from(error: ReadError) -> SourceError {
        match error {
            ReadError::Pg(error) if error.stale_catalog() => ReadError::Stale.into(),
            ReadError::Pg(error) => error.into(),
            ReadError::Stale => {
                SourceError { code: "unavailable", detail: "the table's columns are changing".to_owned(), retry: true }
            }
            ReadError::Unwanted => {
                SourceError { code: "unavailable", detail: "the read was given up".to_owned(), retry: true }
            }
            ReadError::TooLarge(limit) => SourceError {
                code: TOO_LARGE,
                detail: format!("the rows exceed {} MB: narrow the filter, or select fewer columns", limit >> 20),
                retry: false,
            },
        }
    }
}

impl From<PgError> for SourceError {
    fn from(error: PgError) -> SourceError {
        // the text may name columns and values: it goes to the log, not to the subscriber
        tracing::warn!(%error, "read failed");
        SourceError { code: "unavailable", detail: "the database could not be read".to_owned(), retry: error.retry() }
    }
}
