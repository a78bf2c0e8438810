//! What happened lately, by table: what an answer is held against before it is served.
//!
//! Must not know: who asks, SQL. Invariants: it is told a batch before the head moves to it, so whoever took the head
//! first finds here everything up to it; from its floor on a table's past is complete, and before the floor nothing is
//! said at all.

use crate::change::{Batch, Net, TableBatch, Tick};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of images kept. At 200-byte rows some 30,000 changes: seconds of a busy table, hours of a quiet one. An answer
/// that was not asked for in so long is read again.
const BYTES: usize = 16 << 20;

/// Changes kept, whatever their size: each costs about 160 bytes beside its images.
const ROWS: usize = 65_536;

/// Changes that one look goes through. Each takes about a microsecond to match; reading the table again is cheaper
/// than more of them.
const LOOK: usize = 4_096;

/// What a batch takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) bytes: usize,
    pub(super) rows: usize,
}

pub(super) fn weight(batch: &Batch) -> Weight {
    let images = |net: &Net| [&net.before, &net.after].into_iter().flatten().map(Bytes::len).sum::<usize>() + 128;
    batch.tables.values().fold(Weight::default(), |sum, part| match part {
        // one even without rows: whatever is kept must be forgotten some time
        TableBatch::Changes(nets) => {
            Weight { bytes: sum.bytes + nets.iter().map(images).sum::<usize>(), rows: sum.rows + nets.len().max(1) }
        }
        TableBatch::Reload(_) => sum,
    })
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    /// Rises whenever another history begins: nothing learned before it means anything after.
    generation: AtomicU64,
    /// Held to add a batch or to copy the pointers of a few, never while one is matched.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where it began; none before the first tick.
    base: Option<i64>,
    /// The newest tick that was told: a head beyond it is of the history before.
    end: i64,
    tables: HashMap<u32, Past>,
    /// Oldest first.
    batches: VecDeque<Arc<Batch>>,
    kept: Weight,
}

#[derive(Debug, Default)]
struct Past {
    /// Complete after this tick; none: since the base. A reload says nothing of rows and hides all before it, so it is
    /// nothing but a floor: kept as a batch it would weigh nothing and never be forgotten.
    floor: Option<i64>,
    /// Oldest first.
    batches: VecDeque<Arc<Batch>>,
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which history this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Begins at `tick`, or begins again. To be called before the head moves there.
    pub fn begin(&self, tick: &Tick) {
        let mut inner = self.inner();
        self.generation.fetch_add(1, Ordering::AcqRel);
        *inner = Inner { base: Some(tick.position.tick), end: tick.position.tick, ..Inner::default() };
    }

    /// Adds a batch. To be called before the head moves to its end.
    pub fn feed(&self, batch: &Arc<Batch>) {
        let (to, added) = (batch.to.position.tick, weight(batch));
        let mut inner = self.inner();
        inner.end = to;
        for (relid, part) in &batch.tables {
            let past = inner.tables.entry(*relid).or_default();
            match part {
                TableBatch::Changes(_) => past.batches.push_back(batch.clone()),
                TableBatch::Reload(_) => *past = Past { floor: Some(to), batches: VecDeque::new() },
            }
        }
        if added == Weight::default() {
            return;
        }
        inner.batches.push_back(batch.clone());
        inner.kept = Weight { bytes: inner.kept.bytes + added.bytes, rows: inner.kept.rows + added.rows };
        while inner.kept.bytes > BYTES || inner.kept.rows > ROWS {
            let Some(oldest) = inner.batches.pop_front() else { break };
            inner.forget(&oldest);
        }
    }

    /// The batches in which rows of the table changed after tick `after` and up to tick `to`. None when that is not
    /// known (any more, or yet), was in another history, includes a reload, or is too much to look through.
    #[must_use]
    pub fn between(&self, generation: u64, relid: u32, after: i64, to: i64) -> Option<Vec<Arc<Batch>>> {
        let inner = self.inner();
        if self.generation() != generation || inner.base.is_none_or(|base| after < base) || to > inner.end {
            return None;
        }
        let Some(past) = inner.tables.get(&relid) else { return Some(Vec::new()) };
        if past.floor.is_some_and(|floor| after < floor) {
            return None;
        }
        let first = past.batches.partition_point(|batch| batch.to.position.tick <= after);
        let (mut found, mut rows) = (Vec::new(), 0);
        for batch in past.batches.range(first..).take_while(|batch| batch.to.position.tick <= to) {
            if let Some(TableBatch::Changes(nets)) = batch.tables.get(&relid) {
                rows += nets.len();
            }
            if rows > LOOK {
                return None;
            }
            found.push(batch.clone());
        }
        Some(found)
    }
}

