//! The hub: shapes, what each tick means to them, and who to wake.
//!
//! Must not know: transports, SQL. Invariants: the hub never waits for a subscriber; a shape that is registered is
//! told every tick after its floor; the head moves only after every shape has its part of the tick, so nobody who
//! looks at the head and then at a ring can miss something in between.

mod counts;
mod follower;
mod gather;
mod index;
mod load;
mod past;
mod recent;
pub mod ring;
mod shape;
mod source;
mod subscription;
mod tend;

pub use counts::{Counts, Happening};
pub use follower::{Follower, News, Wake};
pub use shape::{ResetReason, Shape, Spec};
pub use source::{Join, Loaded, Missed, Source, SourceError, TOO_LARGE};
pub use subscription::{Piece, PieceKind, Start, Subscription};

use crate::change::{Batch, Position, Table, TableBatch, Tick};
use crate::tasks::Tasks;
use index::{Found, Index};
use load::Loading;
use recent::Recent;
use shape::{Published, SpecKey};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// How many past positions are known without asking the database. At 200 ticks/s half a minute: longer than a
/// client needs to reconnect.
const KNOWN_POSITIONS: usize = 8192;

/// Subscribers that fell behind and are brought forward at a time. One reads, one encodes; the rest wait as they are, and
/// miss a little more meanwhile.
const FOLDS: usize = 2;

/// Sizes of the hub.
#[derive(Clone, Copy, Debug)]
pub struct HubOptions {
    /// Bytes of changes kept per shape for subscribers that fell behind or come back.
    pub ring_bytes: usize,
    /// Snapshots read at a time; the rest wait.
    pub snapshot_reads: usize,
    /// Snapshots that may wait; newcomers that need another are sent away.
    pub snapshot_queue: usize,
    /// Bytes of rows one snapshot may have.
    pub snapshot_bytes: usize,
    /// Bytes of changes gathered while one snapshot is read, above which the read is given up.
    pub gather_bytes: usize,
}

/// The watched tables by name and by oid.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    by_oid: HashMap<u32, Arc<Table>>,
    incarnations: HashMap<u32, u64>,
}

impl Tables {
    /// From the catalog.
    #[must_use]
    pub fn new(tables: impl IntoIterator<Item = Table>) -> Tables {
        let by_oid = tables.into_iter().map(|t| (t.relid, Arc::new(t))).collect();
        Tables { by_oid, incarnations: HashMap::new() }
    }

    /// By oid.
    #[must_use]
    pub fn get(&self, relid: u32) -> Option<&Arc<Table>> {
        self.by_oid.get(&relid)
    }

    /// By the name a client uses: `schema.table`, or `table` for the one in `public` or else the only one of that
    /// name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Table>> {
        if let Some(table) =
            self.by_oid.values().find(|t| t.wire_name() == name || format!("{}.{}", t.schema, t.name) == name)
        {
            return Some(table);
        }
        let mut same = self.by_oid.values().filter(|t| t.name == name);
        same.next().filter(|_| same.next().is_none())
    }

    /// Is there a table that was not in `before`, or is another one since?
    #[must_use]
    pub fn changed_from(&self, before: &Tables) -> bool {
        self.by_oid.values().any(|t| before.get(t.relid).is_none_or(|b| b.fingerprint != t.fingerprint))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.by_oid.values()
    }

    /// Which of the tables that this oid and this fingerprint stood for. A table that was another one for a while, or
    /// not captured, has the fingerprint it had before when that is over, and rows that changed without being told:
    /// what was learned of one incarnation says nothing about the next.
    #[must_use]
    pub fn incarnation(&self, relid: u32) -> u64 {
        self.incarnations.get(&relid).copied().unwrap_or_default()
    }

    /// Takes over the incarnations of `before` where nothing ended; the others get numbers above `last`.
    fn follow(&mut self, before: &Tables, last: &mut u64) {
        for (relid, table) in &self.by_oid {
            let same = before.get(*relid).is_some_and(|b| b.fingerprint == table.fingerprint && b.broken.is_none());
            let incarnation = if same {
                before.incarnation(*relid)
            } else {
                *last += 1;
                *last
            };
            self.incarnations.insert(*relid, incarnation);
        }
    }
}

