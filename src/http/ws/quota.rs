//! How many frames a client may send.
//!
//! Must not know: what they say. Invariant: nobody keeps a worker busy with frames alone.

use std::time::Duration;
use tokio::time::Instant;

/// Frames at once: 128 subscriptions are dropped and made anew several times over.
const BURST: u32 = 1000;

/// Between two frames in the long run: 100 a second, far above anybody who types, picks or scrolls.
const EVERY: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Quota {
    /// When everything that was sent is worked off.
    clear_at: Instant,
}

impl Quota {
    /// Of a connection that begins `now`.
    pub(super) fn new(now: Instant) -> Quota {
        Quota { clear_at: now }
    }

    /// One more frame. False when it is too many.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.clear_at = self.clear_at.max(now) + EVERY;
        self.clear_at <= now + EVERY * BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_a_second() {
        let now = Instant::now();
        let mut quota = Quota::new(now);
        assert!((0..BURST).all(|_| quota.take(now)));
        assert!(!quota.take(now));
        let mut quota = Quota::new(now);
        let steady = |i: u32| quota.take(now + EVERY * i);
        assert!((0..10_000).all(steady));
        let mut quota = Quota::new(now);
        let flood = (0..10_000).position(|i: u32| !quota.take(now + EVERY / 10 * i));
        assert!(flood.is_some_and(|at| (1_050..1_200).contains(&at)), "ten times as fast: {flood:?}");
    }
}
