//! One shape: a table, a filter and a choice of columns, shared by all who ask for the same.
//!
//! Must not know: transports, SQL. Invariant: after a tick is published, the shape's ring holds what that tick means
//! to the shape, and whoever gathers rows for a snapshot holds it too.

use super::follower::Wake;
use super::gather::Gather;
use super::past::Past;
use super::ring::{Entry, EntryKind, Ring};
use crate::change::{Mark, Marks, Net, Position, Reload, Resume, Table, TableBatch, Tick};
use crate::filter::{Filter, Image, ImageError};
use crate::permit::Grant;
use crate::wire::{Message, Projection, WireOp, WireRow, message};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// What a subscriber asks for.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The table as the catalog knew it when the request was read.
    pub table: Arc<Table>,
    /// Which rows.
    pub filter: Filter,
    /// Which columns.
    pub projection: Projection,
    /// By what right.
    pub grant: Grant,
    /// What this right shows of the table, whatever of it is asked for.
    pub mark: Mark,
}

/// Two requests with one key share a shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpecKey {
    relid: u32,
    fingerprint: String,
    filter: String,
    projection: Projection,
    /// So that a rule that changes closes the shapes of its role and no others, although others may show the same.
    grant: Grant,
}

impl Spec {
    /// The key under which it is shared.
    #[must_use]
    pub fn key(&self) -> SpecKey {
        SpecKey {
            relid: self.table.relid,
            fingerprint: self.table.fingerprint.clone(),
            filter: self.filter.canonical().to_owned(),
            projection: self.projection.clone(),
            grant: self.grant.clone(),
        }
    }

    /// A resume point for who holds these rows.
    #[must_use]
    pub fn resume(&self, position: Position) -> Resume {
        Resume { position, marks: Marks::from(self.mark) }
    }

    /// Is the table still this one, and the right?
    ///
    /// # Errors
    /// No: what is held of it is worthless, for this reason.
    pub fn holds(&self, table: &Table) -> Result<(), ResetReason> {
        match () {
            () if table.fingerprint != self.table.fingerprint => Err(ResetReason::Schema),
            () if !self.grant.holds(table) => Err(ResetReason::Permission),
            () => Ok(()),
        }
    }

    /// What net changes mean to who holds this shape's rows. The image of the row before decides whether it was
    /// held, the image after whether it is.
    ///
    /// # Errors
    /// An image does not fit the table as it was when the shape was made: nothing can be said about its rows.
    pub fn select<'a>(&self, nets: impl IntoIterator<Item = &'a Net>) -> Result<Vec<(WireOp, WireRow)>, ImageError> {
        nets.into_iter().filter_map(|net| self.select_one(net).transpose()).collect()
    }

    fn select_one(&self, net: &Net) -> Result<Option<(WireOp, WireRow)>, ImageError> {
        let was = match &net.before {
            Some(json) => self.filter.is_everything() || self.filter.try_matches(&Image::parse(json)?)?,
            None => false,
        };
        let row = match &net.after {
            Some(json) => self.project(json)?,
            None => None,
        };
        let op = match (was, row.is_some()) {
            (true, true) => WireOp::Update,
            (false, true) => WireOp::Insert,
            (true, false) => WireOp::Delete,
            (false, false) => return Ok(None),
        };
        Ok(Some((op, WireRow { key: net.key.clone(), version: net.version, row })))
    }

    /// Does a net change concern these rows, as they were or as they are?
    #[must_use]
    pub fn is_touched_by(&self, net: &Net) -> bool {
        [&net.before, &net.after].into_iter().flatten().any(|json| self.concerns(json))
    }

    /// Is this image one of these rows? Yes also when it cannot be read.
    #[must_use]
    pub fn concerns(&self, json: &[u8]) -> bool {
        self.filter.is_everything()
            || Image::parse(json).and_then(|image| self.filter.try_matches(&image)).unwrap_or(true)
    }

    /// How a net change leaves the shape, whoever held what: the row, or its removal.
    fn after(&self, net: &Net) -> Result<WireRow, ImageError> {
        let row = net.after.as_ref().map(|json| self.project(json)).transpose()?.flatten();
        Ok(WireRow { key: net.key.clone(), version: net.version, row })
    }

    /// The row as sent, if it is in the shape.
    ///
    /// # Errors
    /// As of [`Spec::select`].
    pub fn project(&self, json: &Bytes) -> Result<Option<Bytes>, ImageError> {
        if self.filter.is_everything() && self.projection.is_whole() {
            return Ok(Some(json.clone()));
        }
        let image = Image::parse(json)?;
        self.filter.try_matches(&image)?.then(|| self.projection.apply(json, &image)).transpose()
    }

    /// A row read from the table, which the database has filtered already.
    ///
    /// # Errors
    /// As of [`Spec::select`].
    pub fn project_read(&self, json: &Bytes) -> Result<Bytes, ImageError> {
        if self.projection.is_whole() {
            return Ok(json.clone());
        }
        self.projection.apply(json, &Image::parse(json)?)
    }
}

