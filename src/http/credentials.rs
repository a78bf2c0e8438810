//! What a request shows of who it is: a token in `Authorization`, or in a cookie, or a ticket; never in the address.
//!
//! Must not know: whether a token is good. Invariants: one credential or none, two are refused; a cookie counts only where the
//! browser vouches for the page, as it sends cookies for every page; whoever shows something that is not understood is never
//! taken for somebody who shows nothing.

use super::{Problem, origin};
use actix_web::HttpRequest;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HeaderValue};

/// The cookie.
pub(super) const COOKIE_NAME: &str = "rowcast_token";

/// Names under which tokens are put into addresses.
const IN_ADDRESS: [&str; 3] = ["token", "access_token", "jwt"];

/// What a filter's value begins with, should a column have one of those names.
const OPERATORS: [&str; 11] = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike", "not"];

/// The token of a request, if it shows one.
///
/// # Errors
/// 400 for two; 403 for a cookie that a foreign page may have sent; 401 for what is no bearer token.
pub(super) fn token<'a>(request: &'a HttpRequest, allowed: &[String]) -> Result<Option<&'a str>, Problem> {
    let headers = request.headers();
    let bearer = match headers.get(AUTHORIZATION) {
        None => None,
        Some(_) if headers.get_all(AUTHORIZATION).nth(1).is_some() => return Err(twice()),
        Some(value) => Some(value.to_str().ok().and_then(bearer).ok_or_else(Problem::bad_token)?),
    };
    let Some(_) = headers.get(COOKIE) else { return Ok(bearer) };
    let unread = |line: &HeaderValue| line.to_str().is_err() && contains(line.as_bytes(), COOKIE_NAME.as_bytes());
    if headers.get_all(COOKIE).any(unread) {
        return Err(Problem::bad_token());
    }
    let mut cookies = headers.get_all(COOKIE).filter_map(|line| line.to_str().ok()).flat_map(of_line);
    match (bearer, cookies.next()) {
        (bearer, None) => Ok(bearer),
        (Some(_), Some(_)) => Err(twice()),
        (None, Some(_)) if cookies.next().is_some() => Err(twice()),
        (None, Some(cookie)) => {
            origin::vouched(request, allowed)?;
            Ok(Some(cookie))
        }
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The token of `Bearer <token>`.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Our cookies of one line.
fn of_line(line: &str) -> impl Iterator<Item = &str> {
    let pairs = line.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value.trim_matches('"'))
}

/// More than one credential.
pub(super) fn twice() -> Problem {
    let detail = "two credentials: one of `Authorization`, the cookie `rowcast_token` and `ticket`, once";
    Problem::new(400, "malformed-request", detail)
}

/// Refuses tokens in an address: it is logged by everything on the way, kept by browsers, and sent on as `Referer`. A column may
/// have such a name; then an operator stands before the value.
///
/// # Errors
/// 400 with what to do instead, without the value.
pub(super) fn refuse_in(pairs: &[(String, String)]) -> Result<(), Problem> {
    let is_filter = |value: &str| value.split_once('.').is_some_and(|(operator, _)| OPERATORS.contains(&operator));
    let found = pairs.iter().find(|(name, value)| IN_ADDRESS.contains(&name.as_str()) && !is_filter(value));
    let Some((name, _)) = found else { return Ok(()) };
    let detail = format!(
        "`{name}` in the address: tokens are not taken there, as addresses are logged. Send `Authorization: Bearer`, or from an \
         `EventSource` a ticket of `POST /v1/tickets`"
    );
    Err(Problem::new(400, "malformed-request", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn judge(headers: &[(&'static str, &str)]) -> Result<Option<String>, u16> {
        let mut request = TestRequest::get().insert_header(("host", "live.example"));
        for header in headers {
            request = request.append_header(*header);
        }
        let request = request.to_http_request();
        let allowed = ["https://app.example".to_owned()];
        token(&request, &allowed).map(|t| t.map(str::to_owned)).map_err(|p| p.status())
    }

    #[test]
    fn one_credential_or_none() {
        let own = ("sec-fetch-site", "same-origin");
        let some = |token: &str| Ok(Some(token.to_owned()));
        assert_eq!(judge(&[]), Ok(None));
        assert_eq!(judge(&[("cookie", "a=b; rowcast_token2=x; xrowcast_token=y")]), Ok(None));
        assert_eq!(judge(&[("authorization", "Bearer a.b.c")]), some("a.b.c"));
        assert_eq!(judge(&[("authorization", "bearer  a.b.c ")]), some("a.b.c"));
        assert_eq!(judge(&[("cookie", "a=b; rowcast_token=a.b.c"), own]), some("a.b.c"));
        assert_eq!(judge(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), Err(400));
        assert_eq!(judge(&[("authorization", "Bearer a"), ("cookie", "rowcast_token=a"), own]), Err(400));
        assert_eq!(judge(&[("cookie", "rowcast_token=a; rowcast_token=b"), own]), Err(400));
        assert_eq!(judge(&[("cookie", "rowcast_token=a"), ("cookie", "rowcast_token=a"), own]), Err(400));
        let odd = [("cookie", "a=\u{e9}; rowcast_token=a"), own];
        assert_eq!(judge(&odd), Err(401), "a cookie beside one that is not ASCII");
        assert_eq!(judge(&[("cookie", "a=\u{e9}")]), Ok(None));
        for other in ["Basic YTpi", "Bearer", "Bearer ", "a.b.c", "", "Bearer\u{e9} x", "Token a"] {
            assert_eq!(judge(&[("authorization", other)]), Err(401), "{other}");
        }
    }

    #[test]
    fn a_cookie_counts_where_the_browser_vouches_for_the_page() {
        let with = |name: &'static str, value: &str| judge(&[("cookie", "rowcast_token=a"), (name, value)]);
        for (name, value) in
            [("origin", "https://app.example"), ("origin", "https://live.example"), ("sec-fetch-site", "same-origin")]
        {
            assert!(with(name, value).is_ok(), "{name}: {value}");
        }
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "https://app.example.evil"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "none"),
            ("accept", "*/*"),
        ] {
            assert_eq!(with(name, value), Err(403), "{name}: {value}");
        }
        let both =
            [("cookie", "rowcast_token=a"), ("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")];
        assert_eq!(judge(&both), Err(403));
    }

    #[test]
    fn tokens_are_not_taken_from_addresses() {
        let judge = |query: &str| refuse_in(&serde_urlencoded::from_str::<Vec<_>>(query).unwrap());
        for query in ["token=eyJ.a.b", "a=eq.1&access_token=x", "jwt=", "token=secret.x"] {
            let problem = judge(query).unwrap_err();
            assert!(problem.status() == 400 && problem.to_string().contains("ticket"), "{problem}");
            assert!(!problem.to_string().contains("eyJ") && !problem.to_string().contains("secret"), "{problem}");
        }
        for query in ["token=eq.a", "jwt=not.eq.b", "access_token=is.null", "tokens=x", "a=token"] {
            assert!(judge(query).is_ok(), "{query}");
        }
    }
}
