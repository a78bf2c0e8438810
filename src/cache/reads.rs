//! Answers to reads: from what is kept when it is still true, from the database when it is not.
//!
//! Must not know: SQL, HTTP. Invariant: an answer is never older than the head at the moment it was asked for, unless
//! the stream is unhealthy or the database away, and then never older than the table's own settings allow.

use super::entry::{Content, Entry};
use super::flight::{Boarding, Flights, Landed};
use super::history::History;
use super::judge::{Asked, Verdict, judge};
use super::known::Known;
use super::source::{Query, QueryKey, Reader};
use crate::change::Position;
use crate::hub::{Hub, SourceError};
use crate::tasks::Tasks;
use moka::sync::Cache;
use moka::{Expiry, ops};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a position that another gateway gave out may take to arrive here.
const REACH: Duration = Duration::from_secs(5);

/// A database that neither told of changes nor answers for so long counts as away, if there is something to serve
/// instead. The read goes on behind it.
const SILENT: Duration = Duration::from_secs(2);

/// Times a read goes round when what it joined was begun too early. The second is begun after it asked and cannot be,
/// unless another history begins meanwhile.
const ROUNDS: u32 = 3;

/// Settings of the cache.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Bytes of answers kept; 0 keeps none.
    pub bytes: u64,
    /// When the database was last heard of longer ago, the stream is not to be trusted.
    pub trust: Duration,
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Kept, and true.
    Hit,
    /// Kept, and brought up to date from the stream.
    WrittenThrough,
    /// Kept, true as far as the stream tells, past its time: it is being read again.
    Refreshing,
    /// Kept, and the database cannot be read.
    StaleIfError,
    /// Read from the database.
    Read {
        /// An answer was kept and could not be used.
        stale: bool,
        /// The answer is kept.
        stored: bool,
        /// Somebody else's read.
        collapsed: bool,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it says, and what is known of it.
    pub entry: Arc<Entry>,
    /// True here: a stream from here continues it.
    pub position: Position,
    /// How it came about.
    pub how: How,
    /// Since it was read.
    pub age: Duration,
    /// Spent waiting for the database.
    pub waited: Option<Duration>,
}

/// Is a position behind us?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every answer from now on has it.
    Reached,
    /// It did not arrive in time.
    NotYet,
    /// It is of another history, or too old to be known.
    Unknown,
}

/// How often what happened. Rises for ever.
#[derive(Debug, Default)]
pub struct Counts {
    /// Reads of the database.
    pub loads: AtomicU64,
    /// Answers without the database.
    pub hits: AtomicU64,
    /// Rows brought up to date from the stream.
    pub written_through: AtomicU64,
    /// Answers that were somebody else's read.
    pub collapsed: AtomicU64,
}

/// See the module.
pub struct Reads {
    hub: Arc<Hub>,
    history: Arc<History>,
    reader: Arc<dyn Reader>,
    tasks: Tasks,
    options: ReadOptions,
    stored: Cache<QueryKey, Arc<Entry>>,
    known: Known,
    flights: Flights,
    fence: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

/// An answer outlives its freshness for as long as its table allows it to be served stale.
struct Kept;

impl Expiry<QueryKey, Arc<Entry>> for Kept {
    fn expire_after_create(&self, _: &QueryKey, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.keep)
    }

    // without it a new answer would end when the one it replaced would have
    fn expire_after_update(
        &self,
        _: &QueryKey,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.keep)
    }
}

impl Reads {
    /// A cache of what `reader` finds, held against `history`, which is fed by whoever moves the hub's head.
    #[must_use]
    pub fn new(
        hub: Arc<Hub>,
        history: Arc<History>,
        reader: Arc<dyn Reader>,
        tasks: Tasks,
        options: ReadOptions,
    ) -> Reads {
        let stored = Cache::builder()
            .max_capacity(options.bytes)
            .weigher(|key: &QueryKey, entry: &Arc<Entry>| {
                u32::try_from(key.weight() + entry.weight()).unwrap_or(u32::MAX)
            })
            .expire_after(Kept)
            .build();
        let fence = Arc::new(AtomicBool::new(true));
        Reads {
            hub,
            history,
            reader,
            tasks,
            options,
            stored,
            known: Known::default(),
            flights: Flights::default(),
            fence,
            counts: Arc::default(),
        }
    }

    /// How often what happened.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// For a test that must be seen to fail: without the fence what was read is taken to be true when the read ends,
    /// not when it was made, as a cache does that is only told what to forget.
    pub fn set_fence(&self, up: bool) {
        self.fence.store(up, Ordering::Relaxed);
    }

