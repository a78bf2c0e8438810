//! Fetches a JWKS: the only use of an HTTP client in the gateway.
//!
//! Must not know: tokens, when to fetch. Invariants: only from the configured address, whatever a token or an answer says; what
//! comes is bounded in time and size, and a set that is not one changes nothing.

use super::fault::AuthError;
use super::key::Key;
use reqwest::header::{ACCEPT, CACHE_CONTROL, HeaderMap};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// For the whole answer. A caller may be waiting.
pub(super) const TIME: Duration = Duration::from_secs(5);

/// Largest set. Real ones have a few kB.
const MOST: usize = 256 * 1024;

/// A set that was fetched.
pub(super) struct Fetched {
    pub(super) keys: Vec<Key>,
    /// Keys that are not for signatures that are accepted here.
    pub(super) passed_over: usize,
    /// How long it may be kept, as it says.
    pub(super) max_age: Option<Duration>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Source {
    client: Client,
    url: Url,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Box<RawValue>>,
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']')) {
        Some("localhost") => true,
        Some(host) => host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

impl Source {
    /// Fetches from this address.
    ///
    /// # Errors
    /// Others could read or change what comes from there.
    pub(super) fn new(url: &str) -> Result<Source, AuthError> {
        let url = Url::parse(url).map_err(|_| AuthError::JwksUrl)?;
        let plain = url.scheme() == "http" && is_loopback(&url);
        if !plain && url.scheme() != "https" {
            return Err(AuthError::JwksUrl);
        }
        let mut client = Client::builder().timeout(TIME).redirect(redirect::Policy::none()).pool_max_idle_per_host(0);
        if plain {
            // a proxy would be one more who can change it
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| AuthError::Client(e.without_url().to_string()))?;
        Ok(Source { client, url })
    }

    /// Fetches the set.
    ///
    /// # Errors
    /// Why there is none, without the address, which may have secrets in it.
    pub(super) async fn fetch(&self) -> Result<Fetched, String> {
        let told = |e: reqwest::Error| causes(&e.without_url());
        let request = self.client.get(self.url.clone()).header(ACCEPT, "application/jwk-set+json, application/json");
        let mut answer = request.send().await.map_err(told)?;
        if answer.status() != 200 {
            return Err(format!("the answer has status {}, not 200", answer.status().as_u16()));
        }
        let max_age = max_age(answer.headers());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(told)? {
            if body.len() + chunk.len() > MOST {
                return Err(format!("the answer is larger than {MOST} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        let set: Set =
            serde_json::from_slice(&body).map_err(|_| "the answer is no JWKS: `{\"keys\": [..]}`".to_owned())?;
        let keys: Vec<Key> = set.keys.iter().filter_map(|key| Key::jwk(key)).collect();
        Ok(Fetched { passed_over: set.keys.len() - keys.len(), keys, max_age })
    }
}

/// The library's own text leaves out what is underneath.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// `max-age`; zero when it may not be kept at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    for directive in directives.flat_map(|value| value.split(',')).map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if let Some((name, seconds)) = directive.split_once('=')
            && name.trim().eq_ignore_ascii_case("max-age")
        {
            found = seconds.trim().trim_matches('"').parse().ok().map(Duration::from_secs);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_nobody_else_can_answer_for() {
        for url in [
            "https://id.example/jwks",
            "https://id.example:8443/a?b=c",
            "http://localhost:1/x",
            "http://127.0.0.1/x",
            "http://127.9.9.9/x",
            "http://[::1]:80/x",
        ] {
            assert!(Source::new(url).is_ok(), "{url}");
        }
        for url in [
            "http://id.example/jwks",
            "http://localhost.example/x",
            "http://127.0.0.1.example/x",
            "http://10.0.0.1/x",
            "http://localhost@id.example/x",
            "ftp://localhost/x",
            "file:///etc/jwks",
            "id.example/jwks",
            "",
        ] {
            assert!(matches!(Source::new(url), Err(AuthError::JwksUrl)), "{url}");
        }
    }

    #[test]
    fn how_long_it_may_be_kept() {
        let age = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            max_age(&headers)
        };
        assert_eq!(max_age(&HeaderMap::new()), None);
        assert_eq!(age("public, Max-Age=3600, must-revalidate"), Some(Duration::from_secs(3600)));
        assert_eq!(age("max-age=\"60\""), Some(Duration::from_secs(60)));
        assert_eq!(age("s-maxage=5"), None);
        assert_eq!(age("max-age=soon"), None);
        assert_eq!(age("max-age=60, no-cache"), Some(Duration::ZERO));
    }
}
