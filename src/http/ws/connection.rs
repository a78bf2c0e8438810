//! One WebSocket: what the client says, what its session tells, and what is due, until either side ends it.
//!
//! Must not know: SQL, how frames are read. Invariants: only whole frames leave; more is taken from the session only when the
//! socket took the last; after `unsubscribed` nothing of that subscription leaves; a `cursor` after `subscribed` is also that one's; nothing that waits for the database
//! holds up what is told; nothing is heard once the connection is to end, and no write begins.
//!
//! A client with one subscription that is live rides, see [`ride`].

mod ride;
mod token;

use super::super::closes::Counted;
use super::super::feed::RETRY_MS;
use super::super::outlet::{Cut, Outlet};
use super::super::params::MAX_SUBS;
use super::super::rail::Rail;
use super::super::streams::Stay;
use super::super::subscribe::Wanted;
use super::super::{App, Problem, auth, stream};
use super::incoming::{Heard, Incoming};
use super::input::{Input, Write};
use super::pulse::Pulse;
use super::quota::Quota;
use super::writes;
use crate::auth::Caller;
use crate::session::{Access, Event, Session};
use crate::wire::strict::{BodyError, quoted};
use crate::wire::{CloseReason, Control, Format, control_frame, text_frame};
use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes gathered into one write.
const CHUNK: usize = 64 * 1024;

/// Bytes of answers that wait for the socket, above which nothing more is read from the client.
const ANSWERS: usize = 64 * 1024;

/// Writes of one connection at a time. A gateway carries out three of all clients by default.
pub(super) const MAX_WRITES: usize = 16;

/// The promise of the contract: something is said at least so often, in milliseconds.
pub(super) const HEARTBEAT_MS: u32 = 15_000;

/// How long the end may take: for the answers to writes, and for a client that takes nothing.
const FAREWELL: Duration = Duration::from_secs(1);

/// Longest reason of a close frame: RFC 6455, 5.5.
const MAX_REASON: usize = 123;

/// See the module.
pub(super) struct Connection {
    app: web::Data<App>,
    session: Session,
    /// None while the client rides.
    outlet: Option<Outlet>,
    rail: Rc<Rail>,
    /// The passes could not go on: its session comes first.
    walks: bool,
    incoming: Incoming,
    pulse: Pulse,
    quota: Quota,
    /// For whom.
    caller: Arc<Caller>,
    /// When the client is to be told that its token is soon over, until it was.
    remind: Option<Instant>,
    /// Has `init` been answered?
    begun: bool,
    /// Writes that are being carried out.
    writes: FuturesUnordered<LocalBoxFuture<'static, String>>,
    /// Told by the session, not framed yet.
    events: VecDeque<Told>,
    /// Frames of answers, to leave next.
    answers: BytesMut,
    /// Frames on their way into the socket.
    leaving: Bytes,
    counted: Counted,
    /// When it is to end.
    stay: Stay,
}

/// What keeps its place among what the session tells.
enum Told {
    Event(Event),
    /// A subscription is taken: what was told before says nothing of it.
    Subscribed(String),
    /// Another token is taken: what was told before was for the one before.
    Auth(String),
}

/// Why it ends.
#[derive(Debug)]
struct End {
    reason: CloseReason,
    /// What the close frame says beside the reason.
    detail: String,
    /// The code, when the client chose it.
    code: Option<u16>,
}

impl From<CloseReason> for End {
    fn from(reason: CloseReason) -> End {
        End { reason, detail: String::new(), code: None }
    }
}

impl From<Cut> for End {
    fn from(cut: Cut) -> End {
        CloseReason::from(cut).into()
    }
}

fn end(reason: CloseReason, detail: impl Into<String>) -> End {
    End { detail: detail.into(), ..reason.into() }
}

impl Connection {
    /// A connection that was accepted and not told yet.
    pub(super) fn new(
        app: web::Data<App>,
        outlet: Outlet,
        rail: Rc<Rail>,
        incoming: Incoming,
        stay: Stay,
        access: Access,
    ) -> Connection {
        Connection {
            session: Session::lasting(app.hub.clone(), access.clone()),
            remind: None,
            caller: auth::caller(&access).clone(),
            pulse: Pulse::new(app.ws.ping, app.ws.init, app.write_timeout, Instant::now()),
            quota: Quota::new(Instant::now()),
            counted: app.closes.open(CloseReason::Lost),
            app,
            outlet: Some(outlet),
            rail,
            walks: false,
            incoming,
            begun: false,
            writes: FuturesUnordered::new(),
            events: VecDeque::new(),
            answers: BytesMut::new(),
            leaving: Bytes::new(),
            stay,
        }
    }

    /// Sends the head of the answer, and goes on until the end; to it at once if there is a reason already. Boxed: a future holds
    /// what it is handed twice, and this one lasts.
    pub(super) async fn run(mut self: Box<Self>, head: Bytes, refused: Option<CloseReason>) {
        self.leaving = head;
        let end = match refused {
            Some(reason) => reason.into(),
            None => match self.live().await {
                Ok(never) => match never {},
                Err(end) => end,
            },
        };
        self.counted.because(end.reason);
        self.part(end).await;
    }

