//! From what a request shows to in whose name it is served; and `POST /v1/tickets`.
//!
//! Must not know: what a role may do. Invariants: every fault of a token is answered in the same words; whoever shows nothing costs
//! nothing.

use super::credentials::{token, twice};
use super::{App, Problem, stream, target};
use crate::auth::{Caller, Rejected};
use crate::pg::PgError;
use crate::session::Access;
use actix_web::{HttpRequest, HttpResponse, web};
use std::borrow::Cow;
use std::sync::Arc;

/// What the database says when a caller has all the tickets it may have.
const TOO_MANY: &str = "RC429";

/// In whose name something is done: borrowed for those who show nothing.
pub(super) type Whose = Cow<'static, Access>;

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Problem {
        // the reason is for whoever runs the gateway
        tracing::debug!(why = %rejected, "a token was refused");
        match rejected {
            Rejected::Token(_) => Problem::bad_token(),
            Rejected::NoKeys => Problem::unavailable(
                "not-ready",
                "tokens cannot be checked yet: the keys of `jwks_url` could not be fetched so far",
            ),
        }
    }
}

/// In whose name the request is served.
///
/// # Errors
/// 401 for a token that is not accepted; see also [`token`].
pub(super) async fn access(request: &HttpRequest, app: &App) -> Result<Whose, Problem> {
    match token(request, &app.ws.allowed_origins)? {
        None => Ok(Cow::Borrowed(Access::anonymous())),
        // apart: most requests show none, and need not have the room
        Some(token) => Ok(whose(Box::pin(app.verifier.verify(token)).await?)),
    }
}

/// The same where a ticket may be shown instead.
///
/// # Errors
/// 401 for a ticket that is not good, or was shown before.
pub(super) async fn access_with(request: &HttpRequest, app: &App, ticket: Option<&str>) -> Result<Whose, Problem> {
    let Some(ticket) = ticket else { return access(request, app).await };
    if token(request, &app.ws.allowed_origins)?.is_some() {
        return Err(twice());
    }
    let taken = Box::pin(app.taken_tickets.take(ticket)).await.map_err(|error| {
        tracing::warn!(%error, "a ticket could not be looked up");
        Problem::unavailable("unavailable", "the ticket could not be looked up, get another")
    })?;
    let caller = taken.filter(|caller| is_before_end(caller, app)).ok_or_else(Problem::bad_token)?;
    Ok(whose(Arc::new(caller)))
}

fn whose(caller: Arc<Caller>) -> Whose {
    Cow::Owned(Access::Caller(caller))
}

/// A ticket never outlives its token: it has nothing of the leeway, which is for tokens that come late.
fn is_before_end(caller: &Caller, app: &App) -> bool {
    let clock = app.verifier.clock();
    let ends = caller.expiry.as_ref().is_none_or(|expiry| expiry.exp.saturating_mul(1000) > clock.wall());
    ends && !caller.is_over(clock)
}

/// Who that is.
pub(super) fn caller(access: &Access) -> &Arc<Caller> {
    match access {
        Access::Caller(caller) => caller,
        // no request is the operator's
        Access::Operator => Caller::anonymous(),
    }
}

/// Refuses whoever's authority ended while something was waited for: asked right before a write begins, and before what was read is
/// told.
///
/// # Errors
/// 401, in the words for every token.
pub(super) fn still(access: &Access, app: &App) -> Result<(), Problem> {
    if caller(access).is_over(app.verifier.clock()) { Err(Problem::bad_token()) } else { Ok(()) }
}

/// `POST /v1/tickets`: a ticket for whoever shows a token in `Authorization`.
///
/// # Errors
/// 401 without a token, or with one that is not accepted; 429 when there are too many.
pub(super) async fn ticket(request: HttpRequest, app: web::Data<App>) -> Result<HttpResponse, Problem> {
    stream::accepts(&request, "application/json")?;
    target::no_query(&request)?;
    if !request.headers().contains_key(actix_web::http::header::AUTHORIZATION) {
        return Err(Problem::no_token());
    }
    let access = access(&request, &app).await?;
    if !is_before_end(caller(&access), &app) {
        return Err(Problem::bad_token());
    }
    let given = app.tickets.give(caller(&access)).await.map_err(|error| match error {
        PgError::Server(_, state) if state.code() == TOO_MANY => {
            let detail =
                "100 tickets of this subject and role wait to be shown: show them, or come back when they are over";
            Problem::new(429, "too-many-tickets", detail).retry()
        }
        error => {
            tracing::warn!(%error, "a ticket could not be kept");
            Problem::unavailable("unavailable", "the ticket could not be kept, ask again")
        }
    })?;
    // a token in its last second
    let (ticket, life) = given.ok_or_else(Problem::bad_token)?;
    let body = serde_json::json!({ "ticket": ticket, "expires_in": life.as_secs() });
    Ok(HttpResponse::Ok().insert_header(("Cache-Control", "no-store")).json(body))
}
