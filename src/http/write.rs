//! `POST /v1/tables/{table}`, `PATCH`, `PUT` and `DELETE /v1/tables/{table}/{key}`.
//!
//! Must not know: SQL. Invariant: a handler knows everything about a request before the first statement is sent.

use super::etag::EntityTag;
use super::fault::row_json;
use super::target::{address, based_on, columns, no_query, row_key, table};
use super::wishes::{Return, Wishes};
use super::{App, POSITION, Problem, auth, body, stream};
use crate::change::Table;
use crate::permit::Permit;
use crate::pg::write::{Answer, Expected, Operation, Order, Outcome, Render, Verb, Written};
use crate::session::Access;
use crate::wire::strict;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;

/// Says that the write is done and its place in the stream is not known.
const POSITION_UNKNOWN: HeaderName = HeaderName::from_static("rowcast-position-unknown");

/// Says that an earlier request did it.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// `POST /v1/tables/{table}`.
///
/// # Errors
/// Bad input; see [`crate::pg::write::Fault`].
pub(super) async fn insert(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
) -> Result<HttpResponse, Problem> {
    one(request, payload, app, access, Verb::Insert).await
}

/// `PATCH /v1/tables/{table}/{key}`.
///
/// # Errors
/// As of [`insert`].
pub(super) async fn update(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
) -> Result<HttpResponse, Problem> {
    one(request, payload, app, access, Verb::Update).await
}

/// `PUT /v1/tables/{table}/{key}`.
///
/// # Errors
/// As of [`insert`].
pub(super) async fn replace(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
) -> Result<HttpResponse, Problem> {
    one(request, payload, app, access, Verb::Replace).await
}

/// `DELETE /v1/tables/{table}/{key}`.
///
/// # Errors
/// As of [`insert`].
pub(super) async fn delete(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
) -> Result<HttpResponse, Problem> {
    one(request, payload, app, access, Verb::Delete).await
}

async fn one(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
    verb: Verb,
) -> Result<HttpResponse, Problem> {
    let wishes = begin(&request, &app).await?;
    let (name, key) = address(&request);
    let (table, permit) = table(&app.hub.tables(), &name, access)?;
    let key = key.filter(|_| verb != Verb::Insert).map(|key| row_key(key, &table)).transpose()?;
    match verb {
        Verb::Delete => {}
        Verb::Update => body::check_type(&request, &[MERGE_PATCH, JSON])?,
        _ => body::check_type(&request, &[JSON])?,
    }
    let body = body::read(&request, payload).await?;
    let (verb, expected) = condition(verb, &wishes, &permit)?;
    let values = match verb {
        Verb::Delete if body.is_empty() => Vec::new(),
        Verb::Delete => return Err(Problem::new(400, "malformed-request", "`DELETE` takes no body")),
        verb => columns(strict::object(&body)?, permit.seen(&table), verb, &expected)?,
    };
    let order = Order {
        claim: wishes.claim(&request, &body, access),
        render: render(verb, table.clone(), wishes.prefer),
        operations: vec![Operation {
            verb,
            table,
            permit,
            key,
            expected,
            values,
            answered: with_row(verb, wishes.prefer),
        }],
    };
    auth::still(access, &app)?;
    let outcome = app.writer.perform(order).await?;
    Ok(respond(outcome, |body, _| body))
}

/// What is the same for every write: the headers, and a gateway that knows its tables.
///
/// # Errors
/// Bad input; the gateway is not ready.
pub(super) async fn begin(request: &HttpRequest, app: &App) -> Result<Wishes, Problem> {
    stream::accepts(request, JSON)?;
    no_query(request)?;
    let wishes = Wishes::of(request)?;
    if !stream::ready(app).await {
        return Err(Problem::unavailable("not-ready", "the gateway has not reached its database yet, see `/readyz`"));
    }
    Ok(wishes)
}

