//! Looks after shapes: gives back memory, has rows read again from time to time, drops shapes that nobody wants any more.
//!
//! Must not know: transports, SQL. Invariant: all shapes have their turn, a portion at a time: however many there are, neither the
//! hub's lock nor a thread is held for longer than a portion takes.

use super::{Hub, Shape, Tables};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Between two looks. An idle gateway wakes no more often than that.
const EVERY: Duration = Duration::from_secs(1);

/// Shapes that have their turn without a pause: about 0.1 ms.
const PORTION: usize = 256;

/// A look is at so many portions at the least,
const PORTIONS: usize = 10;

/// and at such a part of all shapes: a round takes 4 s, and nothing looked at here is more urgent.
const ROUND: usize = 4;

/// How long a shape outlives its last subscriber, so that a reload of the page or a restart of a proxy finds the
/// ring warm.
const LINGER: Duration = Duration::from_secs(30);

/// How long a snapshot in the ring serves newcomers. Long enough for a storm of them, short enough that its memory
/// is soon given back and that newcomers regularly get rows fresh from the table.
const SNAPSHOT_SHARED: Duration = Duration::from_secs(5);

/// Shapes in the order of their turns.
pub(super) type Queue = VecDeque<Weak<Shape>>;

/// Looks after the shapes of a hub as long as it lives.
pub(super) async fn tend(hub: Weak<Hub>) {
    let mut queue = Queue::new();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let Some(hub) = hub.upgrade() else { return };
        queue.append(&mut hub.inner().fresh);
        let tables = hub.tables();
        let turns = queue.len().div_ceil(ROUND).max(PORTIONS * PORTION).min(queue.len());
        for turn in 1..=turns {
            let Some(shape) = queue.pop_front() else { break };
            if let Some(shape) = shape.upgrade()
                && hub.tend(&shape, &tables)
            {
                queue.push_back(Arc::downgrade(&shape));
            }
            if turn % PORTION == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Hub {
    /// False when the shape is not one of the hub's any more.
    fn tend(&self, shape: &Arc<Shape>, tables: &Tables) -> bool {
        if is_unwanted(shape) {
            // under the lock: nobody can find it in between
            let mut inner = self.inner();
            if !inner.shapes.get(&shape.spec.key()).is_some_and(|now| Arc::ptr_eq(now, shape)) {
                return false;
            }
            if is_unwanted(shape) {
                inner.remove(&shape.spec.key());
                return false;
            }
        }
        let due = {
            let mut state = shape.lock();
            // a snapshot serves newcomers for a short time; its memory is given back after
            if state.snapshot_at.is_some_and(|at| at.elapsed() > SNAPSHOT_SHARED) {
                state.ring.drop_snapshots();
            }
            state.past.tidy();
            // as it is now: it may change without the table becoming another one
            let period = tables.get(shape.spec.table.relid).map_or(Duration::ZERO, |t| t.snapshot_every);
            !period.is_zero() && state.subscribers() > 0 && state.repaired_at.elapsed() >= period.mul_f64(state.share)
        };
        if due {
            self.load_sometime(shape);
        }
        true
    }
}

fn is_unwanted(shape: &Shape) -> bool {
    shape.lock().idle_since.is_some_and(|at| at.elapsed() >= LINGER)
}
