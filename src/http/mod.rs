//! The HTTP side: the only modules that know actix.
//!
//! Must not know: SQL. Invariant: a handler receives the few things it needs, never the configuration.

mod asked;
mod auth;
mod batch;
mod body;
mod closes;
mod connections;
mod credentials;
mod etag;
mod fault;
mod feed;
mod lasting;
mod listen;
mod openapi;
mod ops;
mod origin;
mod outlet;
mod packed;
mod params;
mod problem;
mod rail;
mod read_params;
mod representation;
mod routes;
mod rows;
mod sse;
mod stream;
mod streams;
mod subscribe;
mod tables;
mod target;
mod wishes;
mod write;
mod ws;

pub use closes::Closes;
pub use listen::listen;
pub use openapi::openapi;
pub use problem::Problem;
pub use stream::POSITION;
pub use streams::{StreamLimits, Streams};
pub(crate) use ws::WsOptions;

use crate::auth::Verifier;
use crate::cache::Reads;
use crate::hub::Hub;
use crate::pg::doorbell::Bell;
use crate::pg::write::Writer;
use crate::pg::{Status, Tickets};
use actix_web::body::MessageBody;
use actix_web::dev::{Server, Service, ServiceRequest};
use actix_web::{App as ActixApp, HttpResponse, HttpServer, ResponseError, web};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Longest request target. Longer filters than this belong into a body.
const MAX_URI: usize = 8 * 1024;

/// All headers of a request together. The server itself stops reading only at 128 kB.
const MAX_HEADERS: usize = 16 * 1024;

/// Refuses what no honest client sends.
fn oversized(request: &ServiceRequest) -> Option<Problem> {
    if request.uri().path_and_query().is_some_and(|p| p.as_str().len() > MAX_URI) {
        return Some(Problem::new(414, "uri-too-long", format!("at most {MAX_URI} bytes")));
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let detail = || format!("at most {MAX_HEADERS} bytes of headers; are there cookies of another application?");
    (headers > MAX_HEADERS).then(|| Problem::new(431, "header-fields-too-large", detail()))
}

/// A page served as it is.
#[derive(Clone, Copy, Debug)]
pub struct StaticPage {
    /// Where.
    pub path: &'static str,
    /// As what.
    pub content_type: &'static str,
    /// The bytes.
    pub body: &'static [u8],
}

/// What handlers share.
pub struct App {
    pub(crate) hub: Arc<Hub>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) read_max_rows: usize,
    pub(crate) writer: Writer,
    pub(crate) verifier: Verifier,
    /// Those that are given.
    pub(crate) tickets: Tickets,
    /// Those that are shown, with places of their own: giving holds up nobody who has one.
    pub(crate) taken_tickets: Tickets,
    pub(crate) status: Arc<Status>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) closes: Arc<Closes>,
    /// Cancelled when no new streams are taken, and those there are end one after the other.
    pub(crate) stopping: CancellationToken,
    pub(crate) streams: Arc<Streams>,
    pub(crate) started: Instant,
    pub(crate) write_timeout: Duration,
    pub(crate) ws: WsOptions,
}

/// Starts serving on `listener`.
///
/// # Errors
/// The listener cannot be used.
pub fn serve(
    listener: TcpListener,
    app: App,
    pages: Vec<StaticPage>,
    max_connections: usize,
    workers: usize,
    drain: Duration,
) -> std::io::Result<Server> {
    let app = web::Data::new(app);
    let connections = connections::Connections::new(max_connections);
    let server = HttpServer::new(move || {
        let mut app = ActixApp::new()
            .app_data(app.clone())
            .app_data(rail::Rail::new(app.hub.clone()))
            .wrap_fn(|request, service| {
                let answer = match connections::refusal(&request) {
                    Some(refusal) => Err(request.into_response(refusal)),
                    None => match oversized(&request) {
                        None => Ok(service.call(request)),
                        Some(problem) => Err(request.into_response(problem.error_response())),
                    },
                };
                async move {
                    let answer = match answer {
                        Ok(answer) => answer.await?,
                        Err(refusal) => refusal,
                    };
                    if let Some(spare) = answer.request().conn_data::<outlet::Spare>() {
                        spare.answered(answer.response().body().size());
                    }
                    Ok(answer)
                }
            })
            .configure(routes::configure);
        for page in pages.clone() {
            let serve = move || async move {
                HttpResponse::Ok()
                    .insert_header(("Content-Type", page.content_type))
                    .insert_header(("Cache-Control", "no-cache"))
                    .body(page.body)
            };
            app = app.service(routes::get(page.path, serve));
        }
        app.default_service(web::to(|| async { Problem::not_found().error_response() }))
    })
    .on_connect(move |connection, extensions| {
        extensions.insert(connections.opened());
        if let Some(spare) = outlet::Spare::keep(connection) {
            extensions.insert(spare);
        }
    })
    // ours refuses with an answer; this one, per worker, only lets them wait unanswered
    .max_connections(max_connections.saturating_mul(2))
    // our own handling decides when to drain
    .disable_signals()
    // a client that closed its half is gone: noticed in 0.1 s instead of two heartbeats
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .workers(workers)
    .shutdown_timeout(drain.as_secs())
    .listen(listener)?;
    Ok(server.run())
}
