//! A second look after an order was undone: what was seen inside its transaction is not what is committed.
//!
//! Must not know: HTTP. Invariant: a row that is told with a conflict is one that was committed.

use super::held::Held;
use super::order::{Failure, Fault, Operation, Order, RowKey, Verb, Written};
use super::statement::Look;
use super::{LIMITS, apply};
use crate::pg::NOTATION;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// How long it may take: the client has waited for the write already, and has an answer without it.
const AGAIN: Duration = Duration::from_secs(5);

/// The failure as the client is told it. `held` has no transaction any more.
pub(super) async fn look_again(held: Held, order: &Order, failure: Failure) -> Failure {
    let Some((operation, key)) = worth_it(order, &failure) else {
        held.give_back();
        return failure;
    };
    let found = tokio::time::timeout(AGAIN, committed(held, operation, key)).await.ok().flatten();
    let fault = match (failure.fault, found) {
        // the operations before it may have made the version that was met, and that is undone
        (Fault::Stale(_), found) => Fault::Stale(found),
        (_, Some(now)) if operation.verb == Verb::Create => Fault::Exists(now),
        (_, Some(_)) => Fault::Raced,
        (fault, None) => fault,
    };
    Failure { operation: failure.operation, fault }
}

/// A row that was not there and then was: somebody created it in between. A row of another version, met by an operation
/// that is not the first. Any other failure stays what it is.
fn worth_it<'a>(order: &'a Order, failure: &Failure) -> Option<(&'a Operation, &'a RowKey)> {
    let index = failure.operation?;
    let operation = order.operations.get(index)?;
    let again = match &failure.fault {
        Fault::Stale(_) => index > 0,
        Fault::Refused(error) => {
            error.sqlstate() == Some(SqlState::UNIQUE_VIOLATION.code())
                && matches!(operation.verb, Verb::Create | Verb::Put)
        }
        _ => false,
    };
    operation.key.as_ref().filter(|_| again).map(|key| (operation, key))
}

async fn committed(held: Held, operation: &Operation, key: &RowKey) -> Option<Written> {
    let begin = format!("begin read only; {LIMITS}; {NOTATION}");
    let client = held.client().ok()?;
    client.batch_execute(&begin).await.ok()?;
    let found = apply::look(client, operation, &operation.shown(key), Look::Only).await.ok().flatten();
    held.rolled_back().await?.give_back();
    found
}
