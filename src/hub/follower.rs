//! Follows a shape for many subscribers at once.
//!
//! Must not know: transports, who the subscribers are. Invariant: what is read is all there is from a cursor up to a head
//! taken before, in whole ticks; what only a subscription of its own can deal with is not read but said.

use super::ring::{Audience, Entry, EntryKind};
use super::{Hub, Shape};
use crate::change::{Position, Resume};
use crate::wire::Message;
use std::sync::Arc;
use tokio::sync::Notify;

/// Told after a ring grew or its shape was closed. Must neither block nor look at the shape.
pub trait Wake: Send + Sync {
    /// See the trait.
    fn wake(&self);
}

impl Wake for Notify {
    fn wake(&self) {
        self.notify_one();
    }
}

/// See the module. Dropping it ends it.
pub struct Follower {
    hub: Arc<Hub>,
    shape: Arc<Shape>,
    id: u64,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shape.remove_follower(self.id);
    }
}

/// What came after a cursor.
#[derive(Clone, Debug)]
pub struct News {
    /// Messages with the tick each belongs to, in order.
    pub changes: Vec<(Position, Arc<[Message]>)>,
    /// The cursor behind them.
    pub end: u64,
    /// Whoever has these has everything up to here.
    pub position: Position,
    /// Nothing more waits.
    pub current: bool,
}

impl Hub {
    /// Follows a shape; `waker` is told whenever [`Follower::news`] may have something new.
    #[must_use]
    pub fn follow(self: &Arc<Self>, shape: &Arc<Shape>, waker: Arc<dyn Wake>) -> Follower {
        Follower { hub: self.clone(), shape: shape.clone(), id: shape.add_follower(waker) }
    }
}

impl Follower {
    /// Everything after the cursor up to the head, about `budget` bytes of it. None when a subscriber there must go on by
    /// itself: it fell off the ring, the shape was closed, or a snapshot or a reset waits for it.
    #[must_use]
    pub fn news(&self, cursor: u64, budget: usize) -> Option<News> {
        // before the ring: it has all there is up to here
        let head = self.hub.position()?;
        let state = self.shape.lock();
        if state.closed.is_some() {
            return None;
        }
        let mut news = News { changes: Vec::new(), end: cursor, position: head, current: true };
        let mut bytes = 0;
        for (seq, entry) in state.ring.from(cursor)?.take_while(|(_, e)| e.position.tick <= head.tick) {
            if let Some((last, _)) = news.changes.last().filter(|_| bytes >= budget)
                && last.tick != entry.position.tick
            {
                news.position = *last;
                news.current = false;
                break;
            }
            if !is_skipped(entry) {
                if entry.kind != EntryKind::Changes {
                    return None;
                }
                bytes += entry.messages.iter().map(Message::bytes).sum::<usize>();
                news.changes.push((entry.position, entry.messages.clone()));
            }
            news.end = seq + 1;
        }
        Some(news)
    }

    /// A resume point for who is told this.
    #[must_use]
    pub fn resume(&self, position: Position) -> Resume {
        self.shape.spec.resume(position)
    }

    /// Does something wait that is not for this cursor to skip, or is the shape closed?
    #[must_use]
    pub fn waits(&self, cursor: u64) -> bool {
        let state = self.shape.lock();
        state.closed.is_some() || state.ring.end() != cursor
    }
}

/// Means nothing to somebody who holds the rows: a snapshot for newcomers, or a repair that was given back already.
fn is_skipped(entry: &Entry) -> bool {
    match entry.kind {
        EntryKind::Snapshot(audience) => audience == Audience::Joining || entry.messages.is_empty(),
        EntryKind::Problem => true,
        EntryKind::Changes | EntryKind::Reset(_) => false,
    }
}
