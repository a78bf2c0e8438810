//! Errors as RFC 9457 `application/problem+json`: the one place where an error becomes an HTTP answer.
//!
//! Invariant: `type` and `code` are stable; `detail` carries the remedy and never SQL or names the caller may not
//! know.

use crate::hub::SourceError;
use crate::session::Refusal;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
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
    ("not-acceptable", "no such representation"),
    ("unsupported-media-type", "the body is of a type that is not read here"),
    ("content-too-large", "the body is too large"),
    ("table-unavailable", "the table cannot be served now"),
    ("snapshot-too-large", "the rows are too many"),
    ("snapshot-too-busy", "the rows change too fast"),
    ("unavailable", "the database cannot be read now"),
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
        Problem { status, code, title: title(code), detail: detail.into(), retry_after: None }
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
        let detail = "no such table or row: a table must be watched (`select rowcast.watch('schema.table', public => true)`) \
                      and spelt as in the database, a key as rows are told with";
        Problem::new(404, "not-found", detail)
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

    /// The JSON document.
    #[must_use]
    pub fn json(&self, request_id: &str) -> serde_json::Value {
        let mut json = serde_json::json!({
            "type": format!("/problems/{}", self.code), "title": self.title, "status": self.status,
            "detail": self.detail, "code": self.code, "request_id": request_id,
        });
        if let Some(seconds) = self.retry_after {
            json["retry_after"] = seconds.into();
        }
        json
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
        let request_id = format!("{:016x}", rand::random::<u64>());
        tracing::debug!(request_id, code = self.code, detail = self.detail, "refused");
        let mut answer = HttpResponse::build(self.status_code());
        answer.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        answer.insert_header((REQUEST_ID, request_id.clone()));
        answer.insert_header(("Cache-Control", "no-store"));
        if let Some(seconds) = self.retry_after {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        answer.body(self.json(&request_id).to_string())
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
            problem.json("ab"),
            serde_json::json!({"type":"/problems/unavailable","title":"the database cannot be read now","status":503,
                "detail":"the database could not be read","code":"unavailable","request_id":"ab","retry_after":1})
        );
        assert_eq!(problem.error_response().headers().get("retry-after").unwrap(), "1");
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
            "content-too-large",
        ] {
            assert_ne!(Problem::new(400, code, "").title, "error", "{code}");
        }
    }
}