/// Why everything held for a subscription is worthless. Label of `reset` messages and of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// TRUNCATE emptied the table.
    Truncated,
    /// A bulk statement, or more changes than are kept.
    Bulk,
    /// Columns, key or settings of the table changed.
    Schema,
    /// The position is unknown or older than what is retained.
    Expired,
    /// The subscriber fell behind what is kept for it.
    Slow,
    /// What the subscriber may see is not what it was.
    Permission,
}

impl ResetReason {
    /// All of them: what the documentation lists.
    pub const ALL: [ResetReason; 6] = [
        ResetReason::Truncated,
        ResetReason::Bulk,
        ResetReason::Schema,
        ResetReason::Expired,
        ResetReason::Slow,
        ResetReason::Permission,
    ];

    /// The `reason` on the wire.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            ResetReason::Truncated => "truncated",
            ResetReason::Bulk => "bulk",
            ResetReason::Schema => "schema-changed",
            ResetReason::Expired => "position-expired",
            ResetReason::Slow => "slow",
            ResetReason::Permission => "permission-changed",
        }
    }
}

/// What a tick was to a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// Nothing to tell.
    Nothing,
    /// Something to wake subscribers for.
    News,
    /// The table is not the one the shape was made for: its subscribers were reset.
    Stale,
}

/// A shape that somebody subscribes to, or did a moment ago.
pub struct Shape {
    /// What it selects.
    pub spec: Spec,
    /// Short critical sections only, never across an await: the publisher takes it for every tick that touches the
    /// table.
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) ring: Ring,
    /// Set while a snapshot is being read: every change since, by key.
    pub(super) gather: Option<Gather>,
    /// A reset was told and its snapshot is not here yet: changes go to `gather` alone, as nobody holds rows to
    /// apply them to.
    pub(super) resetting: bool,
    /// The ground under the shape changed: it gets no more ticks, subscribers must ask anew.
    pub(super) closed: Option<ResetReason>,
    /// Woken after the ring grew or the shape was closed.
    wakers: HashMap<u64, Arc<dyn Wake>>,
    next_waker: u64,
    /// Subscribers that are not woken: somebody who is follows the ring for them.
    parked: usize,
    /// Those, woken like subscribers and not counted as such.
    followers: Vec<(u64, Arc<dyn Wake>)>,
    /// When the last snapshot was put into the ring.
    pub(super) snapshot_at: Option<Instant>,
    /// When everybody last got a snapshot, or the shape came to be.
    pub(super) repaired_at: Instant,
    /// Part of the repair period that this shape takes, so that shapes made at one moment are not read at one.
    pub(super) share: f64,
    /// When the last subscriber left.
    pub(super) idle_since: Option<Instant>,
    /// For subscribers that come back or fell behind.
    pub(super) past: Past,
    /// Its rows exceeded what most snapshots may have.
    pub(super) large: bool,
    /// Told when the last subscriber leaves.
    pub(super) left: Arc<Notify>,
}

