//! What a client wishes of a write: conditions, `Prefer`, `Idempotency-Key`.
//!
//! Must not know: tables, the database. Invariant: a condition is understood or refused, never dropped: without it the
//! write would be another one.

use super::Problem;
use super::body::header;
use super::etag::Condition;
use crate::pg::write::{Claim, Expected};
use crate::session::Access;
use actix_web::HttpRequest;
use sha2::{Digest, Sha256};

/// Longest key. They are stored.
pub(super) const MAX_KEY: usize = 255;

/// `Prefer: return=...` (RFC 7240).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// Only what changed hands: version and position.
    Minimal,
    /// The row.
    Representation,
}

impl Return {
    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Return::Minimal => "return=minimal",
            Return::Representation => "return=representation",
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Wishes {
    /// `If-Match`.
    pub if_match: Option<Condition>,
    /// `If-None-Match: *`.
    pub absent: bool,
    /// `Prefer`.
    pub prefer: Option<Return>,
    key: Option<String>,
    /// All of it as it was sent, to recognise the same request.
    sent: Vec<String>,
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(400, "malformed-request", detail)
}

impl Wishes {
    /// Reads the headers.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn of(request: &HttpRequest) -> Result<Wishes, Problem> {
        let (if_match, none_match) = (header(request, "if-match")?, header(request, "if-none-match")?);
        let prefer = header(request, "prefer")?;
        let sent = [&if_match, &none_match, &prefer].map(|h| h.clone().unwrap_or_default()).to_vec();
        let if_match = if_match.map(|text| Condition::parse("If-Match", &text)).transpose()?;
        let none_match = none_match.map(|text| Condition::parse("If-None-Match", &text)).transpose()?;
        let absent = match none_match {
            None => false,
            Some(Condition::Any) => true,
            Some(Condition::Tags(_)) => {
                return Err(malformed("`If-None-Match` of a write is `*`: the row must not be there yet"));
            }
        };
        if absent && if_match.is_some() {
            return Err(malformed("`If-Match` and `If-None-Match` exclude each other"));
        }
        let key = header(request, "idempotency-key")?.map(|text| idempotency_key(&text)).transpose()?;
        Ok(Wishes { if_match, absent, prefer: prefer.as_deref().and_then(preferred), key, sent })
    }

    /// The versions that `If-Match` admits. A weak tag admits none.
    pub(super) fn expected(&self) -> Option<Expected> {
        self.if_match.as_ref().map(|condition| match condition {
            Condition::Any => Expected::Any,
            Condition::Tags(tags) => Expected::OneOf(tags.iter().filter_map(|tag| tag.version()).collect()),
        })
    }

    /// The claim of this request on its `Idempotency-Key`.
    pub(super) fn claim(&self, request: &HttpRequest, body: &[u8], access: &Access) -> Option<Claim> {
        let key = self.key.clone()?;
        let texts =
            [request.method().as_str(), request.uri().path()].into_iter().chain(self.sent.iter().map(String::as_str));
        Some(claim(access, key, texts.map(str::as_bytes).chain([body])))
    }
}

/// The claim of a request made of these parts. Keys are each caller's own; without a token everybody is one, and who has one without
/// `sub` is told from others of the role by what the rules show.
fn claim<'a>(access: &Access, key: String, parts: impl Iterator<Item = &'a [u8]>) -> Claim {
    let mut hash = Sha256::new();
    for part in parts {
        // with their lengths: what ends one must not begin the next
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let (subject, several) = match access {
        Access::Caller(caller) => (caller.owner(), caller.subject.is_none() && !caller.is_anonymous()),
        Access::Operator => ("operator".to_owned(), false),
    };
    Claim { subject, several, key, request: hash.finalize().to_vec() }
}

/// The claim of a batch over a WebSocket, from the text of its operations.
///
/// # Errors
/// 400: not a key.
pub(super) fn claim_of_message<'a>(
    access: &Access,
    key: &str,
    ops: impl Iterator<Item = &'a str>,
) -> Result<Claim, Problem> {
    Ok(claim(access, idempotency_key(key)?, std::iter::once("write").chain(ops).map(str::as_bytes)))
}

