//! The streams that are open: whose they are, and when each is to end.
//!
//! Must not know: what they tell, their transport. Invariants: a stream is counted from its beginning to its end; ends
//! that we choose (a drain, old age) are spread, so that the clients do not come back at one moment; a stream is told to end at the
//! moment the authority of whom it is for does.

use crate::auth::{Caller, Clock};
use crate::wire::CloseReason;
use rand::seq::SliceRandom;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Streams a second that are told to come back elsewhere, if the time suffices. Each costs whoever takes it over a
/// connection, a subscription and some bytes, some 0.2 ms.
const PACE: u32 = 500;

/// The ages of streams are spread by this part to both sides, so that those that began together do not end together.
const JITTER: f64 = 0.1;

/// Limits.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Streams of one address; 0 is no limit.
    pub per_address: usize,
    /// Age at which a stream is told to come back; zero is never.
    pub max_age: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Streams {
    limits: StreamLimits,
    /// By which tokens end.
    clock: Clock,
    /// Cancelled when the gateway begins to stop.
    stopping: CancellationToken,
    /// Cancelled when everything stops.
    stop: CancellationToken,
    /// Short: an entry more or less, or a look at all of them once a second.
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    streams: HashMap<u64, Stream>,
    addresses: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Stream {
    end: CancellationToken,
    until: Option<Instant>,
    address: Option<IpAddr>,
}

/// One stream, as long as it is held.
#[derive(Debug)]
pub(crate) struct Stay {
    streams: Arc<Streams>,
    id: u64,
    /// Cancelled when the stream is to end.
    pub(crate) end: CancellationToken,
    /// Whose token it is for; none for those who end with no token.
    caller: Option<Arc<Caller>>,
}

impl Stay {
    /// Why it is to end, if it is.
    pub(crate) fn over(&self) -> Option<CloseReason> {
        if self.is_expired() {
            Some(CloseReason::TokenExpired)
        } else if self.end.is_cancelled() {
            let stopping = self.streams.stopping.is_cancelled();
            Some(if stopping { CloseReason::ShuttingDown } else { CloseReason::Resume })
        } else {
            None
        }
    }

    fn is_expired(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.is_over(&self.streams.clock))
    }

    /// Waits until it is to end; says why.
    pub(crate) async fn ends(&self) -> CloseReason {
        match &self.caller {
            None => self.end.cancelled().await,
            Some(caller) => {
                tokio::select! {
                    () = self.end.cancelled() => {}
                    () = caller.over(&self.streams.clock) => {}
                }
            }
        }
        self.over().unwrap_or(CloseReason::Resume)
    }

    /// From here on it is for this caller: with another token, or with one at last.
    pub(crate) fn belongs_to(&mut self, caller: &Arc<Caller>) {
        self.caller = (!caller.is_anonymous()).then(|| caller.clone());
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut open = self.streams.lock();
        let Some(stream) = open.streams.remove(&self.id) else { return };
        let Some(address) = stream.address else { return };
        if let Some(count) = open.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.addresses.remove(&address);
            }
        }
    }
}

impl Streams {
    /// None open.
    #[must_use]
    pub fn new(
        limits: StreamLimits,
        clock: Clock,
        stopping: CancellationToken,
        stop: CancellationToken,
    ) -> Arc<Streams> {
        Arc::new(Streams { limits, clock, stopping, stop, open: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more stream, for this caller. None when its address has all it may have.
    pub(crate) fn enter(self: &Arc<Self>, address: Option<IpAddr>, caller: &Arc<Caller>) -> Option<Stay> {
        let address = address.filter(|_| self.limits.per_address > 0);
        let mut open = self.lock();
        if let Some(address) = address {
            let count = open.addresses.entry(address).or_default();
            if *count >= self.limits.per_address {
                return None;
            }
            *count += 1;
        }
        let age = (!self.limits.max_age.is_zero())
            .then(|| self.limits.max_age.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER)));
        let (id, end) = (open.next, self.stop.child_token());
        if self.stopping.is_cancelled() {
            // the drain may have listed its streams already
            end.cancel();
        }
        open.next += 1;
        open.streams.insert(id, Stream { end: end.clone(), until: age.map(|age| Instant::now() + age), address });
        let mut stay = Stay { streams: self.clone(), id, end, caller: None };
        stay.belongs_to(caller);
        Some(stay)
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().streams.len()
    }

    /// Ends those that are old, for ever.
    pub(crate) async fn rotate(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            let old: Vec<CancellationToken> = {
                let open = self.lock();
                open.streams.values().filter(|s| s.until.is_some_and(|at| at <= now)).map(|s| s.end.clone()).collect()
            };
            spread(old, Duration::from_millis(900)).await;
        }
    }

