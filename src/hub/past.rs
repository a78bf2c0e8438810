//! What a shape's subscribers missed, encoded: shared by all who stood at one position.
//!
//! Must not know: how it was read, subscribers. Invariants: what is kept is what happened between two ticks and never
//! changes; it is bounded in bytes and in time.
//!
//! The road not taken: folding what leaves the ring into one entry per key, so that nothing need be read at all. To
//! tell an insert from an update it must know for each key at which ticks the row was inside, for as long as somebody
//! may be behind: a second log in memory, paid for on every shape whether or not anybody ever falls behind.

use crate::change::Position;
use crate::wire::Message;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long it is kept: as long as the batch it was made from, for the rest of a crowd.
pub(super) const KEPT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Past {
    said: VecDeque<Said>,
    bytes: usize,
}

#[derive(Debug)]
struct Said {
    from: Position,
    to: i64,
    messages: Arc<[Message]>,
    at: Instant,
}

impl Past {
    /// What happened after `from` up to tick `to`, if it was encoded lately.
    pub(super) fn get(&self, from: Position, to: i64) -> Option<Arc<[Message]>> {
        self.said.iter().find(|said| said.from == from && said.to == to).map(|said| said.messages.clone())
    }

    /// Keeps it, and of the rest about `capacity` bytes, the newest.
    pub(super) fn put(&mut self, from: Position, to: i64, messages: Arc<[Message]>, capacity: usize) {
        self.bytes += size(&messages);
        self.said.push_back(Said { from, to, messages, at: Instant::now() });
        while self.bytes > capacity && self.said.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Drops what is past its time.
    pub(super) fn tidy(&mut self) {
        while self.said.front().is_some_and(|said| said.at.elapsed() > KEPT) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.said.pop_front() {
            self.bytes -= size(&oldest.messages);
        }
    }
}

/// With something for the entry itself: many are empty.
fn size(messages: &[Message]) -> usize {
    messages.iter().map(Message::bytes).sum::<usize>() + 128
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    #[test]
    fn the_newest_are_kept_within_the_bytes() {
        let at = |tick| Position { tick, nonce: 0 };
        let mut past = Past::default();
        for tick in 1..50 {
            past.put(at(tick), 99, message::reset("t", "slow", None), 1000);
        }
        assert!(past.get(at(1), 99).is_none() && past.get(at(49), 99).is_some() && past.get(at(49), 98).is_none());
        assert!(past.bytes <= 1000 && past.said.len() > 1);
        past.put(at(60), 99, message::reset("t", "slow", None), 0);
        assert!(past.get(at(60), 99).is_some() && past.said.len() == 1, "one always");
        past.drop_oldest();
        assert_eq!(past.bytes, 0);
    }
}
