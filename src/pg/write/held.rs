//! A connection with a transaction on it, and the place it takes among the writes.
//!
//! Must not know: what is written. Invariant: only a connection that is known to have no transaction goes back to the
//! pool: whatever else becomes of a write (a panic, a future that is dropped), its connection ends with it.

use crate::pg::PgError;
use deadpool_postgres::Object;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio_postgres::Client;

/// How long a rollback may take. It is a word each way; later the peer is gone.
const ROLLBACK: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Held {
    /// Some until it is dropped.
    client: Option<Object>,
    _place: OwnedSemaphorePermit,
}

impl Held {
    pub(super) fn new(client: Object, place: OwnedSemaphorePermit) -> Held {
        Held { client: Some(client), _place: place }
    }

    /// The connection.
    pub(super) fn client(&self) -> Result<&Client, PgError> {
        let gone = || PgError::Unexpected("a connection was used after it was given back".to_owned());
        self.client.as_ref().map(|object| &***object).ok_or_else(gone)
    }

    /// Back to the pool. The caller knows that no transaction is open.
    pub(super) fn give_back(mut self) {
        drop(self.client.take());
    }

    /// Without its transaction; none when the connection is of no use any more.
    pub(super) async fn rolled_back(self) -> Option<Held> {
        let rollback = self.client().ok()?.batch_execute("rollback");
        let done = tokio::time::timeout(ROLLBACK, rollback).await;
        matches!(done, Ok(Ok(()))).then_some(self)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // out of the pool, which makes a new one; the server undoes the transaction when this one ends
            drop(Object::take(client));
        }
    }
}