    /// Ends all of them within `window`.
    pub async fn drain(&self, window: Duration) {
        let all: Vec<CancellationToken> = self.lock().streams.values().map(|s| s.end.clone()).collect();
        spread(all, window).await;
    }
}

/// Cancels all in random order, at [`PACE`] if that is done within `window`.
async fn spread(mut ends: Vec<CancellationToken>, window: Duration) {
    ends.shuffle(&mut rand::rng());
    let count = u32::try_from(ends.len()).unwrap_or(u32::MAX).max(1);
    let between = between(count, window);
    let began = tokio::time::Instant::now();
    for (i, end) in (0_u32..).zip(ends) {
        // no timer is finer than this: several at once, then a pause
        let due = began + between * i;
        if due > tokio::time::Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(due).await;
        }
        end.cancel();
    }
}

/// The pause between two of so many ends.
fn between(count: u32, window: Duration) -> Duration {
    (Duration::from_secs(1) / PACE).min(window / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(per_address: usize, max_age: Duration) -> Arc<Streams> {
        let (stopping, stop) = (CancellationToken::new(), CancellationToken::new());
        Streams::new(StreamLimits { per_address, max_age }, Clock::default(), stopping, stop)
    }

    fn enter(streams: &Arc<Streams>, address: Option<IpAddr>) -> Option<Stay> {
        streams.enter(address, Caller::anonymous())
    }

    #[test]
    fn an_address_has_so_many() {
        let streams = streams(2, Duration::ZERO);
        let (one, two) = ("10.0.0.1".parse().ok(), "10.0.0.2".parse().ok());
        let (first, second) = (enter(&streams, one).unwrap(), enter(&streams, one).unwrap());
        assert!(enter(&streams, one).is_none());
        let other = enter(&streams, two).unwrap();
        drop(first);
        let third = enter(&streams, one).unwrap();
        assert_eq!(streams.count(), 3);
        drop((second, third, other));
        assert_eq!((streams.count(), streams.lock().addresses.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_drain_ends_them_all_and_takes_no_more_time_than_it_has() {
        for (count, window, whole) in [(10, 7000, 20), (2000, 7000, 4000), (20_000, 7000, 7000), (2000, 1000, 1000)] {
            assert_eq!(between(count, Duration::from_millis(window)) * count, Duration::from_millis(whole));
        }
        let streams = streams(0, Duration::ZERO);
        let stays: Vec<_> = (0..100).map(|_| enter(&streams, None).unwrap()).collect();
        streams.drain(Duration::from_millis(20)).await;
        assert!(stays.iter().all(|stay| stay.end.is_cancelled()));
    }

    #[tokio::test]
    async fn old_ones_end_at_different_moments() {
        let streams = streams(0, Duration::from_secs(100));
        let stays: Vec<_> = (0..50).map(|_| enter(&streams, None).unwrap()).collect();
        let open = streams.lock();
        let mut ends: Vec<_> = open.streams.values().map(|s| s.until.unwrap()).collect();
        ends.sort();
        let spread = ends[49] - ends[0];
        assert!(spread > Duration::from_secs(5) && spread <= Duration::from_secs(20), "{spread:?}");
        drop(open);
        drop(stays);
    }
}
