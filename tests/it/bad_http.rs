//! Hostile HTTP, and a database that is not there: an answer that says what is wrong, never a 500, never a hang.

use crate::bad_input::{ANSWER, get, served};
use crate::support::{Proxy, Sse, World, eventually, proxy, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes as they are; the whole answer, up to the end of the connection.
async fn raw(at: SocketAddr, request: &[u8]) -> String {
    let mut socket = TcpStream::connect(at).await.unwrap();
    // the peer may close before it read everything
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(ANSWER, socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "no end after {ANSWER:?}: {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn methods_and_representations() {
    let (_world, gateway) = served().await;
    let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap();
    for path in ["/v1/stream?table=t", "/v1/changes?table=t", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let answer = http.request(method.parse().unwrap(), gateway.url(path)).send().await.unwrap();
            let streams = path.starts_with("/v1/stream");
            if streams && method == "POST" {
                // subscriptions stand in the body there
                assert_eq!(answer.status(), 400, "{method} {path}");
                continue;
            }
            assert_eq!(answer.status(), 405, "{method} {path}");
            let allow = if streams { "GET, HEAD, POST" } else { "GET, HEAD" };
            assert_eq!(answer.headers()["allow"], allow, "{method} {path}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "method-not-allowed");
        }
        let answer = http.head(gateway.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "HEAD {path}");
        assert!(answer.bytes().await.unwrap().is_empty());
    }
    for path in
        ["/", "/v1", "/v1/streams", "/v1/stream/", "/V1/stream", "//v1/stream", "/%76%31/nothing", "/metrics", "/.env"]
    {
        let answer = get(gateway.address, path, &[]).await;
        assert_eq!((answer.status, answer.problem()["code"].as_str().unwrap()), (404, "not-found"), "{path}");
    }
    for (path, accept, status) in [
        ("/v1/stream?table=t", "application/xml", 406),
        ("/v1/stream?table=t", "application/json", 406),
        ("/v1/changes?table=t", "text/event-stream", 406),
        ("/v1/changes?table=t", "application/xml;q=0.9, text/html", 406),
        ("/v1/changes?table=t", "text/html, application/xhtml+xml, */*;q=0.8", 200),
        ("/v1/changes?table=t", "application/*", 200),
        ("/v1/changes?table=t", "APPLICATION/JSON; charset=utf-8", 200),
        ("/v1/stream?table=t", "text/event-stream", 200),
        ("/v1/stream?table=t", "*/*", 200),
    ] {
        let answer = get(gateway.address, path, &[("accept", accept)]).await;
        assert_eq!(answer.status, status, "{path} {accept}: {}", answer.body);
        if status == 406 {
            assert_eq!(answer.problem()["code"], "not-acceptable");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn broken_http() {
    let (_world, gateway) = served().await;
    let request = |line: &str, headers: &str| format!("{line}\r\n{headers}\r\n");
    let ok = "GET /v1/changes?table=t HTTP/1.1";
    let close = "Connection: close\r\n";
    for (what, bytes, statuses) in [
        ("a good request", request(ok, &format!("Host: a\r\n{close}")), &["200"][..]),
        ("two hosts", request(ok, &format!("Host: a\r\nHost: b\r\n{close}")), &["400"]),
        ("no host", request(ok, close), &["400"]),
        ("a folded header", request(ok, &format!("Host: a\r\nX: a\r\n b\r\n{close}")), &["400"]),
        ("a space before the colon", request(ok, &format!("Host: a\r\nX : a\r\n{close}")), &["400"]),
        ("NUL in a header", request(ok, &format!("Host: a\r\nX: a\0b\r\n{close}")), &["400"]),
        (
            "NUL in the position",
            request("GET /v1/stream?table=t HTTP/1.1", &format!("Host: a\r\nLast-Event-ID: a\0b\r\n{close}")),
            &["400"],
        ),
        (
            "length and chunks",
            request(ok, &format!("Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n{close}")),
            &["400"],
        ),
        (
            "two lengths",
            request(ok, &format!("Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n{close}")),
            &["400"],
        ),
        (
            "a space in the address",
            request("GET /v1/changes?table=t x HTTP/1.1", &format!("Host: a\r\n{close}")),
            &["400"],
        ),
        ("HTTP/3 in words", request("GET / HTTP/3.0", &format!("Host: a\r\n{close}")), &["400"]),
        ("not HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), &["400"]),
        (
            "a long address",
            request(&format!("GET /v1/changes?table={} HTTP/1.1", "x".repeat(9000)), &format!("Host: a\r\n{close}")),
            &["414"],
        ),
        (
            "a position of 100 kB",
            request(
                &format!("GET /v1/changes?table=t&since={} HTTP/1.1", "1".repeat(60_000)),
                &format!("Host: a\r\n{close}"),
            ),
            &["414"],
        ),
        ("a large header", request(ok, &format!("Host: a\r\nX: {}\r\n{close}", "x".repeat(20_000))), &["431"]),
        ("many headers", request(ok, &format!("Host: a\r\n{}{close}", "X: a\r\n".repeat(150))), &["431", "400"]),
        (
            "an endless header",
            request(ok, &format!("Host: a\r\nX: {}\r\n{close}", "x".repeat(400_000))),
            &["431", "400"],
        ),
        ("CONNECT", request("CONNECT a:80 HTTP/1.1", &format!("Host: a\r\n{close}")), &["400", "404", "405"]),
    ] {
        let answer = raw(gateway.address, bytes.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_else(|| panic!("{what}: no answer: {answer:?}"));
        assert!(statuses.contains(&status), "{what}: {}", &answer[..answer.len().min(600)]);
        if status == "414" || status == "431" && what == "a large header" {
            assert!(answer.contains("application/problem+json"), "{what}: {answer}");
        }
    }
    // it still serves
    assert_eq!(get(gateway.address, "/v1/changes?table=t", &[]).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn anything_at_all_is_answered() {
    let mut random = StdRng::seed_from_u64(seed());
    let (_world, gateway) = served().await;
    let words = [
        "table=t",
        "table=private",
        "sub=",
        "a~t",
        "?",
        "&",
        "&id=",
        "&name=",
        "eq.",
        "in.(",
        ")",
        "or=(",
        "and(",
        "not.",
        "is.null",
        "like.",
        "%25",
        "*",
        "%00",
        "%ff",
        "%E2%80%AE",
        "\"",
        "\\",
        "'",
        ";",
        ",",
        ".",
        "=",
        "1",
        "-1",
        "1e400",
        "NaN",
        "since=",
        "now",
        "1-0",
        "select=",
        "id",
        "name,n",
        "numbers=string",
        "+",
        "%2B",
        "~",
        "#",
        "%",
        "%2",
        "%zz",
        "[",
        "wait=0",
        "wait=99999999999999999999",
    ];
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..400 {
        let mut query = String::from(if random.random_bool(0.7) { "table=t&" } else { "" });
        for _ in 0..random.random_range(1..12) {
            query.push_str(words[random.random_range(0..words.len())]);
        }
        let query = query.replace('"', "%22").replace('#', "%23").replace('[', "%5B").replace('\\', "%5C");
        for path in ["stream", "changes"] {
            let answer = client
                .get(gateway.url(&format!("/v1/{path}?{query}")))
                .send()
                .await
                .unwrap_or_else(|e| panic!("{query}: {e}"));
            let status = answer.status().as_u16();
            assert!(
                [200, 204, 400, 404, 410, 414].contains(&status),
                "{query}: {status} {}",
                answer.text().await.unwrap()
            );
            seen.insert(status);
        }
    }
    assert!(seen.contains(&200) && seen.contains(&400) && seen.contains(&404), "{seen:?}");
    gateway.stop().await;
}

/// Takes 10 s: the wait of a request that comes before the gateway is ready.
#[tokio::test]
async fn postgres_away_at_start_is_waited_for_and_readyz_says_why() {
    let world = World::new().await;
    world
        .run("create table t (id int primary key); insert into t values (1); select rowcast.watch('t', public => true)")
        .await;
    let (proxy, url) = Proxy::postgres(&world.url).await;
    proxy.set(proxy::Mode::Refuse);
    let gateway = world.starting_gateway(|settings| settings.database_url = url);
    eventually("it says why", || async {
        let ready = gateway.readyz().await;
        let conditions = ready["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|c| c["ok"] == false && c["reason"].as_str().is_some_and(|r| r.contains("cannot be reached")))
    })
    .await;
    assert_eq!(get(gateway.address, "/readyz", &[]).await.status, 503);
    assert_eq!(get(gateway.address, "/healthz", &[]).await.status, 200, "a restart would not help");
    // what is wrong by itself is told at once
    assert_eq!(get(gateway.address, "/v1/changes?table=t&since=x", &[]).await.status, 400);
    let path = gateway.url("/v1/stream?table=t");
    let stream = tokio::spawn(async move { reqwest::get(path).await.unwrap().text().await.unwrap() });
    let answer = get(gateway.address, "/v1/changes?table=t", &[]).await;
    assert_eq!((answer.status, answer.problem()["code"].as_str().unwrap()), (503, "not-ready"));
    assert!(
        answer.headers.iter().any(|(name, value)| name == "retry-after" && value.parse::<u32>().is_ok()),
        "{:?}",
        answer.headers
    );
    let told = stream.await.unwrap();
    assert!(
        told.contains("event: bye") && told.contains("not-ready") && told.contains("retry_ms"),
        "an EventSource comes back: {told}"
    );

    proxy.set(proxy::Mode::Pass);
    gateway.ready().await;
    let mut sse = Sse::open(gateway.address, "table=t").await;
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("the row", |r| r.row("1").is_some()).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_named() {
    let world = World::new().await;
    let config: tokio_postgres::Config = world.url.parse().unwrap();
    let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
    for (url, says) in [
        (world.url.replace(&password, "wrong"), "password authentication failed"),
        (format!("{}_nope", world.url), "does not exist"),
        ("postgres://a@127.0.0.1:1/x".to_owned(), "cannot be reached"),
    ] {
        let gateway = world.starting_gateway(|settings| settings.database_url = url);
        eventually(says, || async { gateway.readyz().await.to_string().contains(says) }).await;
        let ready = gateway.readyz().await.to_string();
        assert!(!ready.contains(&password) && !ready.contains("wrong@"), "{ready}");
        gateway.stop().await;
    }
}
