//! Server-sent events: a session as a response body.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. Invariant: only whole events leave, and
//! the body is asked for more only when the socket took the last.

use super::{App, Closes};
use crate::session::{Event, Session};
use crate::wire::CloseReason;
use actix_web::HttpResponse;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bytes gathered into one write.
const CHUNK: usize = 64 * 1024;

/// Between these a client that lost the connection waits, so that not all come back at one moment.
pub(super) const RETRY_MS: std::ops::Range<u32> = 500..2500;

/// A response with the stream headers.
#[must_use]
pub(super) fn response(body: impl Stream<Item = Result<Bytes, Infallible>> + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Content-Type", "text/event-stream"))
        .insert_header(("Cache-Control", "no-store, no-transform"))
        // a compressor in between would hold events back and cost up to 4 MB a connection
        .insert_header(("Content-Encoding", "identity"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(body)
}

/// The `retry:` line that begins a stream.
fn retry() -> String {
    format!("retry: {}\n\n", rand::random_range(RETRY_MS))
}

/// A stream that only says good-bye: what an EventSource needs to come back, as it gives up for good on any status
/// but 200.
#[must_use]
pub(super) fn farewell(app: &App, reason: CloseReason) -> HttpResponse {
    app.closes.count(reason);
    let text = format!("{}{}", retry(), bye(reason));
    response(stream::iter([Ok(Bytes::from(text))]))
}

fn bye(reason: CloseReason) -> String {
    format!("event: bye\ndata: {}\n\n", reason.bye(rand::random_range(RETRY_MS)))
}

struct Body {
    session: Session,
    queued: VecDeque<Event>,
    stop: CancellationToken,
    closes: Arc<Closes>,
    over: Option<CloseReason>,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.closes.count(self.over.unwrap_or(CloseReason::Left));
    }
}

/// The session's events until it ends or the gateway stops.
pub(super) fn body(session: Session, app: &App) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let (stop, closes) = (app.stopping.clone(), app.closes.clone());
    let body = Body { session, queued: VecDeque::new(), stop, closes, over: None };
    let first = stream::once(std::future::ready(Ok(Bytes::from(retry()))));
    futures_util::StreamExt::chain(
        first,
        stream::unfold(body, |mut body| async move {
            let bytes = body.next().await?;
            Some((Ok(bytes), body))
        }),
    )
}

impl Body {
    async fn next(&mut self) -> Option<Bytes> {
        if self.over.is_some() {
            return None;
        }
        if self.queued.is_empty() {
            let events = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Some(self.end(CloseReason::ShuttingDown)),
                events = self.session.next() => events,
            };
            let Some(events) = events else { return Some(self.end(CloseReason::NoSubscriptionLeft)) };
            self.queued.extend(events);
        }
        Some(self.chunk())
    }

    fn end(&mut self, reason: CloseReason) -> Bytes {
        self.over = Some(reason);
        bye(reason).into()
    }

    /// The next events, about [`CHUNK`] bytes of them, as one write.
    fn chunk(&mut self) -> Bytes {
        if let [Event::Message { sub, message, id: None }] = self.queued.make_contiguous() {
            let bytes = message.sse(sub);
            self.queued.clear();
            return bytes;
        }
        let mut out = BytesMut::new();
        while out.len() < CHUNK {
            let Some(event) = self.queued.pop_front() else { break };
            match event {
                Event::Message { sub, message, id } => {
                    if let Some(id) = id {
                        out.put_slice(format!("id: {id}\n").as_bytes());
                    }
                    out.put_slice(&message.sse(&sub));
                }
                Event::Cursor { position, lag } => {
                    let lag = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
                    out.put_slice(cursor(position.map(|p| p.to_string()), lag).as_bytes());
                }
            }
        }
        out.freeze()
    }
}

fn cursor(position: Option<String>, lag_ms: u64) -> String {
    let id = position.as_ref().map(|p| format!("id: {p}\n")).unwrap_or_default();
    let data = serde_json::json!({ "type": "cursor", "position": position, "lag_ms": lag_ms });
    format!("{id}event: cursor\ndata: {data}\n\n")
}

/// How long a stream that comes before the gateway is ready is held.
pub(super) const READY_WAIT: Duration = Duration::from_secs(10);
