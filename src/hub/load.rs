//! Reads a shape's rows and puts them into its ring as a snapshot at a tick.
//!
//! Must not know: SQL, transports. Invariants: changes are gathered from before the read until the snapshot stands in
//! the ring, without a gap; at most one read per shape runs, and none that nobody waits for; the rows of all reads
//! together are bounded.

use super::gather::{Gather, Rows};
use super::ring::{Audience, Entry, EntryKind};
use super::{Happening, Hub, Join, Loaded, ResetReason, Shape, SourceError, TOO_LARGE};
use crate::change::{Position, Tick};
use crate::wire::{Message, message};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Rounds of bringing rows forward outside the shape's lock before it is done inside. Each round is shorter than the
/// one before; what is left then is a few changes.
const ROUNDS: u32 = 6;

/// A tick that was made while the rows were read, and after it none for so long: then the rows are read again. Longer
/// than the time between two ticks under load, when the next one will do.
const OVERTAKEN: Duration = Duration::from_millis(100);

/// Reads that may fail in a row with an error that a retry may cure, a second apart at most.
const TRIES: u32 = 30;

/// How long a read goes on when the last who waited for it has left: whoever reloads a page is back by then.
const UNWANTED: Duration = Duration::from_millis(300);

/// Of the bytes one snapshot may have, the part that each may have beside others. One that needs more is read again
/// when no other such is: so all together are bounded by one whole and as many parts as are read at a time.
const SMALL: usize = 8;

/// One more that waits for its turn; one less when dropped.
struct Queued(Arc<AtomicUsize>);

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all reads share.
pub(super) struct Turns {
    /// Reads at a time.
    all: Semaphore,
    /// Of them, large ones.
    large: Semaphore,
    /// Those that wait.
    queue: Arc<AtomicUsize>,
}

impl Turns {
    pub(super) fn new(reads: usize) -> Turns {
        Turns { all: Semaphore::new(reads), large: Semaphore::new(1), queue: Arc::default() }
    }
}

/// Shapes whose rows are being read: they are told every change of their table.
///
/// Entered before the gathering that counts begins, when the read has its turn. A tick that was listed before that was made before the read: the rows contain it.
#[derive(Clone, Default)]
pub(super) struct Loading(Arc<Mutex<HashMap<u32, Vec<Arc<Shape>>>>>);

impl Loading {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Vec<Arc<Shape>>>> {
        // held for a push or a copy
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a table, each once.
    pub(super) fn of(&self, relid: u32) -> Vec<Arc<Shape>> {
        let mut shapes = self.lock().get(&relid).cloned().unwrap_or_default();
        shapes.sort_by_key(Arc::as_ptr);
        shapes.dedup_by(|a, b| Arc::ptr_eq(a, b));
        shapes
    }

    fn enter(&self, shape: &Arc<Shape>) -> Entered {
        self.lock().entry(shape.spec.table.relid).or_default().push(shape.clone());
        Entered { loading: self.clone(), shape: shape.clone() }
    }
}

/// Leaves when dropped.
struct Entered {
    loading: Loading,
    shape: Arc<Shape>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut loading = self.loading.lock();
        let relid = self.shape.spec.table.relid;
        let Some(shapes) = loading.get_mut(&relid) else { return };
        // once: the next read of the shape may have entered already
        if let Some(at) = shapes.iter().position(|other| Arc::ptr_eq(other, &self.shape)) {
            shapes.swap_remove(at);
        }
        if shapes.is_empty() {
            loading.remove(&relid);
        }
    }
}

impl Hub {
    /// The same for a newcomer: an error when too many wait already.
    pub(super) fn load_for_newcomer(&self, shape: &Arc<Shape>) -> Result<(), SourceError> {
        if shape.lock().gather.is_none() {
            self.check_queue()?;
        }
        self.load(shape, Audience::Joining);
        Ok(())
    }

    /// An error when too many snapshots wait.
    pub(super) fn check_queue(&self) -> Result<(), SourceError> {
        if self.turns.queue.load(Ordering::Relaxed) < self.options.snapshot_queue {
            return Ok(());
        }
        self.counts.add(Happening::Overloaded);
        Err(SourceError::overloaded())
    }

    /// The same for who is in no hurry: not while many wait.
    pub(super) fn load_sometime(&self, shape: &Arc<Shape>) {
        if self.turns.queue.load(Ordering::Relaxed) <= self.options.snapshot_queue / 4 {
            self.load(shape, Audience::All);
        }
    }

    /// Starts reading a snapshot for `shape`, if nobody does already.
    pub(super) fn load(&self, shape: &Arc<Shape>, audience: Audience) {
        {
            let mut state = shape.lock();
            if state.gather.is_some() || state.closed.is_some() {
                return;
            }
            // gathers nothing until its turn: many may wait, and each would hold what all have in common
            state.gather = Some(Gather::new(0));
        }
        self.turns.queue.fetch_add(1, Ordering::Relaxed);
        let load = Load {
            shape: shape.clone(),
            audience,
            source: self.source.clone(),
            turns: self.turns.clone(),
            queued: Some(Queued(self.turns.queue.clone())),
            counts: self.counts.clone(),
            head: self.head(),
            gather_bytes: self.options.gather_bytes,
            snapshot_bytes: self.options.snapshot_bytes,
            loading: self.loading.clone(),
            entered: None,
        };
        self.tasks.spawn("snapshot", load.run());
    }
}

