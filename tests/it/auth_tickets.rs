//! Tickets: once, on any gateway, and for as long as they are good.

use crate::support::keys::{SECRET, now, shared, token};
use crate::support::socket::Socket;
use crate::support::{TestGateway, World, with_secret};
use futures_util::StreamExt;
use futures_util::future::join_all;
use jsonwebtoken::Algorithm::HS256;
use serde_json::{Value, json};

async fn served() -> (World, TestGateway, TestGateway) {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let (one, other) = (world.gateway_with(with_secret).await, world.gateway_with(with_secret).await);
    (world, one, other)
}

async fn ticket(gateway: &TestGateway, token: &str) -> String {
    let answer = reqwest::Client::new().post(gateway.url("/v1/tickets")).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let given: Value = answer.json().await.unwrap();
    assert!(given["expires_in"].as_u64().is_some_and(|s| (1..=30).contains(&s)), "{given}");
    let ticket = given["ticket"].as_str().unwrap().to_owned();
    // 256 bits
    assert_eq!(ticket.len(), 43);
    ticket
}

async fn status(gateway: &TestGateway, path: &str) -> u16 {
    reqwest::get(gateway.url(path)).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_ticket_is_good_once_on_whichever_gateway() {
    let (world, one, other) = served().await;
    for path in ["/v1/changes?table=t&ticket=", "/v1/stream?table=t&ticket="] {
        let path = format!("{path}{}", ticket(&one, &token(60)).await);
        assert_eq!(status(&other, &path).await, 200);
        for gateway in [&other, &one] {
            assert_eq!(status(gateway, &path).await, 401);
        }
    }
    // many at once, on both
    let path = format!("/v1/changes?table=t&ticket={}", ticket(&one, &token(60)).await);
    let all = join_all((0..40).map(|i| status(if i % 2 == 0 { &one } else { &other }, &path))).await;
    assert_eq!(all.iter().filter(|status| **status == 200).count(), 1, "{all:?}");
    assert!(all.iter().all(|status| matches!(status, 200 | 401)), "{all:?}");
    // and a WebSocket
    let target = format!("/v1/ws?ticket={}", ticket(&one, &token(60)).await);
    let (mut socket, _) = Socket::connect_to(other.address, &target, &[]).await.unwrap();
    socket.send(json!({ "type": "init" })).await;
    assert!(socket.until("ready").await["token_expires_in"].as_u64().is_some_and(|s| (40..=60).contains(&s)));
    assert!(Socket::connect_to(one.address, &target, &[]).await.is_err());
    let left: i64 = world.sql().await.query_one("select count(*) from rowcast.ticket", &[]).await.unwrap().get(0);
    assert_eq!(left, 0);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_is_no_ticket_is_refused_in_the_words_for_tokens() {
    let (world, one, other) = served().await;
    let good = ticket(&one, &token(60)).await;
    let mut changed = good.clone().into_bytes();
    changed[0] = if changed[0] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let long = "A".repeat(5000);
    let refused = reqwest::Client::new().get(one.url("/v1/tables/t")).bearer_auth("x").send().await.unwrap();
    let text = |body: Value| body["detail"].as_str().unwrap().to_owned();
    let wanted = text(refused.json().await.unwrap());
    for bad in ["", "x", "' or 1=1--", &changed, &long, &token(60)] {
        let url = reqwest::Url::parse_with_params(&one.url("/v1/changes?table=t"), [("ticket", bad)]).unwrap();
        let answer = reqwest::get(url).await.unwrap();
        assert_eq!(answer.status(), 401, "{bad}");
        assert_eq!(answer.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
        assert_eq!(text(answer.json().await.unwrap()), wanted);
    }
    // one that is too old, by the clock all gateways share
    world.run("update rowcast.ticket set at = at - interval '30 s'").await;
    assert_eq!(status(&other, &format!("/v1/changes?table=t&ticket={good}")).await, 401);
    // it goes with the next that is given
    let next = ticket(&other, &token(60)).await;
    let sql = world.sql().await;
    let rows = sql.query("select claims::text, caller::text, hash from rowcast.ticket", &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    // whoever reads the table has no ticket
    let kept: (String, String, Vec<u8>) = (rows[0].get(0), rows[0].get(1), rows[0].get(2));
    assert!(!format!("{kept:?}").contains(&next) && kept.0.contains("\"ann\"") && kept.2.len() == 32, "{kept:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_ticket_is_given_for_a_token_in_the_header_alone() {
    let (_world, one, other) = served().await;
    let ask = |name: &str, value: String| {
        let request = reqwest::Client::new().post(one.url("/v1/tickets")).header("sec-fetch-site", "same-origin");
        request.header(name, value).send()
    };
    // a page that can send a cookie needs none, and a foreign one must not get any
    let cookie = ask("cookie", format!("rowcast_token={}", token(60))).await.unwrap();
    assert_eq!((cookie.status().as_u16(), cookie.headers()["www-authenticate"].as_bytes()), (401, &b"Bearer"[..]));
    assert_eq!(ask("authorization", format!("Bearer {}", token(-40))).await.unwrap().status(), 401);
    assert_eq!(status(&one, "/v1/tickets").await, 405);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_stream_by_ticket_ends_with_the_token_it_stands_for() {
    let (_world, one, other) = served().await;
    let ticket = ticket(&one, &token(3)).await;
    let answer = reqwest::get(other.url(&format!("/v1/stream?table=t&ticket={ticket}"))).await.unwrap();
    let mut body = answer.bytes_stream();
    let mut text = String::new();
    while let Some(Ok(chunk)) = body.next().await {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("event: bye") && last.contains("token-expired"), "{text}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_ticket_is_not_used_up_by_what_passes() {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            s.max_streams_per_address = 1;
        })
        .await;
    let there = reqwest::get(gateway.url("/v1/stream?table=t")).await.unwrap();
    let ticket = ticket(&gateway, &token(60)).await;
    let path = format!("/v1/stream?table=t&ticket={ticket}");
    let events = || reqwest::Client::new().get(gateway.url(&path)).header("accept", "text/event-stream").send();
    let full = events().await.unwrap().text().await.unwrap();
    assert!(full.contains("event: bye") && full.contains("overloaded"), "{full}");
    let target = format!("/v1/ws?ticket={ticket}");
    assert!(Socket::connect_to(gateway.address, &target, &[]).await.is_err());
    // polls are not counted
    let path = format!("/v1/changes?table=t&ticket={ticket}");
    assert_eq!([status(&gateway, &path).await, status(&gateway, &path).await], [200, 401], "good, and used up");
    drop(there);
    gateway.stop().await;
}

#[tokio::test]
async fn a_caller_has_a_hundred_that_were_not_shown() {
    let (world, one, other) = served().await;
    let signed = |claims: Value| shared(SECRET.as_bytes(), HS256, &claims);
    let ask = |token: String| reqwest::Client::new().post(one.url("/v1/tickets")).bearer_auth(token).send();
    let of = |subject: &str| json!({ "sub": subject, "role": "player", "exp": now() + 60 });
    for _ in 0..10 {
        for answer in join_all((0..10).map(|_| ask(signed(of("ann"))))).await {
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
    let refused = ask(signed(of("ann"))).await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too-many-tickets");
    for claims in [of("bob"), json!({ "sub": "ann", "role": "other", "exp": now() + 60 })] {
        assert_eq!(ask(signed(claims)).await.unwrap().status(), 200);
    }
    world.run("update rowcast.ticket set at = at - interval '30 s'").await;
    assert_eq!(ask(signed(of("ann"))).await.unwrap().status(), 200);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_ticket_has_nothing_of_the_leeway_of_its_token() {
    let (_world, one, other) = served().await;
    let exp = now() + 3;
    let token = shared(SECRET.as_bytes(), HS256, &json!({ "sub": "ann", "exp": exp }));
    let ticket = ticket(&one, &token).await;
    while now() < exp {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let answer = reqwest::Client::new().get(one.url("/v1/tables/t")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 200, "clocks may differ");
    assert_eq!(status(&other, &format!("/v1/changes?table=t&ticket={ticket}")).await, 401);
    let none = reqwest::Client::new().post(one.url("/v1/tickets")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(none.status(), 401);
    one.stop().await;
    other.stop().await;
}