/// 1 to 255 visible ASCII characters, as they are or as a structured field's string in quotes.
fn idempotency_key(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() || bare.len() > MAX_KEY || !bare.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed(format!(
            "`Idempotency-Key` has 1 to {MAX_KEY} visible ASCII characters, one for one write"
        )));
    }
    Ok(bare.to_owned())
}

/// The first `return` counts, and what is not known is passed over, as RFC 7240 says.
fn preferred(text: &str) -> Option<Return> {
    text.split([',', ';']).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("return") {
            return None;
        }
        match value.trim().trim_matches('"').to_ascii_lowercase().as_str() {
            "minimal" => Some(Return::Minimal),
            "representation" => Some(Return::Representation),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn of(headers: &[(&'static str, &str)]) -> Result<Wishes, Problem> {
        let mut request = TestRequest::patch().uri("/v1/tables/t/1");
        for (name, value) in headers {
            request = request.append_header((*name, *value));
        }
        Wishes::of(&request.to_http_request())
    }

    #[test]
    fn what_is_understood() {
        let wishes =
            of(&[("if-match", "\"4\""), ("if-match", "W/\"5\", \"6\""), ("prefer", "wait=3, Return=\"minimal\"")]);
        let wishes = wishes.unwrap();
        assert_eq!(wishes.expected(), Some(Expected::OneOf(vec![4, 6])));
        assert_eq!(wishes.prefer, Some(Return::Minimal));
        assert_eq!(of(&[("if-match", "*")]).unwrap().expected(), Some(Expected::Any));
        assert!(of(&[("if-none-match", "*")]).unwrap().absent);
        assert_eq!(of(&[("prefer", "return=everything, handling=strict")]).unwrap().prefer, None);
        assert_eq!(of(&[("idempotency-key", "\"a b\"")]).unwrap_err().status(), 400, "a space");
        for key in ["a", "\"a\"", &"x".repeat(255)] {
            assert_eq!(of(&[("idempotency-key", key)]).unwrap().key.unwrap(), key.trim_matches('"'));
        }
    }

    #[test]
    fn what_is_not_is_refused() {
        let long = "x".repeat(256);
        for headers in [
            &[("if-match", "42")][..],
            &[("if-match", "")],
            &[("if-none-match", "\"4\"")],
            &[("if-none-match", "*"), ("if-match", "\"4\"")],
            &[("idempotency-key", "")],
            &[("idempotency-key", "\"\"")],
            &[("idempotency-key", "a"), ("idempotency-key", "b")],
            &[("idempotency-key", &long)],
        ] {
            assert_eq!(of(headers).unwrap_err().code(), "malformed-request", "{headers:?}");
        }
    }

    #[test]
    fn the_same_request_is_recognised_by_everything_that_matters() {
        let claim = |uri: &str, headers: &[(&'static str, &'static str)], body: &[u8]| {
            let mut request = TestRequest::patch().uri(uri).append_header(("idempotency-key", "k"));
            for header in headers {
                request = request.append_header(*header);
            }
            let request = request.to_http_request();
            Wishes::of(&request).unwrap().claim(&request, body, Access::anonymous()).unwrap().request
        };
        let first = claim("/v1/tables/t/1", &[("if-match", "\"1\"")], b"{}");
        assert_eq!(first, claim("/v1/tables/t/1", &[("if-match", "\"1\""), ("user-agent", "other")], b"{}"));
        for other in [
            claim("/v1/tables/t/2", &[("if-match", "\"1\"")], b"{}"),
            claim("/v1/tables/t/1", &[("if-match", "\"2\"")], b"{}"),
            claim("/v1/tables/t/1", &[("if-match", "\"1\"")], b"{ }"),
            claim("/v1/tables/t/1", &[("if-match", "\"1\""), ("prefer", "return=minimal")], b"{}"),
            claim("/v1/tables/t/1", &[("prefer", "\"1\"")], b"{}"),
        ] {
            assert_ne!(first, other);
        }
    }
}