impl Inner {
    fn forget(&mut self, oldest: &Arc<Batch>) {
        let gone = weight(oldest);
        self.kept = Weight { bytes: self.kept.bytes - gone.bytes, rows: self.kept.rows - gone.rows };
        for relid in oldest.tables.keys() {
            if let Some(past) = self.tables.get_mut(relid) {
                // its oldest is the oldest of all that have it, unless a reload came after and dropped it
                if past.batches.front().is_some_and(|first| Arc::ptr_eq(first, oldest)) {
                    past.batches.pop_front();
                }
                past.floor = past.floor.max(Some(oldest.to.position.tick));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Key, Position, Reload};

    fn tick(tick: i64) -> Tick {
        Tick { position: Position { tick, nonce: 0 }, snap: Arc::new("3:3:".parse().unwrap()), at_micros: 0 }
    }

    fn batch(to: i64, relids: &[u32], bytes: usize) -> Arc<Batch> {
        let net = Net {
            key: Key::from_log("1", false),
            version: to * 2,
            before: None,
            after: Some(Bytes::from(vec![b'x'; bytes])),
        };
        let tables = relids.iter().map(|&relid| (relid, TableBatch::Changes(vec![net.clone()]))).collect();
        Arc::new(Batch { from: tick(to - 1).position, to: tick(to), tables, bad_rows: Vec::new() })
    }

    fn ticks(history: &History, relid: u32, after: i64, to: i64) -> Option<Vec<i64>> {
        let found = history.between(history.generation(), relid, after, to)?;
        Some(found.iter().map(|b| b.to.position.tick).collect())
    }

    #[test]
    fn tells_what_happened_between_two_ticks() {
        let history = History::default();
        assert_eq!(ticks(&history, 1, 10, 10), None, "before the first tick nothing is known");
        history.begin(&tick(10));
        for (to, relids) in [(11, &[1][..]), (12, &[2]), (13, &[1, 2]), (14, &[])] {
            history.feed(&batch(to, relids, 10));
        }
        assert_eq!(ticks(&history, 1, 10, 14), Some(vec![11, 13]));
        assert_eq!(ticks(&history, 1, 11, 12), Some(vec![]));
        assert_eq!(ticks(&history, 2, 12, 14), Some(vec![13]));
        assert_eq!(ticks(&history, 3, 10, 14), Some(vec![]), "a table nothing happened to");
        assert_eq!(ticks(&history, 1, 9, 14), None, "before it began");
    }

    #[test]
    fn what_is_not_kept_is_not_known() {
        let history = History::default();
        history.begin(&tick(0));
        history.feed(&batch(1, &[2], 10));
        for to in 2..=20 {
            history.feed(&batch(to, &[1], BYTES / 8));
        }
        assert_eq!(ticks(&history, 1, 5, 20), None);
        assert!(ticks(&history, 1, 19, 20).is_some_and(|found| found == [20]));
        assert_eq!(ticks(&history, 2, 0, 20), None, "its change was the oldest");
        assert_eq!(ticks(&history, 2, 1, 20), Some(vec![]));
        assert_eq!(ticks(&history, 3, 0, 20), Some(vec![]));
        assert!(history.inner().kept.bytes <= BYTES);
        history.feed(&batch(21, &[1], BYTES + 1));
        assert_eq!(ticks(&history, 1, 20, 21), None, "larger than everything");
        assert_eq!(ticks(&history, 1, 21, 21), Some(vec![]));
        assert_eq!(history.inner().kept, Weight::default());
    }

    #[test]
    fn another_history_makes_everything_unknown() {
        let history = History::default();
        history.begin(&tick(0));
        let before = history.generation();
        history.feed(&batch(1, &[1], 10));
        history.begin(&tick(50));
        assert!(history.between(before, 1, 60, 70).is_none());
        assert_eq!(ticks(&history, 1, 50, 50), Some(vec![]));
        assert_eq!(ticks(&history, 1, 50, 60), None, "a head that this history was not told");
        history.feed(&batch(60, &[], 0));
        assert_eq!(ticks(&history, 1, 50, 60), Some(vec![]));
    }

    #[test]
    fn reloads_are_not_kept() {
        let history = History::default();
        history.begin(&tick(0));
        let reload = |to| {
            let tables = [(1, TableBatch::Reload(Reload::Truncated))].into();
            Arc::new(Batch { from: tick(to - 1).position, to: tick(to), tables, bad_rows: Vec::new() })
        };
        history.feed(&batch(1, &[1, 2], BYTES / 8));
        history.feed(&batch(2, &[1], BYTES / 8));
        for to in 3..=100_000 {
            history.feed(&reload(to));
        }
        assert_eq!(history.inner().batches.len(), 2);
        assert_eq!(ticks(&history, 1, 99_999, 100_000), None);
        assert_eq!(ticks(&history, 1, 100_000, 100_000), Some(vec![]));
        assert_eq!(ticks(&history, 2, 0, 100_000), Some(vec![1]));
        // what it hid goes its way, and takes nothing younger along
        for to in 100_001..=100_003 {
            history.feed(&batch(to, &[1], BYTES / 4));
        }
        assert_eq!(ticks(&history, 2, 0, 100_003), None);
        assert_eq!(ticks(&history, 1, 100_000, 100_003), Some(vec![100_001, 100_002, 100_003]));
        assert_eq!(ticks(&history, 1, 99_999, 100_003), None, "the reload is not forgotten");
        assert!(history.inner().kept.bytes <= BYTES);
    }

    #[test]
    fn too_much_to_look_through_is_not_looked_through() {
        let history = History::default();
        history.begin(&tick(0));
        let net = Net { key: Key::from_log("1", false), version: 2, before: None, after: None };
        let tables = [(1, TableBatch::Changes(vec![net; LOOK + 1])), (2, TableBatch::Reload(Reload::Truncated))];
        let large = Batch { from: tick(0).position, to: tick(1), tables: tables.into(), bad_rows: Vec::new() };
        history.feed(&Arc::new(large));
        assert_eq!(ticks(&history, 1, 0, 1), None);
        assert_eq!(ticks(&history, 2, 0, 1), None);
    }
}
