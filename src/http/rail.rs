//! Passes over the sockets of a worker: the news of a shape are put together once and written to everybody who stands at
//! the same place.
//!
//! A session that has nothing else to say boards a rail: its socket is then written to by the passes, without its
//! task being woken. A rider whose socket is full, or who needs anything but news and heartbeats (a snapshot, a reset, the end),
//! gets its socket back and goes on by itself; it boards again when it has caught up.
//!
//! Must not know: what the news are. Invariants: only whole frames are begun; what a full socket did not take is given back with
//! it and comes first; nobody is waited for.
//!
//! When passes start: at once when it is quiet; under load no closer than [`APART`] times the length of the last, so that what
//! came meanwhile goes out in one write per socket.
//!
//! Designs tried, processor time per delivery to 1,000 subscribers beside a bare write per event and socket in the same run
//! (`benches/fan_out.rs`): the framework polls a body for each, 2.2 times and more; each subscriber's task is woken and writes by
//! itself, 2.5; passes, 1.0. Distances of passes at 500 commits/s: 3 times the length, at most 10 ms, p99 24 to 32 ms; at least
//! 8 and at most 20 ms, 28 to 29; twice, at least 12 and at most 20 ms, 32. More in `docs/performance.md`.
use super::outlet::Outlet;
use crate::hub::{Follower, Hub, News, Wake};
use crate::session::{HEARTBEAT, Ride, Stand};
use crate::wire::Format;
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// From the start of one pass to the start of the next, in lengths of the former.
const APART: u32 = 3;

/// At most this far apart, so that a long pass does not make the next wait for it.
const MOST_APART: Duration = Duration::from_millis(10);

/// About how much one pass writes to a socket; the rest comes with the next. A rider that far behind is soon off the rail.
const PASS_BYTES: usize = 256 * 1024;

/// Sockets written to before others of the worker have their turn: about half a millisecond.
const AT_A_TIME: usize = 256;

/// How often it is looked whose heartbeat is due.
const LOOK: Duration = Duration::from_secs(1);

/// Heartbeats of those who were told something at one moment are spread over this long before they are due.
const SPREAD_MS: u64 = 3000;

/// Which riders are written the same.
type Key = (usize, Format, Arc<str>);

/// See the module. One per worker.
pub(super) struct Rail {
    hub: Arc<Hub>,
    bell: Arc<Bell>,
    running: Cell<bool>,
    /// Borrowed only between two awaits.
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    ids: HashMap<Key, u64>,
    tracks: BTreeMap<u64, Track>,
}

/// Who waits for the same frames.
struct Track {
    key: Key,
    follower: Follower,
    signal: Arc<Signal>,
    /// Places stay where they are while somebody sits there: a seat is known by its number.
    riders: Vec<Option<Rider>>,
    free: Vec<usize>,
}

struct Rider {
    outlet: Outlet,
    stand: Stand,
    back: oneshot::Sender<Back>,
}

/// A rider's return.
pub(super) struct Back {
    /// Its connection.
    pub outlet: Outlet,
    /// Where it stands once `rest` is written.
    pub stand: Stand,
    /// What the socket did not take; must be written before anything else.
    pub rest: Bytes,
}

/// Rung by shapes, from other threads.
#[derive(Default)]
struct Bell {
    /// Tracks with news. A std mutex: held for a push or a swap.
    rung: Mutex<Vec<u64>>,
    heard: Notify,
}

/// Rings for one track, once until it was looked at.
struct Signal {
    track: u64,
    rung: AtomicBool,
    bell: Arc<Bell>,
}

impl Wake for Signal {
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner).push(self.track);
            self.bell.heard.notify_one();
        }
    }
}

/// A place on the rail. Dropped, the rider is gone.
pub(super) struct Seat {
    rail: Rc<Rail>,
    track: u64,
    place: usize,
    back: oneshot::Receiver<Back>,
}

impl Seat {
    /// Waits until the rider is put down.
    pub(super) async fn back(&mut self) -> Option<Back> {
        (&mut self.back).await.ok()
    }

