//! When a session last had an answer.
//!
//! Invariant: only what came from the database counts; a statement that was sent does not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shared by what reads from one connection and what watches over it.
#[derive(Debug)]
pub(super) struct Heard(Mutex<Instant>);

impl Default for Heard {
    /// Counts from now.
    fn default() -> Heard {
        Heard(Mutex::new(Instant::now()))
    }
}

impl Heard {
    /// Something came.
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Ends when nothing came for `limit`.
    pub(super) async fn silence(&self, limit: Duration) {
        loop {
            let quiet = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            let Some(left) = limit.checked_sub(quiet) else { return };
            tokio::time::sleep(left.max(Duration::from_millis(10))).await;
        }
    }
}
