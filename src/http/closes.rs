//! How many connections ended, and why.
//!
//! Must not know: who reads it. Invariant: every stream and every WebSocket that was opened is counted once, when it ends.

use crate::wire::CloseReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by reason.
#[derive(Debug)]
pub struct Closes([AtomicU64; CloseReason::ALL.len()]);

impl Default for Closes {
    fn default() -> Closes {
        Closes(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Closes {
    /// Counts one.
    pub(crate) fn count(&self, reason: CloseReason) {
        // a number of its own, that nothing else is concluded from
        self.0[reason.index()].fetch_add(1, Ordering::Relaxed);
        tracing::debug!(reason = reason.label(), "a connection ended");
    }

    /// Connections that ended for this reason since the start.
    #[must_use]
    pub fn of(&self, reason: CloseReason) -> u64 {
        self.0[reason.index()].load(Ordering::Relaxed)
    }
}
