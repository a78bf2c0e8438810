//! An answer of the cache as an HTTP response: body, validators, how long it may be kept, and where it came from.
//!
//! Must not know: SQL, how the cache decides. Invariant: 304 carries the headers that 200 would (RFC 9110, 15.4.5).

use super::etag::{Condition, EntityTag};
use super::{POSITION, Problem};
use crate::cache::{Answer, Content, How};
use crate::change::Table;
use actix_web::http::header::{
    AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LINK, VARY,
};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use std::time::{Duration, Instant};

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
    let (body, tag, next) = match &answer.entry.content {
        Content::Absent { .. } => return Err(Problem::no_row()),
        Content::Row { body, version } => (body, EntityTag::of_version(*version), None),
        Content::List { body, hash, more } => {
            let tag = EntityTag { weak: true, opaque: format!("{hash:016x}") };
            (body, tag, if *more { next() } else { None })
        }
    };
    let held = match headers.get(IF_NONE_MATCH) {
        None => false,
        Some(text) => Condition::parse("If-None-Match", text.to_str().unwrap_or_default())?.names(&tag),
    };
    let mut response = if held { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, value(tag.to_string())?))
        .insert_header((CACHE_CONTROL, value(cache_control(table))?))
        .insert_header((AGE, HeaderValue::from(answer.age.as_secs())))
        .insert_header((CACHE_STATUS, value(cache_status(answer, table))?))
        .insert_header((SERVER_TIMING, value(server_timing(answer, began.elapsed()))?))
        .insert_header((POSITION, value(answer.position.to_string())?))
        // a shared cache must not answer whoever asks for a certain state with another
        .insert_header((VARY, HeaderValue::from_static("Accept-Encoding, Rowcast-Min-Position")));
    if let Some(next) = next {
        response.insert_header((LINK, format!("<{next}>; rel=\"next\"")));
    }
    Ok(if held { response.finish() } else { full(response, body) })
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A header's value, without a copy.
fn value(text: String) -> Result<HeaderValue, Problem> {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .map_err(|e| Problem::internal("an answer could not be written", e.to_string()))
}

fn full(mut response: HttpResponseBuilder, body: &Bytes) -> HttpResponse {
    if body.len() < TINY {
        response.insert_header((CONTENT_ENCODING, HeaderValue::from_static("identity")));
    }
    response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json"))).body(body.clone())
}

/// Public tables only are served so far: anybody may keep the answer. Browsers ask every time, which costs a 304;
/// shared caches keep it as long as the table allows.
fn cache_control(table: &Table) -> String {
    let (fresh, stale) = (table.ttl.as_secs(), table.stale.as_secs());
    format!("public, max-age=0, s-maxage={fresh}, stale-while-revalidate={stale}")
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
    // tenths of a millisecond, without floating point: it took longer than the rest of the header
    let ms = |d: Duration| (d.as_micros() / 1000, d.as_micros() / 100 % 10);
    let how = match answer.how {
        How::Hit | How::WrittenThrough => "hit",
        How::Refreshing | How::StaleIfError => "stale",
        How::Read { .. } => "miss",
    };
    let (whole, tenth) = ms(total);
    match answer.waited.map(ms) {
        None => format!("cache;desc={how}, total;dur={whole}.{tenth}"),
        Some((waited, part)) => format!("cache;desc={how}, db;dur={waited}.{part}, total;dur={whole}.{tenth}"),
    }
}
