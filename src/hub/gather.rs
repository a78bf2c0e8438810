//! Joins a snapshot to the stream: rows read from the table, brought forward to a tick by the changes published
//! meanwhile.
//!
//! Must not know: how rows are read, locks, tokio. Invariant: when the gathered changes reach a tick that covers the
//! snapshot the rows were read in, rows and changes together are exactly the table's state at that tick: for every
//! key the highest version wins, and a version is drawn only once.
//!
//! The road not taken: registering every snapshot as a tick of its own and sending each newcomer the difference.
//! It writes to the database for every snapshot, and newcomers would not share a position.

use crate::change::{Key, Position};
use crate::wire::WireRow;
use std::collections::HashMap;

/// Changes since a snapshot read began, by key: the newest of each.
#[derive(Debug, Default)]
pub(super) struct Gather {
    changes: HashMap<Key, WireRow>,
    bytes: usize,
    /// Bytes above which nothing more is kept.
    limit: usize,
    /// More came than is kept.
    full: bool,
    /// The newest tick that was gathered.
    newest: Option<Position>,
    spoiled: bool,
}

impl Gather {
    /// Keeps about `limit` bytes.
    #[must_use]
    pub(super) fn new(limit: usize) -> Gather {
        Gather { limit, ..Gather::default() }
    }

    /// Adds one tick's changes.
    pub(super) fn add(&mut self, tick: Position, rows: impl Iterator<Item = WireRow>) {
        self.newest = Some(tick);
        if self.spoiled || self.full {
            return;
        }
        for row in rows {
            self.bytes += size(&row);
            if let Some(older) = self.changes.insert(row.key.clone(), row) {
                self.bytes -= size(&older);
            }
        }
        if self.bytes > self.limit {
            self.full = true;
            self.changes = HashMap::new();
            self.bytes = 0;
        }
    }

    /// Came more than is kept? Then what is being read cannot be brought forward.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Marks what is being read as useless.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
        self.changes.clear();
        self.bytes = 0;
    }

    /// Must the rows be read again?
    #[must_use]
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Nothing gathered.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Memory held, nearly.
    #[cfg(test)]
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest tick gathered.
    #[must_use]
    pub(super) fn newest(&self) -> Option<Position> {
        self.newest
    }

    /// Takes the changes out; what comes later is gathered anew.
    pub(super) fn take(&mut self) -> Vec<WireRow> {
        self.bytes = 0;
        std::mem::take(&mut self.changes).into_values().collect()
    }
}

fn size(row: &WireRow) -> usize {
    row.key.as_str().len() + row.row.as_ref().map_or(0, bytes::Bytes::len) + 64
}

/// Rows of a snapshot, in reading order, brought forward by changes.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Option<WireRow>>,
    /// Where each key stands; built at the first change, as most snapshots meet none.
    places: Option<HashMap<Key, usize>>,
    /// Tombstones of keys that are gone, so that an older change of such a key is known as older.
    gone: HashMap<Key, i64>,
}

impl Rows {
    /// Rows as they were read.
    #[must_use]
    pub(super) fn new(rows: Vec<WireRow>) -> Rows {
        Rows { rows: rows.into_iter().map(Some).collect(), places: None, gone: HashMap::new() }
    }

    /// Applies changes; those that the rows already contain are skipped.
    pub(super) fn bring_forward(&mut self, changes: Vec<WireRow>) {
        if changes.is_empty() {
            return;
        }
        let rows = &mut self.rows;
        let places = self.places.get_or_insert_with(|| {
            rows.iter().enumerate().filter_map(|(i, r)| r.as_ref().map(|r| (r.key.clone(), i))).collect()
        });
        for change in changes {
            let held = places.get(&change.key).copied();
            let version = held.and_then(|i| rows[i].as_ref()).map(|r| r.version);
            if version.max(self.gone.get(&change.key).copied()).is_some_and(|v| v >= change.version) {
                continue;
            }
            match (held, change.row.is_some()) {
                (Some(i), true) => rows[i] = Some(change),
                (None, true) => {
                    self.gone.remove(&change.key);
                    places.insert(change.key.clone(), rows.len());
                    rows.push(Some(change));
                }
                (held, false) => {
                    if let Some(i) = held {
                        rows[i] = None;
                        places.remove(&change.key);
                    }
                    self.gone.insert(change.key, change.version);
                }
            }
        }
    }

    /// The rows as they are now.
    pub(super) fn iter(&self) -> impl Iterator<Item = &WireRow> {
        self.rows.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn wire(key: u8, version: i64, alive: bool) -> WireRow {
        WireRow {
            key: Key::from_log(&key.to_string(), false),
            version,
            row: alive.then(|| Bytes::from(version.to_string())),
        }
    }

    fn state(changes: &[WireRow]) -> BTreeMap<Key, i64> {
        let mut newest: BTreeMap<Key, &WireRow> = BTreeMap::new();
        for c in changes {
            newest.insert(c.key.clone(), c);
        }
        newest.into_iter().filter(|(_, c)| c.row.is_some()).map(|(k, c)| (k, c.version)).collect()
    }

    proptest! {
        /// A history of changes; registration at `a`, the snapshot read at `b`, the tick at `c`: whatever of the
        /// gathered (a, c] the rows at `b` already contain does no harm, and the result is the state at `c`.
        #[test]
        fn rows_and_changes_join_exactly(
            history in proptest::collection::vec((0u8..5, any::<bool>()), 0..40), cuts in any::<[usize; 3]>(),
            splits in any::<usize>(),
        ) {
            let history: Vec<WireRow> =
                history.iter().enumerate().map(|(i, &(key, alive))| wire(key, i as i64 * 2 + i64::from(!alive), alive)).collect();
            let mut cuts = cuts.map(|c| c % (history.len() + 1));
            cuts.sort_unstable();
            let [a, b, c] = cuts;
            let read: Vec<WireRow> = state(&history[..b])
                .into_iter().map(|(key, version)| WireRow { key, version, row: Some(Bytes::from(version.to_string())) }).collect();
            let mut rows = Rows::new(read);
            let middle = a + splits % (c - a + 1);
            for part in [&history[a..middle], &history[middle..c]] {
                let mut gather = Gather::new(usize::MAX);
                for change in part {
                    gather.add(Position { tick: 1, nonce: 0 }, std::iter::once(change.clone()));
                }
                rows.bring_forward(gather.take());
                prop_assert!(gather.is_empty() && gather.bytes() == 0);
            }
            let got: BTreeMap<Key, i64> = rows.iter().map(|r| (r.key.clone(), r.version)).collect();
            prop_assert_eq!(got.len(), rows.iter().count());
            prop_assert_eq!(got, state(&history[..c]));
        }
    }
}
