//! The addresses below `/v1/tables`, and `/v1/batch`.
//!
//! Invariant: a method that is not served is answered with those that are.

use super::{Problem, batch, write};
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::{ResponseError, web};

/// Registers them.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/v1/tables/{table}")
                .route(web::post().to(write::insert))
                .default_service(other_methods("POST")),
        )
        .service(
            web::resource("/v1/tables/{table}/{key:.*}")
                .route(web::patch().to(write::update))
                .route(web::put().to(write::replace))
                .route(web::delete().to(write::delete))
                .default_service(other_methods("PATCH, PUT, DELETE")),
        )
        .service(web::resource("/v1/batch").route(web::post().to(batch::batch)).default_service(other_methods("POST")));
}

/// 405 with what is allowed.
fn other_methods(allow: &'static str) -> actix_web::Route {
    web::to(move || async move {
        let detail = format!("this address answers `{}`", allow.replace(", ", "`, `"));
        let mut answer = Problem::new(405, "method-not-allowed", detail).error_response();
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        answer
    })
}
