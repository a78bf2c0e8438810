//! F37, F38: authority ends with the token, in the middle of whatever is going on.

use crate::support::keys::{SECRET, now, shared, token};
use crate::support::raw_socket::{RawSocket, request, text};
use crate::support::socket::{Ended, Socket};
use crate::support::{Client, PATIENCE, Sse, TestGateway, World, eventually, with_secret};
use futures_util::StreamExt;
use jsonwebtoken::Algorithm::HS256;
use rowcast::auth::Clock;
use rowcast::wire::CloseReason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No byte of data may come later than this after `exp`. The contract has 30 s; what is on its way has a second or two.
const AFTER: Duration = Duration::from_secs(10);

async fn small() -> (World, TestGateway) {
    let world = World::new().await;
    world
        .run("create table t (id int primary key, n int); insert into t select i, 0 from generate_series(1, 5) i; select rowcast.watch('t', public => true)")
        .await;
    let gateway = world.gateway_with(with_secret).await;
    (world, gateway)
}

/// A token and the moment it is over.
fn until(seconds: i64) -> (String, i64) {
    let exp = now() + seconds;
    (shared(SECRET.as_bytes(), HS256, &json!({ "sub": "ann", "role": "player", "exp": exp })), exp)
}

/// A subscriber, and a position behind everything that watching the table left in the log.
async fn settled(world: &World, gateway: &TestGateway) -> (Sse, String) {
    let mut sse = Sse::open(gateway.address, "table=t&id=eq.1&select=id,n").await;
    let client: &mut dyn Client = &mut sse;
    client.until("the snapshot", |r| r.row("1").is_some()).await;
    world.run("update t set n = 7 where id = 1").await;
    client.until("the change", |r| r.row("1").is_some_and(|row| row["n"] == 7)).await;
    let position = client.replica().position.clone().unwrap();
    (sse, position)
}

