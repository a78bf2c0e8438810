//! Compressed bodies, for who asks for them.
//!
//! Must not know: what is in a body. Invariant: who sends no `Accept-Encoding` pays nothing for it (the framework's
//! middleware reads the answer's media type even then).

use super::Problem;
use actix_http::encoding::Encoder;
use actix_web::http::header::{AcceptEncoding, ContentEncoding, Encoding};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};

/// What a body is to be packed in; none: it goes as it is.
///
/// # Errors
/// 406 when nothing that is offered is acceptable, not even a plain body (RFC 9110, 12.5.3).
pub(super) fn wanted(request: &HttpRequest) -> Result<Option<ContentEncoding>, Problem> {
    let Some(accepts) = request.get_header::<AcceptEncoding>() else { return Ok(None) };
    let offered = [Encoding::identity(), Encoding::brotli(), Encoding::gzip(), Encoding::deflate()];
    match accepts.negotiate(offered.iter()) {
        Some(Encoding::Known(ContentEncoding::Identity)) => Ok(None),
        Some(Encoding::Known(encoding)) => Ok(Some(encoding)),
        _ => Err(Problem::new(
            406,
            "not-acceptable",
            "this address packs its answers in `br`, `gzip`, `deflate` or not at all",
        )),
    }
}

/// Packs, unless the response says that its body is not to be.
pub(super) fn pack(response: HttpResponse, encoding: Option<ContentEncoding>) -> HttpResponse {
    match encoding {
        Some(encoding) => response.map_body(|head, body| Encoder::response(encoding, head, body)).map_into_boxed_body(),
        None => response,
    }
}
