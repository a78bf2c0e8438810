//! Folds the log rows between two ticks into one net change per key.
//!
//! Must not know: I/O. Invariant: the fold is the same in whatever order the rows came in, because versions order
//! the changes of a key (drawn under its row lock) and no other order does: log order is commit order mixed with
//! trigger nesting.

use super::{Key, RowChange};
use bytes::Bytes;
use std::collections::HashMap;

/// The net change of one key over a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// The row's key.
    pub key: Key,
    /// The highest version of the batch: the row's version now, or its tombstone.
    pub version: i64,
    /// The row as it stood before the batch, if it existed.
    pub before: Option<Bytes>,
    /// The row as it stands after the batch, if it exists.
    pub after: Option<Bytes>,
}

/// Folds one table's changes, by key in the order of first appearance.
///
/// After: the change with the highest version. Before: the old image whose version no change of the batch produced.
/// (Not the old image of the lowest version: an insert draws its version before it waits for a concurrent delete of
/// the same key, so the lowest version need not be the first change.)
#[must_use]
pub fn fold(changes: Vec<RowChange>) -> Vec<Net> {
    let mut order: HashMap<Key, usize> = HashMap::with_capacity(changes.len());
    let mut chains: Vec<Vec<RowChange>> = Vec::new();
    for change in changes {
        let at = *order.entry(change.key.clone()).or_insert_with(|| {
            chains.push(Vec::with_capacity(1));
            chains.len() - 1
        });
        chains[at].push(change);
    }
    chains.into_iter().filter_map(fold_key).collect()
}

fn fold_key(mut chain: Vec<RowChange>) -> Option<Net> {
    if chain.len() == 1 {
        let only = chain.pop()?;
        return Some(Net { key: only.key, version: only.version, before: only.old, after: only.new });
    }
    let before = chain
        .iter()
        .filter(|c| c.old.is_some())
        .filter(|c| !chain.iter().any(|p| p.new.is_some() && Some(p.version) == c.old_version))
        .min_by_key(|c| c.old_version)
        .and_then(|c| c.old.clone());
    let last = chain.into_iter().max_by_key(|c| c.version)?;
    Some(Net { key: last.key, version: last.version, before, after: last.new })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(version: i64) -> Bytes {
        format!("{{\"row_version\":{version}}}").into()
    }

    fn change(version: i64, old: Option<i64>, alive: bool) -> RowChange {
        RowChange {
            key: Key::from_log("1", false),
            version,
            old_version: old,
            old: old.map(image),
            new: alive.then(|| image(version)),
        }
    }

    /// A row's life: each step updates it, deletes it or brings it back. Returns the states, one more than changes.
    fn life(start: Option<i64>, steps: &[bool]) -> (Vec<Option<i64>>, Vec<RowChange>) {
        let (mut state, mut next, mut states, mut changes) = (start, 100, vec![start], Vec::new());
        for &keep in steps {
            let (version, after) = match state {
                Some(v) if !keep => (v + 1, None),
                _ => {
                    next += 2;
                    (next, Some(next))
                }
            };
            changes.push(change(version, state, after.is_some()));
            state = after;
            states.push(state);
        }
        (states, changes)
    }

    proptest! {
        /// Any cut of a row's life into batches, each in any order, tells the states at the cuts.
        #[test]
        fn tells_the_state_before_and_after(
            start in proptest::option::of(Just(50i64)), steps in proptest::collection::vec(any::<bool>(), 1..12),
            cut in 0usize..12, seed in any::<u64>(),
        ) {
            let (states, changes) = life(start, &steps);
            let cut = cut % changes.len();
            let mut batch = changes[cut..].to_vec();
            let len = batch.len();
            for i in 0..len { batch.swap(i, (seed as usize).wrapping_mul(i + 7) % len); }
            let net = fold(batch);
            prop_assert_eq!(net.len(), 1);
            prop_assert_eq!(net[0].before.clone(), states[cut].map(image));
            prop_assert_eq!(net[0].after.clone(), states.last().unwrap().map(image));
        }
    }

    #[test]
    fn an_insert_that_waited_for_a_delete_has_the_lower_version() {
        // T2: update 10 -> 14, delete (15); T1: insert drew 12 before it waited, the guard re-stamped it 16
        let batch = vec![
            change(12, None, true),
            change(14, Some(10), true),
            change(15, Some(14), false),
            change(16, Some(12), true),
        ];
        let net = fold(batch);
        assert_eq!(
            (net[0].before.clone(), net[0].after.clone(), net[0].version),
            (Some(image(10)), Some(image(16)), 16)
        );
    }
}
