//! Every address the gateway serves: the one table that the router and the OpenAPI document are built from.
//!
//! Must not know: what an answer says. Invariant: a method that an address does not answer is 405 with `Allow`.

use super::lasting::lasting;
use super::openapi;
use super::{Problem, auth, ops, stream, tables, ws};
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError, Route as ActixRoute, web};
use utoipa::openapi::PathItem;

/// One address.
pub(super) struct Route {
    /// As actix and OpenAPI write it: `/v1/tables/{table}`.
    pub path: &'static str,
    /// Makes what answers there.
    pub register: fn(&'static str, &mut web::ServiceConfig),
    /// Describes it.
    pub describe: fn() -> PathItem,
}

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/v1/stream",
        register: |path, config| {
            let get = web::get().service(lasting(stream::stream));
            let post = web::post().service(lasting(stream::stream_of_body));
            _ = config.service(getting(path, get, "GET, HEAD, POST").route(post));
        },
        describe: openapi::stream,
    },
    Route {
        path: "/v1/changes",
        register: |path, config| _ = config.service(get(path, stream::changes)),
        describe: openapi::changes,
    },
    Route {
        path: "/v1/ws",
        register: |path, config| _ = config.service(getting(path, web::get().service(lasting(ws::ws)), "GET, HEAD")),
        describe: openapi::websocket,
    },
    Route {
        path: "/v1/tickets",
        register: |path, config| {
            let post = web::post().to(auth::ticket);
            _ = config.service(web::resource(path).route(post).default_service(web::to(|| not_allowed("POST"))));
        },
        describe: openapi::tickets,
    },
    Route {
        path: "/v1/schemas/message.json",
        register: |path, config| _ = config.service(get_and_head(path, openapi::serve_messages)),
        describe: openapi::message_schema,
    },
    Route { path: "/v1/tables/{table}", register: tables::tables, describe: openapi::table },
    // registered with the one before
    Route { path: "/v1/tables/{table}/{key}", register: |_, _| (), describe: openapi::row },
    Route { path: "/v1/batch", register: tables::batch, describe: openapi::batch },
    Route {
        path: "/healthz",
        register: |path, config| _ = config.service(get_and_head(path, ops::healthz)),
        describe: openapi::healthz,
    },
    Route {
        path: "/readyz",
        register: |path, config| _ = config.service(get_and_head(path, ops::readyz)),
        describe: openapi::readyz,
    },
    Route {
        path: "/openapi.json",
        register: |path, config| _ = config.service(get_and_head(path, openapi::serve)),
        describe: openapi::itself,
    },
];

/// Registers them.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    for route in ROUTES {
        (route.register)(route.path, config);
    }
}

/// A resource that answers GET. HEAD only says that it is there: a stream is not opened for it.
pub(super) fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    getting(path, web::get().to(handler), "GET, HEAD")
}

/// The same of a route, with other methods beside it, which the caller adds.
fn getting(path: &str, get: ActixRoute, allow: &'static str) -> Resource {
    web::resource(path)
        .route(get)
        .route(web::head().to(|| async { HttpResponse::Ok().finish() }))
        .default_service(web::to(move || not_allowed(allow)))
}

/// A resource that answers GET, and HEAD with the same headers.
fn get_and_head<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
        .default_service(web::to(|| not_allowed("GET, HEAD")))
}

/// 405; `allow` names the methods that are answered.
pub(super) async fn not_allowed(allow: &'static str) -> HttpResponse {
    let detail = format!("this address answers `{}`", allow.replace(", ", "`, `"));
    let mut answer = Problem::new(405, "method-not-allowed", detail).error_response();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}