/// What to do, given the conditions.
fn condition(verb: Verb, wishes: &Wishes, permit: &Permit) -> Result<(Verb, Expected), Problem> {
    let meaningless = |name: &str| {
        let detail = format!("`{name}` has no meaning for this method");
        Err(Problem::new(400, "malformed-request", detail))
    };
    match verb {
        Verb::Insert if wishes.if_match.is_some() => meaningless("If-Match"),
        Verb::Insert if wishes.absent => meaningless("If-None-Match"),
        Verb::Insert => Ok((verb, Expected::Any)),
        Verb::Replace if wishes.absent => Ok((Verb::Create, Expected::Any)),
        _ if wishes.absent => meaningless("If-None-Match"),
        Verb::Replace => {
            let given = wishes.expected();
            let verb = if given.is_some() { Verb::Replace } else { Verb::Put };
            let how = "`If-Match: \"<version>\"`, or `If-None-Match: *` to create the row";
            Ok((verb, based_on(given, permit, how)?))
        }
        verb => Ok((verb, based_on(wishes.expected(), permit, "`If-Match: \"<version>\"`")?)),
    }
}

/// Has the answer the row?
fn with_row(verb: Verb, prefer: Option<Return>) -> bool {
    let usual = if verb == Verb::Delete { Return::Minimal } else { Return::Representation };
    prefer.unwrap_or(usual) == Return::Representation
}

/// The answer to one operation.
fn render(verb: Verb, table: Arc<Table>, prefer: Option<Return>) -> Render {
    Box::new(move |rows| {
        let Some(row) = rows.first() else { return Answer::default() };
        let mut headers = Vec::new();
        if verb != Verb::Delete {
            headers.push(("ETag".to_owned(), EntityTag::of_row(row.version, row.columns).to_string()));
        }
        if row.created {
            let name = table.wire_name();
            let name = utf8_percent_encode(&name, &UNRESERVED);
            headers.push(("Location".to_owned(), format!("/v1/tables/{name}/{}", row.key)));
        }
        applied(prefer, &mut headers);
        let body = with_row(verb, prefer).then(|| String::from_utf8_lossy(&row.row).into_owned());
        let status = match (row.created, &body) {
            (true, _) => 201,
            (false, Some(_)) => 200,
            (false, None) => 204,
        };
        Answer { status, headers, body }
    })
}

/// RFC 3986 "unreserved" stays readable.
const UNRESERVED: percent_encoding::AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Says which preference was followed.
pub(super) fn applied(prefer: Option<Return>, headers: &mut Vec<(String, String)>) {
    if let Some(prefer) = prefer {
        headers.push(("Preference-Applied".to_owned(), prefer.name().to_owned()));
    }
}

/// A row in the answer to a batch: `{"op", "table", "key", "version", "row"}`.
pub(super) fn batch_row(op: &str, table: &Table, row: &Written, with_row: bool) -> String {
    let table = strict::quoted(&table.wire_name());
    let whole = row_json(row);
    let rest = match with_row {
        true => whole.trim_start_matches('{').to_owned(),
        false => format!("\"key\":\"{}\",\"version\":{}}}", row.key, row.version),
    };
    format!("{{\"op\":\"{op}\",\"table\":{table},{rest}")
}

/// The answer on the wire; `finish` puts the position into the body, where it belongs there.
pub(super) fn respond(outcome: Outcome, finish: impl Fn(String, Option<String>) -> String) -> HttpResponse {
    let Outcome { answer, replayed, position } = outcome;
    let position = position.map(|p| p.to_string());
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = HttpResponse::build(status);
    response.insert_header(("Cache-Control", "no-store"));
    for (name, value) in &answer.headers {
        response.insert_header((name.as_str(), value.as_str()));
    }
    match &position {
        Some(position) => response.insert_header((POSITION, position.as_str())),
        None => response.insert_header((POSITION_UNKNOWN, HeaderValue::from_static("?1"))),
    };
    if replayed {
        response.insert_header((REPLAYED, HeaderValue::from_static("true")));
    }
    match answer.body {
        Some(body) => response.insert_header(("Content-Type", JSON)).body(finish(body, position)),
        None => response.finish(),
    }
}
