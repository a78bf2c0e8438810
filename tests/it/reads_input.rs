//! Bad and hostile reads: an answer with the remedy, never a 500, never somebody else's rows.

use crate::support::{ReadClient, World};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What follows `/v1/tables/`, status, code, part of the detail.
const BAD: &[(&str, u16, &str, &str)] = &[
    // tables (H17)
    ("nope", 404, "not-found", "must be watched"),
    ("unwatched", 404, "not-found", "must be watched"),
    ("private", 404, "not-found", "must be watched"),
    ("T", 404, "not-found", "spelt as in the database"),
    ("pg_catalog.pg_authid", 404, "not-found", ""),
    ("rowcast.log_0", 404, "not-found", ""),
    ("t%22;--", 404, "not-found", ""),
    ("public.t%20a,%20private", 404, "not-found", ""),
    ("t%00", 404, "not-found", ""),
    ("%ff%fe", 404, "not-found", ""),
    ("te%CC%81", 404, "not-found", ""),
    ("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 404, "not-found", ""),
    ("..%2f..%2fetc%2fpasswd", 404, "not-found", ""),
    // order and select (H18)
    ("t?order=id%20desc", 400, "unknown-column", "in `order`"),
    ("t?order=id;drop%20table%20t", 400, "unknown-column", "in `order`"),
    ("t?order=(select%201)", 400, "unknown-column", "in `order`"),
    ("t?order=count(*)", 400, "unknown-column", "in `order`"),
    ("t?order=id::text", 400, "unknown-column", "in `order`"),
    ("t?order=1", 400, "unknown-column", "in `order`"),
    ("t?order=j-%3E%3Ea", 400, "unknown-column", "in `order`"),
    ("t?order=case%20when%20true%20then%20id%20end", 400, "unknown-column", "in `order`"),
    ("t?order=", 400, "malformed-order", "column.desc.nullslast"),
    ("t?order=id,,n", 400, "malformed-order", ""),
    ("t?order=id.sideways", 400, "malformed-order", ""),
    ("t?order=id.desc.nullslast.x", 400, "malformed-order", ""),
    ("t?order=id,id.desc", 400, "malformed-order", ""),
    ("t?order=p", 400, "malformed-order", "no order"),
    ("t?order=j", 400, "malformed-order", "no order"),
    ("t?select=count(*)", 400, "unknown-column", "in `select`"),
    ("t?select=id::text", 400, "unknown-column", "in `select`"),
    ("t?select=id,(select%201)", 400, "unknown-column", "in `select`"),
    // columns that are not published are not there (H19)
    ("t?order=hidden", 400, "unknown-column", "unknown column `hidden`"),
    ("t?select=hidden", 400, "unknown-column", "unknown column `hidden`"),
    ("t?hidden=eq.canary", 400, "unknown-column", "unknown column `hidden`"),
    ("t?hiddem=eq.canary", 400, "unknown-column", "unknown column `hiddem`"),
    ("t?order=ctid", 400, "unknown-column", ""),
    ("t?xmin=eq.1", 400, "unknown-column", ""),
    // numbers (H21)
    ("t?limit=-1", 400, "malformed-request", "`limit` is a number"),
    ("t?limit=x", 400, "malformed-request", "`limit` is a number"),
    ("t?limit=1e9", 400, "malformed-request", "`limit` is a number"),
    ("t?limit=1;drop%20table%20t", 400, "malformed-request", "`limit` is a number"),
    ("t?offset=-1", 400, "malformed-request", "`offset` is a number"),
    ("t?offset=1000001", 400, "malformed-request", "filter"),
    ("t?offset=99999999999999999999999999", 400, "malformed-request", "filter"),
    ("t?limit=1&limit=2", 400, "malformed-request", "twice"),
    ("t?numbers=roman", 400, "malformed-request", "`string` or `number`"),
    // filters (H20)
    ("t?name=fts.x", 400, "unknown-operator", "use `eq`"),
    ("t?name=match.(a%2B)%2B", 400, "unknown-operator", "use `eq`"),
    ("t?j=eq.{}", 400, "operator-not-exact", "column `j`"),
    ("t?id=eq.1;drop%20table%20t", 400, "invalid-value", ""),
    ("t?name=eq.a%00b", 400, "invalid-value", ""),
    // keys
    ("t/x", 400, "invalid-value", ""),
    ("t/1,2", 400, "invalid-value", ""),
    ("t/99999999999999999999", 400, "invalid-value", ""),
    ("t/%ff", 400, "malformed-filter", "UTF-8"),
    ("t/1%00", 400, "invalid-value", ""),
    ("t/1'%20or%20'1'='1", 400, "invalid-value", ""),
    ("t/1?id=eq.1", 400, "malformed-request", "no meaning for one row"),
    ("t/1?order=id", 400, "malformed-request", "no meaning for one row"),
    ("t/1?select=hidden", 400, "unknown-column", ""),
    ("t/7777", 404, "not-found", "must be watched"),
    ("private/1", 404, "not-found", "must be watched"),
];

async fn served() -> (World, crate::support::TestGateway, ReadClient) {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, name text collate \"C\", n int, hidden text, p point, j json);
             create table private (id int primary key); create table unwatched (id int primary key);
             insert into t select i, 'a', i, 'canary' from generate_series(1, 1500) as i; insert into private values (1);
             select rowcast.watch('t', exclude => array['hidden'], public => true), rowcast.watch('private')",
        )
        .await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    (world, gateway, client)
}

