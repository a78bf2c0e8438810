//! How many connections ended, and why.
//!
//! Must not know: who reads it. Invariant: every stream and every WebSocket that was opened is counted once, when it ends.

use crate::wire::CloseReason;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts by reason.
#[derive(Debug)]
pub struct Closes([AtomicU64; CloseReason::ALL.len()]);

impl Default for Closes {
    fn default() -> Closes {
        Closes(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// A connection that is open, counted when it is known why it ends, at the latest when this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    closes: Arc<Closes>,
    otherwise: Option<CloseReason>,
}

impl Counted {
    /// The reason is known.
    pub(crate) fn because(&mut self, reason: CloseReason) {
        if self.otherwise.take().is_some() {
            self.closes.count(reason);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(otherwise) = self.otherwise {
            self.closes.count(otherwise);
        }
    }
}

impl Closes {
    /// A connection that was opened; `otherwise` is why it ended if nobody says.
    pub(crate) fn open(self: &Arc<Closes>, otherwise: CloseReason) -> Counted {
        Counted { closes: self.clone(), otherwise: Some(otherwise) }
    }

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
