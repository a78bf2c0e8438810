//! A client's session: its subscriptions, merged tick by tick.
//!
//! Must not know: HTTP, SSE, WebSocket, SQL. Invariants: a position is given out as a resume point only when *every*
//! subscription of the session has been told everything up to it; ticks only move forward; a session that has
//! nothing to say says so within the heartbeat. Subscriptions may come and go while it runs: one that is on its way holds the
//! resume point back, and whoever waits for it holds up nobody else.

mod request;
mod ride;
mod start;

pub use request::{Access, Refusal, Request};
pub use ride::{Ride, Stand};

use crate::change::{Marks, Position, Resume};
use crate::hub::{Hub, Piece, PieceKind, ResetReason, SourceError, Start, Subscription};
use crate::wire::{Message, message};
use start::{Begun, begin, problem};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

/// Longest silence. The contract says 15 s; the margin is for a busy machine.
pub const HEARTBEAT: Duration = Duration::from_secs(12);

/// About how much one call of [`Session::next`] hands out, so that a client that comes back after long does not
/// make the gateway hold its whole backlog at once.
const PASS_BYTES: usize = 512 * 1024;

/// Something to send.
#[derive(Clone, Debug)]
pub enum Event {
    /// A data message; `id` is the resume point it completes, if it completes one.
    Message {
        /// The subscription's label.
        sub: Arc<str>,
        /// The encoded message.
        message: Message,
        /// Resume point.
        id: Option<Resume>,
    },
    /// Nothing happened that matters here: the resume point moved.
    Cursor {
        /// Resume point; none while a subscription still waits for its snapshot.
        position: Option<Resume>,
        /// At most this old is the state at the position.
        lag: Duration,
    },
}

struct Sub {
    /// Not used twice, unlike the label.
    serial: u64,
    request: Request,
    /// In whose name it began: see [`Session::era`].
    era: u64,
    running: Option<Subscription>,
    /// It is on its way.
    starting: Option<AbortHandle>,
    /// Has the client been told everything of this subscription up to the tick at hand? Not before its snapshot,
    /// not between a reset and its snapshot, not while what it missed waits. A resume point given out meanwhile
    /// would lose that part.
    told: bool,
    /// Something of it fell off the ring in the middle of a pass; it is brought forward in the next.
    behind: bool,
}

/// See the module.
pub struct Session {
    hub: Arc<Hub>,
    access: Access,
    /// Which one in a row it is, who asks.
    era: u64,
    waker: Arc<Notify>,
    subs: Vec<Sub>,
    serial: u64,
    /// Subscriptions on their way: what was missed may have to be read. In tasks, which go on while nobody waits for
    /// a pass: they hold turns and connections that others want.
    starting: JoinSet<(u64, Begun)>,
    /// Lives without subscriptions, and forgets those that ended.
    lasting: bool,
    position: Option<Position>,
    quiet_since: Instant,
    /// Say the position at once although nothing happened: the client learns where it stands.
    greet: bool,
    /// The same for a subscription that came later, whatever is told of others before.
    announce: bool,
    /// The last pass left nothing behind.
    current: bool,
    /// The head that the last pass saw.
    seen: Option<Position>,
    /// Since when subscriptions that fell behind have been brought forward, one after the other: nothing else is told
    /// meanwhile. Kept here, as whoever waits for a pass may turn away and come back.
    behind_since: Option<Instant>,
    /// No subscription was told anything after this tick, and those that did not fall behind everything up to it.
    reached: i64,
    /// Resets and problems that are not told yet. Kept here, as whoever waits for a pass may turn away.
    untold: Vec<(Arc<str>, Arc<[Message]>)>,
}

/// A task that read for a subscription ended without a word.
fn lost(error: &tokio::task::JoinError) -> SourceError {
    tracing::error!(%error, "a subscription could not begin");
    SourceError { code: "unavailable", detail: "the subscription could not begin, come back".to_owned(), retry: true }
}

