//! An answer of the cache as an HTTP response: body, validators, how long it may be kept, and where it came from.
//!
//! Must not know: SQL, how the cache decides. Invariant: 304 carries the headers that 200 would (RFC 9110, 15.4.5).

use super::etag::{Condition, EntityTag};
use super::{POSITION, Problem};
use crate::cache::{Answer, Content, How};
use crate::change::Table;
use actix_web::http::header::{CONTENT_ENCODING, HeaderMap, HeaderName, IF_NONE_MATCH};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// There are more rows than `limit`.
const MORE: HeaderName = HeaderName::from_static("rowcast-more");

/// Bodies below this are sent as they are: packed they are hardly smaller, and often larger.
const TINY: usize = 860;

/// A response for an answer; 404 for a row that is not there.
///
/// # Errors
/// The row is not there; `If-None-Match` is malformed.
pub(super) fn of(
    answer: &Answer,
    table: &Table,
    headers: &HeaderMap,
    next: impl FnOnce() -> Option<String>,
    began: Instant,
) -> Result<HttpResponse, Problem> {
    let (body, tag, more) = match &answer.entry.content {
        Content::Absent { .. } => return Err(Problem::no_row()),
        Content::Row { body, version } => (body, EntityTag::of_version(*version), false),
        Content::List { body, hash, more } => {
            let tag = EntityTag { weak: true, opaque: format!("{hash:016x}") };
            (body, tag, *more)
        }
    };
    let held = match headers.get(IF_NONE_MATCH) {
        None => false,
        Some(text) => Condition::parse("If-None-Match", text.to_str().unwrap_or_default())?.names(&tag),
    };
    let mut response = if held { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header(("ETag", tag.to_string()))
        .insert_header(("Cache-Control", cache_control(table)))
        .insert_header(("Age", answer.age.as_secs().to_string()))
        .insert_header(("Cache-Status", cache_status(answer, table)))
        .insert_header(("Server-Timing", server_timing(answer, began.elapsed())))
        .insert_header((POSITION, answer.position.to_string()))
        // a shared cache must not answer whoever asks for a certain state with another
        .insert_header(("Vary", "Accept-Encoding, Rowcast-Min-Position"));
    if more {
        // a link says where, if an address can: a filter may be too long for one, and an offset too large
        response.insert_header((MORE, "?1"));
    }
    if let Some(next) = more.then(next).flatten() {
        response.insert_header(("Link", format!("<{next}>; rel=\"next\"")));
    }
    Ok(if held { response.finish() } else { full(response, body) })
}

fn full(mut response: HttpResponseBuilder, body: &Bytes) -> HttpResponse {
    if body.len() < TINY {
        response.insert_header((CONTENT_ENCODING, "identity"));
    }
    response.insert_header(("Content-Type", "application/json")).body(body.clone())
}

/// Public tables only are served so far: anybody may keep the answer. Shared caches keep it as long as the table allows,
/// and ask then (`s-maxage` forbids them to serve it stale: RFC 9111, 5.2.2.10). Browsers ask every time, which costs a
/// 304; those that know RFC 5861 show what they hold, no older than `stale`, while they ask.
fn cache_control(table: &Table) -> String {
    let (fresh, stale) = (table.ttl.as_secs(), table.stale.as_secs());
    let mut control = format!("public, max-age=0, s-maxage={fresh}");
    if stale > 0 {
        // written to a String: cannot fail
        let _ = write!(control, ", stale-while-revalidate={stale}");
    }
    control
}

/// RFC 9211.
fn cache_status(answer: &Answer, table: &Table) -> String {
    let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    let ttl = if answer.age <= table.ttl {
        whole(table.ttl.saturating_sub(answer.age))
    } else {
        -whole(answer.age.saturating_sub(table.ttl) + Duration::from_millis(999))
    };
    match answer.how {
        How::Hit => format!("rowcast; hit; ttl={ttl}"),
        How::WrittenThrough => format!("rowcast; hit; ttl={ttl}; detail=written-through"),
        How::Refreshing => format!("rowcast; hit; ttl={ttl}; detail=stale-while-revalidate"),
        How::StaleIfError => format!("rowcast; hit; ttl={ttl}; detail=stale-if-error"),
        How::Read { stale, stored, collapsed } => {
            let fwd = if stale { "stale" } else { "miss" };
            let stored = if stored { "; stored" } else { "" };
            let collapsed = if collapsed { "; collapsed" } else { "" };
            format!("rowcast; fwd={fwd}{stored}{collapsed}")
        }
    }
}

fn server_timing(answer: &Answer, total: Duration) -> String {
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let how = match answer.how {
        How::Hit | How::WrittenThrough => "hit",
        How::Refreshing | How::StaleIfError => "stale",
        How::Read { .. } => "miss",
    };
    let db = answer.waited.map(|waited| format!("db;dur={:.1}, ", ms(waited))).unwrap_or_default();
    format!("cache;desc={how}, {db}total;dur={:.1}", ms(total))
}
