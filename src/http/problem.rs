//! Errors as RFC 9457 `application/problem+json`: the one place where an error becomes an HTTP answer.
//!
//! Invariant: `type` and `code` are stable; `detail` carries the remedy and never SQL or names the caller may not
//! know.

use crate::hub::SourceError;
use crate::session::Refusal;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use std::fmt;

/// An error as the client sees it.
#[derive(Clone, Debug)]
pub struct Problem {
    status: u16,
    code: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<u32>,
    more: Option<Box<More>>,
}

/// Members that few problems have.
#[derive(Clone, Debug, Default)]
struct More {
    /// A row as JSON text, not as a value: it keeps its digits.
    current: Option<String>,
    /// Entity tag of that row.
    etag: Option<String>,
    errors: Vec<serde_json::Value>,
    sqlstate: Option<String>,
    /// `WWW-Authenticate`.
    challenge: Option<&'static str>,
    /// For the log, never for the client.
    cause: Option<String>,
}

/// Header that names the request in answers and logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Title by code. A code that is not here is a bug that the test below finds.
const TITLES: &[(&str, &str)] = &[
    ("not-found", "not found"),
    ("method-not-allowed", "this method is not allowed here"),
    ("malformed-request", "the request is malformed"),
    ("uri-too-long", "the address is too long"),
    ("header-fields-too-large", "the headers are too large"),
    ("invalid-position", "the position is malformed"),
    ("position-expired", "the position is not known any more"),
    ("position-not-reached", "the position did not arrive here in time"),
    ("unknown-column", "unknown column"),
    ("unknown-operator", "unknown operator"),
    ("operator-not-exact", "the operator has no exact meaning on this column"),
    ("invalid-value", "the value does not fit the column"),
    ("malformed-filter", "the filter is malformed"),
    ("malformed-order", "the order is malformed"),
    ("filter-too-complex", "the filter is too large"),
    ("too-many-subscriptions", "too many subscriptions on one connection"),
    ("already-subscribed", "a subscription has this name already"),
    ("too-many-writes", "too many writes at once on one connection"),
    ("too-many-tickets", "too many tickets wait to be shown"),
    ("unauthorized", "who asks is not known"),
    ("origin-not-allowed", "pages of this origin may not connect"),
    ("upgrade-required", "this address speaks WebSocket"),
    ("not-acceptable", "no such representation"),
    ("unsupported-media-type", "the body is of a type that is not read here"),
    ("table-unavailable", "the table cannot be served now"),
    ("snapshot-too-large", "the rows are too many"),
    ("snapshot-too-busy", "the rows change too fast"),
    ("overloaded", "too many wait already"),
    ("connection-limit", "too many connections"),
    ("unavailable", "the database cannot be used now"),
    ("request-timeout", "the request did not come to its end"),
    ("payload-too-large", "the body is too large"),
    ("precondition-required", "the version is missing"),
    ("version-conflict", "the row has another version"),
    ("conflict", "the row conflicts with others"),
    ("retry", "the write collided with another"),
    ("constraint-violation", "the row breaks a rule"),
    ("read-only-column", "the column cannot be written"),
    ("refused-by-database", "the database refused the write"),
    ("forbidden", "not permitted"),
    ("writing-not-allowed", "the table cannot be written"),
    ("idempotency-key-reused", "the idempotency key belongs to another request"),
    ("in-progress", "the same request is being carried out"),
    ("outcome-unknown", "the write may or may not have taken effect"),
    ("internal", "internal error"),
    ("shutting-down", "the gateway is shutting down"),
    ("not-ready", "the gateway is not ready"),
];

/// Every code, for the documentation.
pub(super) fn codes() -> impl Iterator<Item = &'static str> {
    TITLES.iter().map(|(code, _)| *code)
}

/// What a code is about.
pub(super) fn title(code: &str) -> &'static str {
    TITLES.iter().find(|(c, _)| *c == code).map_or("error", |(_, title)| title)
}

