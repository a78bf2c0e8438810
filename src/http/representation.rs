//! An answer of the cache as an HTTP response: body, validators, how long it may be kept, and where it came from.
//!
//! Must not know: SQL, how the cache decides. Invariant: 304 carries the headers that 200 would (RFC 9110, 15.4.5).

use super::asked::Understood;
use super::etag::{Condition, EntityTag};
use super::{POSITION, Problem};
use crate::cache::{Answer, Content, Entry, How};
use crate::change::{Position, Table};
use crate::permit::{ANON, Permit};
use actix_web::http::header::{
    AGE, CACHE_CONTROL, CACHE_STATUS, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LINK, VARY,
};
use actix_web::{HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// There are more rows than `limit`.
const MORE: HeaderName = HeaderName::from_static("rowcast-more");

/// Bodies below this are sent as they are: packed they are hardly smaller, and often larger.
const TINY: usize = 860;

/// The headers of the last answer to a request, and what they followed from: to write them out anew took a fifth of a
/// cached answer's time, and among answers a moment apart nothing in them differs.
#[derive(Debug, Default)]
pub(super) struct Told(RefCell<Option<Rc<Head>>>);

#[derive(Debug)]
struct Head {
    /// Held weakly: what the cache has given up is not kept in memory for its headers' sake.
    entry: Weak<Entry>,
    facts: Facts,
    tag: HeaderValue,
    others: [(HeaderName, HeaderValue); 6],
}

/// Everything in the headers that follows neither from the entry nor from its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    position: Position,
    how: How,
    /// Seconds.
    age: u64,
    /// Seconds that the answer stays fresh; negative: since it is not.
    ttl: i64,
    waited: Option<Millis>,
    total: Millis,
}

/// Milliseconds and tenths of one. Without floating point: to write that out took longer than the rest of the header.
type Millis = (u128, u128);

impl Facts {
    fn of(answer: &Answer, table: &Table, total: Duration) -> Facts {
        let millis = |d: Duration| (d.as_micros() / 1000, d.as_micros() / 100 % 10);
        let whole = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        let ttl = if answer.age <= table.ttl {
            whole(table.ttl.saturating_sub(answer.age))
        } else {
            -whole(answer.age.saturating_sub(table.ttl) + Duration::from_millis(999))
        };
        Facts {
            position: answer.position,
            how: answer.how,
            age: answer.age.as_secs(),
            ttl,
            waited: answer.waited.map(millis),
            total: millis(total),
        }
    }
}

impl Told {
    fn head(&self, answer: &Answer, asked: &Understood, total: Duration) -> Result<Rc<Head>, Problem> {
        let spec = &asked.query.spec;
        let facts = Facts::of(answer, &spec.table, total);
        let mut told = self.0.borrow_mut();
        if let Some(head) = told.as_ref().filter(|h| h.facts == facts && h.entry.as_ptr() == Arc::as_ptr(&answer.entry))
        {
            return Ok(head.clone());
        }
        let others = [
            (CACHE_CONTROL, value(cache_control(&spec.table, &asked.permit))?),
            (AGE, HeaderValue::from(facts.age)),
            (CACHE_STATUS, value(cache_status(facts))?),
            (SERVER_TIMING, value(server_timing(facts))?),
            (POSITION, value(spec.resume(facts.position).to_string())?),
            // a shared cache must not answer whoever asks for a certain state with another
            (VARY, HeaderValue::from_static(vary(&spec.table))),
        ];
        let tag = value(tag(&answer.entry.content, &asked.permit).to_string())?;
        let head = Rc::new(Head { entry: Arc::downgrade(&answer.entry), facts, tag, others });
        *told = Some(head.clone());
        Ok(head)
    }
}

/// The row's version; of a list the hash of its bytes, which may be packed on the way. An absent row has none.
fn tag(content: &Content, permit: &Permit) -> EntityTag {
    match content {
        Content::Row { version, .. } => EntityTag::of_row(*version, permit.columns_tag()),
        Content::List { hash, .. } => EntityTag { weak: true, opaque: format!("{hash:016x}") },
        Content::Absent { .. } => EntityTag { weak: true, opaque: String::new() },
    }
}

/// A response for an answer to what was asked; 404 for a row that is not there.
///
/// # Errors
/// The row is not there; `If-None-Match` is malformed.
pub(super) fn of(
    answer: &Answer,
    asked: &Understood,
    headers: &HeaderMap,
    next: impl FnOnce() -> Option<String>,
    began: Instant,
) -> Result<HttpResponse, Problem> {
    let (body, more) = match &answer.entry.content {
        Content::Absent { .. } => return Err(Problem::no_row()),
        Content::Row { body, .. } => (body, false),
        Content::List { body, more, .. } => (body, *more),
    };
    let head = asked.told.head(answer, asked, began.elapsed())?;
    let held = match headers.get(IF_NONE_MATCH) {
        None => false,
        Some(text) if text == head.tag => true,
        Some(text) => Condition::parse("If-None-Match", text.to_str().unwrap_or_default())?
            .names(&tag(&answer.entry.content, &asked.permit)),
    };
    let mut response = if held { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((ETAG, head.tag.clone()));
    for header in &head.others {
        response.insert_header(header.clone());
    }
    if more {
        // a link says where, if an address can: a filter may be too long for one, and an offset too large
        response.insert_header((MORE, HeaderValue::from_static("?1")));
    }
    if let Some(next) = more.then(next).flatten() {
        response.insert_header((LINK, value(format!("<{next}>; rel=\"next\""))?));
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

/// What everybody is shown may be kept by anybody; what a token shows, by nobody. Shared caches keep it as long as the table allows,
/// and ask then (`s-maxage` forbids them to serve it stale: RFC 9111, 5.2.2.10). Browsers ask every time, which costs a
/// 304; those that know RFC 5861 show what they hold, no older than `stale`, while they ask.
fn cache_control(table: &Table, permit: &Permit) -> String {
    if !permit.is_for_anybody(table) {
        return "private, no-store".to_owned();
    }
    let (fresh, stale) = (table.ttl.as_secs(), table.stale.as_secs());
    let mut control = format!("public, max-age=0, s-maxage={fresh}");
    if stale > 0 {
        // written to a String: cannot fail
        let _ = write!(control, ", stale-while-revalidate={stale}");
    }
    control
}

/// Where a token may show something else, a shared cache must not answer whoever has one, in a header or a cookie, with what was kept
/// for who has none.
fn vary(table: &Table) -> &'static str {
    if table.rules.iter().all(|rule| rule.role == ANON) {
        "Accept-Encoding, Rowcast-Min-Position"
    } else {
        "Accept-Encoding, Authorization, Cookie, Rowcast-Min-Position"
    }
}

/// RFC 9211.
fn cache_status(Facts { how, ttl, .. }: Facts) -> String {
    match how {
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

fn server_timing(Facts { how, waited, total: (whole, tenth), .. }: Facts) -> String {
    let how = match how {
        How::Hit | How::WrittenThrough => "hit",
        How::Refreshing | How::StaleIfError => "stale",
        How::Read { .. } => "miss",
    };
    match waited {
        None => format!("cache;desc={how}, total;dur={whole}.{tenth}"),
        Some((waited, part)) => format!("cache;desc={how}, db;dur={waited}.{part}, total;dur={whole}.{tenth}"),
    }
}
