//! Is the client still there? Pings, and when the next thing is due.
//!
//! Must not know: sockets. Invariant: whoever sent a frame since the last ping is alive; two pings in a row without one, and
//! the connection is taken for dead.

use crate::wire::CloseReason;
use std::time::Duration;
use tokio::time::Instant;

/// Pings without a sign of life, after which the connection is over.
const MISSES: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    next: Instant,
    /// Pings since the last frame.
    unanswered: u32,
    /// When `init` must have come, until it has.
    init: Option<Instant>,
    /// Since when the socket takes nothing.
    stuck: Option<Instant>,
    write_timeout: Duration,
}

impl Pulse {
    /// Of a connection that begins `now`.
    pub(super) fn new(every: Duration, init: Duration, write_timeout: Duration, now: Instant) -> Pulse {
        Pulse { every, next: now + every, unanswered: 0, init: Some(now + init), stuck: None, write_timeout }
    }

    /// A frame came.
    pub(super) fn heard(&mut self) {
        self.unanswered = 0;
    }

    /// `init` came.
    pub(super) fn begun(&mut self) {
        self.init = None;
    }

    /// Bytes wait for the socket, and it took some since the last call, or none.
    pub(super) fn waits(&mut self, waiting: bool, took: bool, now: Instant) {
        match (waiting, took) {
            (true, false) => _ = self.stuck.get_or_insert(now),
            // took some: from now on
            (true, true) => self.stuck = Some(now),
            (false, _) => self.stuck = None,
        }
    }

    /// When [`Pulse::beat`] is to be called.
    pub(super) fn due(&self) -> Instant {
        let stuck = self.stuck.map(|since| since + self.write_timeout);
        [self.init, stuck].into_iter().flatten().fold(self.next, Instant::min)
    }

    /// Is a ping to be sent?
    ///
    /// # Errors
    /// The connection is over.
    pub(super) fn beat(&mut self, now: Instant) -> Result<bool, CloseReason> {
        if self.init.is_some_and(|at| at <= now) {
            return Err(CloseReason::NoInit);
        }
        if self.stuck.is_some_and(|since| since + self.write_timeout <= now) {
            return Err(CloseReason::TooSlow);
        }
        if now < self.next {
            return Ok(false);
        }
        self.next = now + self.every;
        // what it is to answer has not left yet
        if self.stuck.is_some() {
            return Ok(false);
        }
        if self.unanswered >= MISSES {
            return Err(CloseReason::NoPong);
        }
        self.unanswered += 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_pings_without_an_answer_and_it_is_over() {
        let began = Instant::now();
        let at = |seconds: u32| began + SECOND * seconds;
        let mut pulse = Pulse::new(SECOND * 25, SECOND * 10, SECOND * 20, began);
        pulse.begun();
        assert_eq!(pulse.due(), at(25));
        assert_eq!(pulse.beat(at(25)), Ok(true));
        pulse.heard();
        assert_eq!(pulse.beat(at(50)), Ok(true));
        assert_eq!(pulse.beat(at(50)), Ok(false), "one at a time");
        assert_eq!(pulse.beat(at(75)), Ok(true));
        assert_eq!(pulse.beat(at(100)), Err(CloseReason::NoPong));
    }

    #[test]
    fn init_and_the_socket_have_their_time() {
        let began = Instant::now();
        let at = |seconds: u32| began + SECOND * seconds;
        let mut pulse = Pulse::new(SECOND * 25, SECOND * 10, SECOND * 20, began);
        assert_eq!(pulse.due(), at(10));
        assert_eq!(pulse.beat(at(10)), Err(CloseReason::NoInit));
        pulse.begun();
        pulse.waits(true, false, at(10));
        pulse.waits(true, true, at(20));
        assert_eq!(pulse.beat(at(20)), Ok(false));
        pulse.waits(true, false, at(39));
        assert_eq!(pulse.beat(at(39)), Ok(false), "no ping behind what does not leave");
        assert_eq!(pulse.due(), at(40));
        assert_eq!(pulse.beat(at(40)), Err(CloseReason::TooSlow));
        pulse.waits(false, true, at(40));
        assert_eq!(pulse.beat(at(40)), Ok(false));
    }
}
