//! Reads rows and missed changes for the hub, through the pool.
//!
//! Invariant: rows are read in one snapshot, in the notation of the log, and with the exact tick they join at.

use super::heard::Heard;
use super::log::{Json, Range, Read, read_range, tick_from};
use super::{NOTATION, PgError, queries};
use crate::cache::MissedCache;
use crate::change::{Batch, Key, Position, Snapshot, Tick};
use crate::hub::{Hub, Join, Loaded, Missed, Source, SourceError, Spec, Tables};
use crate::wire::WireRow;
use deadpool_postgres::Pool;
use futures_util::TryStreamExt;
use futures_util::future::BoxFuture;
use std::pin::pin;
use std::sync::{Arc, OnceLock, Weak};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{IsolationLevel, Transaction};

/// See the module.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    missed: MissedCache,
    /// Bytes of images one range read keeps.
    batch_bytes: usize,
    /// Bytes of rows one snapshot may have.
    snapshot_bytes: usize,
    /// For the tables' key columns; weak, as the hub owns the store.
    hub: Arc<OnceLock<Weak<Hub>>>,
}

impl Store {
    /// A store on `pool`.
    #[must_use]
    pub fn new(pool: Pool, batch_bytes: usize, snapshot_bytes: usize) -> Store {
        Store { pool, missed: MissedCache::default(), batch_bytes, snapshot_bytes, hub: Arc::default() }
    }

    /// Tells the store which hub's tables it reads.
    pub fn serve(&self, hub: &Arc<Hub>) {
        let _ = self.hub.set(Arc::downgrade(hub));
    }

    /// Gives back what is not asked for any more; to be called now and then.
    pub async fn tidy(&self) {
        self.missed.tidy().await;
    }

    fn tables(&self) -> Arc<Tables> {
        self.hub.get().and_then(Weak::upgrade).map(|hub| hub.tables()).unwrap_or_default()
    }

    async fn read_rows(&self, spec: &Spec) -> Result<Loaded, ReadError> {
        let mut client = self.pool.get().await.map_err(PgError::from)?;
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(PgError::from)?;
        let table = &spec.table;
        let name = format!("{}.{}", quoted(&table.schema), quoted(&table.name));
        // Locks first, snapshot second: an older snapshot reads an empty table after a TRUNCATE or a rewriting ALTER,
        // and an emptied log. LOCK itself takes no snapshot. Whoever holds the table exclusively holds up its own
        // subscribers, not the few reads that all tables share: after 2 s it is tried again later.
        let begin = format!(
            "set local lock_timeout = '2s'; lock table {name}, rowcast.log_0, rowcast.log_1, rowcast.log_2 in access share mode; {NOTATION}"
        );
        transaction.batch_execute(&begin).await.map_err(PgError::from)?;
        let join = join_of(&transaction).await?;
        let filter = spec.filter.to_sql("t", 1);
        let order = table.key.iter().map(|k| format!("t.{}", quoted(k))).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "select {} as key, t.row_version as version, {} as row from {name} as t where {} order by {order}",
            table.key_sql, table.row_sql, filter.text
        );
        let params = filter.params.iter().map(|p| (p as &(dyn ToSql + Sync), Type::TEXT));
        let stream = transaction.query_typed_raw(&sql, params).await.map_err(PgError::from)?;
        let mut stream = pin!(stream);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(row) = stream.try_next().await.map_err(PgError::from)? {
            let key: &str = row.try_get("key").map_err(PgError::from)?;
            let Json(json) = row.try_get("row").map_err(PgError::from)?;
            let row = WireRow {
                key: Key::from_log(key, table.key.len() > 1),
                version: row.try_get("version").map_err(PgError::from)?,
                row: Some(spec.project_read(&json).map_err(|_| ReadError::Stale)?),
            };
            bytes += row.row.as_ref().map_or(0, bytes::Bytes::len);
            if bytes > self.snapshot_bytes {
                // the connection would have to read the result to its end: give it up instead
                drop(transaction);
                drop(deadpool_postgres::Object::take(client));
                return Err(ReadError::TooLarge(self.snapshot_bytes));
            }
            rows.push(row);
        }
        Ok(Loaded { rows, join })
    }

    async fn read_missed(&self, from: Position, to: &Tick) -> Result<Option<Arc<Batch>>, PgError> {
        let tables = self.tables();
        let mut client = self.pool.get().await?;
        let read = Read { tables: &tables, from, known: None, to, budget: self.batch_bytes };
        match read_range(&mut client, None, &read, &Heard::default()).await? {
            Range::Batch(batch) => Ok(Some(Arc::new(batch))),
            Range::Unknown => Ok(None),
        }
    }
}

impl Source for Store {
    fn snapshot(&self, spec: Spec) -> BoxFuture<'static, Result<Loaded, SourceError>> {
        let store = self.clone();
        Box::pin(async move { store.read_rows(&spec).await.map_err(SourceError::from) })
    }

    fn missed(&self, from: Position, floor: i64, to: Tick) -> BoxFuture<'static, Result<Missed, SourceError>> {
        let store = self.clone();
        Box::pin(async move {
            let reader = store.clone();
            let read = || async { reader.read_missed(from, &to).await.map_err(SourceError::from) };
            // boxed: it is large, and most sessions never come here
            let batch = Box::pin(store.missed.get(from, floor, read)).await?;
            Ok(batch.map_or(Missed::Unknown, Missed::Batch))
        })
    }
}

/// The tick at which the stream continues what this transaction sees.
async fn join_of(transaction: &Transaction<'_>) -> Result<Join, PgError> {
    let last = transaction.query_typed(queries::LAST_TICK, &[]).await?;
    let last = last
        .first()
        .ok_or_else(|| PgError::Unexpected("no tick: the migrations did not run to their end".to_owned()))?;
    let last = tick_from(last)?;
    let snap = last.snap.to_string();
    let pending = transaction.query_typed(queries::PENDING, &[(&snap, Type::TEXT)]).await?;
    let pending = pending.first().ok_or_else(|| PgError::Unexpected("no answer about pending changes".to_owned()))?;
    if !pending.try_get::<_, bool>("pending")? {
        return Ok(Join::At(last.position.tick));
    }
    let snap: &str = pending.try_get("snap")?;
    let snap: Snapshot = snap.parse().map_err(|e| PgError::Unexpected(format!("{e}")))?;
    Ok(Join::Covers(snap))
}

/// An identifier in double quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

enum ReadError {
    Pg(PgError),
    TooLarge(usize),
    /// A column is not there any more and the catalog does not know yet.
    Stale,
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
            ReadError::TooLarge(limit) => SourceError {
                code: "snapshot-too-large",
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
