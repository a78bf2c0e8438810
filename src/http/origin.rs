//! Which pages may connect: browsers let every page open a WebSocket to any address, and only say where it comes from.
//!
//! Must not know: what a connection may do. Invariant: an origin is compared whole, character by character: no prefix, no
//! suffix, no pattern.

use super::Problem;
use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderName, ORIGIN};

/// What a browser says of how a request's page and its target relate; pages cannot set it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets pass who sends no `Origin` (no browser), pages of the gateway's own address, and those allowed.
///
/// # Errors
/// 403 `origin-not-allowed`.
pub(super) fn check(request: &HttpRequest, allowed: &[String]) -> Result<(), Problem> {
    let mut origins = request.headers().get_all(ORIGIN);
    let Some(origin) = origins.next() else { return Ok(()) };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let fits = |origin: &str| allowed.iter().any(|a| a == origin) || is_same(origin, host);
    if origins.next().is_none() && origin.to_str().is_ok_and(fits) {
        return Ok(());
    }
    let detail = "pages of this origin may not connect; whoever runs the gateway names it in `allowed_origins`";
    Err(Problem::new(403, "origin-not-allowed", detail))
}

/// The same for what a browser adds to requests of every page, such as cookies: here it must say where the page is from.
///
/// # Errors
/// 403 `origin-not-allowed`.
pub(super) fn vouched(request: &HttpRequest, allowed: &[String]) -> Result<(), Problem> {
    let headers = request.headers();
    // a page's requests to its own address have no `Origin` when they only read
    let own = || headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "same-origin");
    if headers.contains_key(ORIGIN) {
        return check(request, allowed);
    }
    if own() {
        return Ok(());
    }
    let detail = "a token in a cookie is taken only of pages whose browser says where they are from: `Origin`, or `Sec-Fetch-Site: same-origin`. \
        Programs send `Authorization: Bearer`";
    Err(Problem::new(403, "origin-not-allowed", detail))
}

/// Is this the origin of pages that this very address serves? The scheme is not known here: TLS ends at a proxy.
fn is_same(origin: &str, host: &str) -> bool {
    let bare = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    bare.is_some_and(|bare| !bare.is_empty() && bare == host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn only_what_is_the_same_to_the_last_character() {
        let allowed = ["https://app.example.com".to_owned(), "http://localhost:5173".to_owned()];
        let judge = |origins: &[&str]| {
            let mut request = TestRequest::get().insert_header(("host", "live.example.com:8080"));
            for origin in origins {
                request = request.append_header(("origin", *origin));
            }
            check(&request.to_http_request(), &allowed).is_ok()
        };
        assert!(judge(&[]), "no browser");
        for origin in [
            "https://app.example.com",
            "http://localhost:5173",
            "http://live.example.com:8080",
            "https://live.example.com:8080",
        ] {
            assert!(judge(&[origin]), "{origin}");
        }
        for origin in [
            "https://evil.example",
            "null",
            "",
            "https://",
            "https://app.example.com.evil",
            "https://evil-app.example.com",
            "https://app.example.com:443",
            "https://app.example.com:8443",
            "http://app.example.com",
            "https://APP.example.com",
            "https://app.example.com/",
            "https://app.example.com@evil.example",
            "http://localhost",
            "http://live.example.com",
            "http://live.example.com:80800",
            "live.example.com:8080",
            "ws://live.example.com:8080",
            "*",
        ] {
            assert!(!judge(&[origin]), "{origin}");
        }
        assert!(!judge(&["https://app.example.com", "https://evil.example"]), "two of them");
    }
}
