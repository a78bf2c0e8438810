//! `GET`, `HEAD` and `QUERY /v1/tables/{table}`, `GET` and `HEAD /v1/tables/{table}/{key}`.
//!
//! Must not know: SQL, how answers are kept. Invariant: what a request asks for is wholly understood before anything
//! is waited for or read.

use super::asked::{self, Understood};
use super::read_params::{ListParams, RowParams, min_position, pairs};
use super::representation;
use super::stream::{accepts, ready};
use super::target::address;
use super::{App, MAX_URI, Problem, auth, body};
use crate::cache::Reach;
use crate::change::Position;
use crate::hub::Tables;
use crate::session::Access;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::uri::PathAndQuery;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use std::rc::Rc;
use std::time::Instant;

/// What the body of a QUERY is.
const FORM: &str = "application/x-www-form-urlencoded";

const ACCEPT_QUERY: HeaderName = HeaderName::from_static("accept-query");

/// A list. The table stands in the path, everything else in the query string and in the body of a QUERY.
///
/// # Errors
/// Bad input; an unknown table; the database cannot be read.
pub(super) async fn list(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
    access: &Access,
) -> Result<HttpResponse, Problem> {
    let began = Instant::now();
    accepts(&request, "application/json")?;
    let is_query = request.method().as_str() == "QUERY";
    let body = if is_query { form(&request, payload).await? } else { Bytes::new() };
    let read = |tables: Option<&Tables>| {
        let mut given = pairs("the query string", request.query_string().as_bytes())?;
        given.extend(pairs("the body", &body)?);
        let params = ListParams::parse(&address(&request).0, given, app.read_max_rows)?;
        let next = params.has_next().then(|| params.next());
        let resolve = |tables| params.resolve(tables, access);
        tables.map(|tables| resolve(tables).map(|(query, permit)| Understood::new(query, permit, next))).transpose()
    };
    let (asked, min) = admit(&app, &request, !is_query && is_anyone(access), read).await?;
    let answer = app.reads.read(&asked.query, min).await?;
    auth::still(access, &app)?;
    let next = || asked.next.and_then(|offset| next_page(&request, &body, offset));
    let mut response = representation::of(&answer, &asked, request.headers(), next, began)?;
    if !is_query {
        response.headers_mut().insert(ACCEPT_QUERY, HeaderValue::from_static(FORM));
    }
    Ok(response)
}

/// One row. Table and key stand in the path, `select` and `numbers` in the query string.
///
/// # Errors
/// Bad input; an unknown table or row; the database cannot be read.
pub(super) async fn row(request: HttpRequest, app: web::Data<App>, access: &Access) -> Result<HttpResponse, Problem> {
    let began = Instant::now();
    accepts(&request, "application/json")?;
    let read = |tables: Option<&Tables>| {
        let (table, key) = address(&request);
        let given = pairs("the query string", request.query_string().as_bytes())?;
        let params = RowParams::parse(&table, key.unwrap_or_default(), given)?;
        let resolve = |tables| params.resolve(tables, access);
        tables.map(|tables| resolve(tables).map(|(query, permit)| Understood::new(query, permit, None))).transpose()
    };
    let (asked, min) = admit(&app, &request, is_anyone(access), read).await?;
    let answer = app.reads.read(&asked.query, min).await?;
    auth::still(access, &app)?;
    representation::of(&answer, &asked, request.headers(), || None, began)
}

/// What is remembered by its text alone is for those who show nothing else.
fn is_anyone(access: &Access) -> bool {
    matches!(access, Access::Caller(caller) if caller.is_anonymous())
}

/// Understands a request, and waits for the position it names. `read` reads its text, and resolves it when it is given
/// tables; `whole`: path and query are
/// all of it.
async fn admit(
    app: &App,
    request: &HttpRequest,
    whole: bool,
    read: impl Fn(Option<&Tables>) -> Result<Option<Understood>, Problem>,
) -> Result<(Rc<Understood>, Option<Position>), Problem> {
    let min = min_position(request.headers())?;
    if app.hub.position().is_none() {
        // what is wrong with the text is told before anything is waited for
        read(None)?;
        if !ready(app).await {
            return Err(not_ready());
        }
    }
    let resolve = |tables: &Tables| read(Some(tables))?.ok_or_else(not_ready);
    let target = request.uri().path_and_query().map(PathAndQuery::as_str).filter(|_| whole);
    let understand = || match target {
        Some(target) => asked::recall(&app.hub.tables(), target, resolve),
        None => resolve(&app.hub.tables()).map(Rc::new),
    };
    let asked = understand()?;
    let Some(min) = min else { return Ok((asked, None)) };
    match app.reads.reach(min).await? {
        // the table may have become another one meanwhile
        Reach::Reached => Ok((understand()?, Some(min))),
        Reach::NotYet => {
            Err(Problem::unavailable("position-not-reached", "the position did not arrive here in time, ask again"))
        }
        Reach::Unknown => Err(Problem::new(
            410,
            "position-expired",
            "the position of `Rowcast-Min-Position` is unknown or older than the retained log: ask again without it",
        )),
    }
}

fn not_ready() -> Problem {
    Problem::unavailable("not-ready", "the gateway has not reached its database yet, see `/readyz`")
}

/// A form body.
async fn form(request: &HttpRequest, payload: web::Payload) -> Result<Bytes, Problem> {
    body::check_type(request, &[FORM])?;
    Ok(body::read(request, payload).await?.into())
}

/// The address of the next page; none when it would be too long to be asked for.
fn next_page(request: &HttpRequest, body: &[u8], offset: u64) -> Option<String> {
    let mut given = pairs("", request.query_string().as_bytes()).ok()?;
    given.extend(pairs("", body).ok()?);
    given.retain(|(name, _)| name != "offset");
    given.push(("offset".to_owned(), offset.to_string()));
    let query = serde_urlencoded::to_string(given).ok()?;
    Some(format!("{}?{query}", request.uri().path())).filter(|target| target.len() <= MAX_URI)
}
