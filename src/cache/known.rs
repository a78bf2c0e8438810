//! Which positions the database knows.
//!
//! Must not know: SQL, tables. Invariant: what was known is known until another history begins; what was not may be
//! another gateway's tick on its way here, and is asked again soon. However many ask for one, it is asked once.

use crate::change::Position;
use crate::hub::SourceError;
use moka::Expiry;
use moka::future::Cache;
use std::future::Future;
use std::time::{Duration, Instant};

/// Positions kept, about 100 bytes each: those of the clients that were away longer than the hub remembers.
const POSITIONS: u64 = 10_000;

/// How long a position stays unknown. One that arrives a moment later is refused for so long.
const UNKNOWN: Duration = Duration::from_secs(1);

/// See the module. By generation of the history.
#[derive(Clone)]
pub(super) struct Known(Cache<(u64, Position), bool>);

struct Kept;

impl Expiry<(u64, Position), bool> for Kept {
    fn expire_after_create(&self, _: &(u64, Position), known: &bool, _: Instant) -> Option<Duration> {
        (!known).then_some(UNKNOWN)
    }
}

impl Default for Known {
    fn default() -> Known {
        Known(Cache::builder().max_capacity(POSITIONS).expire_after(Kept).build())
    }
}

impl Known {
    /// Is it known? `ask` runs when nobody has asked lately.
    ///
    /// # Errors
    /// The error of `ask`, to all who waited for it.
    pub(super) async fn get<F>(
        &self,
        generation: u64,
        position: Position,
        ask: impl FnOnce() -> F,
    ) -> Result<bool, SourceError>
    where
        F: Future<Output = Result<bool, SourceError>>,
    {
        self.0.try_get_with((generation, position), ask()).await.map_err(|e| SourceError::clone(&e))
    }

    /// Drops what is past its time: moka does so only when it is used.
    pub(super) async fn tidy(&self) {
        self.0.run_pending_tasks().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_position_is_asked_for_once() {
        let (known, asked) = (Known::default(), AtomicU32::new(0));
        let position = Position { tick: 7, nonce: 1 };
        let get = |generation, answer: Result<bool, SourceError>| {
            let ask = || async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                answer
            };
            known.get(generation, position, ask)
        };
        let failed = SourceError { code: "unavailable", detail: String::new(), retry: true };
        assert!(get(1, Err(failed)).await.is_err(), "and the next one asks");
        let many = futures_util::future::join_all((0..100).map(|_| get(1, Ok(true)))).await;
        assert!(many.into_iter().all(|answer| answer.is_ok_and(|known| known)));
        assert!(get(1, Ok(false)).await.unwrap(), "kept");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(!get(2, Ok(false)).await.unwrap(), "another history");
        assert!(!get(2, Ok(true)).await.unwrap(), "for a second");
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        let began = Instant::now();
        while !get(2, Ok(true)).await.unwrap() {
            assert!(began.elapsed() < UNKNOWN * 10, "for ever");
            tokio::time::sleep(UNKNOWN / 10).await;
        }
        assert!(began.elapsed() > UNKNOWN / 2);
    }
}
