//! Writes rows: one transaction an order, through the pool.
//!
//! Must not know: HTTP. Invariants: an order is carried out whole or not at all, and never a second time by us; a
//! connection goes back to the pool without a transaction on it; who asked may go away at any moment.

mod apply;
mod claim;
mod order;
mod statement;

pub use order::{Answer, Claim, Expected, Failure, Fault, Operation, Order, Outcome, Render, RowKey, Verb, Written};

use super::{NOTATION, PgError};
use crate::hub::Hub;
use crate::tasks::Tasks;
use deadpool_postgres::{Object, Pool};
use statement::Look;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::{Severity, SqlState};

/// Limits of the transaction: 10 s a statement; 5 s for a row or table that somebody else holds, because a client that
/// waits longer has gone; and 15 s alone, should this process stop in the middle, for the rows it holds.
const LIMITS: &str = "set local statement_timeout = '10s'; set local lock_timeout = '5s'; \
     set local idle_in_transaction_session_timeout = '15s'";

/// The longest that everything before the commit may take: a batch is many statements, and a peer that acknowledges
/// bytes and never answers looks alive to TCP. The connection is given up, which undoes the transaction.
const WORK: Duration = Duration::from_secs(30);

/// How long the answer to a commit is waited for. A flush takes milliseconds; a synchronous standby that is away takes
/// for ever.
const COMMIT: Duration = Duration::from_secs(10);

/// How long the stream may take to reach a write. A tick comes within the safety poll, a second; later the stream is
/// not healthy, and the write is not held up by it.
const REACHED: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub struct Writer {
    pool: Pool,
    hub: Arc<Hub>,
    tasks: Tasks,
}

impl Writer {
    /// A writer on `pool`; positions come from `hub`.
    #[must_use]
    pub fn new(pool: Pool, hub: Arc<Hub>, tasks: Tasks) -> Writer {
        Writer { pool, hub, tasks }
    }

    /// Carries out an order. In a task of its own: when the client goes away in the middle, the transaction still comes
    /// to its end.
    ///
    /// # Errors
    /// See [`Fault`].
    pub async fn perform(&self, order: Order) -> Result<Outcome, Failure> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let pool = self.pool.clone();
        self.tasks.spawn_to_end("write", async move {
            let _ = tell.send(attempt(&pool, &order).await);
        });
        // the task cannot end without an answer but by a panic, and then nobody knows
        let done = told.await.unwrap_or_else(|_| Err(Fault::Unknown.into()))?;
        let position = tokio::time::timeout(REACHED, self.hub.first_seeing(done.xid)).await.ok().flatten();
        Ok(Outcome { answer: done.answer, replayed: done.replayed, position })
    }
}

struct Done {
    answer: Answer,
    xid: u64,
    replayed: bool,
}

async fn attempt(pool: &Pool, order: &Order) -> Result<Done, Failure> {
    let client = pool.get().await.map_err(|e| Fault::Refused(e.into()))?;
    let done = match tokio::time::timeout(WORK, transact(&client, order)).await {
        Ok(Ok(done)) if !done.replayed => done,
        Ok(done) => {
            let client = roll_back(client).await;
            return match done {
                Err(failure) => Err(match client {
                    Some(client) => look_again(client, order, failure).await,
                    None => failure,
                }),
                done => done,
            };
        }
        Err(_) => {
            drop(Object::take(client));
            return Err(Fault::Refused(PgError::Unreachable("no end of a write".to_owned())).into());
        }
    };
    let committed = tokio::time::timeout(COMMIT, client.batch_execute("commit")).await;
    match committed {
        Ok(Ok(())) => Ok(done),
        Ok(Err(error)) if refused(&error) => Err(Fault::Refused(error.into()).into()),
        lost => {
            // a connection that is waited on is no use to anybody; the commit goes its way without it
            drop(Object::take(client));
            let error =
                lost.map_or_else(|_| "no answer".to_owned(), |e| e.err().map(|e| e.to_string()).unwrap_or_default());
            tracing::warn!(error, "the outcome of a commit is unknown");
            Err(Fault::Unknown.into())
        }
    }
}

/// Was this the answer of a server that undid the transaction? A FATAL one may come after the commit took effect.
fn refused(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|e| e.parsed_severity() == Some(Severity::Error))
}

async fn transact(client: &Client, order: &Order) -> Result<Done, Failure> {
    let begin = format!("begin isolation level read committed read write; {LIMITS}; {NOTATION}");
    client.batch_execute(&begin).await.map_err(Fault::from)?;
    if let Some(claim) = &order.claim
        && let Some((answer, xid)) = claim::take(client, claim).await?
    {
        return Ok(Done { answer, xid, replayed: true });
    }
    let (mut rows, mut xid) = (Vec::new(), 0);
    for (i, operation) in order.operations.iter().enumerate() {
        let applied = apply::apply(client, operation).await;
        let applied = applied.map_err(|fault| Failure { operation: Some(i), fault })?;
        xid = applied.xid;
        rows.push(applied.written);
    }
    // what is deferred to the commit fails here, where it is certain that nothing was written
    client.batch_execute("set constraints all immediate").await.map_err(Fault::from)?;
    let mut written = Vec::new();
    for (operation, row) in order.operations.iter().zip(rows) {
        let deleted = operation.verb == Verb::Delete;
        written.push(match deleted {
            true => row,
            false => apply::reread(client, &operation.table, row).await.map_err(Fault::from)?,
        });
    }
    let answer = (order.render)(&written);
    if let Some(claim) = &order.claim {
        claim::keep(client, claim, &answer).await?;
    }
    Ok(Done { answer, xid, replayed: false })
}

/// The connection without its transaction; none when it is of no use any more.
async fn roll_back(client: Object) -> Option<Object> {
    match tokio::time::timeout(Duration::from_secs(5), client.batch_execute("rollback")).await {
        Ok(Ok(())) => Some(client),
        _ => {
            drop(Object::take(client));
            None
        }
    }
}

/// A row that was not there and then was: somebody created it in between. Any other collision stays what it is.
async fn look_again(client: Object, order: &Order, failure: Failure) -> Failure {
    let Fault::Refused(error) = &failure.fault else { return failure };
    if error.sqlstate() != Some(SqlState::UNIQUE_VIOLATION.code()) {
        return failure;
    }
    let operation = failure.operation.and_then(|i| order.operations.get(i));
    let operation = operation.filter(|o| matches!(o.verb, Verb::Create | Verb::Put));
    let Some((operation, key)) = operation.and_then(|o| o.key.as_ref().map(|k| (o, k))) else { return failure };
    let begin = format!("begin read only; {LIMITS}; {NOTATION}");
    let found = match client.batch_execute(&begin).await {
        Ok(()) => apply::look(&client, &operation.table, &key.filter, Look::Only).await.ok().flatten(),
        Err(_) => None,
    };
    roll_back(client).await;
    let fault = match found {
        Some(now) if operation.verb == Verb::Create => Fault::Exists(now),
        Some(_) => Fault::Raced,
        None => return failure,
    };
    Failure { operation: failure.operation, fault }
}
