//! The addresses of tables and rows: which method goes where.
//!
//! Must not know: what handlers do. Invariant: a method that is not served is answered with 405 and those that are.

use super::{Problem, rows};
use actix_web::guard::{self, Guard, GuardContext};
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::Compress;
use actix_web::{HttpResponse, ResponseError, Route, web};

/// All rows.
const TABLE: &str = "/v1/tables/{table}";
/// One row. Handlers read the key from the raw path: a `%2C` in it is no comma.
const ROW: &str = "/v1/tables/{table}/{key}";

/// What `Allow` says of them.
const TABLE_METHODS: &str = "GET, HEAD, QUERY";
const ROW_METHODS: &str = "GET, HEAD";

/// Registers the routes.
pub(super) fn configure(config: &mut web::ServiceConfig) {
    config.service(
        web::resource(TABLE)
            // lists only: a row's tag names its version, whatever the bytes are packed in, and is written back with
            .wrap(Compress::default())
            .route(read().to(rows::list))
            .route(web::route().guard(query).to(rows::list))
            .default_service(web::to(|| async { not_allowed(TABLE_METHODS) })),
    );
    config.service(
        web::resource(ROW).route(read().to(rows::row)).default_service(web::to(|| async { not_allowed(ROW_METHODS) })),
    );
}

/// GET and HEAD: the server leaves the body of the latter out.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

/// The method QUERY: a GET with its parameters in the body.
fn query(context: &GuardContext<'_>) -> bool {
    guard::fn_guard(|context| context.head().method.as_str() == "QUERY").check(context)
}

fn not_allowed(methods: &'static str) -> HttpResponse {
    let problem = Problem::new(405, "method-not-allowed", format!("this address answers {methods}"));
    let mut answer = problem.error_response();
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}