    async fn live(&mut self) -> Result<Infallible, End> {
        loop {
            if self.leaving.is_empty() {
                self.leaving = self.gather();
            }
            let before = self.leaving.len();
            let waiting = before > 0;
            if !waiting
                && !self.walks
                && let Some(ride) = self.session.ride()
            {
                self.ride(ride).await?;
                continue;
            }
            let due = self.due();
            let outlet = self.outlet.as_mut().ok_or(CloseReason::Lost)?;
            // apart: most of the time a client rides, and does not need the room this takes
            let next = Box::pin(self.session.next());
            // in this order none starves: what is queued for the socket is bounded by a pass, answers by the writes there may be,
            // frames by the quota; the session is asked last, and has always more
            tokio::select! {
                biased;
                reason = self.stay.ends() => return Err(reason.into()),
                written = outlet.write_all(&mut self.leaving), if waiting => written?,
                Some(answer) = self.writes.next(), if !self.writes.is_empty() => text_frame(&answer, &mut self.answers),
                heard = self.incoming.next(), if self.answers.len() < ANSWERS => {
                    let heard = heard?;
                    self.note()?;
                    self.hear(heard).await?;
                }
                () = sleep_until(due) => {
                    if self.is_reminder_due() {
                        self.remind();
                    } else if self.pulse.beat(Instant::now())? {
                        control_frame(Control::Ping, b"", &mut self.answers);
                    }
                }
                events = next, if self.begun && !waiting => {
                    self.walks = false;
                    // never while it is a lasting one, but for a hub that is gone
                    self.queue(events.ok_or(CloseReason::Resume)?);
                }
            }
            self.pulse.waits(!self.leaving.is_empty(), self.leaving.len() < before, Instant::now());
        }
    }

    /// Takes what the session told. With several subscriptions a `cursor` ends every tick: only it says that all are whole.
    fn queue(&mut self, events: Vec<Event>) {
        let several = self.session.len() > 1;
        for event in events {
            let whole = match &event {
                Event::Message { id, .. } if several => *id,
                _ => None,
            };
            self.events.push_back(Told::Event(event));
            if whole.is_some() {
                let lag = self.app.hub.lag().unwrap_or_default();
                self.events.push_back(Told::Event(Event::Cursor { position: whole, lag }));
            }
        }
    }

    /// What is to leave next: answers, then events, about [`CHUNK`] bytes of them.
    fn gather(&mut self) -> Bytes {
        let mut out = std::mem::take(&mut self.answers);
        while out.len() < CHUNK {
            match self.events.pop_front() {
                Some(Told::Event(Event::Message { sub, message, id })) => {
                    Format::WebSocket.message(&message, &sub, id, &mut out);
                }
                Some(Told::Event(Event::Cursor { position, lag })) => {
                    let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
                    Format::WebSocket.cursor(position, lag_ms, &mut out);
                }
                Some(Told::Subscribed(sub)) => {
                    text_frame(&format!("{{\"type\":\"subscribed\",\"sub\":{}}}", quoted(&sub)), &mut out);
                }
                Some(Told::Auth(answer)) => text_frame(&answer, &mut out),
                None => break,
            }
        }
        out.freeze()
    }

    /// A frame came.
    fn note(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.pulse.heard();
        if self.quota.take(now) {
            return Ok(());
        }
        Err(end(CloseReason::Quota, "at most 100 frames a second, and 1000 at once"))
    }

    /// Does what it says, unless it came too late: a timer is some milliseconds behind the moment it is for.
    async fn hear(&mut self, heard: Heard) -> Result<(), End> {
        if let Some(reason) = self.stay.over() {
            return Err(reason.into());
        }
        match heard {
            Heard::Text(text) => self.take(&text).await,
            Heard::Ping(payload) => {
                control_frame(Control::Pong, &payload, &mut self.answers);
                Ok(())
            }
            Heard::Pong => Ok(()),
            Heard::Close(said) => Err(End { code: said.map(|said| said.code.into()), ..CloseReason::Left.into() }),
        }
    }

    async fn take(&mut self, text: &str) -> Result<(), End> {
        let input = Input::read(text).map_err(|wrong| end(CloseReason::BadMessage, wrong))?;
        match input {
            Input::Init(_) if self.begun => return Err(end(CloseReason::BadMessage, "`init` came twice")),
            Input::Init(init) => {
                if let Some(token) = init.token {
                    self.show(token.expose()).await?;
                }
                self.begin().await?;
            }
            _ if !self.begun => return Err(end(CloseReason::BadToken, "the first message is `init`")),
            Input::Subscribe(wanted) => self.subscribe(&wanted),
            Input::Unsubscribe(sub) => self.unsubscribe(&sub),
            Input::Write(write) => self.write(write),
            Input::Nul(id) => self.answer(&writes::refused(&id, &BodyError::Nul.into())),
            Input::Auth(token) => self.renew(token.expose()).await?,
            Input::Ping => self.answer("{\"type\":\"pong\"}"),
        }
        Ok(())
    }