#[tokio::test]
async fn bad_reads_are_told_the_remedy() {
    let (world, gateway, client) = served().await;
    for (path, status, code, says) in BAD {
        let answer = client.get(&format!("/v1/tables/{path}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (*status, *code), "{path}: {}", answer.text());
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{path}: {detail}");
        for secret in ["canary", "rowcast.log", "pg_catalog", "postgres://", "src/"] {
            assert!(!detail.contains(secret) || path.contains(secret), "{path}: {detail}");
        }
    }
    assert_eq!(world.sql().await.query_one("select count(*) from t", &[]).await.unwrap().get::<_, i64>(0), 1500);
    gateway.stop().await;
}

/// H16: in a value nothing is SQL.
#[tokio::test]
async fn values_are_values() {
    let (_world, gateway, client) = served().await;
    for value in
        ["1';drop table t", "') or 1=1--", "\\'", "$$", "$1", "’ or ’1’=’1", "a' union select hidden from t--", "%"]
    {
        let encoded = crate::support::mirror::encoded(value);
        let answer = client.get(&format!("/v1/tables/t?name=eq.{encoded}")).await;
        assert_eq!(answer.rows().len(), 0, "{value}");
        let listed = client.get(&format!("/v1/tables/t?name=in.(%22{}%22)", encoded.replace("%5C", "%5C%5C"))).await;
        assert_eq!(listed.rows().len(), 0, "{value}");
    }
    gateway.stop().await;
}

/// H20, H21: large is refused or cut to measure.
#[tokio::test]
async fn caps_hold() {
    let (_world, gateway, client) = served().await;
    for limit in ["1000", "1001", "4294967296", "18446744073709551616"] {
        let answer = client.get(&format!("/v1/tables/t?limit={limit}")).await;
        assert_eq!(answer.rows().len(), 1000, "{limit}");
        assert!(answer.header("link").contains("offset=1000"), "{limit}: {}", answer.header("link"));
    }
    assert_eq!(client.get("/v1/tables/t?offset=1000").await.rows().len(), 500);
    assert_eq!(client.get("/v1/tables/t?offset=1000000").await.rows().len(), 0);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let terms = (0..65).map(|i| format!("id=neq.{i}")).collect::<Vec<_>>().join("&");
    let list = format!("id=in.({})", (0..1001).map(|i| i.to_string()).collect::<Vec<_>>().join(","));
    let deep = format!("or={}id.eq.1{}", "(or".repeat(400) + "(", ")".repeat(401));
    let like = format!("name=like.{}", "*a".repeat(5000));
    for body in [terms, list, deep, like] {
        let answer = client.ask("QUERY", "/v1/tables/t", &[form], &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "filter-too-complex"), "{:.60}", body);
    }
    gateway.stop().await;
}

/// H13.
#[tokio::test]
async fn other_representations_are_refused() {
    let (_world, gateway, client) = served().await;
    for path in ["/v1/tables/t", "/v1/tables/t/1"] {
        let answer = client.ask("GET", path, &[("accept", "application/xml")], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (406, "not-acceptable"), "{path}");
        for tag in ["42", "\"a", "\"a\"\"b\"", "\"a b\""] {
            let answer = client.ask("GET", path, &[("if-none-match", tag)], "").await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "malformed-request"), "{path} {tag}");
        }
    }
    gateway.stop().await;
}

/// A body that never comes to its end is not waited for. 10 s
#[tokio::test]
async fn a_stalled_body_is_given_up() {
    let (_world, gateway, _client) = served().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = "QUERY /v1/tables/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                Content-Length: 100\r\n\r\nid=eq.1";
    let began = Instant::now();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
    let length = read.expect("it is answered").unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    gateway.stop().await;
}