    /// Gets off.
    pub(super) fn leave(mut self) -> Option<Back> {
        match self.back.try_recv() {
            Ok(back) => Some(back),
            Err(_) => self.rail.remove(self.track, self.place).map(|rider| rider.off(Bytes::new()).0),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // a rider that was put down has sent its return: the place may be another's
        if matches!(self.back.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            self.rail.remove(self.track, self.place);
        }
    }
}

impl Rider {
    fn off(self, rest: Bytes) -> (Back, oneshot::Sender<Back>) {
        (Back { outlet: self.outlet, stand: self.stand, rest }, self.back)
    }
}

impl Rail {
    /// A rail without riders.
    pub(super) fn new(hub: Arc<Hub>) -> Rc<Rail> {
        Rc::new(Rail { hub, bell: Arc::default(), running: Cell::new(false), inner: RefCell::default() })
    }

    /// Takes over a client.
    pub(super) fn board(self: &Rc<Self>, ride: Ride, outlet: Outlet, format: Format) -> Seat {
        if !self.running.replace(true) {
            // not one of `Tasks`: it belongs to the worker, whose sockets it holds, and ends with it
            actix_web::rt::spawn(self.clone().run());
        }
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let key = (Arc::as_ptr(&ride.shape) as usize, format, ride.sub);
        let id = *inner.ids.entry(key.clone()).or_insert_with(|| {
            inner.next += 1;
            inner.next
        });
        let track = inner.tracks.entry(id).or_insert_with(|| {
            let signal = Arc::new(Signal { track: id, rung: AtomicBool::new(false), bell: self.bell.clone() });
            let follower = self.hub.follow(&ride.shape, signal.clone());
            Track { key, follower, signal, riders: Vec::new(), free: Vec::new() }
        });
        let (back, returned) = oneshot::channel();
        // it stopped being woken a moment ago, and news may have come since
        let late = track.follower.waits(ride.stand.cursor);
        let rider = Rider { outlet, stand: ride.stand, back };
        let place = match track.free.pop() {
            Some(place) => {
                track.riders[place] = Some(rider);
                place
            }
            None => {
                track.riders.push(Some(rider));
                track.riders.len() - 1
            }
        };
        if late {
            track.signal.wake();
        }
        Seat { rail: self.clone(), track: id, place, back: returned }
    }

    fn remove(&self, track: u64, place: usize) -> Option<Rider> {
        self.inner.borrow_mut().remove(track, place)
    }

