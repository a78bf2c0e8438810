//! One subscriber's cursor into a shape's ring.
//!
//! Must not know: transports, SQL. Invariant: register first, read second: the shape is told every tick after its
//! floor before anything is read to bring the subscriber up to there.

use super::ring::{Audience, Entry, EntryKind};
use super::{Hub, Missed, ResetReason, Shape, SourceError, Spec, Wake};
use crate::change::{Position, TableBatch};
use crate::wire::{Message, message};
use std::sync::Arc;
use std::time::Duration;

/// How long a position that another gateway published already may take to arrive here.
const AHEAD_WAIT: Duration = Duration::from_secs(5);

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With all rows.
    Snapshot,
    /// With all rows, as of this position or later.
    SnapshotFrom(Position),
    /// With what happens from now on.
    Now,
    /// With what happened after this position.
    After(Position),
}

/// What a piece of the stream is to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// Changes or a snapshot.
    Data,
    /// A reset; the subscription is not live until its snapshot came.
    Reset(ResetReason),
    /// The subscription is over.
    Problem,
}

/// Messages of one tick for one subscription.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The tick.
    pub position: Position,
    /// What it is.
    pub kind: PieceKind,
    /// The messages.
    pub messages: Arc<[Message]>,
}

/// A subscription. Dropping it unsubscribes.
pub struct Subscription {
    hub: Arc<Hub>,
    shape: Arc<Shape>,
    waker: u64,
    cursor: u64,
    /// Waits for a snapshot; changes mean nothing to it before.
    joining: bool,
    /// Read from the database when the subscription began: comes before the ring.
    backlog: Option<Piece>,
    /// Its waker while a follower does its work.
    parked: Option<Arc<dyn Wake>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shape.unregister(self.waker);
    }
}

impl Hub {
    /// Subscribes. None when the table changed since `spec` was made: make a new one.
    ///
    /// `waker` is told whenever [`Subscription::collect`] may have something new.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn subscribe(
        self: &Arc<Self>,
        spec: Spec,
        start: Start,
        waker: Arc<dyn Wake>,
    ) -> Result<Option<Subscription>, SourceError> {
        let Some((shape, waker, listed)) = self.shape(spec, waker) else { return Ok(None) };
        let mut sub =
            Subscription { hub: self.clone(), shape, waker, cursor: 0, joining: false, backlog: None, parked: None };
        match start {
            Start::Snapshot => sub.join(0),
            Start::SnapshotFrom(position) => {
                sub.wait_for(position).await;
                sub.join(position.tick);
            }
            Start::Now => sub.follow(listed.position.tick),
            Start::After(position) => sub.resume(position).await?,
        }
        Ok(Some(sub))
    }
}

impl Subscription {
    /// Waits until a position that another gateway published already arrives here, or seems not to.
    async fn wait_for(&self, position: Position) {
        let mut head = self.hub.head();
        let there = head.wait_for(|head| head.as_ref().is_some_and(|t| t.position.tick >= position.tick));
        let _ = tokio::time::timeout(AHEAD_WAIT, there).await;
    }

    /// Waits for the next snapshot, or takes the one that stands in the ring if it is not older than tick `from`.
    fn join(&mut self, from: i64) {
        self.joining = true;
        let usable = {
            let state = self.shape.lock();
            let usable = state.ring.usable_snapshot(from);
            self.cursor = usable.unwrap_or_else(|| state.ring.end());
            usable
        };
        if usable.is_none() {
            self.hub.load(&self.shape, Audience::Joining);
        }
    }

    /// Continues after `tick`; with a reset when the ring does not reach back that far.
    fn follow(&mut self, tick: i64) {
        match self.place(tick) {
            Some(cursor) => self.cursor = cursor,
            None => self.reset(ResetReason::Slow),
        }
    }

    /// Where in the ring the stream goes on after `tick`. None when the ring does not reach back that far, and when
    /// the shape waits for a snapshot that the ring does not announce behind `tick`: changes are not told until then.
    fn place(&self, tick: i64) -> Option<u64> {
        let state = self.shape.lock();
        let cursor = state.ring.after(tick)?;
        (!state.resetting || cursor < state.ring.end()).then_some(cursor)
    }

    async fn resume(&mut self, position: Position) -> Result<(), SourceError> {
        // an unknown position of the future is found out below
        self.wait_for(position).await;
        if self.hub.knows(position)
            && let Some(cursor) = self.place(position.tick)
        {
            self.cursor = cursor;
            return Ok(());
        }
        // Taken now and not when the shape was registered: after the wait that may lie before the position, and a
        // tick that went over it would be told from the tick before: a row that came and went in it stays for ever.
        let Some(to) = self.hub.listed() else { return Err(behind()) };
        let (floor, reached) = (self.shape.lock().ring.floor(), to.position.tick >= position.tick);
        let batch = match self.hub.source.missed(position, floor, to).await? {
            Missed::Batch(_) if !reached => return Err(behind()),
            Missed::Batch(batch) => batch,
            Missed::Unknown => {
                self.reset(ResetReason::Expired);
                return Ok(());
            }
        };
        let spec = &self.shape.spec;
        match batch.tables.get(&spec.table.relid) {
            Some(TableBatch::Reload(_)) => self.reset(ResetReason::Bulk),
            part => {
                let mut messages: Arc<[Message]> = Arc::new([]);
                if let Some(TableBatch::Changes(nets)) = part {
                    let Ok(rows) = spec.select(nets) else {
                        self.reset(ResetReason::Schema);
                        return Ok(());
                    };
                    if !rows.is_empty() {
                        messages = message::changes(&spec.table.wire_name(), &batch.to, &rows);
                    }
                }
                if batch.to.position != position {
                    // Also when nothing is to be told: the rows held are those of this tick, and of none between, so
                    // that another subscription of the session must not give out a position between.
                    self.backlog = Some(Piece { position: batch.to.position, kind: PieceKind::Data, messages });
                }
                // it may be on its way into the ring at this moment, and would be told twice
                self.wait_for(batch.to.position).await;
                self.follow(batch.to.position.tick);
            }
        }
        Ok(())
    }

