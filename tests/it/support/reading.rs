//! Reads of lists and rows over HTTP, as a test looks at them.

use super::replica::tick_of;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// An answer.
#[derive(Debug)]
pub struct Reading {
    pub status: u16,
    headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// A client that keeps its connections, as browsers and proxies do.
#[derive(Clone)]
pub struct ReadClient {
    http: reqwest::Client,
    at: SocketAddr,
}

impl ReadClient {
    pub fn at(at: SocketAddr) -> ReadClient {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        ReadClient { http, at }
    }

    pub async fn get(&self, path: &str) -> Reading {
        self.ask("GET", path, &[], "").await
    }

    /// Not from an older state than this.
    pub async fn get_from(&self, path: &str, position: &str) -> Reading {
        self.ask("GET", path, &[("rowcast-min-position", position)], "").await
    }

    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reading {
        let mut request = self.http.request(method.parse().unwrap(), format!("http://{}{path}", self.at));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body.to_owned());
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let status = answer.status().as_u16();
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in answer.headers() {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(name.as_str().to_owned()).and_modify(|v| *v = format!("{v}, {value}")).or_insert(value);
        }
        let body = answer.bytes().await.unwrap_or_else(|e| panic!("{method} {path}: {e}")).to_vec();
        Reading { status, headers, body }
    }
}

impl Reading {
    /// A header's text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The rows of a list that was answered.
    pub fn rows(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json().as_array().unwrap().clone()
    }

    /// The code of a problem.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        self.json()["code"].as_str().unwrap().to_owned()
    }

    pub fn cache_status(&self) -> &str {
        self.header("cache-status")
    }

    pub fn position(&self) -> &str {
        self.header("rowcast-position")
    }

    pub fn tick(&self) -> i64 {
        tick_of(self.position())
    }
}