    async fn run(self: Rc<Self>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.bell.heard.notified() => {}
                _ = look.tick() => {
                    self.heartbeats().await;
                    continue;
                }
            }
            let rung = std::mem::take(&mut *self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner));
            let began = Instant::now();
            let mut done = 0;
            for track in rung {
                done += self.pass(track).await + 1;
                if done >= AT_A_TIME {
                    done = 0;
                    tokio::task::yield_now().await;
                }
            }
            let apart = (began.elapsed() * APART).min(MOST_APART);
            if apart >= Duration::from_millis(2) {
                tokio::time::sleep_until(began + apart).await;
            }
        }
    }

    /// Tells everybody on a track what is new. Returns how many places it looked at without a pause.
    async fn pass(&self, id: u64) -> usize {
        let mut told = Told::default();
        let mut from = 0;
        loop {
            {
                let mut inner = self.inner.borrow_mut();
                let Some(track) = inner.tracks.get_mut(&id) else { return 0 };
                if from == 0 {
                    // before the ring is looked at: what comes from here on rings again
                    track.signal.rung.store(false, Ordering::Release);
                }
                let to = track.riders.len().min(from + AT_A_TIME);
                let now = Instant::now();
                for place in from..to {
                    let Some(rider) = &mut track.riders[place] else { continue };
                    let Some(news) = told.to(rider.stand.cursor, &track.follower, &track.key) else {
                        put_down(track, place, Bytes::new());
                        continue;
                    };
                    rider.stand.cursor = news.end;
                    rider.stand.position = Some(news.position);
                    if !news.frames.is_empty() {
                        rider.stand.told = now;
                        let frames = news.frames.clone();
                        write(track, place, frames);
                    }
                }
                inner.tidy(id);
                from = to;
                let Some(track) = inner.tracks.get(&id) else { return AT_A_TIME };
                if from >= track.riders.len() {
                    if told.more {
                        track.signal.wake();
                    }
                    return track.riders.len() % AT_A_TIME;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells their position to those who heard nothing for long.
    async fn heartbeats(&self) {
        let mut from = None;
        let mut done = 0;
        loop {
            let next = {
                let inner = self.inner.borrow();
                let after = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
                inner
                    .tracks
                    .range((after, std::ops::Bound::Unbounded))
                    .next()
                    .map(|(id, track)| (*id, track.riders.len()))
            };
            let Some((id, riders)) = next else { return };
            from = Some(id);
            let mut told = Told::default();
            let mut place = 0;
            while place < riders {
                let until = riders.min(place + AT_A_TIME);
                self.remind(id, place..until, &mut told);
                done += until - place + 1;
                place = until;
                if done >= AT_A_TIME {
                    done = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn remind(&self, id: u64, places: std::ops::Range<usize>, told: &mut Told) {
        let mut inner = self.inner.borrow_mut();
        let Some(track) = inner.tracks.get_mut(&id) else { return };
        let now = Instant::now();
        let lag_ms = u64::try_from(self.hub.lag().unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        for place in places {
            let Some(Some(rider)) = track.riders.get_mut(place) else { continue };
            let early = Duration::from_millis(place as u64 * 37 % SPREAD_MS);
            if rider.stand.told + HEARTBEAT > now + early {
                continue;
            }
            let Some(news) = told.to(rider.stand.cursor, &track.follower, &track.key) else {
                put_down(track, place, Bytes::new());
                continue;
            };
            // those first: the position is theirs
            let mut frames = BytesMut::from(&news.frames[..]);
            rider.stand = Stand { cursor: news.end, position: Some(news.position), told: now };
            track.key.1.cursor(Some(track.follower.resume(news.position)), lag_ms, &mut frames);
            write(track, place, frames.freeze());
        }
        if told.more {
            track.signal.wake();
        }
        inner.tidy(id);
    }
}

impl Inner {
    fn remove(&mut self, id: u64, place: usize) -> Option<Rider> {
        let track = self.tracks.get_mut(&id)?;
        let rider = track.riders.get_mut(place)?.take()?;
        track.free.push(place);
        self.tidy(id);
        Some(rider)
    }

    /// A track without riders goes.
    fn tidy(&mut self, id: u64) {
        if let Some(track) = self.tracks.get(&id)
            && track.free.len() == track.riders.len()
        {
            self.ids.remove(&track.key);
            self.tracks.remove(&id);
        }
    }
}

/// Writes frames to a rider, or as much as its socket takes before it is put down.
fn write(track: &mut Track, place: usize, frames: Bytes) {
    let Some(rider) = &mut track.riders[place] else { return };
    // an error is found again by the session, which knows what to do
    let written = rider.outlet.try_write(&frames).unwrap_or(0);
    if written < frames.len() {
        put_down(track, place, frames.slice(written..));
    }
}

fn put_down(track: &mut Track, place: usize, rest: Bytes) {
    if let Some(rider) = track.riders[place].take() {
        track.free.push(place);
        let (back, returned) = rider.off(rest);
        // nobody waits when the client left at this moment: then the connection is dropped with it
        let _ = returned.send(back);
    }
}

/// The news of one pass, put together once for each place in the ring where riders stand.
#[derive(Default)]
struct Told {
    /// Few: riders who keep up stand together.
    places: Vec<(u64, Option<Frames>)>,
    /// Somebody has not been told everything.
    more: bool,
}

struct Frames {
    frames: Bytes,
    end: u64,
    position: crate::change::Position,
}

impl Told {
    /// What is new behind a cursor; none when that is not for a pass to tell.
    fn to(&mut self, cursor: u64, follower: &Follower, key: &Key) -> Option<&Frames> {
        let at = match self.places.iter().position(|(place, _)| *place == cursor) {
            Some(at) => at,
            None => {
                let news = follower.news(cursor, PASS_BYTES);
                self.more |= news.as_ref().is_some_and(|news| !news.current);
                self.places.push((cursor, news.map(|news| joined(&news, follower, key))));
                self.places.len() - 1
            }
        };
        self.places[at].1.as_ref()
    }
}

fn joined(news: &News, follower: &Follower, (_, format, sub): &Key) -> Frames {
    let mut frames = BytesMut::new();
    for (position, messages) in &news.changes {
        for message in messages.iter() {
            // one subscription, told everything so far: its tick is complete with its last message
            let id = message.is_last().then(|| follower.resume(*position));
            format.message(message, sub, id, &mut frames);
        }
    }
    Frames { frames: frames.freeze(), end: news.end, position: news.position }
}
