//! Writes rows: one transaction an order, through the pool.
//!
//! Must not know: HTTP. Invariants: an order is carried out whole or not at all, and never a second time by us; a
//! connection goes back to the pool without a transaction on it; who asked may go away at any moment; writes never
//! hold every connection.

mod again;
mod apply;
mod begin;
mod claim;
mod held;
mod order;
mod statement;

pub use order::{Answer, Claim, Expected, Failure, Fault, Operation, Order, Outcome, Render, RowKey, Verb, Written};

use super::PgError;
use crate::hub::Hub;
use crate::tasks::Tasks;
use deadpool_postgres::Pool;
use held::Held;
use order::hushed;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_postgres::Client;
use tokio_postgres::error::Severity;

/// Limits of the transaction: 10 s a statement; 5 s for a row or table that somebody else holds, because a client that
/// waits longer has gone; and 15 s alone, should this process stop in the middle, for the rows it holds.
const LIMITS: &str = "set local statement_timeout = '10s'; set local lock_timeout = '5s'; \
     set local idle_in_transaction_session_timeout = '15s'";

/// The longest that everything before the commit may take: a batch is many statements, and a peer that acknowledges
/// bytes and never answers looks alive to TCP. The connection is given up, which undoes the transaction.
const WORK: Duration = Duration::from_secs(30);

/// How long a place among the writes is waited for: as many as may run can all stand before one locked row, and whoever
/// comes next is better told than kept.
const PLACE: Duration = Duration::from_secs(2);

/// How long the answer to a commit is waited for. A flush takes milliseconds; a synchronous standby that is away takes
/// for ever.
const COMMIT: Duration = Duration::from_secs(10);

/// How long a connection whose commit is not answered keeps its place. The server's side of it waits on when we turn
/// away: without the place, every further write would add one until the server has none left.
const UNANSWERED: Duration = Duration::from_secs(300);

/// How long the stream may take to reach a write. A tick comes within the safety poll, a second; later the stream is
/// not healthy, and the write is not held up by it.
const REACHED: Duration = Duration::from_secs(5);

/// Bytes of rows that an answer may have. They are in memory several times, as rows, as the answer and as its copy kept
/// for a repetition; 100 patches of small bodies can select rows of any size.
const MAX_ROWS: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Clone)]
pub struct Writer {
    pool: Pool,
    /// Writes at a time: the pool has connections left for everything else.
    places: Arc<Semaphore>,
    hub: Arc<Hub>,
    tasks: Tasks,
}

impl Writer {
    /// A writer on at most `places` connections of `pool`; positions come from `hub`.
    #[must_use]
    pub fn new(pool: Pool, places: usize, hub: Arc<Hub>, tasks: Tasks) -> Writer {
        Writer { pool, places: Arc::new(Semaphore::new(places)), hub, tasks }
    }

    /// Carries out an order. In a task of its own: when the client goes away in the middle, the transaction still comes
    /// to its end. Before it has begun, it goes with the client.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn perform(&self, order: Order) -> Result<Outcome, Failure> {
        let (mut tell, told) = tokio::sync::oneshot::channel();
        let writer = self.clone();
        self.tasks.spawn_to_end("write", async move {
            let held = tokio::select! {
                // nobody waits for it any more
                () = tell.closed() => return,
                held = writer.admit() => held,
            };
            let done = match held {
                Ok(held) => attempt(held, &order, &writer.tasks).await,
                Err(fault) => Err(fault.into()),
            };
            let _ = tell.send(done);
        });
        // the task cannot end without an answer but by a panic, and then nobody knows
        let done = told.await.unwrap_or_else(|_| Err(Fault::Unknown.into()))?;
        let reached = tokio::time::timeout(REACHED, self.hub.first_seeing(done.xid));
        // at the end there may be no further tick, and the answer is wanted before it
        let position = self.tasks.stopping().run_until_cancelled(reached).await.and_then(Result::ok).flatten();
        Ok(Outcome { answer: done.answer, replayed: done.replayed, position })
    }

    async fn admit(&self) -> Result<Held, Fault> {
        let place = tokio::time::timeout(PLACE, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(Fault::Busy) };
        let client = self.pool.get().await.map_err(|e| Fault::Refused(e.into()))?;
        Ok(Held::new(client, place))
    }
}

