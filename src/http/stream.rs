//! `GET` and `POST /v1/stream` (SSE), and `GET /v1/changes` (polling, long-poll): two ways to read one session.
//!
//! Invariant: both answer from the same session, so they say the same.

use super::connections::wants_events;
use super::feed::Feed;
use super::lasting::Opened;
use super::outlet::Outlet;
use super::params::{StreamParams, start};
use super::rail::Rail;
use super::sse::{self, READY_WAIT};
use super::{App, Problem, auth, body, subscribe, target};
use crate::auth::Caller;
use crate::hub::Start;
use crate::session::{Access, Event, Request, Session};
use crate::wire::{CloseReason, Format};
use actix_web::http::header::{ACCEPT, HeaderName};
use actix_web::{HttpRequest, HttpResponse, dev, web};
use bytes::{BufMut, Bytes, BytesMut};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Carries the position of an answer.
pub const POSITION: HeaderName = HeaderName::from_static("rowcast-position");

/// How long a poll may take to read a snapshot.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(30);

/// Bytes of messages after which a poll answers although there is more: the next poll brings it.
const POLL_BYTES: usize = 16 * 1024 * 1024;

fn params(request: &HttpRequest) -> Result<StreamParams, Problem> {
    let pairs = serde_urlencoded::from_str(request.query_string())
        .map_err(|e| Problem::new(400, "malformed-request", format!("the query string: {e}")))?;
    StreamParams::parse(pairs)
}

/// Waits until the gateway knows its tables and a position.
pub(super) async fn ready(app: &App) -> bool {
    let mut head = app.hub.head();
    let ready = head.wait_for(Option::is_some);
    tokio::time::timeout(READY_WAIT, ready).await.is_ok_and(|r| r.is_ok())
}

/// Refuses what cannot be served before anything is opened.
fn check<'a>(app: &App, access: &Access, mut requests: impl Iterator<Item = &'a Request>) -> Result<(), Problem> {
    let tables = app.hub.tables();
    requests.try_for_each(|r| r.resolve(&tables, access).map(drop).map_err(Problem::from))
}

/// `GET /v1/stream`.
///
/// # Errors
/// Bad input; an unknown table.
pub(super) async fn stream(request: &HttpRequest, _: dev::Payload) -> Result<Opened, Problem> {
    accepts(request, "text/event-stream")?;
    let params = params(request)?;
    if params.wait.is_some() {
        return Err(Problem::new(
            400,
            "malformed-request",
            "`wait` is for `GET /v1/changes`; a stream waits by itself",
        ));
    }
    // a reconnecting EventSource sends the header and repeats the old `since` of its address
    let begin = match request.headers().get("last-event-id") {
        Some(id) => start(id.to_str().unwrap_or("not text"))?,
        None => params.since.unwrap_or(Start::Snapshot),
    };
    let requests = params.requests.into_iter().map(|request| (request, begin)).collect();
    let ticket = params.ticket;
    events(request, requests, ticket.as_deref()).await
}

/// `POST /v1/stream`: the same, from a body.
///
/// # Errors
/// Bad input; an unknown table.
pub(super) async fn stream_of_body(request: &HttpRequest, payload: dev::Payload) -> Result<Opened, Problem> {
    accepts(request, "text/event-stream")?;
    target::no_query(request)?;
    body::check_type(request, &["application/json"])?;
    let body = body::read(request, payload).await?;
    let mut requests = subscribe::in_body(&body)?;
    if let Some(id) = request.headers().get("last-event-id") {
        let begin = start(id.to_str().unwrap_or("not text"))?;
        requests.iter_mut().for_each(|(_, start)| *start = begin);
    }
    events(request, requests, None).await
}

/// The stream of these subscriptions.
async fn events(
    request: &HttpRequest,
    requests: Vec<(Request, Start)>,
    ticket: Option<&str>,
) -> Result<Opened, Problem> {
    let (Some(app), Some(rail)) = (request.app_data::<web::Data<App>>(), request.app_data::<Rc<Rail>>()) else {
        return Err(Problem::no_state());
    };
    let farewell = |reason| Ok(Opened::Answered(sse::farewell(app, reason)));
    // what passes is told before a ticket is looked at: who comes back shows it again
    if app.stopping.is_cancelled() {
        return farewell(CloseReason::ShuttingDown);
    }
    if !ready(app).await {
        return farewell(CloseReason::NotReady);
    }
    let Some(mut stay) = app.streams.enter(request.peer_addr().map(|peer| peer.ip()), Caller::anonymous()) else {
        // as a status an EventSource would never come back
        let in_band = wants_events(request.headers());
        return if in_band { farewell(CloseReason::Overloaded) } else { Err(too_many_streams()) };
    };
    let access = match auth::access_with(request, app, ticket).await {
        // passes, as above
        Err(problem) if problem.status() == 503 => return farewell(CloseReason::of_problem(problem.code())),
        access => access?,
    };
    stay.belongs_to(auth::caller(&access));
    match check(app, &access, requests.iter().map(|(request, _)| request)) {
        // passes; an EventSource that got it as a status would never come back
        Err(problem) if problem.status() == 503 => return farewell(CloseReason::of_problem(problem.code())),
        checked => checked?,
    }
    let mut session = match Session::open(app.hub.clone(), access.into_owned(), requests).await {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(%error, "a stream could not begin");
            return farewell(CloseReason::of_problem(error.code));
        }
    };
    session.greet();
    let Some(outlet) = Outlet::take(request, app.write_timeout).await else {
        return Ok(Opened::Answered(sse::once_more(app)));
    };
    let counted = app.closes.open(CloseReason::Left);
    let feed = Box::new(Feed::new(session, outlet, rail.clone(), Format::Sse, stay, counted));
    Ok(Opened::Goes(Box::pin(feed.run(sse::head()))))
}

