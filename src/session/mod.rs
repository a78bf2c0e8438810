//! A client's session: its subscriptions, merged tick by tick.
//!
//! Must not know: HTTP, SSE, WebSocket, SQL. Invariants: a position is given out as a resume point only when *every*
//! subscription of the session has been told everything up to it; ticks only move forward; a session that has
//! nothing to say says so within the heartbeat.

mod request;
mod ride;

pub use request::{Access, Refusal, Request};
pub use ride::{Ride, Stand};

use crate::change::Position;
use crate::hub::{Hub, Piece, PieceKind, ResetReason, SourceError, Start, Subscription};
use crate::wire::{Message, message};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
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
        id: Option<Position>,
    },
    /// Nothing happened that matters here: the resume point moved.
    Cursor {
        /// Resume point; none while a subscription still waits for its snapshot.
        position: Option<Position>,
        /// At most this old is the state at the position.
        lag: Duration,
    },
}

struct Sub {
    request: Request,
    running: Option<Subscription>,
    /// Has the client been told everything of this subscription up to the tick at hand? Not before its snapshot,
    /// not between a reset and its snapshot, not while what it missed waits. A resume point given out meanwhile
    /// would lose that part.
    told: bool,
}

/// See the module.
pub struct Session {
    hub: Arc<Hub>,
    access: Access,
    waker: Arc<Notify>,
    subs: Vec<Sub>,
    position: Option<Position>,
    quiet_since: Instant,
    /// Say the position at once although nothing happened: the client learns where it stands.
    greet: bool,
    /// The last pass left nothing behind.
    current: bool,
    /// The head that the last pass saw.
    seen: Option<Position>,
    /// Problems that are not told yet.
    refused: Vec<(usize, Arc<[Message]>)>,
}

impl Session {
    /// Opens a session. Requests must have been resolved once without refusal.
    ///
    /// # Errors
    /// The database could not be read.
    pub async fn open(
        hub: Arc<Hub>,
        access: Access,
        requests: Vec<Request>,
        start: Start,
    ) -> Result<Session, SourceError> {
        let position = match start {
            Start::After(position) => Some(position),
            Start::Now | Start::Snapshot | Start::SnapshotFrom(_) => None,
        };
        let subs = requests.into_iter().map(|request| Sub { request, running: None, told: false }).collect();
        let waker = Arc::new(Notify::new());
        let mut session = Session {
            hub,
            access,
            waker,
            subs,
            position,
            quiet_since: Instant::now(),
            greet: false,
            current: false,
            seen: None,
            refused: Vec::new(),
        };
        let starting = session.subs.iter().map(|sub| session.start(&sub.request, start));
        let started = futures_util::future::join_all(starting).await;
        for (i, started) in started.into_iter().enumerate() {
            match started? {
                Ok(running) => {
                    session.subs[i].told = running.is_live();
                    session.subs[i].running = Some(running);
                }
                // it was fine a moment ago, when the request was checked
                Err(refusal) => {
                    let told = problem(refusal.code(), refusal.status(), &refusal.to_string());
                    session.refused.push((i, told));
                }
            }
        }
        Ok(session)
    }

