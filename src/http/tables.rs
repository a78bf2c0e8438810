//! The addresses of tables and rows, and of batches: which method goes where.
//!
//! Must not know: what handlers do. Invariant: a method that is not served is answered with 405 and those that are.

use super::routes::not_allowed;
use super::{App, Problem, auth, batch, packed, rows, target, write};
use actix_web::{HttpRequest, HttpResponse, web};

/// `/v1/tables/{table}` and `/v1/tables/{table}/{key}`, told apart by hand: the router's regular expressions took an
/// eighth of a cached answer's time. Handlers read the key from the raw path: a `%2C` in it is no comma. It may be empty,
/// as texts may.
pub(super) fn tables(_: &'static str, config: &mut web::ServiceConfig) {
    config.service(web::scope("/v1/tables").default_service(web::to(serve)));
}

async fn serve(request: HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let (table, key) = target::segments(request.uri().path());
    if table.is_none() {
        return Err(Problem::not_found());
    }
    let is_row = key.is_some();
    let served = if is_row { "GET, HEAD, PATCH, PUT, DELETE" } else { "GET, HEAD, QUERY, POST" };
    if !served.split(", ").any(|method| request.method().as_str() == method) {
        return Ok(not_allowed(served).await);
    }
    let app = request.app_data::<web::Data<App>>().cloned().ok_or_else(Problem::no_state)?;
    let access = &*auth::access(&request, &app).await?;
    match (is_row, request.method().as_str()) {
        (true, "PATCH") => write::update(request.clone(), payload, app, access).await,
        (true, "PUT") => write::replace(request.clone(), payload, app, access).await,
        (true, "DELETE") => write::delete(request.clone(), payload, app, access).await,
        (true, _) => rows::row(request.clone(), app, access).await,
        (false, "POST") => write::insert(request.clone(), payload, app, access).await,
        (false, _) => {
            // lists only: a row's tag names its version, whatever the bytes are packed in, and is written back with
            let encoding = packed::wanted(&request)?;
            Ok(packed::pack(rows::list(request.clone(), payload, app, access).await?, encoding))
        }
    }
}

/// Several writes.
pub(super) fn batch(path: &'static str, config: &mut web::ServiceConfig) {
    config.service(
        web::resource(path).route(web::post().to(batch::batch)).default_service(web::to(|| not_allowed("POST"))),
    );
}
