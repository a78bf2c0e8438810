//! The keys of an issuer, kept and fetched anew.
//!
//! Must not know: HTTP, claims. Invariants: one fetch at a time, and whoever needs its outcome waits for that one; a key that
//! nobody knows leads to one fetch in [`GAP`] however many ask; keys stay while they cannot be fetched, and go when a fetched set
//! no longer has them.

use super::fault::{Fault, Rejected};
use super::fetch::{Fetched, Source, TIME};
use super::key::Key;
use super::token::Token;
use crate::tasks::Tasks;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Between the beginning of any fetch and of one for the sake of an unknown key. Such keys cost whoever makes them up nothing.
const GAP: Duration = Duration::from_secs(10);

/// How long a set is kept that does not say.
const USUAL: Duration = Duration::from_secs(600);

/// What a set may say: more often would be asking all the time, more seldom would keep a stolen key for days.
const BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(86_400);

/// First and longest wait after a fetch that failed.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Jwks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    known: watch::Sender<Known>,
    /// A key is missing: fetch now.
    nudge: Notify,
}

#[derive(Clone, Debug, Default)]
struct Known {
    /// None until the first set.
    keys: Option<Arc<[Key]>>,
    /// When the last fetch began.
    began: Option<Instant>,
    fetching: bool,
    /// Fetches that came to their end, either way.
    ended: u64,
}

impl Known {
    /// The keys that may have signed a token; none when there is none.
    fn fitting(&self, token: &Token<'_>) -> Option<Vec<Key>> {
        let fits = |key: &&Key| key.fits(token.algorithm);
        let keys: Vec<Key> = match &token.kid {
            Some(kid) => {
                self.keys.iter().flat_map(|k| k.iter()).filter(|k| k.kid() == Some(kid)).filter(fits).cloned().collect()
            }
            // without a name it must be the only one that it can be
            None => {
                let all: Vec<&Key> = self.keys.iter().flat_map(|k| k.iter()).filter(fits).collect();
                if let [one] = all[..] { vec![one.clone()] } else { Vec::new() }
            }
        };
        (!keys.is_empty()).then_some(keys)
    }

    /// Takes the next fetch for oneself.
    fn begin(&mut self) {
        (self.fetching, self.began) = (true, Some(Instant::now()));
    }
}

impl Jwks {
    /// Begins to fetch, and goes on as long as the tasks do.
    pub(super) fn start(source: Source, tasks: &Tasks) -> Jwks {
        let shared = Arc::new(Shared { known: watch::Sender::default(), nudge: Notify::new() });
        // whoever comes before the first set waits for it
        shared.known.send_modify(Known::begin);
        tasks.spawn("jwks", keep(shared.clone(), source));
        Jwks(shared)
    }

    /// The keys that may have signed a token. Fetches the set when there is none, unless that was just done.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn keys(&self, token: &Token<'_>) -> Result<Vec<Key>, Rejected> {
        let mut known = self.0.known.subscribe();
        let before = {
            let known = known.borrow_and_update();
            if let Some(keys) = known.fitting(token) {
                return Ok(keys);
            }
            known.ended
        };
        let mut waits = true;
        self.0.known.send_if_modified(|known| {
            let idle = !known.fetching && known.ended == before;
            let due = known.began.is_none_or(|began| began.elapsed() >= GAP);
            if idle && due {
                known.begin();
                self.0.nudge.notify_one();
            }
            waits = !idle || due;
            idle && due
        });
        if waits {
            // longer than a fetch takes: without an outcome it is what it was
            let _ = timeout(TIME + Duration::from_secs(1), known.wait_for(|known| known.ended > before)).await;
        }
        let known = known.borrow();
        match known.fitting(token) {
            Some(keys) => Ok(keys),
            None if known.keys.is_none() => Err(Rejected::NoKeys),
            None => Err(Fault::UnknownKey.into()),
        }
    }
}

/// Fetches, for ever: when it is time, and when it is asked for.
async fn keep(shared: Arc<Shared>, source: Source) {
    let mut failures = 0;
    loop {
        let outcome = source.fetch().await;
        let wait = match &outcome {
            Ok(Fetched { keys, passed_over, max_age }) => {
                tracing::debug!(keys = keys.len(), passed_over, "fetched the keys");
                if keys.is_empty() {
                    tracing::warn!(
                        passed_over,
                        "the key set has no key that is accepted here: every token of it is refused"
                    );
                }
                failures = 0;
                max_age.unwrap_or(USUAL).clamp(*BOUNDS.start(), *BOUNDS.end())
            }
            Err(why) => {
                tracing::warn!(why, "the keys could not be fetched; those there are stay, and it is tried again");
                let wait = AGAIN.0.saturating_mul(1 << failures.min(6)).min(AGAIN.1);
                failures += 1;
                wait
            }
        };
        shared.known.send_modify(|known| {
            if let Ok(Fetched { keys, .. }) = outcome {
                known.keys = Some(keys.into());
            }
            known.fetching = false;
            known.ended += 1;
        });
        let due = Instant::now() + wait;
        loop {
            tokio::select! {
                () = shared.nudge.notified() => {}
                () = sleep_until(due) => {}
            }
            // a nudge that came while a fetch was beginning anyway was answered by that one
            let mut begun = false;
            shared.known.send_if_modified(|known| {
                if !known.fetching && Instant::now() >= due {
                    known.begin();
                }
                begun = known.fetching;
                false
            });
            if begun {
                break;
            }
        }
    }
}
