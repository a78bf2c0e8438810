//! What befell subscribers and what was done for them, counted.
//!
//! Must not know: who reads the numbers. Invariant: every label is one of a closed enum, so whoever lists them lists
//! all there are.

use super::ResetReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something worth a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happening {
    /// A subscriber that fell behind was told the newest version of each row it missed, and went on.
    Folded,
    /// What happened since a position was read from the log, once for all who asked.
    MissedRead,
    /// A snapshot was read, once for all who waited for it.
    SnapshotRead,
    /// A snapshot was being read and nobody waited for it any more.
    SnapshotAbandoned,
    /// A newcomer was sent away: too many snapshots, or positions to read from, waited already.
    Overloaded,
}

impl Happening {
    /// All of them.
    pub const ALL: [Happening; 5] = [
        Happening::Folded,
        Happening::MissedRead,
        Happening::SnapshotRead,
        Happening::SnapshotAbandoned,
        Happening::Overloaded,
    ];

    /// Its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Happening::Folded => "folded",
            Happening::MissedRead => "missed-read",
            Happening::SnapshotRead => "snapshot-read",
            Happening::SnapshotAbandoned => "snapshot-abandoned",
            Happening::Overloaded => "overloaded",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    happened: [AtomicU64; Happening::ALL.len()],
    resets: [AtomicU64; ResetReason::ALL.len()],
}

impl Counts {
    /// One more.
    pub fn add(&self, what: Happening) {
        self.happened[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A subscriber was told to forget what it holds.
    pub(crate) fn add_reset(&self, reason: ResetReason) {
        self.resets[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often.
    #[must_use]
    pub fn of(&self, what: Happening) -> u64 {
        self.happened[what as usize].load(Ordering::Relaxed)
    }

    /// Resets told, by reason.
    #[must_use]
    pub fn resets(&self, reason: ResetReason) -> u64 {
        self.resets[reason as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_place_of_its_own() {
        let counts = Counts::default();
        for (i, what) in Happening::ALL.into_iter().enumerate() {
            (0..=i).for_each(|_| counts.add(what));
        }
        for (i, reason) in ResetReason::ALL.into_iter().enumerate() {
            (0..=i).for_each(|_| counts.add_reset(reason));
        }
        assert_eq!(Happening::ALL.map(|what| counts.of(what)), [1, 2, 3, 4, 5]);
        assert_eq!(ResetReason::ALL.map(|reason| counts.resets(reason)), [1, 2, 3, 4, 5, 6]);
    }
}