struct Done {
    answer: Answer,
    xid: u64,
    replayed: bool,
}

async fn attempt(held: Held, order: &Order, tasks: &Tasks) -> Result<Done, Failure> {
    let done = match tokio::time::timeout(WORK, transact(held.client().map_err(Fault::from)?, order)).await {
        Ok(Ok(done)) if !done.replayed => done,
        Ok(done) => {
            let held = held.rolled_back().await;
            return match (done, held) {
                (Err(failure), Some(held)) => Err(again::look_again(held, order, failure).await),
                (done, held) => {
                    if let Some(held) = held {
                        held.give_back();
                    }
                    done.map_err(|failure| failure.without_look())
                }
            };
        }
        Err(_) => return Err(Fault::Refused(PgError::Unreachable("no end of a write".to_owned())).into()),
    };
    commit(held, tasks).await?;
    Ok(done)
}

async fn commit(held: Held, tasks: &Tasks) -> Result<(), Fault> {
    let mut sent = Box::pin(async move {
        let answer = held.client()?.batch_execute("commit").await;
        settle(held, answer)
    });
    if let Ok(settled) = tokio::time::timeout(COMMIT, &mut sent).await {
        return settled;
    }
    tracing::warn!(error = "no answer", "the outcome of a commit is unknown");
    tasks.spawn("unanswered commit", async move {
        let _ = tokio::time::timeout(UNANSWERED, sent).await;
    });
    Err(Fault::Unknown)
}

/// What the answer to a commit means, for the order and for the connection.
fn settle(held: Held, answer: Result<(), tokio_postgres::Error>) -> Result<(), Fault> {
    match answer {
        Ok(()) => held.give_back(),
        Err(error) if refused(&error) => {
            held.give_back();
            return Err(error.into());
        }
        Err(error) => {
            tracing::warn!(error = %hushed(error), "the outcome of a commit is unknown");
            return Err(Fault::Unknown);
        }
    }
    Ok(())
}

/// Was this the answer of a server that undid the transaction? A FATAL one may come after the commit took effect.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|e| e.parsed_severity() == Some(Severity::Error))
}

async fn transact(client: &Client, order: &Order) -> Result<Done, Failure> {
    begin::begin(client, order).await?;
    let tables = begin::tables(order);
    if let Some(claim) = &order.claim
        && let Some((answer, xid)) = claim::take(client, claim, &tables).await?
    {
        return Ok(Done { answer, xid, replayed: true });
    }
    let (mut rows, mut xid) = (Rows::default(), 0);
    for (i, operation) in order.operations.iter().enumerate() {
        let applied = apply::apply(client, operation).await;
        let applied = applied.map_err(|fault| Failure { operation: Some(i), fault })?;
        xid = applied.xid;
        rows.push(operation, applied.written)?;
    }
    // what a trigger of the application deferred all the same fails here, where it is certain that nothing was written
    client.batch_execute("set constraints all immediate").await.map_err(Fault::from)?;
    let mut written = Rows::default();
    for (i, (operation, row)) in order.operations.iter().zip(rows.rows).enumerate() {
        let deleted = operation.verb == Verb::Delete;
        let row = match deleted {
            true => row,
            false => {
                let reread = apply::reread(client, operation, row).await;
                reread.map_err(|fault| Failure { operation: Some(i), fault })?
            }
        };
        written.push(operation, row)?;
    }
    let answer = (order.render)(&written.rows);
    if let Some(claim) = &order.claim {
        claim::keep(client, claim, &tables, &answer).await?;
    }
    Ok(Done { answer, xid, replayed: false })
}

/// The rows written, with their texts as far as the answer has them.
#[derive(Default)]
struct Rows {
    rows: Vec<Written>,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, operation: &Operation, mut row: Written) -> Result<(), Fault> {
        if !operation.answered {
            row.row = bytes::Bytes::new();
        }
        self.bytes += row.row.len();
        // one row is as large as it is
        if !self.rows.is_empty() && self.bytes > MAX_ROWS {
            return Err(Fault::TooLarge);
        }
        self.rows.push(row);
        Ok(())
    }
}
