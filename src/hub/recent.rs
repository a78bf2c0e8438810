//! The newest ticks with their snapshots: where in the stream a transaction is.
//!
//! Must not know: who asks. Invariant: what is listed here is published, so whoever is given a position can ask for a
//! state that is not older.

use crate::change::{Position, Tick};
use std::collections::VecDeque;

/// Ticks kept. At 200 ticks/s five seconds: whoever waits for its own write is woken at every tick.
const KEPT: usize = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Tick>);

impl Recent {
    pub(super) fn push(&mut self, tick: Tick) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(tick);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The earliest tick kept that sees the transaction: nobody is made to wait for more than that. What others did
    /// in the same tick, or in ticks passed over together, is in its state too.
    pub(super) fn first_seeing(&self, xid: u64) -> Option<Position> {
        // each snapshot covers those before it
        let at = self.0.partition_point(|tick| !tick.snap.sees(xid));
        self.0.get(at).map(|tick| tick.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_sees_it() {
        let mut recent = Recent::default();
        for (tick, snap) in [(1, "5:5:"), (2, "5:9:5,7"), (3, "7:12:7"), (4, "12:12:")] {
            let position = Position { tick, nonce: 0 };
            recent.push(Tick { position, snap: std::sync::Arc::new(snap.parse().unwrap()), at_micros: 0 });
        }
        let found = |xid| recent.first_seeing(xid).map(|p| p.tick);
        assert_eq!([4, 5, 6, 7, 11, 12].map(found), [Some(1), Some(3), Some(2), Some(4), Some(3), None]);
        recent.clear();
        assert_eq!(recent.first_seeing(4), None);
    }
}
