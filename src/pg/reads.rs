//! Rows for the cache, with the position at which they are true.
//!
//! Must not know: caches, HTTP. Invariant: nothing that the rows lack comes before their position; and unless the
//! table changes faster than it can be read between two ticks, nothing that they have comes after it.
//!
//! The road not taken: a tick made for every read, as it would write to the database for reading.

use super::log::{Json, tick_from};
use super::select::{self, ReadError, Select};
use super::{PgError, Store, queries};
use crate::cache::{Found, Query, Reader, Window};
use crate::change::Position;
use crate::hub::{SourceError, Spec};
use crate::wire::{Order, WireRow};
use deadpool_postgres::Object;
use futures_util::{TryStreamExt, future};
use std::pin::pin;
use std::time::Duration;
use tokio_postgres::RowStream;
use tokio_postgres::types::{ToSql, Type};

/// Longest that one statement of a read may take; whoever asked is gone by then.
const STATEMENT: &str = "set local statement_timeout = '10s'";

/// Longest wait for a table that somebody holds exclusively. Short, as reads of other tables wait for the same turns.
const LOCK: &str = "500ms";

/// Longest that a read may take with everything, when the database does not even say that it took too long.
const GIVE_UP: Duration = Duration::from_secs(12);

/// Bytes of rows one answer may have: each costs a gateway so much while it is read and sent.
const BYTES: usize = 32 << 20;

/// Times rows are read in the hope that nothing is pending, each just after a tick. Where 300 changes a second match, a
/// third to two thirds of the tries meet one, by how busy the machine is.
const TRIES: u32 = 5;

/// How long the next tick may take to arrive. Under load they come every few milliseconds.
const NEXT_TICK: Duration = Duration::from_millis(50);

/// Pending rows that are too many to be looked through: a gateway that keeps pace leaves no more pending for longer
/// than one tick takes.
const MANY: i32 = 101;

/// One snapshot for everything.
const BEGIN: &str = "begin isolation level repeatable read read only";

/// One look at the table.
struct Look {
    /// None when changes of these rows are pending and that was not to be accepted.
    rows: Option<Vec<WireRow>>,
    position: Position,
}

impl Store {
    async fn find(&self, query: &Query) -> Result<Found, SourceError> {
        let _turn = self.loads.take(query.spec.table.relid).await?;
        for last in (1..=TRIES).map(|n| n == TRIES) {
            let Look { rows, position } = self.look(query, last).await?;
            if let Some(rows) = rows {
                return Ok(Found { rows, position });
            }
            self.next_tick(position).await;
        }
        Err(PgError::Unexpected("rows were read and not given".to_owned()).into())
    }

    async fn look(&self, query: &Query, accept_pending: bool) -> Result<Look, ReadError> {
        let client = self.pool.get().await.map_err(PgError::from)?;
        let looked = tokio::time::timeout(GIVE_UP, look(&client, query, accept_pending)).await;
        let looked = looked.unwrap_or_else(|_| Err(PgError::Unreachable("no answer to a read".to_owned()).into()));
        if looked.as_ref().is_err_and(ReadError::spoils) {
            drop(Object::take(client));
        }
        looked
    }

    /// Waits until the head has left `position` behind, for a moment.
    async fn next_tick(&self, position: Position) {
        let Some(hub) = self.hub() else { return };
        let mut head = hub.head();
        let next = head.wait_for(|head| head.as_ref().is_some_and(|tick| tick.position.tick > position.tick));
        let _ = tokio::time::timeout(NEXT_TICK, next).await;
    }
}

/// Reads the rows, and then what is pending.
///
/// The log comes last and its lock with it: locked for as long as a list is read, hot lists would keep it from ever
/// being emptied. It may have been emptied between our snapshot and that lock, and then it looks as if nothing were
/// pending. But it is emptied only of what a tick covers, and the newest tick is that of our snapshot: rows that are
/// hidden this way come before a tick after our position. So a stream from there repeats them, or is told that the
/// position is gone; it misses nothing.
async fn look(client: &tokio_postgres::Client, query: &Query, accept_pending: bool) -> Result<Look, ReadError> {
    let spec = &query.spec;
    let begin = format!("{BEGIN}; {STATEMENT}; {}", select::begin(&spec.table, "", LOCK));
    let rows = match &query.window {
        Window::Row => Select::new(spec, &Order::default()).window(1, 0),
        Window::List { order, offset, .. } => Select::new(spec, order).window(query.fetch(), *offset),
    };
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&spec.table.relid, Type::OID), (&MANY, Type::INT4)];
    // Polled, and so sent, in this order, and run one after the other. Each is read to its end as it comes: what is not
    // read holds up everything behind it on the connection. The end is sent with them and not when all has arrived,
    // which would hold the log's lock for a way there and back, and the table's for as long as the rows travel.
    let looking = future::try_join4(
        async { client.batch_execute(&begin).await.map_err(|e| PgError::from(e).into()) },
        async { client.query_typed(queries::LAST_TICK, &[]).await.map_err(|e| PgError::from(e).into()) },
        async { select::collect(rows.send(client).await?, spec, BYTES).await },
        async {
            let pending = client.query_typed_raw(queries::UNPUBLISHED, params).await.map_err(PgError::from)?;
            Ok(touches(pending, spec).await?)
        },
    );
    let end = async { client.batch_execute("commit").await.map_err(|e| ReadError::from(PgError::from(e))) };
    let ((_, tick, rows, touched), _) = future::try_join(looking, end).await?;
    let tick = tick
        .first()
        .ok_or_else(|| PgError::Unexpected("no tick: the migrations did not run to their end".to_owned()))?;
    let position = tick_from(tick)?.position;
    Ok(Look { rows: (accept_pending || !touched).then_some(rows), position })
}

/// Is among the pending changes one of these rows?
async fn touches(pending: RowStream, spec: &Spec) -> Result<bool, PgError> {
    let mut pending = pin!(pending);
    let (mut count, mut touched) = (0, false);
    while let Some(row) = pending.try_next().await? {
        count += 1;
        let (old, new): (Option<Json>, Option<Json>) = (row.try_get("old")?, row.try_get("new")?);
        let images = [&old, &new];
        let reload = images.iter().all(|image| image.is_none());
        touched = touched || reload || images.into_iter().flatten().any(|Json(json)| spec.concerns(json));
    }
    Ok(touched || count >= MANY)
}

impl Reader for Store {
    fn read(&self, query: Query) -> future::BoxFuture<'static, Result<Found, SourceError>> {
        let store = self.clone();
        Box::pin(async move { store.find(&query).await })
    }

    fn knows(&self, position: Position) -> future::BoxFuture<'static, Result<bool, SourceError>> {
        let store = self.clone();
        Box::pin(async move {
            let _turn = store.questions.take(0).await?;
            let client = store.pool.get().await.map_err(PgError::from)?;
            #[expect(clippy::cast_possible_wrap, reason = "24 bits")]
            let nonce = position.nonce as i32;
            let params: [(&(dyn ToSql + Sync), Type); 2] = [(&position.tick, Type::INT8), (&nonce, Type::INT4)];
            let asked = tokio::time::timeout(GIVE_UP, client.query_typed(queries::TICK_BY_ID, &params)).await;
            let rows = match asked {
                Ok(rows) => rows.map_err(PgError::from)?,
                Err(_) => {
                    drop(Object::take(client));
                    return Err(PgError::Unreachable("no answer to a read".to_owned()).into());
                }
            };
            Ok(!rows.is_empty())
        })
    }
}
