//! A shape's recent past: encoded messages by tick, bounded in bytes.
//!
//! Must not know: subscribers, tokio. Invariant: entries lie in tick order, and every message the shape had after
//! `floor` is here. A subscriber is a cursor (a sequence number) into the ring, never a queue of its own.

use super::shape::ResetReason;
use crate::change::Position;
use crate::wire::Message;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries kept at most, however small: on a quiet shape the emptied repair snapshots would pile up for ever.
const MAX_ENTRIES: usize = 4096;

/// Who an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody who reaches it.
    All,
    /// Only those who wait for a snapshot to begin with: nothing new for the rest.
    Joining,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// One tick's changes.
    Changes,
    /// A snapshot of the shape at its tick.
    Snapshot(Audience),
    /// Everything held is worthless from here on; a snapshot follows.
    Reset(ResetReason),
    /// The shape cannot be read; ends the subscriptions that wait for its snapshot.
    Problem,
}

/// One tick's (or one snapshot's) messages.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// The tick it belongs to.
    pub position: Position,
    /// Its messages. Empty only for a snapshot that was given up to save memory.
    pub messages: Arc<[Message]>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.messages.iter().map(Message::bytes).sum()
    }
}

/// The bounded sequence of entries.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    /// Sequence number of `entries[0]`.
    first: u64,
    /// Bytes of the changes held. Snapshots are counted apart: at most one is held, for a short time.
    bytes: usize,
    /// Everything after this tick is in `entries`.
    floor: i64,
    capacity: usize,
}

impl Ring {
    /// An empty ring that begins after tick `floor` and keeps about `capacity` bytes of changes.
    #[must_use]
    pub fn new(floor: i64, capacity: usize) -> Ring {
        Ring { entries: VecDeque::new(), first: 0, bytes: 0, floor, capacity }
    }

    /// Everything after this tick is here.
    #[must_use]
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// The sequence number the next entry will have.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The tick of the newest entry, or the floor.
    #[must_use]
    pub fn newest_tick(&self) -> i64 {
        self.entries.back().map_or(self.floor, |e| e.position.tick)
    }

    /// Sequence number of the first entry after `tick`; none when the ring does not reach back that far.
    #[must_use]
    pub fn after(&self, tick: i64) -> Option<u64> {
        (tick >= self.floor).then(|| self.first + self.entries.partition_point(|e| e.position.tick <= tick) as u64)
    }

    /// The entries from `cursor` on, each with its sequence number; none when the oldest of them are gone.
    pub fn from(&self, cursor: u64) -> Option<impl Iterator<Item = (u64, &Entry)>> {
        let skip = usize::try_from(cursor.checked_sub(self.first)?).unwrap_or(usize::MAX);
        Some(self.entries.iter().enumerate().skip(skip).map(|(i, e)| (self.first + i as u64, e)))
    }

    /// Sequence number of the newest snapshot, if it still has its messages, no reset came after it, and it is not
    /// older than tick `from`.
    #[must_use]
    pub fn usable_snapshot(&self, from: i64) -> Option<u64> {
        let back = self.entries.iter().rev().position(|e| !matches!(e.kind, EntryKind::Changes))?;
        let at = self.entries.len() - 1 - back;
        let entry = &self.entries[at];
        let usable = matches!(entry.kind, EntryKind::Snapshot(_)) && !entry.messages.is_empty();
        (usable && entry.position.tick >= from).then_some(self.first + at as u64)
    }

    /// Appends an entry and forgets the oldest beyond the capacity. The newest always stays, however large.
    pub fn push(&mut self, entry: Entry) {
        debug_assert!(entry.position.tick >= self.newest_tick(), "entries in tick order");
        if matches!(entry.kind, EntryKind::Snapshot(_)) {
            self.drop_snapshots();
        } else {
            self.bytes += entry.bytes();
        }
        self.entries.push_back(entry);
        while (self.bytes > self.capacity && self.entries.len() > 1) || self.entries.len() > MAX_ENTRIES {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.first += 1;
            self.floor = oldest.position.tick;
            if !matches!(oldest.kind, EntryKind::Snapshot(_)) {
                self.bytes -= oldest.bytes();
            }
        }
    }

    /// Gives up the messages of all snapshots held.
    pub fn drop_snapshots(&mut self) {
        for entry in self.entries.iter_mut().filter(|e| matches!(e.kind, EntryKind::Snapshot(_))) {
            entry.messages = Arc::new([]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Key, Snapshot, Tick};
    use crate::wire::message;
    use crate::wire::{WireOp, WireRow};
    use proptest::prelude::*;

    fn entry(tick: i64) -> Entry {
        let position = Position { tick, nonce: 0 };
        let tick = Tick { position, snap: Arc::new("1:1:".parse::<Snapshot>().unwrap()), at_micros: 0 };
        let row = WireRow { key: Key::from_log("1", false), version: 2, row: None };
        Entry {
            kind: EntryKind::Changes,
            position,
            messages: message::changes("t", &tick, Default::default(), &[(WireOp::Delete, row)]),
        }
    }

    proptest! {
        /// Whoever is at a tick the ring reaches back to gets every later tick; whoever is not, is told.
        #[test]
        fn never_a_hole(gaps in proptest::collection::vec(1i64..4, 1..60), start in 0i64..5, capacity in 100usize..2000) {
            let mut ring = Ring::new(start, capacity);
            let mut pushed = Vec::new();
            let mut tick = start;
            for gap in gaps {
                tick += gap;
                pushed.push(tick);
                ring.push(entry(tick));
                for from in 0..=tick {
                    let wanted: Vec<i64> = pushed.iter().copied().filter(|&t| t > from).collect();
                    match ring.after(from) {
                        Some(cursor) => {
                            let got: Vec<i64> = ring.from(cursor).unwrap().map(|(_, e)| e.position.tick).collect();
                            prop_assert!(from >= start);
                            prop_assert_eq!(got, wanted);
                        }
                        None => prop_assert!(from < start || wanted.len() as u64 > ring.end() - ring.first),
                    }
                }
                prop_assert!(ring.bytes <= capacity.max(entry(0).bytes() + 8));
            }
        }
    }

    #[test]
    fn a_cursor_that_fell_off_is_told() {
        let mut ring = Ring::new(0, 300);
        (1..50).for_each(|t| ring.push(entry(t)));
        assert!(ring.from(0).is_none() && ring.first > 0);
        assert_eq!(ring.from(ring.end()).map(Iterator::count), Some(0));
    }

    #[test]
    fn a_snapshot_before_a_reset_is_not_used() {
        let mut ring = Ring::new(0, 1 << 20);
        let at = |kind, tick| Entry { kind, ..entry(tick) };
        ring.push(at(EntryKind::Snapshot(Audience::Joining), 1));
        ring.push(entry(2));
        assert_eq!(ring.usable_snapshot(0), Some(0));
        ring.push(at(EntryKind::Reset(ResetReason::Bulk), 3));
        assert_eq!(ring.usable_snapshot(0), None);
        ring.push(at(EntryKind::Snapshot(Audience::All), 3));
        assert_eq!(ring.usable_snapshot(0), Some(3));
    }
}