/// Writes until it is ended.
fn writer(world: &World) -> tokio::task::JoinHandle<()> {
    let url = world.url.clone();
    tokio::spawn(async move {
        let sql = crate::support::world::connect(&url).await;
        loop {
            sql.batch_execute("update t set n = n + 1").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

#[tokio::test]
async fn streams_end_in_the_middle_of_news() {
    let (world, gateway) = small().await;
    let writing = writer(&world);
    // the first rides, the second has two subscriptions and does not
    for query in ["table=t", "sub=a~t%3Fid%3Deq.1&sub=b~t%3Fid%3Deq.2"] {
        let (token, exp) = until(3);
        let mut sse = Sse::open_as(gateway.address, query, Some(&token)).await;
        let mut changes = 0;
        while sse.events.iter().all(|event| event.event != "bye") {
            let event = tokio::time::timeout(PATIENCE, sse.event()).await.unwrap().unwrap();
            changes += usize::from(event.event.is_empty());
            let late = now() - exp;
            assert!(late <= AFTER.as_secs() as i64, "{late} s late: {event:?}");
        }
        let bye: Value = serde_json::from_str(&sse.events.last().unwrap().data).unwrap();
        assert_eq!(bye["reason"], "token-expired");
        assert!(now() >= exp, "not before");
        assert!(changes > 20, "it was in the middle: {changes}");
        assert_eq!(sse.event().await, Err("end".to_owned()), "nothing after it");
        // whoever comes back with another token goes on
        let position = sse.events.iter().rev().find_map(|event| event.id.clone()).unwrap();
        let query = format!("{query}&since={position}");
        let (token, _) = until(60);
        let mut again = Sse::open_as(gateway.address, &query, Some(&token)).await;
        let first = again.event().await.unwrap();
        assert!(first.event != "reset", "{first:?}");
    }
    assert_eq!(gateway.gateway().closes().of(CloseReason::TokenExpired), 2);
    writing.abort();
    eventually("nobody is left on the hub", || async { gateway.gateway().core().hub.size().1 == 0 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_socket_is_reminded_lives_longer_by_another_token_and_ends() {
    let (world, gateway) = small().await;
    let writing = writer(&world);
    let (token, exp) = until(5);
    let mut socket = Socket::ready_as(gateway.address, Some(&token)).await;
    assert!(socket.seen[0]["token_expires_in"].as_u64().is_some_and(|s| s <= 5), "{:?}", socket.seen[0]);
    socket.send(json!({ "type": "subscribe", "sub": "1", "table": "t" })).await;
    let reauth = socket.until("reauth").await;
    // at four fifths
    assert!(reauth["expires_in"].as_u64().is_some_and(|s| s <= 2) && now() >= exp - 2, "{reauth}");
    let (second, later) = until(6);
    socket.send(json!({ "type": "auth", "token": second })).await;
    socket.until("auth").await;
    while now() <= exp {
        socket.until("changes").await;
    }
    // past the first one's end
    socket.until("changes").await;
    socket.until("reauth").await;
    socket.seen.clear();
    let ended = socket.end().await;
    assert_eq!(ended, Ended::Closed(4001, "token-expired".to_owned()));
    assert!(now() >= later && now() <= later + AFTER.as_secs() as i64);
    let bye = socket.seen.last().unwrap();
    assert_eq!((&bye["type"], &bye["reason"]), (&json!("bye"), &json!("token-expired")));
    writing.abort();
    gateway.stop().await;
}

#[tokio::test]
async fn a_poll_answers_what_it_has() {
    let (world, gateway) = small().await;
    let (_, position) = settled(&world, &gateway).await;
    let (token, exp) = until(3);
    let poll = |token: String| {
        let url = gateway.url(&format!("/v1/changes?table=t&since={position}&wait=50"));
        reqwest::Client::new().get(url).bearer_auth(token).send()
    };
    let answer = poll(token.clone()).await.unwrap();
    assert_eq!(answer.status(), 204);
    assert!(answer.headers().contains_key("rowcast-position"));
    assert!((exp..=exp + AFTER.as_secs() as i64).contains(&now()));
    gateway.stop().await;
}

#[tokio::test]
async fn between_the_handshake_and_the_first_message() {
    let (_world, gateway) = small().await;
    let (token, exp) = until(2);
    let bearer = format!("Bearer {token}");
    let (mut silent, _) = Socket::connect(gateway.address, &[("authorization", bearer.as_str())]).await.unwrap();
    assert_eq!(silent.closed().await, 4001);
    assert!(now() >= exp);
    // one whose token is over when `init` brings it; clocks may differ by half a minute
    let (mut late, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    late.send(json!({ "type": "init", "token": self::token(-31) })).await;
    assert_eq!(late.closed().await, 4401);
    assert_eq!(late.seen, Vec::<Value>::new());
    gateway.stop().await;
}

/// 20 MB: more than sockets hold.
const LARGE: &str = "create table t (id int primary key, n int, v text);
    insert into t select i, 0, repeat('x', 20000) from generate_series(1, 1000) i;
    select rowcast.watch('t', public => true)";

/// Whole events of what was read, and whether something was cut at the end.
fn events(bytes: &[u8]) -> (Vec<&str>, bool) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap());
    let whole = text.ends_with("\n\n");
    let mut events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    if !whole {
        events.pop();
    }
    (events, !whole)
}

/// Takes a little, waits until the token is over, and then takes all that comes.
async fn late_reader(gateway: &TestGateway, query: &str, seconds: i64) -> Vec<u8> {
    let (token, exp) = until(seconds);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = gateway.url(&format!("/v1/stream?table=t{query}"));
    let mut body = http.get(url).bearer_auth(token).send().await.unwrap().bytes_stream();
    let mut read = Vec::new();
    while !read.windows(7).any(|w| w == b"\ndata: ") {
        read.extend_from_slice(&body.next().await.expect("data before the end").unwrap());
    }
    while now() < exp {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    while let Some(chunk) = tokio::time::timeout_at(deadline.into(), body.next()).await.expect("an end") {
        let Ok(chunk) = chunk else { break };
        read.extend_from_slice(&chunk);
    }
    read
}

fn ends_early(read: &[u8], all: usize) {
    assert!(read.len() < all, "{} of {all} bytes", read.len());
    let (events, cut) = events(read);
    for event in &events {
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        let data: Value = data.map(|data| serde_json::from_str(data).unwrap()).unwrap_or_default();
        // only whole ones, and none says that all was told
        assert!(data["type"] != "snapshot" || data["more"] == true, "the whole snapshot came");
    }
    let last = events.last().unwrap();
    // a client that does not take the frame at hand within a second is cut off
    assert!(cut || (last.contains("event: bye") && last.contains("token-expired")), "{}", &last[..last.len().min(200)]);
}

#[tokio::test]
async fn a_stream_ends_in_the_middle_of_its_snapshot() {
    let world = World::new().await;
    world.run(LARGE).await;
    let gateway = world.gateway_with(with_secret).await;
    ends_early(&late_reader(&gateway, "", 8).await, 20_000_000);
    eventually("it is counted", || async { gateway.gateway().closes().of(CloseReason::TokenExpired) == 1 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_ends_in_the_middle_of_what_it_missed() {
    let world = World::new().await;
    world.run(LARGE).await;
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            // what was missed is read from the log, not from memory
            s.ring_bytes = 64 * 1024;
            s.batch_bytes = 512 << 20;
        })
        .await;
    let (mut small, position) = settled(&world, &gateway).await;
    let client: &mut dyn Client = &mut small;
    let sql = world.sql().await;
    for part in 0..10 {
        sql.batch_execute(&format!("update t set n = n + 1 where id % 10 = {part}")).await.unwrap();
    }
    sql.batch_execute("update t set n = 9 where id = 1").await.unwrap();
    client.until("everything was read", |r| r.row("1").is_some_and(|row| row["n"] == 9)).await;
    drop(small);
    let read = late_reader(&gateway, &format!("&since={position}"), 15).await;
    let (events, _) = events(&read);
    let begin = |event: &&str| event[..event.len().min(150)].to_owned();
    let replay = events.iter().any(|event| event.contains("\"type\":\"changes\""));
    assert!(replay, "it was a replay: {:#?}", events.iter().map(begin).collect::<Vec<_>>());
    ends_early(&read, 20_000_000);
    gateway.stop().await;
}

#[tokio::test]
async fn a_socket_ends_in_the_middle_of_its_snapshot() {
    let world = World::new().await;
    world.run(LARGE).await;
    let gateway = world.gateway_with(with_secret).await;
    let (token, exp) = until(8);
    let (mut socket, _) = RawSocket::connect(gateway.address, &request("")).await;
    socket.send(&text(&json!({ "type": "init", "token": token }).to_string())).await;
    socket.send(&text("{\"type\":\"subscribe\",\"sub\":\"1\",\"table\":\"t\"}")).await;
    while socket.frame().await.is_some_and(|frame| !frame.payload.starts_with(b"{\"type\":\"snapshot\"")) {}
    while now() < exp {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut last = None;
    while let Some(frame) = socket.frame().await {
        if frame.payload.starts_with(b"{\"type\":\"snapshot\"") {
            let part: Value = serde_json::from_slice(&frame.payload).unwrap();
            assert_eq!(part["more"], true, "the whole snapshot came");
        }
        last = Some(frame);
    }
    // unless it was cut off, with nothing of the frame at hand
    if let Some(close) = last.filter(|frame| frame.opcode == 8) {
        assert_eq!(close.code(), 4001);
    }
    eventually("it is counted", || async { gateway.gateway().closes().of(CloseReason::TokenExpired) == 1 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_wall_clock_that_jumps_ends_tokens_and_nothing_else() {
    let (world, gateway, clock) = with_clock().await;
    let (token, _) = until(3600);
    let mut known = Sse::open_as(gateway.address, "table=t", Some(&token)).await;
    let mut socket = Socket::ready_as(gateway.address, Some(&token)).await;
    let mut nobody = Sse::open(gateway.address, "table=t").await;
    // back: nobody's time is over, and nobody's becomes longer
    clock.jump(-1_800_000);
    world.run("update t set n = 1").await;
    for sse in [&mut known, &mut nobody] {
        let client: &mut dyn Client = sse;
        client.until("the change", |r| r.row("1").is_some_and(|row| row["n"] == 1)).await;
    }
    // forth, past the end
    clock.jump(1_800_000 + 3_700_000);
    while known.event().await.is_ok() {}
    assert!(known.events.last().unwrap().data.contains("token-expired"));
    assert_eq!(socket.closed().await, 4001);
    let answer = reqwest::Client::new().get(gateway.url("/v1/tables/t")).bearer_auth(&token).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    world.run("update t set n = 2").await;
    let client: &mut dyn Client = &mut nobody;
    client.until("the change", |r| r.row("1").is_some_and(|row| row["n"] == 2)).await;
    gateway.stop().await;
}

/// One table, and a gateway whose wall clock can be set.
async fn with_clock() -> (World, TestGateway, Clock) {
    let world = World::new().await;
    world
        .run("create table t (id int primary key, n int); insert into t values (1, 0); select rowcast.watch('t', public => true); select rowcast.allow('t', 'player', write => true)")
        .await;
    let clock = Clock::default();
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            s.auth.clock = clock.clone();
        })
        .await;
    (world, gateway, clock)
}

fn insert(id: i32) -> Value {
    json!({ "type": "write", "id": "w", "ops": [{ "op": "insert", "table": "t", "row": { "id": id, "n": 0 } }] })
}

async fn keys(world: &World) -> Vec<i32> {
    let rows = world.sql().await.query("select id from t order by id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_write_that_comes_after_the_token_is_over_never_begins() {
    let (world, gateway, clock) = with_clock().await;
    // with a subscription that is live it rides
    for subscribed in [false, true] {
        let (token, _) = until(3600);
        let mut socket = Socket::ready_as(gateway.address, Some(&token)).await;
        if subscribed {
            socket.send(json!({ "type": "subscribe", "sub": "1", "table": "t" })).await;
            socket.until("cursor").await;
        }
        socket.send(insert(if subscribed { 20 } else { 10 })).await;
        socket.until("ack").await;
        // nobody is woken by it: the frame is the first that the connection hears of
        clock.creep(3_700_000);
        socket.send(insert(2)).await;
        let ended = socket.end().await;
        assert_eq!(ended, Ended::Closed(4001, "token-expired".to_owned()));
        assert!(!keys(&world).await.contains(&2));
        clock.creep(-3_700_000);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_write_that_began_in_time_is_carried_out() {
    let (world, gateway, clock) = with_clock().await;
    let (token, _) = until(3600);
    let mut socket = Socket::ready_as(gateway.address, Some(&token)).await;
    let sql = world.sql().await;
    let version: i64 = sql.query_one("select row_version from t where id = 1", &[]).await.unwrap().get(0);
    let mut holder = world.sql().await;
    let held = holder.transaction().await.unwrap();
    held.execute("select from t where id = 1 for update", &[]).await.unwrap();
    socket
        .send(json!({ "type": "write", "id": "w", "ops": [{ "op": "update", "table": "t", "key": "1", "version": version, "set": { "n": 7 } }] }))
        .await;
    let waits = "select count(*) from pg_locks where not granted";
    let held_up = async || sql.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0;
    tokio::select! {
        () = eventually("the write waits for the row", &held_up) => {}
        refused = socket.until("problem") => panic!("{refused}"),
    }
    clock.creep(3_700_000);
    socket.send(insert(2)).await;
    held.commit().await.unwrap();
    assert_eq!(socket.end().await, Ended::Closed(4001, "token-expired".to_owned()));
    eventually("the first is written", || async {
        sql.query_one("select n from t where id = 1", &[]).await.unwrap().get::<_, i32>(0) == 7
    })
    .await;
    assert_eq!(keys(&world).await, [1], "the second never began");
    gateway.stop().await;
}

/// Asks with a body that comes in two parts, the second when the token is over; returns the answer.
async fn trickled(gateway: &TestGateway, method: &str, path: &str, kind: &str, body: &str) -> String {
    let (token, exp) = until(3);
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (first, rest) = body.split_at(body.len() / 2);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{first}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    while now() < exp {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    socket.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_body_that_ends_after_the_token_is_refused() {
    let (world, gateway, _) = with_clock().await;
    let json = "application/json";
    let batch = r#"{"ops":[{"op":"insert","table":"t","row":{"id":3,"n":0}}]}"#;
    // a token that is first looked at when it is over would have the leeway, and be taken
    let answers = tokio::join!(
        trickled(&gateway, "POST", "/v1/tables/t", json, r#"{"id":2,"n":0}"#),
        trickled(&gateway, "POST", "/v1/batch", json, batch),
        trickled(&gateway, "QUERY", "/v1/tables/t", "application/x-www-form-urlencoded", "id=eq.1&select=id,n"),
    );
    for answer in [answers.0, answers.1, answers.2] {
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("the token is not accepted"), "{answer}");
    }
    assert_eq!(keys(&world).await, [1]);
    gateway.stop().await;
}