    fn answer(&mut self, json: &str) {
        text_frame(json, &mut self.answers);
    }

    /// `ready`, as soon as the gateway is.
    async fn begin(&mut self) -> Result<(), End> {
        let stop = self.app.stopping.clone();
        match stop.run_until_cancelled(stream::ready(&self.app)).await {
            None => return Err(CloseReason::ShuttingDown.into()),
            Some(false) => return Err(CloseReason::NotReady.into()),
            Some(true) => {}
        }
        self.begun = true;
        self.pulse.begun();
        self.expect_end();
        let expires = self.expires_in();
        self.answer(&format!("{{\"type\":\"ready\",\"heartbeat_ms\":{HEARTBEAT_MS},\"token_expires_in\":{expires}}}"));
        Ok(())
    }

    fn subscribe(&mut self, wanted: &Wanted) {
        let label = wanted.label();
        if self.session.has(label) {
            // without `sub`: the one that has the name goes on, and a client must not take it for ended
            let detail = format!("`{}` is subscribed and goes on: unsubscribe first", label.escape_debug());
            let problem = Problem::new(409, "already-subscribed", detail);
            self.answer(&format!("{{\"type\":\"problem\",\"problem\":{}}}", problem.document(&problem.log())));
            return;
        }
        let too_many = || {
            let detail = format!("at most {MAX_SUBS} on one connection");
            Problem::new(400, "too-many-subscriptions", detail)
        };
        let read = if self.session.len() < MAX_SUBS { wanted.read() } else { Err(too_many()) };
        match read {
            Ok((request, start)) => {
                self.session.add(request, start);
                self.events.push_back(Told::Subscribed(label.to_owned()));
            }
            Err(problem) => {
                let document = problem.document(&problem.log());
                self.answer(&format!("{{\"type\":\"problem\",\"sub\":{},\"problem\":{document}}}", quoted(label)));
            }
        }
    }

    /// Acknowledged also when there is none: it may just have ended by itself.
    fn unsubscribe(&mut self, label: &str) {
        self.session.remove(label);
        self.events.retain(|told| match told {
            Told::Event(Event::Message { sub, .. }) => **sub != *label,
            Told::Event(Event::Cursor { .. }) | Told::Auth(_) => true,
            Told::Subscribed(sub) => sub != label,
        });
        self.answer(&format!("{{\"type\":\"unsubscribed\",\"sub\":{}}}", quoted(label)));
    }

    fn write(&mut self, write: Write) {
        if self.writes.len() < MAX_WRITES {
            self.writes.push(Box::pin(writes::write(self.app.clone(), Access::Caller(self.caller.clone()), write)));
            return;
        }
        let detail = format!("at most {MAX_WRITES} at once: send the next when one is answered");
        let problem = Problem::new(429, "too-many-writes", detail).retry();
        self.answer(&writes::refused(&write.id, &problem));
    }

    /// Says why, and gives the client a moment to read it.
    async fn part(mut self: Box<Self>, end: End) {
        let Some(mut outlet) = self.outlet else { return };
        if end.reason == CloseReason::Lost {
            return outlet.abandon();
        }
        if end.reason.says_bye() {
            // what was written is written: whoever waits for the answer gets it; one that has not begun looks at the token first
            let answered = async {
                while let Some(answer) = self.writes.next().await {
                    text_frame(&answer, &mut self.answers);
                }
            };
            let _ = timeout(FAREWELL, answered).await;
        }
        let mut last = std::mem::take(&mut self.answers);
        if end.reason.says_bye() {
            Format::WebSocket.bye(end.reason, rand::random_range(RETRY_MS), &mut last);
        }
        control_frame(Control::Close, &close_payload(&end), &mut last);
        // unsubscribed before the client is waited for
        drop((self.session, self.events));
        let mut last = last.freeze();
        let written = async {
            outlet.write_all(&mut self.leaving).await?;
            outlet.write_all(&mut last).await
        };
        if !matches!(timeout(FAREWELL, written).await, Ok(Ok(()))) {
            return outlet.abandon();
        }
        // whoever is still sending would be cut off by a reset and never read why
        tokio::select! {
            () = outlet.finish() => {}
            never = self.incoming.drain() => match never {},
        }
    }
}

/// Code and reason. A close without a code is answered by one without.
fn close_payload(end: &End) -> Vec<u8> {
    let Some(code) = end.code.or(end.reason.code()) else { return Vec::new() };
    let mut text = match end.reason {
        CloseReason::Left => String::new(),
        reason if end.detail.is_empty() => reason.label().to_owned(),
        reason => format!("{}: {}", reason.label(), end.detail),
    };
    while text.len() > MAX_REASON {
        text.pop();
    }
    [&code.to_be_bytes(), text.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::lasting::tests::size;

    #[test]
    fn what_an_idle_connection_holds_is_small() {
        let (connection, future) =
            (size_of::<Connection>(), size(|(connection, head), refused| Connection::run(connection, head, refused)));
        assert!(connection <= 800 && future <= 1600, "{connection} and {future} bytes");
    }
}
