//! Server-sent events: what stands before the first event, and streams that only say good-bye.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. Invariant: the headers are the same whoever
//! writes them, we or the framework.

use super::App;
use super::feed::RETRY_MS;
use crate::wire::{CloseReason, Format};
use actix_web::HttpResponse;
use bytes::{Bytes, BytesMut};
use std::time::Duration;

/// The headers of every stream.
const HEADERS: [(&str, &str); 4] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store, no-transform"),
    // a compressor in between would hold events back and cost up to 4 MB a connection
    ("content-encoding", "identity"),
    ("x-accel-buffering", "no"),
];

/// How long a stream that comes before the gateway is ready is held.
pub(super) const READY_WAIT: Duration = Duration::from_secs(10);

/// What an answer written without the framework begins with: status, headers, `retry:`.
pub(super) fn head() -> Bytes {
    let headers: String = HEADERS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // RFC 9110, 5.6.7; the framework would have added it
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    format!(
        "HTTP/1.1 200 OK\r\n{headers}connection: close\r\ndate: {date}\r\n\r\nretry: {}\n\n",
        rand::random_range(RETRY_MS)
    )
    .into()
}

/// A stream that only says good-bye: what an EventSource needs to come back, as it gives up for good on any status
/// but 200.
#[must_use]
pub(super) fn farewell(app: &App, reason: CloseReason) -> HttpResponse {
    app.closes.count(reason);
    goodbye(reason, RETRY_MS)
}

/// A stream that cannot be had behind the connection's last answer, and can behind this one.
#[must_use]
pub(super) fn once_more(app: &App) -> HttpResponse {
    app.closes.count(CloseReason::Pipelined);
    goodbye(CloseReason::Pipelined, 10..50)
}

fn goodbye(reason: CloseReason, retry_ms: std::ops::Range<u32>) -> HttpResponse {
    let retry_ms = rand::random_range(retry_ms);
    let mut text = BytesMut::from(format!("retry: {retry_ms}\n\n").as_bytes());
    Format::Sse.bye(reason, retry_ms, &mut text);
    let mut answer = HttpResponse::Ok();
    HEADERS.into_iter().for_each(|header| _ = answer.insert_header(header));
    answer.body(text.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_that_of_the_rfc() {
        let head = head();
        let head = std::str::from_utf8(&head).unwrap();
        let date = head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        // `Sun, 06 Nov 1994 08:49:37 GMT`
        assert_eq!((date.len(), &date[3..5], &date[16..17], &date[25..]), (29, ", ", " ", " GMT"), "{date}");
        assert!(head.contains("\r\n\r\nretry: ") && head.ends_with("\n\n"), "{head}");
    }
}
