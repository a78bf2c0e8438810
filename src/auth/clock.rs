//! What time it is: by the wall clock, which tokens speak of and which may jump, and by the monotonic one, which does not.
//!
//! Must not know: tokens. Invariant: who waits for a moment of the wall clock is woken when that clock jumps, at the latest a
//! second after.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often the two clocks are compared.
const COMPARE: Duration = Duration::from_secs(1);

/// Clocks that are slewed drift apart by 0.5 ms a second at most; a jump is what is more than this since the last one.
const JUMP: i64 = 1000;

/// See the module. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Milliseconds that are added to the wall clock: zero but in tests.
    shift: AtomicI64,
    jumps: watch::Sender<()>,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock(Arc::new(Inner { shift: AtomicI64::new(0), jumps: watch::Sender::new(()) }))
    }
}

impl Clock {
    /// Milliseconds since 1970 by the wall clock.
    #[must_use]
    pub fn wall(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX).saturating_add(self.0.shift.load(Ordering::Relaxed))
    }

    /// Makes the wall clock jump by so many milliseconds. For tests: a program has no reason to.
    pub fn jump(&self, millis: i64) {
        self.creep(millis);
        self.0.jumps.send_replace(());
    }

    /// The same, and whoever waits is not told before somebody compares the clocks. For tests.
    pub fn creep(&self, millis: i64) {
        self.0.shift.fetch_add(millis, Ordering::Relaxed);
    }

    /// Hears of jumps from here on.
    pub(crate) fn jumps(&self) -> watch::Receiver<()> {
        self.0.jumps.subscribe()
    }

    /// Watches for jumps, for ever. A machine that slept looks like one: the monotonic clock slept too.
    pub async fn watch(self) {
        let began = Instant::now();
        let apart = || self.wall().saturating_sub(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX));
        let mut before = apart();
        loop {
            tokio::time::sleep(COMPARE).await;
            let now = apart();
            if (now - before).abs() > JUMP {
                tracing::warn!(millis = now - before, "the wall clock jumped: tokens are held against the new time");
                before = now;
                self.0.jumps.send_replace(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_jump_is_told() {
        let clock = Clock::default();
        let before = clock.wall();
        let mut jumps = clock.jumps();
        let watching = clock.clone().watch();
        tokio::pin!(watching);
        assert!(futures_util::poll!(&mut watching).is_pending());
        // one that nobody told of
        clock.creep(3_600_000);
        tokio::select! {
            told = jumps.changed() => told.unwrap(),
            () = &mut watching => {}
        }
        assert!((3_600_000..3_700_000).contains(&(clock.wall() - before)));
        assert!(!jumps.has_changed().unwrap());
        clock.jump(-1);
        assert!(jumps.has_changed().unwrap());
    }
}