struct Load {
    shape: Arc<Shape>,
    audience: Audience,
    source: Arc<dyn super::Source>,
    turns: Arc<Turns>,
    queued: Option<Queued>,
    counts: Arc<super::Counts>,
    head: tokio::sync::watch::Receiver<Option<Tick>>,
    gather_bytes: usize,
    snapshot_bytes: usize,
    loading: Loading,
    entered: Option<Entered>,
}

enum Outcome {
    Done,
    /// Nobody waits for it.
    Abandoned,
    /// The table was emptied or rewritten while it was read, or the rows belong to no tick.
    ReadAgain,
}

impl Load {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(50);
        let mut tries = 0;
        loop {
            match self.attempt().await {
                Ok(Outcome::Done) => break,
                Ok(Outcome::Abandoned) => {
                    self.counts.add(Happening::SnapshotAbandoned);
                    break;
                }
                Ok(Outcome::ReadAgain) => {
                    if !self.wait_again() {
                        break;
                    }
                }
                Err(error) => {
                    tries += 1;
                    if !self.wait_again() {
                        break;
                    }
                    let wanted = self.shape.lock().subscribers() > 0;
                    if !error.retry || tries >= TRIES || !wanted {
                        self.give_up(&error);
                        break;
                    }
                    tracing::warn!(table = %self.shape.spec.table.wire_name(), %error, "snapshot failed, will be tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
        self.shape.wake();
    }

    /// Holds and hears nothing until its next turn, and counts among those that wait. False when the shape was closed:
    /// whoever waits asks anew, and finds the table as it is now.
    fn wait_again(&mut self) -> bool {
        self.entered = None;
        if self.queued.is_none() {
            self.turns.queue.fetch_add(1, Ordering::Relaxed);
            self.queued = Some(Queued(self.turns.queue.clone()));
        }
        let mut state = self.shape.lock();
        let open = state.closed.is_none();
        state.gather = open.then(|| Gather::new(0));
        open
    }

    async fn attempt(&mut self) -> Result<Outcome, SourceError> {
        let turns = self.turns.clone();
        let large = self.shape.lock().large;
        // held until the snapshot stands in the ring, as the rows are; before the turn of all, so that small ones pass by
        let _large = if large { turns.large.acquire().await.ok() } else { None };
        let _turn = turns.all.acquire().await;
        self.queued = None;
        let loaded = {
            // not while it waits for its turn: a hundred thousand may, and each would be told every change
            self.entered = Some(self.loading.enter(&self.shape));
            {
                let mut state = self.shape.lock();
                if state.subscribers() == 0 {
                    state.abandon();
                    return Ok(Outcome::Abandoned);
                }
                // from here on every change is either in the rows or gathered
                state.gather = Some(Gather::new(self.gather_bytes));
            }
            match self.read(if large { self.snapshot_bytes } else { self.snapshot_bytes / SMALL }).await {
                Some(Err(error)) if error.code == TOO_LARGE && !large => {
                    self.shape.lock().large = true;
                    return Ok(Outcome::ReadAgain);
                }
                Some(loaded) => loaded?,
                None => {
                    let mut state = self.shape.lock();
                    if state.subscribers() > 0 {
                        return Ok(Outcome::ReadAgain);
                    }
                    state.abandon();
                    return Ok(Outcome::Abandoned);
                }
            }
        };
        self.counts.add(Happening::SnapshotRead);
        let Loaded { rows, join } = loaded;
        if !self.joined(&join).await? {
            return Ok(Outcome::ReadAgain);
        }
        let mut rows = Rows::new(rows);
        for round in 1.. {
            let head = self.head_reaching(|head| join.reached(head)).await?;
            let (changes, spoiled) = {
                let mut state = self.shape.lock();
                if state.closed.is_some() {
                    state.gather = None;
                    return Ok(Outcome::Done);
                }
                match &mut state.gather {
                    Some(gather) => (gather.take(), gather.is_spoiled()),
                    None => return Ok(Outcome::Done),
                }
            };
            if spoiled {
                return Ok(Outcome::ReadAgain);
            }
            rows.bring_forward(changes);
            let messages = self.encode(&rows, head.position);
            if self.finish(&mut rows, messages, head.position, round >= ROUNDS) {
                return Ok(Outcome::Done);
            }
            self.check_gathered()?;
            // a tick reached the shape that the head does not show yet
            let newest = {
                let state = self.shape.lock();
                let gathered = state.gather.as_ref().and_then(Gather::newest).map_or(0, |newest| newest.tick);
                state.ring.newest_tick().max(gathered)
            };
            self.head_reaching(|head| head.position.tick >= newest).await?;
        }
        Ok(Outcome::Done)
    }

    /// Reads the rows; none when nobody waits for them any more.
    async fn read(&self, bytes: usize) -> Option<Result<Loaded, SourceError>> {
        let unwanted = CancellationToken::new();
        let mut read = pin!(self.source.snapshot(self.shape.spec.clone(), bytes, unwanted.clone()));
        tokio::select! {
            loaded = &mut read => Some(loaded),
            () = self.deserted() => {
                unwanted.cancel();
                // until the database was told
                let _ = read.await;
                None
            }
        }
    }

    /// Waits until nobody has subscribed to the shape for a while.
    async fn deserted(&self) {
        let left = self.shape.lock().left.clone();
        loop {
            left.notified().await;
            tokio::time::sleep(UNWANTED).await;
            if self.shape.lock().subscribers() == 0 {
                return;
            }
        }
    }

    fn encode(&self, rows: &Rows, at: Position) -> Arc<[Message]> {
        message::snapshot(&self.shape.spec.table.wire_name(), self.shape.spec.resume(at), rows.iter())
    }

    /// Puts the snapshot into the ring, if nothing was published since its rows were brought to `at`; or, by force,
    /// brings it to where the shape is while publishers wait.
    fn finish(&self, rows: &mut Rows, messages: Arc<[Message]>, at: Position, force: bool) -> bool {
        let mut state = self.shape.lock();
        let Some(gather) = &mut state.gather else { return true };
        if gather.is_spoiled() || gather.is_full() {
            return false;
        }
        let newest = gather.newest();
        let ahead = newest.is_some_and(|newest| newest.tick > at.tick);
        let (at, messages) = if gather.is_empty() && !ahead {
            (at, messages)
        } else if force {
            let at = newest.filter(|newest| newest.tick > at.tick).unwrap_or(at);
            rows.bring_forward(gather.take());
            (at, self.encode(rows, at))
        } else {
            return false;
        };
        // a reset that nobody else will end makes the snapshot everybody's
        let audience = if state.resetting { Audience::All } else { self.audience };
        state.gather = None;
        state.resetting = false;
        state.snapshot_at = Some(Instant::now());
        if audience == Audience::All {
            state.repaired_at = Instant::now();
        }
        state.ring.push(Entry { kind: EntryKind::Snapshot(audience), position: at, messages });
        true
    }

    fn check_gathered(&self) -> Result<(), SourceError> {
        if self.shape.lock().gather.as_ref().is_some_and(Gather::is_full) {
            return Err(SourceError {
                code: "snapshot-too-busy",
                detail: "the table changes faster than its snapshot can be read; narrow the filter".to_owned(),
                retry: true,
            });
        }
        Ok(())
    }

    /// Waits until the head contains the rows. False when no tick may ever do so: the changes that waited when the rows
    /// were read came with a tick whose snapshot is older than the read's. It does not cover transactions that ended
    /// in between, and if those logged nothing (another database's, say) no other tick follows.
    async fn joined(&mut self, join: &Join) -> Result<bool, SourceError> {
        if matches!(join, Join::At(_)) {
            // a tick that is written already: it comes
            return self.head_reaching(|head| join.reached(head)).await.map(|_| true);
        }
        let began = self.head.borrow().as_ref().map(|head| head.position);
        let mut last = began;
        loop {
            let reached = self.head_reaching(|head| join.reached(head));
            if let Ok(head) = tokio::time::timeout(OVERTAKEN, reached).await {
                return head.map(|_| true);
            }
            let now = self.head.borrow().as_ref().map(|head| head.position);
            if now != began && now == last {
                return Ok(false);
            }
            last = now;
            self.check_gathered()?;
        }
    }

    async fn head_reaching(&mut self, enough: impl Fn(&Tick) -> bool) -> Result<Tick, SourceError> {
        let gone =
            || SourceError { code: "shutting-down", detail: "the gateway is shutting down".to_owned(), retry: false };
        loop {
            let waited = {
                let head = self.head.wait_for(|head| head.as_ref().is_some_and(&enough));
                tokio::time::timeout(Duration::from_secs(1), head).await.map(|head| head.ok().and_then(|h| h.clone()))
            };
            match waited {
                Ok(head) => return head.ok_or_else(gone),
                // no tick for a second: the database may be away. What was gathered stays bounded meanwhile.
                Err(_) => self.check_gathered()?,
            }
        }
    }

    fn give_up(&self, error: &SourceError) {
        tracing::warn!(table = %self.shape.spec.table.wire_name(), %error, "snapshot given up");
        let resetting = {
            let mut state = self.shape.lock();
            state.gather = None;
            // tried again a period later, not at once
            state.repaired_at = Instant::now();
            state.resetting
        };
        if resetting {
            // live subscribers hold nothing: only asking anew can help them
            self.shape.close(ResetReason::Bulk);
        }
        self.shape.push_problem(message::problem(serde_json::json!({
            "problem": { "type": format!("/problems/{}", error.code), "title": "the subscription cannot be served",
                "status": 503, "code": error.code, "detail": error.detail }
        })));
    }
}