impl Session {
    /// Opens a session for these subscriptions and no others. Requests must have been resolved once without refusal.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn open(hub: Arc<Hub>, access: Access, requests: Vec<(Request, Start)>) -> Result<Session, SourceError> {
        let mut session = Session::lasting(hub, access);
        session.lasting = false;
        session.position = match requests.first() {
            // all from one position: it is the resume point until there is a newer one
            Some((_, Start::After(point))) if requests.iter().all(|(_, s)| *s == Start::After(*point)) => {
                Some(point.position)
            }
            _ => None,
        };
        for (request, start) in requests {
            session.add(request, start);
        }
        while let Some(started) = session.starting.join_next().await {
            session.started(started.map_err(|error| lost(&error))?)?;
        }
        session.announce = false;
        Ok(session)
    }

    /// A session whose subscriptions come and go: it goes on without any, and forgets those that ended.
    #[must_use]
    pub fn lasting(hub: Arc<Hub>, access: Access) -> Session {
        Session {
            hub,
            access,
            era: 0,
            waker: Arc::new(Notify::new()),
            subs: Vec::new(),
            serial: 0,
            starting: JoinSet::new(),
            lasting: true,
            position: None,
            quiet_since: Instant::now(),
            greet: false,
            announce: false,
            current: false,
            seen: None,
            behind_since: None,
            reached: 0,
            untold: Vec::new(),
        }
    }

    /// From here on in this name: what begins, and what runs already as far as it is still shown.
    pub fn act_for(&mut self, access: Access) {
        self.access = access;
        self.era += 1;
    }

    /// Begins a subscription; what comes of it is told by [`Session::next`]. Its label must not be in use.
    pub fn add(&mut self, request: Request, start: Start) {
        self.serial += 1;
        let serial = self.serial;
        let begun = begin(self.hub.clone(), self.access.clone(), self.waker.clone(), request.clone(), start);
        let starting = Some(self.starting.spawn(async move { (serial, begun.await) }));
        if self.subs.is_empty() {
            // most have one, and room for four is most of what an idle session would take
            self.subs.reserve_exact(1);
        }
        let era = self.era;
        self.subs.push(Sub { serial, request, era, running: None, starting, told: false, behind: false });
    }

    /// Ends a subscription: nothing of it is handed out from here on. False when there is none of this label.
    pub fn remove(&mut self, label: &str) -> bool {
        let Some(at) = self.subs.iter().position(|sub| *sub.request.sub == *label) else { return false };
        if let Some(starting) = self.subs.remove(at).starting {
            starting.abort();
        }
        self.untold.retain(|(sub, _)| **sub != *label);
        true
    }

    /// Is there a subscription of this label?
    #[must_use]
    pub fn has(&self, label: &str) -> bool {
        self.subs.iter().any(|sub| *sub.request.sub == *label)
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subs.len()
    }

    /// Takes up a subscription that was on its way.
    fn started(&mut self, (serial, outcome): (u64, Begun)) -> Result<(), SourceError> {
        // not there: it was removed meanwhile, and is dropped
        let Some(sub) = self.subs.iter_mut().find(|sub| sub.serial == serial) else { return Ok(()) };
        sub.starting = None;
        let told = match outcome {
            Ok(Ok(running)) => {
                sub.told = running.is_live();
                // it may have nothing to say for long
                self.announce |= sub.told;
                sub.running = Some(running);
                return Ok(());
            }
            Ok(Err(refusal)) => problem(refusal.code(), refusal.status(), &refusal.to_string()),
            Err(error) if self.lasting => problem(error.code, 503, &error.detail),
            Err(error) => return Err(error),
        };
        self.untold.push((sub.request.sub.clone(), told));
        Ok(())
    }

    /// The resume point.
    #[must_use]
    pub fn position(&self) -> Option<Resume> {
        self.position.map(|position| self.resume(position))
    }

    /// A resume point for who holds what all subscriptions show.
    fn resume(&self, position: Position) -> Resume {
        let marks: Marks = self.subs.iter().filter_map(|sub| sub.running.as_ref()).map(Subscription::mark).collect();
        Resume { position, marks }
    }

    /// Makes the first call of [`Session::next`] say the position at once, even if nothing happened.
    pub fn greet(&mut self) {
        self.greet = true;
    }

    /// Was the position it was to continue from unknown?
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.subs.iter().filter_map(|s| s.running.as_ref()).any(Subscription::is_expired)
    }

    /// Is no subscription left?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subs.iter().all(|s| s.running.is_none() && s.starting.is_none())
    }

    /// Did the last [`Session::pass`] reach the head?
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// Waits until [`Session::pass`] may have something; for ever when no subscription is left.
    pub async fn wait(&mut self) {
        if !self.current {
            // the last pass stopped at its measure
            return;
        }
        let mut head = self.hub.head();
        // a backlog read ahead of the head, and a position behind it, wait for the head and nothing else
        let seen = self.seen;
        tokio::select! {
            () = self.waker.notified() => {}
            _ = head.wait_for(|head| head.as_ref().map(|t| t.position) != seen) => {}
        }
    }

    /// May the client come back to the tick at hand? Not when a subscription ended: coming back, it would be taken for
    /// one that holds its rows.
    fn is_resumable(&self) -> bool {
        self.subs.iter().all(|s| s.running.is_some() && s.told)
    }

    /// Has every subscription that goes on been told everything up to the tick at hand?
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.subs.iter().filter(|s| s.running.is_some() || s.starting.is_some()).all(|s| s.told)
    }

    /// Waits for something to send; a `Cursor` after a silence of [`HEARTBEAT`]. None when no subscription is left, unless
    /// the session is a lasting one.
    ///
    /// Safe to drop while it waits: nothing is taken before it returns.
    pub async fn next(&mut self) -> Option<Vec<Event>> {
        let mut head = self.hub.head();
        let mut due = false;
        loop {
            let events = self.pass().await;
            if !events.is_empty() {
                self.quiet_since = Instant::now();
                return Some(events);
            }
            if self.is_empty() && !self.lasting {
                return None;
            }
            if !self.current {
                // it skipped what means nothing to a subscription that waits, and stopped at its measure
                tokio::task::yield_now().await;
                continue;
            }
            if due {
                // after the pass, which moved the position past what did not match in all this time
                (self.greet, self.announce) = (false, false);
                self.quiet_since = Instant::now();
                return Some(vec![self.cursor()]);
            }
            let now = (self.greet || self.announce) && self.is_live();
            let heartbeat = self.quiet_since + if now { Duration::ZERO } else { HEARTBEAT };
            // a backlog read ahead of the head waits for the head and nothing else
            let starting = !self.is_live();
            tokio::select! {
                () = self.waker.notified() => {}
                changed = head.changed(), if starting => changed.ok()?,
                Some(started) = self.starting.join_next(), if !self.starting.is_empty() => match started {
                    // of a lasting session; the others have waited for theirs
                    Ok(started) => self.started(started).ok()?,
                    Err(error) if error.is_cancelled() => {}
                    Err(_) => return None,
                },
                () = tokio::time::sleep_until(heartbeat) => due = true,
            }
        }
    }

    /// Brings forward what fell off its ring.
    async fn catch_up(&mut self) {
        for sub in &mut self.subs {
            if let Some(running) = sub.running.as_mut().filter(|running| running.is_behind()) {
                let since = *self.behind_since.get_or_insert_with(Instant::now);
                // boxed: it is large, and most sessions never come here
                Box::pin(running.catch_up(self.reached, since)).await;
                (sub.told, sub.behind) = (running.is_live(), false);
            }
        }
        self.behind_since = None;
    }

    /// What waits now, without waiting.
    pub async fn pass(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.reopen().await;
        // before anything is taken: whoever waits for a pass may turn away
        self.catch_up().await;
        for (sub, messages) in std::mem::take(&mut self.untold) {
            events.extend(messages.iter().map(|m| Event::Message { sub: sub.clone(), message: m.clone(), id: None }));
        }
        self.forget();
        self.current = true;
        let Some(head) = self.hub.position() else { return events };
        self.seen = Some(head);
        let running = || self.subs.iter().filter_map(|s| s.running.as_ref());
        // one limit for all, so that the tick it stops at is complete in every subscription
        let limit = running().map(|sub| sub.limit(head, PASS_BYTES)).min_by_key(|limit| limit.tick).unwrap_or(head);
        // where those stand that were told everything so far: no state of all of them lies before
        let stands = self.subs.iter().filter(|sub| sub.told).filter_map(|sub| sub.running.as_ref()?.at());
        let before = stands.map(|at| at.tick).max().unwrap_or_default();
        self.reached = self.reached.max(limit.tick);
        let mut pieces: Vec<(usize, Piece)> = Vec::new();
        let mut taken = Vec::new();
        let mut behind = false;
        for (i, sub) in self.subs.iter_mut().enumerate() {
            if let Some(running) = &mut sub.running {
                if !running.collect(limit, &mut taken) {
                    behind = true;
                    (sub.told, sub.behind) = (false, true);
                }
                pieces.extend(taken.drain(..).map(|piece| (i, piece)));
            }
        }
        // stable: the order inside a subscription stays
        pieces.sort_by_key(|(_, piece)| piece.position.tick);
        for at in 0..pieces.len() {
            let (i, piece) = &pieces[at];
            let tick_ends = pieces.get(at + 1).is_none_or(|(_, next)| next.position.tick > piece.position.tick);
            let all = tick_ends && piece.position.tick >= before;
            self.say(*i, piece.clone(), all, &mut events);
        }
        self.forget();
        self.current = limit.tick == head.tick && !behind;
        if self.is_resumable() && self.current && self.position.is_none_or(|p| p.tick <= head.tick) {
            self.position = Some(head);
        }
        if !events.is_empty() {
            // a tick that ended with a subscription that had nothing to say has no message for its resume point
            let data = |(_, piece): &(usize, Piece)| piece.kind == PieceKind::Data;
            let silent = pieces.iter().any(|piece| data(piece) && piece.1.messages.is_empty());
            // and one that lies before what others were told is none
            let unsaid = !events.iter().any(|event| matches!(event, Event::Message { id: Some(_), .. }));
            self.greet = silent || (unsaid && pieces.iter().any(data) && self.is_resumable());
        }
        events
    }

    /// `all`: this piece completes its tick for all subscriptions.
    fn say(&mut self, i: usize, piece: Piece, all: bool, events: &mut Vec<Event>) {
        let sub = &mut self.subs[i];
        match piece.kind {
            PieceKind::Problem => sub.running = None,
            PieceKind::Reset(reason) => {
                sub.told = false;
                self.hub.counts().add_reset(reason);
            }
            // a snapshot, what was missed, or one more tick: whichever it is, nothing of it is left out
            PieceKind::Data => {
                // its snapshot may stand before the resume point, and then no message says that all are whole again
                self.announce |= self.lasting && !sub.told;
                sub.told = !sub.behind;
            }
        }
        let label = sub.request.sub.clone();
        // a snapshot may stand at a tick that a session, by cursor, has already been told to be past
        let forward = self.position.is_none_or(|p| p.tick <= piece.position.tick);
        let resumable = all && piece.kind == PieceKind::Data && forward && self.is_resumable();
        for message in piece.messages.iter() {
            let whole = (resumable && message.is_last()).then_some(piece.position);
            self.position = whole.or(self.position);
            let id = whole.map(|position| self.resume(position));
            events.push(Event::Message { sub: label.clone(), message: message.clone(), id });
        }
    }

    /// Why a subscription cannot go on as it is. Where somebody else asks now than when it began, it is looked whether that makes
    /// a difference.
    fn ended(&mut self, i: usize) -> Option<ResetReason> {
        let sub = &mut self.subs[i];
        let running = sub.running.as_ref()?;
        if let Some(reason) = running.closed() {
            return Some(reason);
        }
        if sub.era == self.era {
            return None;
        }
        if !sub.request.resolve(&self.hub.tables(), &self.access).is_ok_and(|spec| running.is_of(&spec)) {
            // it stays of that era until it began anew: whoever waits for a pass may turn away
            return Some(ResetReason::Permission);
        }
        sub.era = self.era;
        None
    }

    /// Subscribes anew where the table changed underneath, or what is shown of it.
    async fn reopen(&mut self) {
        for i in 0..self.subs.len() {
            let Some(reason) = self.ended(i) else { continue };
            let request = self.subs[i].request.clone();
            if reason == ResetReason::Expired {
                // another history: its ticks are not comparable
                (self.position, self.reached) = (None, 0);
            }
            let (hub, waker) = (self.hub.clone(), self.waker.clone());
            let (code, status, detail) =
                match begin(hub, self.access.clone(), waker, request.clone(), Start::Again).await {
                    Ok(Ok(running)) => {
                        let at = self.hub.position().map(|position| Resume { position, marks: running.mark().into() });
                        (self.subs[i].running, self.subs[i].era) = (Some(running), self.era);
                        (self.subs[i].told, self.subs[i].behind) = (false, false);
                        self.hub.counts().add_reset(reason);
                        let told = message::reset(&request.table, reason.label(), at);
                        self.untold.push((request.sub, told));
                        continue;
                    }
                    Ok(Err(refusal)) => (refusal.code(), refusal.status(), refusal.to_string()),
                    Err(error) => (error.code, 503, error.detail),
                };
            self.subs[i].running = None;
            self.untold.push((request.sub, problem(code, status, &detail)));
        }
    }

    /// A lasting session goes on from the positions of those that are left: their client is told which one ended, and
    /// does not come back with it.
    fn forget(&mut self) {
        if self.lasting {
            self.subs.retain(|sub| sub.running.is_some() || sub.starting.is_some());
        }
    }

    fn cursor(&self) -> Event {
        let position = self.position.filter(|_| self.is_resumable() && !self.subs.is_empty());
        let position = position.map(|position| self.resume(position));
        Event::Cursor { position, lag: self.hub.lag().unwrap_or_default() }
    }
}