    /// Drops what is past its time; to be called now and then.
    pub async fn tidy(&self) {
        self.stored.run_pending_tasks();
        self.known.tidy().await;
    }

    /// Is the stream to be trusted with what it does not say?
    fn healthy(&self) -> bool {
        self.hub.lag().is_some_and(|lag| lag <= self.options.trust)
    }

    /// Waits until a position that some gateway gave out is behind us.
    ///
    /// # Errors
    /// The database could not be asked whether it knows the position.
    pub async fn reach(&self, position: Position) -> Result<Reach, SourceError> {
        let mut head = self.hub.head();
        let there = head.wait_for(|head| head.as_ref().is_some_and(|tick| tick.position.tick >= position.tick));
        if !tokio::time::timeout(REACH, there).await.is_ok_and(|head| head.is_ok()) {
            return Ok(Reach::NotYet);
        }
        // older than we remember, from before our start, or of another history: the database knows
        let known = self.hub.knows(position) || {
            let ask = || self.reader.knows(position);
            self.known.get(self.history.generation(), position, ask).await?
        };
        Ok(if known { Reach::Reached } else { Reach::Unknown })
    }

    /// Answers. With `min`, a position that was reached, not from an older state even when the database is away.
    ///
    /// # Errors
    /// The database could not be read, and nothing that is kept may be served instead.
    pub async fn read(&self, query: &Query, min: Option<Position>) -> Result<Answer, SourceError> {
        // Taken before anything is looked up: the history has everything up to here. And in this order, see `Asked`.
        let generation = self.history.generation();
        let asked = Asked { generation, head: self.hub.position().ok_or_else(unready)? };
        let (ttl, stale) = (query.spec.table.ttl, query.spec.table.stale);
        let key = query.key();
        let kept = self.stored.get(key).filter(|_| !ttl.is_zero());
        if let Some(entry) = &kept {
            let age = entry.born.elapsed();
            match judge(&self.history, query, entry, asked) {
                Verdict::Proven if age <= ttl => return Ok(self.hit(entry, asked, How::Hit)),
                Verdict::Proven if age <= ttl + stale && self.healthy() => {
                    self.refresh(key, query, entry);
                    return Ok(self.hit(entry, asked, How::Refreshing));
                }
                Verdict::Proven | Verdict::Touched => {}
                Verdict::Rewritten(content) => return Ok(self.write_through(key, content, entry, asked, ttl + stale)),
            }
        }
        let usable = |entry: &&Arc<Entry>| {
            entry.generation == generation
                && entry.born.elapsed() <= ttl + stale
                && min.is_none_or(|min| entry.proven().tick >= min.tick)
        };
        let (began, load) = (Instant::now(), self.load(key, query, kept.clone(), asked));
        let loaded = if kept.as_ref().is_some_and(|entry| usable(&entry)) && !self.healthy() {
            tokio::time::timeout(SILENT, load).await.unwrap_or_else(|_| Err(silent()))
        } else {
            load.await
        };
        let answer = match loaded {
            Ok(answer) => answer,
            Err(error) => {
                let Some(entry) = kept.as_ref().filter(|_| error.retry).filter(usable) else { return Err(error) };
                self.hit(entry, Asked { generation, head: entry.proven() }, How::StaleIfError)
            }
        };
        Ok(Answer { waited: Some(began.elapsed()), ..answer })
    }

    fn hit(&self, entry: &Arc<Entry>, asked: Asked, how: How) -> Answer {
        self.counts.hits.fetch_add(1, Ordering::Relaxed);
        self.answer(entry.clone(), asked, how)
    }

    fn answer(&self, entry: Arc<Entry>, asked: Asked, how: How) -> Answer {
        let proven = entry.proven();
        let newer = proven.tick > asked.head.tick || entry.generation != asked.generation;
        let position = if newer { proven } else { asked.head };
        Answer { position, how, age: entry.born.elapsed(), waited: None, entry }
    }

    /// The stream has the row: it is kept in place of what it replaces.
    fn write_through(&self, key: &QueryKey, content: Content, old: &Entry, asked: Asked, keep: Duration) -> Answer {
        let entry = Arc::new(Entry::new(content, old.generation, asked.head, keep));
        self.counts.written_through.fetch_add(1, Ordering::Relaxed);
        self.store(key, &entry);
        self.hit(&entry, asked, How::WrittenThrough)
    }