    /// Tells the subscriber to forget what it holds, and waits for a snapshot.
    fn reset(&mut self, reason: ResetReason) {
        self.join(0);
        let tick = self.shape.lock().ring.floor();
        self.backlog = Some(Piece {
            position: Position { tick, nonce: 0 },
            kind: PieceKind::Reset(reason),
            messages: message::reset(&self.shape.spec.table.wire_name(), reason.label(), self.hub.position()),
        });
    }

    /// Holds the subscriber everything up to the head?
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.joining && self.backlog.is_none()
    }

    /// Lets a [`super::Follower`] of the shape tell the subscriber what comes after the cursor; it is woken no more. None
    /// when it is not live.
    pub fn park(&mut self) -> Option<(Arc<Shape>, u64)> {
        if !self.is_live() || self.parked.is_some() {
            return None;
        }
        self.parked = Some(self.shape.park(self.waker)?);
        Some((self.shape.clone(), self.cursor))
    }

    /// Goes on by itself from where the follower left it. Look for news at once: what came meanwhile woke nobody.
    pub fn unpark(&mut self, cursor: u64) {
        if let Some(waker) = self.parked.take() {
            self.shape.unpark(self.waker, waker);
            self.cursor = cursor;
        }
    }

    /// Was the position it was to continue from unknown?
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.backlog.as_ref().is_some_and(|piece| piece.kind == PieceKind::Reset(ResetReason::Expired))
    }

    /// Why the subscription must be made anew, if it must.
    #[must_use]
    pub fn closed(&self) -> Option<ResetReason> {
        self.shape.lock().closed
    }

    /// The tick up to which about `budget` bytes wait, at most `head`.
    #[must_use]
    pub fn limit(&self, head: i64, budget: usize) -> i64 {
        let state = self.shape.lock();
        let Some(entries) = state.ring.from(self.cursor) else { return head };
        let (mut bytes, mut reached) = (0, None);
        for (_, entry) in entries.take_while(|(_, e)| e.position.tick <= head) {
            // whole ticks only: entries of one tick (changes, then a snapshot) stay together
            if bytes >= budget && reached != Some(entry.position.tick) {
                return reached.unwrap_or(head);
            }
            bytes += entry.messages.iter().map(Message::bytes).sum::<usize>();
            reached = Some(entry.position.tick);
        }
        head
    }

    /// Takes everything up to tick `limit`.
    pub fn collect(&mut self, limit: i64, out: &mut Vec<Piece>) {
        if self.backlog.as_ref().is_some_and(|piece| piece.position.tick <= limit) {
            out.extend(self.backlog.take());
        }
        let (mut load, mut over) = (false, false);
        let fell_off = {
            let state = self.shape.lock();
            match state.ring.from(self.cursor) {
                None => true,
                Some(entries) => {
                    for (seq, entry) in entries.take_while(|(_, e)| e.position.tick <= limit) {
                        self.cursor = seq + 1;
                        let (joining, piece) = step(self.joining, entry);
                        self.joining = joining;
                        over |= piece.as_ref().is_some_and(|p| p.kind == PieceKind::Problem);
                        out.extend(piece);
                    }
                    load = self.joining && !over && state.gather.is_none() && state.ring.end() == self.cursor;
                    false
                }
            }
        };
        if fell_off {
            self.reset(ResetReason::Slow);
            out.extend(self.backlog.take());
        } else if load {
            // the snapshot it waited for was given back before it came by
            self.join(0);
        }
    }
}

fn behind() -> SourceError {
    let detail = "another gateway has told more than this one has read yet, come back".to_owned();
    SourceError { code: "unavailable", detail, retry: true }
}

/// What an entry means to a subscriber that waits for a snapshot, or does not: whether it waits afterwards, and what
/// it is told.
fn step(joining: bool, entry: &Entry) -> (bool, Option<Piece>) {
    let piece = |kind| Some(Piece { position: entry.position, kind, messages: entry.messages.clone() });
    match (entry.kind, joining) {
        (EntryKind::Changes, true) | (EntryKind::Reset, true) => (true, None),
        (EntryKind::Changes, false) => (false, piece(PieceKind::Data)),
        (EntryKind::Snapshot(_), true) if entry.messages.is_empty() => (true, None),
        (EntryKind::Snapshot(_), true) => (false, piece(PieceKind::Data)),
        (EntryKind::Snapshot(Audience::Joining), false) => (false, None),
        // given back already: this subscriber is late with a repair it does not need
        (EntryKind::Snapshot(Audience::All), false) if entry.messages.is_empty() => (false, None),
        (EntryKind::Snapshot(Audience::All), false) => (false, piece(PieceKind::Data)),
        (EntryKind::Reset, false) => (true, piece(PieceKind::Reset(ResetReason::Bulk))),
        (EntryKind::Problem, true) => (true, piece(PieceKind::Problem)),
        (EntryKind::Problem, false) => (false, None),
    }
}