impl Shape {
    /// A shape that is told every tick after `floor`.
    pub(super) fn new(spec: Spec, floor: i64, ring_bytes: usize) -> Shape {
        Shape {
            spec,
            state: Mutex::new(State {
                ring: Ring::new(floor, ring_bytes),
                gather: None,
                resetting: false,
                closed: None,
                wakers: HashMap::new(),
                next_waker: 0,
                parked: 0,
                followers: Vec::new(),
                snapshot_at: None,
                repaired_at: Instant::now(),
                share: rand::random_range(0.75..1.0),
                idle_since: Some(Instant::now()),
                past: Past::default(),
                large: false,
                left: Arc::default(),
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // a panic while holding it is a bug that already took the task down; the ring itself is whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one tick. `places` are those of the changes that may concern the shape, if it is known that others do not; never
    /// while a snapshot is read.
    pub(super) fn publish(&self, tick: &Tick, part: &TableBatch, places: Option<&[usize]>) -> Published {
        let nets = match part {
            TableBatch::Reload(reason) => {
                self.reset(
                    tick,
                    match reason {
                        Reload::Truncated => ResetReason::Truncated,
                        Reload::Requested | Reload::Overflow => ResetReason::Bulk,
                    },
                );
                return Published::News;
            }
            TableBatch::Changes(nets) => nets,
        };
        let rows = match places {
            Some(places) => self.spec.select(places.iter().filter_map(|at| nets.get(*at))),
            None => self.spec.select(nets),
        };
        let Ok(rows) = rows else {
            // the table's columns changed and the catalog does not know yet: what is not understood is not guessed
            self.reset(tick, ResetReason::Schema);
            return Published::Stale;
        };
        // encoded before the lock is taken: subscribers read under it
        let messages = (!rows.is_empty())
            .then(|| message::changes(&self.spec.table.wire_name(), tick, self.spec.mark.into(), &rows));
        let mut state = self.lock();
        if let Some(gather) = &mut state.gather {
            // every key, also one that means nothing to who holds the rows of the tick before: the rows being read may
            // be of a moment between the two ticks, when a row stood that came and went
            match nets.iter().map(|net| self.spec.after(net)).collect::<Result<Vec<_>, _>>() {
                Ok(rows) => gather.add(tick.position, rows.into_iter()),
                Err(_) => gather.spoil(),
            }
        }
        let Some(messages) = messages.filter(|_| !state.resetting) else { return Published::Nothing };
        state.ring.push(Entry { kind: EntryKind::Changes, position: tick.position, messages });
        Published::News
    }

    fn reset(&self, tick: &Tick, reason: ResetReason) {
        let messages =
            message::reset(&self.spec.table.wire_name(), reason.label(), Some(self.spec.resume(tick.position)));
        let mut state = self.lock();
        state.ring.push(Entry { kind: EntryKind::Reset(reason), position: tick.position, messages });
        state.resetting = true;
        if let Some(gather) = &mut state.gather {
            // what is being read may lie before the reload: it must be read again
            gather.spoil();
        }
    }

    /// Ends the shape: its subscribers ask anew and find the table as it is now.
    pub(super) fn close(&self, reason: ResetReason) {
        self.end(reason);
        self.wake();
    }

    /// Ends the shape without telling anybody yet.
    pub(super) fn end(&self, reason: ResetReason) {
        self.lock().closed = Some(reason);
    }

    /// Puts an entry that is no tick of the table (a problem) at the end of the ring.
    pub(super) fn push_problem(&self, messages: Arc<[Message]>) {
        let mut state = self.lock();
        let position = crate::change::Position { tick: state.ring.newest_tick(), nonce: 0 };
        state.ring.push(Entry { kind: EntryKind::Problem, position, messages });
    }

    pub(super) fn wake(&self) {
        // wake after unlocking: the woken take the same lock
        let wakers: Vec<Arc<dyn Wake>> = {
            let state = self.lock();
            state.followers.iter().map(|(_, waker)| waker).chain(state.wakers.values()).cloned().collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// Counts a subscriber, to be woken.
    pub(super) fn register(&self, waker: Arc<dyn Wake>) -> u64 {
        let mut state = self.lock();
        let id = state.next_id();
        state.wakers.insert(id, waker);
        state.idle_since = None;
        id
    }

    /// Does not wake the subscriber any more, and gives its waker back.
    pub(super) fn park(&self, id: u64) -> Option<Arc<dyn Wake>> {
        let mut state = self.lock();
        let waker = state.wakers.remove(&id);
        state.parked += usize::from(waker.is_some());
        waker
    }

    /// Wakes it again.
    pub(super) fn unpark(&self, id: u64, waker: Arc<dyn Wake>) {
        let mut state = self.lock();
        state.parked -= 1;
        state.wakers.insert(id, waker);
    }

    /// The subscriber is gone.
    pub(super) fn unregister(&self, id: u64) {
        let mut state = self.lock();
        if state.wakers.remove(&id).is_none() {
            state.parked -= 1;
        }
        if state.subscribers() == 0 {
            state.idle_since = Some(Instant::now());
            state.left.notify_one();
        }
    }

    pub(super) fn add_follower(&self, waker: Arc<dyn Wake>) -> u64 {
        let mut state = self.lock();
        let id = state.next_id();
        state.followers.push((id, waker));
        id
    }

    pub(super) fn remove_follower(&self, id: u64) {
        self.lock().followers.retain(|(follower, _)| *follower != id);
    }
}

impl State {
    /// Nobody waits for the rows that were to be read: whoever comes next begins a read of its own.
    pub(super) fn abandon(&mut self) {
        self.gather = None;
        if self.resetting {
            // changes are not kept until that read is over, so nobody can go on from a position here: a new shape is made
            self.closed = Some(ResetReason::Bulk);
        }
    }

    pub(super) fn subscribers(&self) -> usize {
        self.wakers.len() + self.parked
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    fn next_id(&mut self) -> u64 {
        self.next_waker += 1;
        self.next_waker
    }
}