/// See the module.
pub struct Hub {
    source: Arc<dyn Source>,
    options: HubOptions,
    tasks: Tasks,
    turns: Arc<load::Turns>,
    /// Subscribers that read what they missed at a time: they are slow already, and the database is everybody's.
    folds: Semaphore,
    counts: Arc<Counts>,
    head: watch::Sender<Option<Tick>>,
    loading: Loading,
    /// Held while a list of shapes is taken or changed, not while they are matched; never across an await.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tables: Arc<Tables>,
    /// The newest incarnation of any table.
    incarnation: u64,
    shapes: HashMap<SpecKey, Arc<Shape>>,
    /// Made since the last look: they wait for their first turn.
    fresh: tend::Queue,
    /// The same, by table.
    /// Shared, so that a batch is matched while others take the lock.
    indexes: HashMap<u32, Arc<Index>>,
    /// The tick whose list of shapes was taken last: a shape registered now is told the ticks after it.
    listed: Option<Tick>,
    known: VecDeque<Position>,
    /// Published ticks.
    recent: Recent,
    /// When the database last confirmed that the head is all there is.
    confirmed: Option<Instant>,
}

impl Inner {
    fn remove(&mut self, key: &SpecKey) -> Option<Arc<Shape>> {
        let shape = self.shapes.remove(key)?;
        let relid = shape.spec.table.relid;
        if let Some(index) = self.indexes.get_mut(&relid) {
            Arc::make_mut(index).remove(&shape);
            if index.is_empty() {
                self.indexes.remove(&relid);
            }
        }
        Some(shape)
    }

    /// Where to look for the shapes that a batch may mean something to.
    fn places(&self, batch: &Batch, loading: &Loading) -> Vec<Place> {
        let place = |relid: &u32| {
            let index = self.indexes.get(relid)?.clone();
            let mut loading = loading.of(*relid);
            // one that was closed meanwhile may be of another history
            loading.retain(|shape| self.shapes.get(&shape.spec.key()).is_some_and(|now| Arc::ptr_eq(now, shape)));
            Some(Place { relid: *relid, index, table: self.tables.get(*relid).cloned(), loading })
        };
        batch.tables.keys().filter_map(place).collect()
    }
}

/// The shapes of a table.
struct Place {
    relid: u32,
    index: Arc<Index>,
    table: Option<Arc<Table>>,
    loading: Vec<Arc<Shape>>,
}

impl Place {
    /// Those that a batch may mean something to.
    fn concerned(&self, batch: &Batch) -> Vec<Found> {
        let (Some(TableBatch::Changes(nets)), Some(table)) = (batch.tables.get(&self.relid), &self.table) else {
            return self.index.all().map(|shape| (shape.clone(), None)).collect();
        };
        let read = |shape: &Arc<Shape>| self.loading.iter().any(|other| Arc::ptr_eq(shape, other));
        let mut found = self.index.find(table, nets);
        found.retain(|(shape, _)| !read(shape));
        // every change, also one that none of its rows had before or has after
        found.extend(self.loading.iter().map(|shape| (shape.clone(), None)));
        found
    }
}

impl Hub {
    /// A hub without a head: subscriptions wait until the feed sets one.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, options: HubOptions, tasks: Tasks) -> Arc<Hub> {
        let hub = Arc::new(Hub {
            source,
            options,
            tasks: tasks.clone(),
            turns: Arc::new(load::Turns::new(options.snapshot_reads)),
            folds: Semaphore::new(FOLDS),
            counts: Arc::default(),
            head: watch::Sender::new(None),
            loading: Loading::default(),
            inner: Mutex::default(),
        });
        tasks.spawn("shape upkeep", tend::tend(Arc::downgrade(&hub)));
        hub
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What befell subscribers.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The newest tick that is published, and changes of it.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<Option<Tick>> {
        self.head.subscribe()
    }