impl Problem {
    /// A problem; `code` is one of the documented slugs.
    #[must_use]
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, title: title(code), detail: detail.into(), retry_after: None, more: None }
    }

    /// 503 with `Retry-After`.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { retry_after: Some(1), ..Problem::new(503, code, detail) }
    }

    /// 404 for whatever is not there, or not for this caller.
    #[must_use]
    pub fn not_found() -> Problem {
        Problem::new(
            404,
            "not-found",
            "nothing is served at this address; `GET /v1/tables/<table>`, `GET /v1/stream?table=<table>` and `GET /v1/changes?table=<table>` are",
        )
    }

    /// 404 for a row or a table: in the same words, so that nobody learns which of them is missing.
    #[must_use]
    pub fn no_row() -> Problem {
        let detail = "no such table or row: a table must be watched and allowed (`select rowcast.watch('schema.table', public => true)`, or \
            `rowcast.allow` for a role) \
                      and spelt as in the database, a key as rows are told with";
        Problem::new(404, "not-found", detail)
    }

    /// 401 for a token, or a ticket, that is not accepted: in the same words whatever is wrong with it, as each reason would tell
    /// a forger how far he got.
    #[must_use]
    pub(super) fn bad_token() -> Problem {
        let detail = "the token is not accepted: it may be expired, not signed by a key that this gateway knows, or meant for \
                      something else; get a new one";
        Problem::challenged(detail, "Bearer error=\"invalid_token\"")
    }

    /// 401 where a token is needed and there is none.
    #[must_use]
    pub(super) fn no_token() -> Problem {
        Problem::challenged("this needs a token: `Authorization: Bearer <token>`", "Bearer")
    }

    fn challenged(detail: &str, challenge: &'static str) -> Problem {
        let mut problem = Problem::new(401, "unauthorized", detail);
        problem.more().challenge = Some(challenge);
        problem
    }

    /// 500 for what should not happen: `cause` goes to the log, under the request's id.
    #[must_use]
    pub(super) fn internal(detail: &str, cause: String) -> Problem {
        let mut problem = Problem::new(500, "internal", detail);
        problem.more().cause = Some(cause);
        problem
    }

    /// 500: what handlers share is not there.
    #[must_use]
    pub(super) fn no_state() -> Problem {
        Problem::internal("the request could not be answered", "handlers have no state".to_owned())
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// With `Retry-After`.
    #[must_use]
    pub(super) fn retry(mut self) -> Problem {
        self.retry_after = Some(1);
        self
    }

    /// With the row as it is: JSON text, and its entity tag.
    #[must_use]
    pub(super) fn current(mut self, row: String, etag: String) -> Problem {
        let more = self.more();
        (more.current, more.etag) = (Some(row), Some(etag));
        self
    }

    /// With the code the database gave.
    #[must_use]
    pub(super) fn sqlstate(mut self, state: &str) -> Problem {
        self.more().sqlstate = Some(state.to_owned());
        self
    }

    /// As the problem of one operation of a batch.
    #[must_use]
    pub(super) fn of_operation(mut self, index: usize) -> Problem {
        let error = serde_json::json!({ "op": index, "code": self.code, "detail": self.detail });
        self.more().errors.push(error);
        self.detail = format!("operation {index}: {}", self.detail);
        self
    }

    /// The stable slug.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The row as it is, as JSON text.
    pub(super) fn row(&self) -> Option<&str> {
        self.more.as_ref()?.current.as_deref()
    }

    /// The operation of a batch that failed.
    pub(super) fn operation(&self) -> Option<u64> {
        self.more.as_ref()?.errors.first()?["op"].as_u64()
    }

    /// A new name for the request that failed, under which the log has it.
    pub(super) fn log(&self) -> String {
        let request_id = format!("{:016x}", rand::random::<u64>());
        if let Some(cause) = self.more.as_ref().and_then(|more| more.cause.as_ref()) {
            tracing::error!(request_id, code = self.code, cause, "failed");
        } else {
            tracing::debug!(request_id, code = self.code, detail = self.detail, "refused");
        }
        request_id
    }

    /// The JSON document.
    #[must_use]
    pub fn document(&self, request_id: &str) -> String {
        let mut json = serde_json::json!({
            "type": format!("/problems/{}", self.code), "title": self.title, "status": self.status,
            "detail": self.detail, "code": self.code, "request_id": request_id,
        });
        if let Some(seconds) = self.retry_after {
            json["retry_after"] = seconds.into();
        }
        let Some(more) = &self.more else { return json.to_string() };
        if let Some(state) = &more.sqlstate {
            json["sqlstate"] = state.as_str().into();
        }
        if !more.errors.is_empty() {
            json["errors"] = more.errors.clone().into();
        }
        let mut text = json.to_string();
        if let Some(current) = &more.current {
            text.insert_str(text.len() - 1, &format!(",\"current\":{current}"));
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let request_id = self.log();
        let mut answer = HttpResponse::build(self.status_code());
        answer.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        answer.insert_header((REQUEST_ID, request_id.clone()));
        answer.insert_header(("Cache-Control", "no-store"));
        if let Some(seconds) = self.retry_after {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if let Some(challenge) = self.more.as_ref().and_then(|more| more.challenge) {
            answer.insert_header((WWW_AUTHENTICATE, challenge));
        }
        if let Some(etag) = self.more.as_ref().and_then(|more| more.etag.as_ref()) {
            answer.insert_header((ETAG, etag.as_str()));
        }
        answer.body(self.document(&request_id))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal.status() {
            503 => Problem::unavailable(refusal.code(), refusal.to_string()),
            status => Problem::new(status, refusal.code(), refusal.to_string()),
        }
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Problem {
        Problem::unavailable(error.code, error.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_promised_members() {
        let problem = Problem::unavailable("unavailable", "the database could not be read");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&problem.document("ab")).unwrap(),
            serde_json::json!({"type":"/problems/unavailable","title":"the database cannot be used now","status":503,
                "detail":"the database could not be read","code":"unavailable","request_id":"ab","retry_after":1})
        );
        assert_eq!(problem.error_response().headers().get("retry-after").unwrap(), "1");
    }

    #[test]
    fn a_conflict_carries_the_row_with_its_digits() {
        let row = "{\"key\":\"7\",\"version\":44,\"row\":{\"n\":9007199254740993.10}}";
        let problem = Problem::new(412, "version-conflict", "x").current(row.to_owned(), "\"44\"".to_owned());
        let problem = problem.sqlstate("RC409").of_operation(3);
        assert!(problem.document("ab").ends_with(&format!(",\"current\":{row}}}")), "{}", problem.document("ab"));
        let read: serde_json::Value = serde_json::from_str(&problem.document("ab")).unwrap();
        assert_eq!(read["errors"], serde_json::json!([{"op": 3, "code": "version-conflict", "detail": "x"}]));
        assert_eq!((&read["sqlstate"], &read["detail"]), (&"RC409".into(), &"operation 3: x".into()));
        assert_eq!(problem.error_response().headers().get("etag").unwrap(), "\"44\"");
    }

    #[test]
    fn what_an_internal_problem_tells_the_log_it_does_not_tell_the_client() {
        let problem = Problem::internal("failed", "secret".to_owned());
        assert!(!problem.document("ab").contains("secret"));
    }

    #[test]
    fn every_code_used_has_a_title() {
        for code in [
            "unknown-column",
            "unknown-operator",
            "filter-too-complex",
            "invalid-value",
            "operator-not-exact",
            "malformed-filter",
            "not-found",
            "table-unavailable",
            "snapshot-too-large",
            "snapshot-too-busy",
            "malformed-order",
            "position-not-reached",
            "unsupported-media-type",
            "request-timeout",
            "payload-too-large",
            "precondition-required",
            "version-conflict",
            "conflict",
            "retry",
            "constraint-violation",
            "read-only-column",
            "refused-by-database",
            "forbidden",
            "writing-not-allowed",
            "idempotency-key-reused",
            "in-progress",
            "outcome-unknown",
            "internal",
        ] {
            assert_ne!(Problem::new(400, code, "").title, "error", "{code}");
        }
    }
}