    /// Resolves and subscribes; once more when the table changes in between.
    async fn start(&self, request: &Request, start: Start) -> Result<Result<Subscription, Refusal>, SourceError> {
        loop {
            let spec = match request.resolve(&self.hub.tables(), self.access) {
                Ok(spec) => spec,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Some(running) = self.hub.subscribe(spec, start, self.waker.clone()).await? {
                return Ok(Ok(running));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The resume point.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
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
        self.subs.iter().all(|s| s.running.is_none())
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
        self.subs.iter().filter(|s| s.running.is_some()).all(|s| s.told)
    }

    /// Waits for something to send; a `Cursor` after a silence of [`HEARTBEAT`]. None when no subscription is left.
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
            if self.is_empty() {
                return None;
            }
            if !self.current {
                // it skipped what means nothing to a subscription that waits, and stopped at its measure
                tokio::task::yield_now().await;
                continue;
            }
            if due {
                // after the pass, which moved the position past what did not match in all this time
                self.greet = false;
                self.quiet_since = Instant::now();
                return Some(vec![self.cursor()]);
            }
            let heartbeat = self.quiet_since + if self.greet && self.is_live() { Duration::ZERO } else { HEARTBEAT };
            // a backlog read ahead of the head waits for the head and nothing else
            let starting = !self.is_live();
            tokio::select! {
                () = self.waker.notified() => {}
                changed = head.changed(), if starting => changed.ok()?,
                () = tokio::time::sleep_until(heartbeat) => due = true,
            }
        }
    }

    /// What waits now, without waiting.
    pub async fn pass(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        self.reopen(&mut events).await;
        for (i, messages) in std::mem::take(&mut self.refused) {
            self.tell(i, messages, &mut events);
        }
        self.current = true;
        let Some(head) = self.hub.position() else { return events };
        self.seen = Some(head);
        let running = || self.subs.iter().filter_map(|s| s.running.as_ref());
        // one limit for all, so that the tick it stops at is complete in every subscription
        let limit = running().map(|sub| sub.limit(head.tick, PASS_BYTES)).min().unwrap_or(head.tick);
        let mut pieces: Vec<(usize, Piece)> = Vec::new();
        let mut taken = Vec::new();
        for (i, sub) in self.subs.iter_mut().enumerate() {
            if let Some(running) = &mut sub.running {
                running.collect(limit, &mut taken);
                pieces.extend(taken.drain(..).map(|piece| (i, piece)));
            }
        }
        // stable: the order inside a subscription stays
        pieces.sort_by_key(|(_, piece)| piece.position.tick);
        for at in 0..pieces.len() {
            let (i, piece) = &pieces[at];
            let tick_ends = pieces.get(at + 1).is_none_or(|(_, next)| next.position.tick > piece.position.tick);
            self.say(*i, piece.clone(), tick_ends, &mut events);
        }
        self.current = limit == head.tick;
        if self.is_resumable() && self.current && self.position.is_none_or(|p| p.tick <= head.tick) {
            self.position = Some(head);
        }
        if !events.is_empty() {
            // a tick that ended with a subscription that had nothing to say has no message for its resume point
            self.greet = pieces.iter().any(|(_, piece)| piece.kind == PieceKind::Data && piece.messages.is_empty());
        }
        events
    }

    fn say(&mut self, i: usize, piece: Piece, tick_ends: bool, events: &mut Vec<Event>) {
        let sub = &mut self.subs[i];
        match piece.kind {
            PieceKind::Problem => sub.running = None,
            PieceKind::Reset(_) => sub.told = false,
            // a snapshot, what was missed, or one more tick: whichever it is, nothing of it is left out
            PieceKind::Data => sub.told = true,
        }
        let label = sub.request.sub.clone();
        // a snapshot may stand at a tick that a session, by cursor, has already been told to be past
        let forward = self.position.is_none_or(|p| p.tick <= piece.position.tick);
        let resumable = tick_ends && piece.kind == PieceKind::Data && forward && self.is_resumable();
        for message in piece.messages.iter() {
            let id = (resumable && message.is_last()).then_some(piece.position);
            self.position = id.or(self.position);
            events.push(Event::Message { sub: label.clone(), message: message.clone(), id });
        }
    }

    /// Subscribes anew where the table changed underneath.
    async fn reopen(&mut self, events: &mut Vec<Event>) {
        for i in 0..self.subs.len() {
            let Some(reason) = self.subs[i].running.as_ref().and_then(Subscription::closed) else { continue };
            let request = self.subs[i].request.clone();
            if reason == ResetReason::Expired {
                // another history: its ticks are not comparable
                self.position = None;
            }
            let (code, status, detail) = match self.start(&request, Start::Snapshot).await {
                Ok(Ok(running)) => {
                    self.subs[i].running = Some(running);
                    self.subs[i].told = false;
                    self.tell(i, message::reset(&request.table, reason.label(), self.hub.position()), events);
                    continue;
                }
                Ok(Err(refusal)) => (refusal.code(), refusal.status(), refusal.to_string()),
                Err(error) => (error.code, 503, error.detail),
            };
            self.subs[i].running = None;
            self.tell(i, problem(code, status, &detail), events);
        }
    }

    fn tell(&self, i: usize, messages: Arc<[Message]>, events: &mut Vec<Event>) {
        let sub = &self.subs[i].request.sub;
        events.extend(messages.iter().map(|m| Event::Message { sub: sub.clone(), message: m.clone(), id: None }));
    }

    fn cursor(&self) -> Event {
        let position = self.position.filter(|_| self.is_resumable());
        Event::Cursor { position, lag: self.hub.lag().unwrap_or_default() }
    }
}

/// The end of one subscription.
fn problem(code: &str, status: u16, detail: &str) -> Arc<[Message]> {
    let members = serde_json::json!({ "type": format!("/problems/{code}"), "title": "the subscription ended",
        "status": status, "code": code, "detail": detail });
    message::problem(serde_json::json!({ "problem": members }))
}