    /// The newest tick's position.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.head.borrow().as_ref().map(|t| t.position)
    }

    /// The tables clients may name.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.inner().tables.clone()
    }

    /// Waits for a published state that contains a transaction. None when the feed ended.
    pub async fn first_seeing(&self, xid: u64) -> Option<Position> {
        let mut head = self.head();
        head.wait_for(|tick| tick.as_ref().is_some_and(|tick| tick.snap.sees(xid))).await.ok()?;
        self.inner().recent.first_seeing(xid)
    }

    /// At most this long ago the head was all there is.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.inner().confirmed.map(|at| at.elapsed())
    }

    /// The database confirmed that nothing lies after the head.
    pub fn confirm(&self) {
        self.inner().confirmed = Some(Instant::now());
    }

    /// Begins at `tick`, or begins again when the history is another one or what lies between is gone: whoever is
    /// subscribed is reset.
    pub fn begin(&self, tick: Tick) {
        let shapes: Vec<Arc<Shape>> = {
            let mut inner = self.inner();
            inner.known.clear();
            inner.known.push_back(tick.position);
            inner.listed = Some(tick.clone());
            inner.recent.clear();
            inner.recent.push(tick.clone());
            inner.indexes.clear();
            inner.shapes.drain().map(|(_, shape)| shape).collect()
        };
        // before the head moves: who looks at the new one and then at a shape of the old history must see its end
        shapes.iter().for_each(|shape| shape.end(ResetReason::Expired));
        self.head.send_replace(Some(tick));
        shapes.iter().for_each(|shape| shape.wake());
    }

    /// Publishes a batch. The only way the live position moves. False when it showed that a table is not the one the
    /// catalog told of: the catalog must be read again.
    pub fn apply(&self, batch: &Batch) -> bool {
        let tick = &batch.to;
        let places = {
            let mut inner = self.inner();
            inner.listed = Some(tick.clone());
            inner.known.push_back(tick.position);
            if inner.known.len() > KNOWN_POSITIONS {
                inner.known.pop_front();
            }
            inner.places(batch, &self.loading)
        };
        let touched: Vec<(Arc<Shape>, Published)> = places
            .iter()
            .flat_map(|place| place.concerned(batch))
            .filter_map(|(shape, places)| {
                let part = batch.tables.get(&shape.spec.table.relid)?;
                let published = shape.publish(tick, part, places.as_deref());
                Some((shape, published))
            })
            .collect();
        self.inner().recent.push(tick.clone());
        self.head.send_replace(Some(tick.clone()));
        let fits = touched.iter().all(|(_, published)| *published != Published::Stale);
        for (shape, published) in touched {
            if published != Published::Nothing {
                shape.wake();
            }
            if shape.lock().resetting {
                self.load(&shape, ring::Audience::All);
            }
        }
        fits
    }

    /// The catalog as it is now. Shapes of tables that changed or went are closed, and those whose right is gone or another:
    /// their subscribers ask again, with what they may see now.
    pub fn set_tables(&self, mut tables: Tables) {
        let closed: Vec<(Arc<Shape>, ResetReason)> = {
            let mut inner = self.inner();
            let before = inner.tables.clone();
            tables.follow(&before, &mut inner.incarnation);
            let tables = Arc::new(tables);
            inner.tables = tables.clone();
            let why = |shape: &Shape| match tables.get(shape.spec.table.relid) {
                None => Some(ResetReason::Schema),
                Some(table) => shape.spec.holds(table).err(),
            };
            let gone: Vec<(SpecKey, ResetReason)> =
                inner.shapes.iter().filter_map(|(key, shape)| Some((key.clone(), why(shape)?))).collect();
            gone.into_iter().filter_map(|(key, why)| Some((inner.remove(&key)?, why))).collect()
        };
        for (shape, why) in closed {
            shape.close(why);
        }
    }

    /// The shape of `spec` with `waker` registered, and the tick up to which a subscriber must be brought by other
    /// means. None before the first tick, and when table or right are others since `spec` was made.
    ///
    /// Registered under the hub's lock: a shape found here may be one that is about to be dropped as idle.
    fn shape(&self, spec: Spec, waker: Arc<dyn Wake>) -> Option<(Arc<Shape>, u64, Tick)> {
        let mut inner = self.inner();
        let listed = inner.listed.clone()?;
        inner.tables.get(spec.table.relid).filter(|table| spec.holds(table).is_ok())?;
        let key = spec.key();
        if inner.shapes.get(&key).is_some_and(|shape| shape.lock().closed.is_some()) {
            // its snapshot failed while everybody waited for one: the next who asks gets a fresh one
            inner.remove(&key);
        }
        let shape = match inner.shapes.get(&key) {
            Some(shape) => shape.clone(),
            None => {
                let shape = Arc::new(Shape::new(spec, listed.position.tick, self.options.ring_bytes));
                Arc::make_mut(inner.indexes.entry(shape.spec.table.relid).or_default()).add(&shape);
                inner.fresh.push_back(Arc::downgrade(&shape));
                inner.shapes.insert(key, shape.clone());
                shape
            }
        };
        let waker = shape.register(waker);
        Some((shape, waker, listed))
    }

    /// The newest tick whose batch is published or being published.
    fn listed(&self) -> Option<Tick> {
        self.inner().listed.clone()
    }

    /// Is this a position of our own recent past?
    #[must_use]
    pub fn knows(&self, position: Position) -> bool {
        let inner = self.inner();
        inner.known.binary_search_by_key(&position.tick, |p| p.tick).is_ok_and(|i| inner.known[i] == position)
    }

    /// How many shapes and subscriptions there are.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.shapes.len(), inner.shapes.values().map(|s| s.lock().subscribers()).sum())
    }

    /// How many of the subscribers let a [`Follower`] tell their clients.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.inner().shapes.values().map(|s| s.lock().parked()).sum()
    }
}