/// The address has all it may have.
pub(super) fn too_many_streams() -> Problem {
    let detail = "this address has all the streams it may have: close one, or raise `max_streams_per_address`";
    Problem::new(429, "connection-limit", detail).retry()
}

/// `GET /v1/changes`.
///
/// # Errors
/// Bad input; an unknown table; 410 when the position is not known any more.
pub(super) async fn changes(request: HttpRequest, app: web::Data<App>) -> Result<HttpResponse, Problem> {
    accepts(&request, "application/json")?;
    let params = params(&request)?;
    if !ready(&app).await {
        return Err(Problem::unavailable("not-ready", "the gateway has not reached its database yet, see `/readyz`"));
    }
    let access = auth::access_with(&request, &app, params.ticket.as_deref()).await?;
    let (caller, clock) = (auth::caller(&access).clone(), app.verifier.clock());
    check(&app, &access, params.requests.iter())?;
    let begin = params.since.unwrap_or(Start::Snapshot);
    let requests = params.requests.into_iter().map(|request| (request, begin)).collect();
    let mut session = Session::open(app.hub.clone(), access.into_owned(), requests).await?;
    if session.is_expired() {
        return Err(Problem::new(
            410,
            "position-expired",
            "the position is unknown or older than the retained log: ask again without `since` for a snapshot",
        ));
    }
    let began = Instant::now();
    let wait = params.wait.unwrap_or_default();
    let (mut messages, mut found) = (BytesMut::new(), false);
    if caller.is_over(clock) {
        // while the rows were read
        return Err(Problem::bad_token());
    }
    loop {
        for event in session.pass().await {
            if let Event::Message { sub, message, .. } = event {
                messages.put_slice(if found { b"," } else { b"" });
                message.write_json(&sub, &mut messages);
                found = true;
            }
        }
        // half a snapshot, or a reset without its snapshot, is no answer
        let complete = session.is_live();
        if complete && (found || began.elapsed() >= wait) && (session.is_current() || messages.len() >= POLL_BYTES) {
            break;
        }
        let deadline = began + if complete && !found { wait } else { wait.max(SNAPSHOT_WAIT) };
        let more = tokio::select! {
            more = tokio::time::timeout_at(deadline, session.wait()) => more.is_ok(),
            () = app.stopping.cancelled() => false,
            () = caller.over(clock) => false,
        };
        // what it has it was told in time; from here on nothing is
        let over = caller.is_over(clock);
        if !more || over {
            if !complete && over {
                return Err(Problem::bad_token());
            }
            if !complete {
                return Err(Problem::unavailable("unavailable", "the rows could not be read in time, ask again"));
            }
            if over || !found || session.is_empty() {
                break;
            }
        }
    }
    let position = session.position().map(|p| p.to_string());
    let mut answer = if found { HttpResponse::Ok() } else { HttpResponse::NoContent() };
    answer.insert_header(("Cache-Control", "no-store"));
    if let Some(position) = &position {
        answer.insert_header((POSITION, position.clone()));
    }
    if !found {
        return Ok(answer.finish());
    }
    let head = format!("{{\"position\":{},\"messages\":[", serde_json::json!(position));
    let mut body = BytesMut::with_capacity(head.len() + messages.len() + 2);
    body.put_slice(head.as_bytes());
    body.put_slice(&messages);
    body.put_slice(b"]}");
    answer.insert_header(("Content-Type", "application/json"));
    Ok(answer.body(Bytes::from(body)))
}

/// Refuses a client that asks for another representation and nothing else.
pub(super) fn accepts(request: &HttpRequest, ours: &'static str) -> Result<(), Problem> {
    let Some(accept) = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()) else { return Ok(()) };
    let (family, _) = ours.split_once('/').unwrap_or((ours, ""));
    let fits = |range: &str| {
        let range = range.split(';').next().unwrap_or_default().trim();
        range == "*/*" || range.eq_ignore_ascii_case(ours) || range == format!("{family}/*") || range.is_empty()
    };
    if accept.split(',').any(fits) {
        return Ok(());
    }
    Err(Problem::new(406, "not-acceptable", format!("this address answers `{ours}`")))
}
