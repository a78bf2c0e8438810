//! The OpenAPI document: every route, what it takes, and every answer it can give.
//!
//! Must not know: how an answer comes about. Invariant: the document is built from the table that the router is built
//! from, so it has every route and no other; what may differ, the methods and the codes, is tested.

mod reads;
mod schemas;
mod socket;
mod streams;
#[cfg(test)]
mod tests;
mod tickets;
mod words;
mod writes;

use super::routes;
use actix_web::HttpResponse;
use std::sync::LazyLock;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Info, License, OpenApi, OpenApiBuilder, OpenApiVersion, PathItem, Paths};

pub(super) use socket::{message_schema, serve_messages, websocket};
pub(super) use streams::{changes, document as itself, healthz, readyz, stream};
pub(super) use tickets::tickets;
pub(super) use writes::batch;

const ABOUT: &str = "Every committed change of a Postgres table, in order, to every subscriber; reads from a cache that \
    the same changes keep true; writes under optimistic locks.\n\nAdditive changes only inside a version: ignore members \
    and headers you do not know. Errors are `application/problem+json` with a stable `code`.";

/// Kept ready: it is the same for as long as the process lives.
static TEXT: LazyLock<String> = LazyLock::new(|| document().to_pretty_json().unwrap_or_default());

/// The document as JSON.
#[must_use]
pub fn openapi() -> &'static str {
    &TEXT
}

/// `GET /openapi.json`.
pub(super) async fn serve() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(("Content-Type", "application/json"))
        .insert_header(("Cache-Control", "no-cache"))
        .body(openapi())
}

fn document() -> OpenApi {
    let mut paths = Paths::new();
    for route in routes::ROUTES {
        paths.paths.insert(route.path.to_owned(), (route.describe)());
    }
    let mut info = Info::new("Rowcast", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    let mut license = License::new("Apache-2.0 or MIT, at your choice");
    license.identifier = Some(env!("CARGO_PKG_LICENSE").to_owned());
    info.license = Some(license);
    let tags = [
        ("tokens", "Who asks."),
        ("streams", "Snapshots and changes, live or polled."),
        ("operating", "For those who run it."),
    ];
    // 3.2: the first version that can say what the events of a stream look like, and that has QUERY
    OpenApiBuilder::new()
        .openapi(OpenApiVersion::Version32)
        .info(info)
        .paths(paths)
        .components(Some(schemas::components()))
        .tags(Some(tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build())))
        .build()
}

/// `/v1/tables/{table}`.
pub(super) fn table() -> PathItem {
    writes::table(reads::table())
}

/// `/v1/tables/{table}/{key}`.
pub(super) fn row() -> PathItem {
    writes::row_writes(reads::row())
}
