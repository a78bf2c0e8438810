//! The addresses of tables and rows, and of batches: which method goes where.
//!
//! Must not know: what handlers do. Invariant: a method that is not served is answered with 405 and those that are.

use super::routes::not_allowed;
use super::{batch, rows, write};
use actix_web::guard;
use actix_web::middleware::Compress;
use actix_web::{Route, web};

/// All rows.
pub(super) fn table(path: &'static str, config: &mut web::ServiceConfig) {
    // lists only: a row's tag names its version, whatever the bytes are packed in, and is written back with
    let packed = |route: Route| route.to(rows::list).wrap(Compress::default());
    config.service(
        web::resource(path)
            .route(packed(read()))
            .route(packed(web::query()))
            .route(web::post().to(write::insert))
            .default_service(web::to(|| not_allowed("GET, HEAD, QUERY, POST"))),
    );
}

/// One row. Handlers read the key from the raw path: a `%2C` in it is no comma. It may be empty, as texts may.
pub(super) fn row(path: &'static str, config: &mut web::ServiceConfig) {
    config.service(
        web::resource(path.replace("{key}", "{key:.*}"))
            .route(read().to(rows::row))
            .route(web::patch().to(write::update))
            .route(web::put().to(write::replace))
            .route(web::delete().to(write::delete))
            .default_service(web::to(|| not_allowed("GET, HEAD, PATCH, PUT, DELETE"))),
    );
}

/// Several writes.
pub(super) fn batch(path: &'static str, config: &mut web::ServiceConfig) {
    config.service(
        web::resource(path).route(web::post().to(batch::batch)).default_service(web::to(|| not_allowed("POST"))),
    );
}

/// GET and HEAD: the server leaves the body of the latter out.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}
