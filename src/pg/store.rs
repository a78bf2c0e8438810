//! Reads rows and missed changes for the hub, through the pool.
//!
//! Invariant: rows are read in one snapshot, in the notation of the log, and with the exact tick they join at.

use super::heard::Heard;
use super::log::{Range, Read, read_range, tick_from};
use super::select::{self, ReadError, Select};
use super::turns::Turns;
use super::{PgError, queries};
use crate::cache::MissedCache;
use crate::change::{Batch, Position, Snapshot, Tick};
use crate::hub::{Happening, Hub, Join, Loaded, Missed, Source, SourceError, Spec, Tables};
use crate::wire::Order;
use deadpool_postgres::Pool;
use futures_util::future::BoxFuture;
use std::sync::{Arc, OnceLock, Weak};
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, NoTls, Transaction};
use tokio_util::sync::CancellationToken;

/// Positions that may wait to be read from. At 2 ms each and two at a time, the last of them waits for a second.
const PAST_WAITING: usize = 1024;

/// See the module.
#[derive(Clone)]
pub struct Store {
    pub(super) pool: Pool,
    /// Reads for the cache at a time: the pool has connections left for everything else.
    pub(super) loads: Arc<Turns>,
    /// Questions for positions at a time.
    pub(super) questions: Arc<Turns>,
    missed: MissedCache,
    /// Reads of missed changes at a time.
    past: Arc<Turns>,
    /// Bytes of images one range read keeps.
    batch_bytes: usize,
    /// For the tables' key columns; weak, as the hub owns the store.
    hub: Arc<OnceLock<Weak<Hub>>>,
}

impl Store {
    /// A store on `pool`, which reads for the cache on at most `loads` of its connections, and what was missed on at most
    /// `past`.
    #[must_use]
    pub fn new(pool: Pool, loads: usize, past: usize, batch_bytes: usize) -> Store {
        let (loads, questions) = (Arc::new(Turns::new(loads)), Arc::new(Turns::new(1)));
        Store {
            pool,
            loads,
            questions,
            missed: MissedCache::default(),
            past: Arc::new(Turns::of_any(past, PAST_WAITING)),
            batch_bytes,
            hub: Arc::default(),
        }
    }

    /// Tells the store which hub's tables it reads.
    pub fn serve(&self, hub: &Arc<Hub>) {
        let _ = self.hub.set(Arc::downgrade(hub));
    }

    /// Gives back what is not asked for any more; to be called now and then.
    pub async fn tidy(&self) {
        self.missed.tidy().await;
    }

    pub(super) fn hub(&self) -> Option<Arc<Hub>> {
        self.hub.get().and_then(Weak::upgrade)
    }

    fn count(&self, what: Happening) {
        if let Some(hub) = self.hub() {
            hub.counts().add(what);
        }
    }

    fn tables(&self) -> Arc<Tables> {
        self.hub().map(|hub| hub.tables()).unwrap_or_default()
    }

    /// Reads a snapshot until nobody wants it.
    async fn read_rows(&self, spec: &Spec, bytes: usize, unwanted: &CancellationToken) -> Result<Loaded, ReadError> {
        let mut client = self.pool.get().await.map_err(PgError::from)?;
        let cancel = client.cancel_token();
        let read = tokio::select! {
            read = rows_in(&mut client, spec, bytes) => Some(read),
            () = unwanted.cancelled() => None,
        };
        match read {
            Some(Ok(loaded)) => Ok(loaded),
            Some(Err(error)) => {
                if error.spoils() {
                    drop(deadpool_postgres::Object::take(client));
                }
                Err(error)
            }
            None => {
                // it would send the rest of the rows to nobody, and hold its locks meanwhile
                drop(deadpool_postgres::Object::take(client));
                let _ = cancel.cancel_query(NoTls).await;
                Err(ReadError::Unwanted)
            }
        }
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
    fn snapshot(
        &self,
        spec: Spec,
        bytes: usize,
        unwanted: CancellationToken,
    ) -> BoxFuture<'static, Result<Loaded, SourceError>> {
        let store = self.clone();
        Box::pin(async move { store.read_rows(&spec, bytes, &unwanted).await.map_err(SourceError::from) })
    }

    fn missed(&self, from: Position, floor: i64, to: Tick) -> BoxFuture<'static, Result<Missed, SourceError>> {
        let store = self.clone();
        Box::pin(async move {
            let reader = store.clone();
            let read = || async {
                let Ok(_turn) = reader.past.take(0).await else {
                    reader.count(Happening::Overloaded);
                    return Err(SourceError::overloaded());
                };
                reader.count(Happening::MissedRead);
                reader.read_missed(from, &to).await.map_err(SourceError::from)
            };
            // boxed: it is large, and most sessions never come here
            let batch = Box::pin(store.missed.get(from, floor, read)).await?;
            Ok(batch.map_or(Missed::Unknown, Missed::Batch))
        })
    }
}

async fn rows_in(client: &mut deadpool_postgres::Client, spec: &Spec, bytes: usize) -> Result<Loaded, ReadError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(PgError::from)?;
    transaction.batch_execute(&select::begin(&spec.table, select::LOGS, "2s")).await.map_err(PgError::from)?;
    let join = join_of(&transaction).await?;
    let rows = Select::new(spec, &Order::default()).send(transaction.client()).await?;
    let rows = select::collect(rows, spec, bytes).await?;
    Ok(Loaded { rows, join })
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
