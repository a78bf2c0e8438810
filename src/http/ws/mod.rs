//! `GET /v1/ws`: subscriptions and writes over a WebSocket (RFC 6455), subprotocol `rowcast.v1`.
//!
//! Must not know: what subscriptions are told. Invariant: whatever can be refused before the upgrade is; what a page of another
//! origin asks for, always.

mod connection;
mod guard;
mod incoming;
mod input;
mod pulse;
mod quota;
mod writes;

use super::lasting::Opened;
use super::outlet::Outlet;
use super::rail::Rail;
use super::{App, Problem, auth, credentials, origin, stream};
use crate::auth::Caller;
use crate::session::Access;
use crate::wire::CloseReason;
use actix_web::dev::Payload;
use actix_web::http::Version;
use actix_web::http::header::{
    HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use bytes::Bytes;
use connection::Connection;
use incoming::Incoming;
use std::rc::Rc;
use std::time::Duration;

/// The subprotocol.
pub(super) const PROTOCOL: &str = "rowcast.v1";

/// What may be set of WebSockets.
#[derive(Clone, Debug)]
pub(crate) struct WsOptions {
    /// Origins whose pages may connect, beside the gateway's own.
    pub allowed_origins: Vec<String>,
    /// Between two pings.
    pub ping: Duration,
    /// How long `init` may take.
    pub init: Duration,
}

/// `GET /v1/ws`.
///
/// # Errors
/// It is no handshake, or from an origin that is not allowed.
pub(super) async fn ws(request: &HttpRequest, payload: Payload) -> Result<Opened, Problem> {
    let (Some(app), Some(rail)) = (request.app_data::<web::Data<App>>(), request.app_data::<Rc<Rail>>()) else {
        return Err(Problem::no_state());
    };
    origin::check(request, &app.ws.allowed_origins)?;
    let ticket = ticket(request)?;
    if !asks_for_ours(request) {
        return Ok(Opened::Answered(upgrade_required()));
    }
    let (incoming, headers) = Incoming::open(request, payload, &[PROTOCOL])
        .map_err(|error| Problem::new(400, "malformed-request", format!("not a WebSocket handshake: {error}")))?;
    // one that offers none gets none, and speaks the only one there is
    let spoken =
        headers.contains_key(SEC_WEBSOCKET_PROTOCOL) || !request.headers().contains_key(SEC_WEBSOCKET_PROTOCOL);
    let mut refused = (!spoken).then_some(CloseReason::NoSubprotocol);
    let address = request.peer_addr().map(|peer| peer.ip());
    let mut stay = app.streams.enter(address, Caller::anonymous()).ok_or_else(stream::too_many_streams)?;
    if ticket.is_some() && refused.is_none() {
        // what passes is told before the ticket is looked at: who comes back shows it again
        refused = stay.over();
        if refused.is_none() && !stream::ready(app).await {
            refused = Some(CloseReason::NotReady);
        }
    }
    let access = match &ticket {
        Some(_) if refused.is_some() => Access::anonymous().clone(),
        ticket => auth::access_with(request, app, ticket.as_deref()).await?.into_owned(),
    };
    stay.belongs_to(auth::caller(&access));
    let Some(outlet) = Outlet::take(request, app.write_timeout).await else {
        let detail = "an earlier answer of the connection is still unread: connect anew";
        return Err(Problem::unavailable("unavailable", detail));
    };
    let connection = Box::new(Connection::new(app.clone(), outlet, rail.clone(), incoming, stay, access));
    Ok(Opened::Goes(Box::pin(connection.run(head(&headers), refused))))
}

/// The ticket, if one is shown. No other parameter is taken: what is wanted is said in messages.
fn ticket(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(request.query_string()).unwrap_or_default();
    credentials::refuse_in(&pairs)?;
    let mut pairs = pairs.into_iter();
    match (pairs.next(), pairs.next()) {
        (None, _) if request.query_string().is_empty() => Ok(None),
        (Some((name, ticket)), None) if name == "ticket" => Ok(Some(ticket)),
        _ => Err(Problem::new(400, "malformed-request", "no parameter but one `ticket` is taken in the address here")),
    }
}

/// Is it for a WebSocket of the version and over the HTTP that are spoken here?
fn asks_for_ours(request: &HttpRequest) -> bool {
    let upgrade = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // without any it is a broken handshake, which is told apart from one for others
    let version = request.headers().get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version == "13");
    upgrade.to_ascii_lowercase().contains("websocket") && version && request.version() == Version::HTTP_11
}

/// 426, with what is spoken here.
fn upgrade_required() -> HttpResponse {
    let problem = Problem::new(426, "upgrade-required", "connect with a WebSocket, version 13, over HTTP/1.1");
    let mut answer = problem.error_response();
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(actix_web::http::header::CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    answer
}

/// The answer that accepts. Extensions are not in it: compression next to secrets tells them by its length, and inflates.
fn head(headers: &HeaderMap) -> Bytes {
    let mut head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n".to_owned();
    for name in [SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL] {
        if let Some(value) = headers.get(&name).and_then(|value| value.to_str().ok()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    head.into()
}