    fn store(&self, key: &QueryKey, entry: &Arc<Entry>) {
        store(&self.stored, key, entry);
    }

    /// Reads what is kept again, behind the answer.
    fn refresh(&self, key: &QueryKey, query: &Query, kept: &Arc<Entry>) {
        if let Boarding::Started(pilot, _) = self.flights.board(key, || self.newer(key, Some(kept))) {
            self.fly(query.clone(), pilot);
        }
    }

    /// What is stored, unless it is what the caller has already.
    fn newer(&self, key: &QueryKey, than: Option<&Arc<Entry>>) -> Option<Arc<Entry>> {
        self.stored.get(key).filter(|entry| than.is_none_or(|than| !Arc::ptr_eq(entry, than)))
    }

    /// Asks the database, together with all who ask for the same.
    async fn load(
        &self,
        key: &QueryKey,
        query: &Query,
        mut seen: Option<Arc<Entry>>,
        asked: Asked,
    ) -> Result<Answer, SourceError> {
        let table = &query.spec.table;
        let (stale, stored) = (seen.is_some(), self.options.bytes > 0 && !table.ttl.is_zero());
        for _ in 0..ROUNDS {
            let newer = || self.newer(key, seen.as_ref()).filter(|_| stored);
            let (landed, collapsed): (Landed, bool) = match self.flights.board(key, newer) {
                Boarding::Landed(entry) => (Ok(entry), true),
                Boarding::Joined(flight) => (flight.landed().await, true),
                Boarding::Started(pilot, flight) => {
                    self.fly(query.clone(), pilot);
                    (flight.landed().await, false)
                }
            };
            let entry = landed?;
            let how = How::Read { stale, stored, collapsed };
            let answer = match judge(&self.history, query, &entry, asked) {
                Verdict::Proven => self.answer(entry, asked, how),
                Verdict::Rewritten(content) if stored => {
                    self.write_through(key, content, &entry, asked, table.ttl + table.stale)
                }
                Verdict::Rewritten(_) | Verdict::Touched => {
                    // it was begun before this one asked
                    seen = Some(entry);
                    continue;
                }
            };
            self.counts.collapsed.fetch_add(u64::from(collapsed), Ordering::Relaxed);
            return Ok(answer);
        }
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        let generation = self.history.generation();
        let found = self.reader.read(query.clone()).await?;
        let entry = Entry::of(found, &query.window, generation, Duration::ZERO);
        Ok(self.answer(Arc::new(entry), asked, How::Read { stale, stored: false, collapsed: false }))
    }

    /// Reads in a task of its own, which whoever asked for it may leave.
    fn fly(&self, query: Query, pilot: super::flight::Pilot) {
        let (reader, history, hub) = (self.reader.clone(), self.history.clone(), self.hub.clone());
        let (stored, fence, counts) = (self.stored.clone(), self.fence.clone(), self.counts.clone());
        let keep = query.spec.table.ttl + query.spec.table.stale;
        let keeps = self.options.bytes > 0 && !query.spec.table.ttl.is_zero();
        self.tasks.spawn("read", async move {
            counts.loads.fetch_add(1, Ordering::Relaxed);
            // before the read: a history that begins meanwhile makes it worthless
            let generation = history.generation();
            let landed = reader.read(query.clone()).await.map(|found| {
                let entry = Entry::of(found, &query.window, generation, keep);
                if !fence.load(Ordering::Relaxed)
                    && let Some(head) = hub.position()
                {
                    entry.prove(head);
                }
                Arc::new(entry)
            });
            pilot.land(landed, |key, entry| {
                if keeps {
                    store(&stored, key, entry);
                }
            });
        });
    }
}

/// Keeps an answer, unless one that was made later is kept. (Not by what is proven: an old answer that many ask for is
/// always proven further than the one being read to replace it.)
fn store(stored: &Cache<QueryKey, Arc<Entry>>, key: &QueryKey, entry: &Arc<Entry>) {
    stored.entry_by_ref(key).and_compute_with(|kept| match kept {
        Some(kept) if kept.value().generation == entry.generation && kept.value().made > entry.made => {
            ops::compute::Op::Nop
        }
        _ => ops::compute::Op::Put(entry.clone()),
    });
}

fn unready() -> SourceError {
    let detail = "the gateway has not reached its database yet, see `/readyz`".to_owned();
    SourceError { code: "not-ready", detail, retry: true }
}

fn silent() -> SourceError {
    SourceError { code: "unavailable", detail: "the database does not answer".to_owned(), retry: true }
}
