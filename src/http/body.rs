//! What comes with a write: its body and the headers that say how to take it.
//!
//! Must not know: tables. Invariant: a body is read to its end or refused; never more than the limit is kept.

use super::Problem;
use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::time::Duration;

/// Largest body. A batch of 100 rows of 10 kB.
const MAX_BODY: usize = 1024 * 1024;

/// So much of a body that is too large is read and thrown away: whoever is cut off while sending never sees the answer.
const MAX_DRAINED: usize = 8 * 1024 * 1024;

/// The time for the whole body.
const BODY_TIME: Duration = Duration::from_secs(10);

/// A header as text; several lines of it are one list. None when it is not there.
///
/// # Errors
/// It is not text.
pub(super) fn header(request: &HttpRequest, name: &'static str) -> Result<Option<String>, Problem> {
    let mut whole: Option<String> = None;
    for value in request.headers().get_all(name) {
        let value = value.to_str().map_err(|_| {
            Problem::new(400, "malformed-request", format!("the header `{name}` has characters beyond visible ASCII"))
        })?;
        match &mut whole {
            Some(whole) => {
                whole.push_str(", ");
                whole.push_str(value);
            }
            None => whole = Some(value.to_owned()),
        }
    }
    Ok(whole)
}

/// Refuses a body that is of none of these types, or compressed.
///
/// # Errors
/// 415.
pub(super) fn check_type(request: &HttpRequest, types: &[&str]) -> Result<(), Problem> {
    let wrong = |detail: String| Problem::new(415, "unsupported-media-type", detail);
    if let Some(encoding) = header(request, CONTENT_ENCODING.as_str())?
        && !encoding.eq_ignore_ascii_case("identity")
    {
        return Err(wrong("`Content-Encoding`: send the body as it is, uncompressed".to_owned()));
    }
    let given = header(request, CONTENT_TYPE.as_str())?.unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let utf8 = parts.all(|p| {
        p.is_empty()
            || p.split_once('=').is_some_and(|(name, value)| {
                !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
            })
    });
    if utf8 && types.iter().any(|t| media.eq_ignore_ascii_case(t)) {
        return Ok(());
    }
    Err(wrong(format!("`Content-Type` is `{}`, in UTF-8", types.join("` or `"))))
}

/// Reads the body.
///
/// # Errors
/// 413, 408, or 400 when it is broken.
pub(super) async fn read(
    request: &HttpRequest,
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
) -> Result<Vec<u8>, Problem> {
    tokio::time::timeout(BODY_TIME, take(request, payload)).await.unwrap_or_else(|_| {
        Err(Problem::new(408, "request-timeout", format!("the body took longer than {} s", BODY_TIME.as_secs())))
    })
}

async fn take(
    request: &HttpRequest,
    mut payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
) -> Result<Vec<u8>, Problem> {
    let too_large =
        || Problem::new(413, "payload-too-large", format!("at most {MAX_BODY} bytes: send several requests"));
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_DRAINED) {
        return Err(too_large());
    }
    let (mut body, mut length) = (Vec::new(), 0);
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| Problem::new(400, "malformed-request", "the body broke off"))?;
        length += chunk.len();
        if length > MAX_DRAINED {
            break;
        }
        if length <= MAX_BODY {
            body.extend_from_slice(&chunk);
        }
    }
    if length > MAX_BODY { Err(too_large()) } else { Ok(body) }
}
