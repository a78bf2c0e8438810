//! One subscriber's cursor into a shape's ring.
//!
//! Must not know: transports, SQL. Invariant: register first, read second: the shape is told every tick after its
//! floor before anything is read to bring the subscriber up to there.

use super::ring::{Audience, Entry, EntryKind};
use super::{Happening, Hub, Missed, ResetReason, Shape, SourceError, Spec, Wake};
use crate::change::{Batch, Mark, Position, Resume, TableBatch};
use crate::wire::{Message, message};
use std::sync::Arc;
use std::time::Duration;

/// How long a position that another gateway published already may take to arrive here.
const AHEAD_WAIT: Duration = Duration::from_secs(5);

/// How long a subscriber that fell behind may wait for what it missed. It hears nothing meanwhile, so this is below the
/// longest silence; after it, it is reset and hears that.
const FOLD_WAIT: Duration = Duration::from_secs(10);

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With all rows.
    Snapshot,
    /// With all rows, as of this position or later.
    SnapshotFrom(Position),
    /// With what happens from now on.
    Now,
    /// With what happened after this position, for who was shown what its marks say. The hub does not look at them.
    After(Resume),
    /// With all rows, as of this position or later, for who was shown something else and is told to forget it.
    Anew(Position),
    /// With all rows, for who was subscribed already and is not sent away.
    Again,
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
    /// The ring does not reach back to where it stands.
    lost: bool,
    /// Waits for a snapshot; changes mean nothing to it before.
    joining: bool,
    /// The snapshot it waits for must not be older than this tick.
    from: i64,
    /// Everything up to here was handed out, if that is a state that can be brought forward.
    at: Option<Position>,
    /// Read from the database when the subscription began: comes before the ring.
    backlog: Option<Piece>,
    /// Begins: when too many wait for snapshots, it is sent away.
    newcomer: bool,
    /// It was.
    refused: Option<SourceError>,
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
        let mut sub = Subscription {
            hub: self.clone(),
            shape,
            waker,
            cursor: 0,
            lost: false,
            joining: false,
            from: 0,
            at: None,
            backlog: None,
            newcomer: start != Start::Again,
            refused: None,
            parked: None,
        };
        match start {
            Start::Snapshot | Start::Again => sub.join(0),
            Start::SnapshotFrom(position) => {
                sub.wait_for(position).await;
                sub.join(position.tick);
            }
            Start::Now => {
                sub.at = Some(listed.position);
                sub.follow(listed.position.tick);
            }
            Start::After(point) => sub.resume(point.position).await?,
            Start::Anew(position) => {
                sub.wait_for(position).await;
                sub.reset_from(ResetReason::Permission, position.tick);
            }
        }
        sub.newcomer = false;
        sub.refused.take().map_or(Ok(Some(sub)), Err)
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
        if self.finds_snapshot(from) {
            return;
        }
        if self.newcomer {
            self.refused = self.hub.load_for_newcomer(&self.shape).err();
        } else {
            self.hub.load(&self.shape, Audience::Joining);
        }
    }

    fn finds_snapshot(&mut self, from: i64) -> bool {
        (self.joining, self.from, self.at, self.lost) = (true, from, None, false);
        let state = self.shape.lock();
        let usable = state.ring.usable_snapshot(from);
        self.cursor = usable.unwrap_or_else(|| state.ring.end());
        usable.is_some()
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
        self.at = Some(position);
        if self.hub.knows(position)
            && let Some(cursor) = self.place(position.tick)
        {
            self.cursor = cursor;
            return Ok(());
        }
        self.bring_forward(position, 0).await
    }

    /// Fell what it has not been told off the ring? Then [`Subscription::catch_up`] comes before anything else.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        if self.backlog.is_some() {
            return false;
        }
        let state = self.shape.lock();
        state.closed.is_none() && (self.lost || state.ring.from(self.cursor).is_none())
    }

    /// Brings a subscriber that fell behind forward: what it missed, folded to the newest version of each key. Only if
    /// that cannot be, or not soon after `since`, it is reset. Not only to before tick `least`, where other subscriptions of the
    /// session stand. Safe to drop: nothing changes before it is done.
    pub async fn catch_up(&mut self, least: i64, since: tokio::time::Instant) {
        if self.joining {
            // it holds nothing yet
            return self.join(self.from);
        }
        let Some(at) = self.at else { return self.reset(ResetReason::Slow) };
        let hub = self.hub.clone();
        let folded = tokio::time::timeout_at(since + FOLD_WAIT, async {
            let _turn = hub.folds.acquire().await;
            self.bring_forward(at, least).await
        });
        match folded.await {
            Ok(Ok(())) if !self.is_reset() && self.closed().is_none() => hub.counts.add(Happening::Folded),
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "a subscriber that fell behind could not be told what it missed");
                self.reset(ResetReason::Slow);
            }
            Err(_) => self.reset(ResetReason::Slow),
        }
    }

    /// Reads what happened after `position` and puts it before the ring, or a reset.
    async fn bring_forward(&mut self, position: Position, least: i64) -> Result<(), SourceError> {
        // Taken now and not when the shape was registered: after the wait that may lie before the position, and a
        // tick that went over it would be told from the tick before: a row that came and went in it stays for ever.
        let Some(to) = self.hub.listed() else { return Err(behind()) };
        let floor = self.shape.lock().ring.floor().max(least);
        let reached = to.position.tick >= position.tick.max(least);
        let batch = match self.hub.source.missed(position, floor, to).await? {
            Missed::Batch(_) if !reached => return Err(behind()),
            Missed::Batch(batch) => batch,
            Missed::Unknown => {
                self.reset(ResetReason::Expired);
                return Ok(());
            }
        };
        let messages = match self.say(position, &batch) {
            Ok(messages) => messages,
            Err(reason) => {
                self.reset(reason);
                return Ok(());
            }
        };
        let to = batch.to.position;
        // it may be on its way into the ring at this moment, and would be told twice
        self.wait_for(to).await;
        if self.closed().is_some() {
            // what was read may lie after the change of a rule or of the table, which are heard before the tick: it is made anew
            return Ok(());
        }
        match self.place(to.tick) {
            Some(cursor) => (self.cursor, self.lost) = (cursor, false),
            None if self.shape.lock().resetting => {
                self.reset(ResetReason::Bulk);
                return Ok(());
            }
            // the ring ran on while this was read: it goes on from there once the client has taken it
            None => self.lost = true,
        }
        if to != position || self.lost {
            // Also when nothing is to be told: the rows held are those of this tick, and of none between, so
            // that another subscription of the session must not give out a position between.
            self.backlog = Some(Piece { position: to, kind: PieceKind::Data, messages });
        }
        Ok(())
    }

    /// What a batch means to who holds the rows of `position`, encoded once for all of them.
    fn say(&self, position: Position, batch: &Batch) -> Result<Arc<[Message]>, ResetReason> {
        let spec = &self.shape.spec;
        let nets = match batch.tables.get(&spec.table.relid) {
            None => return Ok(Arc::new([])),
            Some(TableBatch::Reload(_)) => return Err(ResetReason::Bulk),
            Some(TableBatch::Changes(nets)) => nets,
        };
        if let Some(said) = self.shape.lock().past.get(position, batch.to.position.tick) {
            return Ok(said);
        }
        let rows = spec.select(nets).map_err(|_| ResetReason::Schema)?;
        let said: Arc<[Message]> = if rows.is_empty() {
            Arc::new([])
        } else {
            message::changes(&spec.table.wire_name(), &batch.to, spec.mark.into(), &rows)
        };
        let capacity = self.hub.options.ring_bytes;
        self.shape.lock().past.put(position, batch.to.position.tick, said.clone(), capacity);
        Ok(said)
    }

    /// Tells the subscriber to forget what it holds, and waits for a snapshot.
    fn reset(&mut self, reason: ResetReason) {
        self.reset_from(reason, 0);
    }

    /// [`Subscription::reset`], with a snapshot that is not older than tick `from`.
    fn reset_from(&mut self, reason: ResetReason, from: i64) {
        self.join(from);
        let tick = self.shape.lock().ring.floor();
        let at = self.hub.position().map(|position| self.shape.spec.resume(position));
        self.backlog = Some(Piece {
            position: Position { tick, nonce: 0 },
            kind: PieceKind::Reset(reason),
            messages: message::reset(&self.shape.spec.table.wire_name(), reason.label(), at),
        });
    }

    fn is_reset(&self) -> bool {
        matches!(self.backlog, Some(Piece { kind: PieceKind::Reset(_), .. }))
    }

    /// Holds the subscriber everything up to the head?
    #[must_use]
    pub fn is_live(&self) -> bool {
        !self.joining && !self.lost && self.backlog.is_none()
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
    pub fn unpark(&mut self, cursor: u64, at: Option<Position>) {
        if let Some(waker) = self.parked.take() {
            self.shape.unpark(self.waker, waker);
            (self.cursor, self.at) = (cursor, at.or(self.at));
        }
    }

    /// The state that was handed out last, if it is one to go on from.
    #[must_use]
    pub fn at(&self) -> Option<Position> {
        self.at
    }

    /// Is it what was asked for by this?
    #[must_use]
    pub fn is_of(&self, spec: &Spec) -> bool {
        self.shape.spec.key() == spec.key()
    }

    /// What is shown of the table.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.shape.spec.mark
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

    /// The position up to which about `budget` bytes wait, at most `head`.
    #[must_use]
    pub fn limit(&self, head: Position, budget: usize) -> Position {
        if self.lost {
            // what it has is of this tick; what comes after must be read first
            let there = self.backlog.as_ref().map(|piece| piece.position);
            return there.filter(|there| there.tick < head.tick).unwrap_or(head);
        }
        let state = self.shape.lock();
        let Some(entries) = state.ring.from(self.cursor) else { return head };
        let (mut bytes, mut reached) = (0, None::<Position>);
        for (_, entry) in entries.take_while(|(_, e)| e.position.tick <= head.tick) {
            // whole ticks only: entries of one tick (changes, then a snapshot) stay together
            if bytes >= budget && reached.is_none_or(|reached| reached.tick != entry.position.tick) {
                return reached.unwrap_or(head);
            }
            bytes += entry.messages.iter().map(Message::bytes).sum::<usize>();
            if entry.kind != EntryKind::Problem {
                reached = Some(entry.position);
            }
        }
        head
    }

    /// Takes everything up to `limit`. False when something before it fell off the ring: see
    /// [`Subscription::catch_up`]; and when the subscription must be made anew, then without anything.
    #[must_use]
    pub fn collect(&mut self, limit: Position, out: &mut Vec<Piece>) -> bool {
        if self.closed().is_some() {
            // waits lie between the look whether it is and here: what it has may be of a moment when it was not shown any more
            return false;
        }
        if let Some(piece) = self.backlog.take_if(|piece| piece.position.tick <= limit.tick) {
            self.at = (piece.kind == PieceKind::Data).then_some(piece.position);
            out.push(piece);
        }
        if self.lost {
            return self.backlog.is_some() || self.at.is_some_and(|at| at.tick >= limit.tick);
        }
        let mut over = false;
        let load = {
            let state = self.shape.lock();
            let Some(entries) = state.ring.from(self.cursor) else { return false };
            for (seq, entry) in entries.take_while(|(_, e)| e.position.tick <= limit.tick) {
                self.cursor = seq + 1;
                let (joining, piece) = step(self.joining, entry);
                self.joining = joining;
                over |= piece.as_ref().is_some_and(|p| p.kind == PieceKind::Problem);
                out.extend(piece);
            }
            self.joining && !over && state.gather.is_none() && state.ring.end() == self.cursor
        };
        if self.joining {
            self.at = None;
        } else if self.backlog.is_none() && self.at.is_none_or(|at| at.tick < limit.tick) {
            self.at = Some(limit);
        }
        if load {
            // the snapshot it waited for was given back before it came by
            self.join(self.from);
        }
        true
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
        (EntryKind::Changes | EntryKind::Reset(_), true) => (true, None),
        (EntryKind::Changes, false) => (false, piece(PieceKind::Data)),
        (EntryKind::Snapshot(_), true) if entry.messages.is_empty() => (true, None),
        (EntryKind::Snapshot(_), true) => (false, piece(PieceKind::Data)),
        (EntryKind::Snapshot(Audience::Joining), false) => (false, None),
        // given back already: this subscriber is late with a repair it does not need
        (EntryKind::Snapshot(Audience::All), false) if entry.messages.is_empty() => (false, None),
        (EntryKind::Snapshot(Audience::All), false) => (false, piece(PieceKind::Data)),
        (EntryKind::Reset(reason), false) => (true, piece(PieceKind::Reset(reason))),
        (EntryKind::Problem, true) => (true, piece(PieceKind::Problem)),
        (EntryKind::Problem, false) => (false, None),
    }
}

#[cfg(test)]
mod tests;
