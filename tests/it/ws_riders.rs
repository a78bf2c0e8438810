//! WebSockets that are told by passes over their sockets: whatever is said besides, both sides get it whole and in order.

use crate::support::raw_socket::{Frame, RawSocket, frame, text};
use crate::support::socket::{Ended, Socket};
use crate::support::{TestGateway, World, eventually};
use rowcast::wire::CloseReason;
use serde_json::{Value, json};
use std::time::Duration;

const ITEMS: &str = "create table items (id int primary key, n int, pad text default '');
    create table others (id int primary key, n int);
    insert into items select i, 0 from generate_series(1, 50) as i; insert into others values (1, 0);
    select rowcast.watch(t, public => true) from unnest(array['items', 'others']::regclass[]) as t;
    select rowcast.allow('items', 'anon', write => true)";

async fn served(change: impl FnOnce(&mut rowcast::config::Settings)) -> (World, TestGateway) {
    let world = World::new().await;
    world.run(ITEMS).await;
    let gateway = world.gateway_with(change).await;
    (world, gateway)
}

/// Waits until so many clients are told by passes.
async fn riding(gateway: &TestGateway, many: usize) {
    let parked = || gateway.gateway().core().hub.parked();
    eventually(&format!("{many} ride"), || async { parked() == many }).await;
}

fn subscribe(sub: &str, table: &str, filter: &str) -> Value {
    json!({ "type": "subscribe", "sub": sub, "table": table, "where": filter })
}

/// One that has the first item and nothing else.
async fn rider(gateway: &TestGateway) -> Socket {
    first_item(Socket::ready(gateway.address).await).await
}

async fn first_item(mut socket: Socket) -> Socket {
    socket.send(subscribe("1", "items", "id=eq.1")).await;
    socket.until("snapshot").await;
    socket
}

async fn raw_rider(gateway: &TestGateway) -> RawSocket {
    let mut socket = RawSocket::ready(gateway.address).await;
    socket.send(&text(&subscribe("1", "items", "id=eq.1").to_string())).await;
    until(&mut socket, "\"snapshot\"").await;
    socket
}

/// The next frame with this in it, and those before it.
async fn until(socket: &mut RawSocket, what: &str) -> Vec<Frame> {
    let mut seen = Vec::new();
    loop {
        let frame = socket.frame().await.unwrap_or_else(|| panic!("ended before {what}"));
        if frame.opcode == 9 {
            socket.send(&crate::support::raw_socket::frame(0x8a, &frame.payload)).await;
        }
        let found = frame.opcode == 1 && String::from_utf8_lossy(&frame.payload).contains(what);
        seen.push(frame);
        if found {
            return seen;
        }
    }
}

/// Writes the first item with these numbers.
async fn write(world: &World, numbers: impl IntoIterator<Item = i32>) {
    let sql = world.sql().await;
    for n in numbers {
        sql.execute("update items set n = $1 where id = 1", &[&n]).await.unwrap();
    }
}

/// Reads to the change with this number; the numbers on the way.
async fn numbers_to(socket: &mut Socket, last: i64) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let message = socket.next().await;
        assert_ne!(message["type"], "reset", "{message}");
        if message["type"] == "changes" {
            numbers.extend(message["changes"].as_array().unwrap().iter().map(|c| c["row"]["n"].as_i64().unwrap()));
        }
    }
    numbers
}

#[tokio::test]
async fn pings_go_both_ways_between_changes() {
    let (world, gateway) = served(|s| s.ping = Duration::from_secs(1)).await;
    let mut socket = raw_rider(&gateway).await;
    riding(&gateway, 1).await;
    for n in 1..=5 {
        while socket.frame().await.expect("a ping").opcode != 9 {}
        socket.send(&[frame(0x8a, b""), frame(0x8a, b"nobody asked"), frame(0x89, b"and you")].concat()).await;
        let pong = loop {
            let frame = socket.frame().await.expect("a pong");
            if frame.opcode == 10 {
                break frame;
            }
        };
        assert_eq!(pong.payload, b"and you");
        riding(&gateway, 1).await;
        write(&world, [n]).await;
        until(&mut socket, &format!("\"n\":{n},")).await;
    }
    // and one that rides and is deaf is closed
    assert_eq!(socket.close().await.code(), 4005);
    riding(&gateway, 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn whoever_asks_for_more_gets_off_and_on_again() {
    let (world, gateway) = served(|_| {}).await;
    let mut socket = rider(&gateway).await;
    riding(&gateway, 1).await;
    for round in 1..=5 {
        socket.send(subscribe("2", "others", "")).await;
        assert_eq!(socket.until("snapshot").await["sub"], "2");
        riding(&gateway, 0).await;
        world.run(&format!("update items set n = {round} where id = 1; update others set n = {round}")).await;
        // the snapshot may be one that was read before: then what happened since comes first
        let mut told = std::collections::BTreeSet::new();
        while told.len() < 2 {
            let changes = socket.until("changes").await;
            if changes["changes"][0]["row"]["n"] == round {
                told.insert(changes["sub"].to_string());
            }
        }
        socket.send(json!({ "type": "unsubscribe", "sub": "2" })).await;
        assert_eq!(socket.until("unsubscribed").await["sub"], "2");
        riding(&gateway, 1).await;
        write(&world, [-round]).await;
        assert_eq!(numbers_to(&mut socket, i64::from(-round)).await, [i64::from(-round)]);
    }
    socket.send(json!({ "type": "ping" })).await;
    socket.until("pong").await;
    riding(&gateway, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_write_is_confirmed_while_changes_come() {
    let (world, gateway) = served(|_| {}).await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(subscribe("1", "items", "")).await;
    let snapshot = socket.until("snapshot").await;
    let version =
        snapshot["rows"].as_array().unwrap().iter().find(|row| row["key"] == "50").unwrap()["version"].clone();
    riding(&gateway, 1).await;
    let (url, (told, tell)) = (world.url.clone(), tokio::sync::oneshot::channel::<()>());
    let writing = tokio::spawn(async move {
        let (sql, mut tell, mut n) = (crate::support::world::connect(&url).await, tell, 0);
        while tell.try_recv().is_err() {
            n += 1;
            sql.execute("update items set n = $1 where id = 1", &[&n]).await.unwrap();
        }
        n
    });
    let (mut version, mut acks) = (version, 0);
    for i in 0..20 {
        let set =
            json!({ "op": "update", "table": "items", "key": "50", "version": version, "set": { "n": 1000 + i } });
        socket.send(json!({ "type": "write", "id": format!("w{i}"), "ops": [set] })).await;
        let ack = socket.until("ack").await;
        assert_eq!(ack["id"], format!("w{i}"));
        version = ack["rows"][0]["version"].clone();
        acks += 1;
    }
    told.send(()).unwrap();
    let last = writing.await.unwrap();
    write(&world, [last + 1]).await;
    let changes = |key: &str| -> Vec<i64> {
        let told = socket.seen.iter().filter(|m| m["type"] == "changes").flat_map(|m| m["changes"].as_array().unwrap());
        told.filter(|c| c["key"] == key).map(|c| c["row"]["n"].as_i64().unwrap()).collect()
    };
    assert_eq!(acks, 20);
    // ticks fold: not each number, but never one twice, never back, and the last
    assert!(changes("50").is_sorted_by(|a, b| a < b), "{:?}", changes("50"));
    numbers_to(&mut socket, i64::from(last) + 1).await;
    riding(&gateway, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn all_of_one_shape_get_the_same_frames() {
    let (world, gateway) = served(|_| {}).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(raw_rider(&gateway).await);
    }
    riding(&gateway, 4).await;
    write(&world, 1..=60).await;
    let mut told = Vec::new();
    for socket in &mut sockets {
        let frames = until(socket, "\"n\":60,").await;
        let changes = frames.into_iter().filter(|f| String::from_utf8_lossy(&f.payload).contains("\"changes\""));
        told.push(changes.collect::<Vec<_>>());
    }
    assert!(!told[0].is_empty() && told.iter().all(|frames| *frames == told[0]));
    riding(&gateway, 4).await;
    drop(sockets);
    riding(&gateway, 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_of_a_subscription_comes_after_its_end() {
    let (world, gateway) = served(|_| {}).await;
    let mut socket = Socket::ready(gateway.address).await;
    let (url, (told, tell)) = (world.url.clone(), tokio::sync::oneshot::channel::<()>());
    let writing = tokio::spawn(async move {
        let (sql, mut tell) = (crate::support::world::connect(&url).await, tell);
        while tell.try_recv().is_err() {
            sql.batch_execute("update items set n = n + 1").await.unwrap();
        }
    });
    for round in 0..30 {
        let sub = round.to_string();
        socket.send(subscribe(&sub, "items", "")).await;
        while socket.until("changes").await["sub"] != *sub {}
        socket.send(json!({ "type": "unsubscribe", "sub": sub })).await;
        socket.until("unsubscribed").await;
        socket.send(json!({ "type": "ping" })).await;
        // a heartbeat may, which speaks of nobody
        loop {
            let next = socket.next().await;
            if next["type"] == "pong" {
                break;
            }
            assert_eq!((&next["type"], &next["position"]), (&json!("cursor"), &Value::Null), "{next}");
        }
    }
    told.send(()).unwrap();
    writing.await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn one_that_stalls_gets_everything_in_whole_frames() {
    const COMMITS: i32 = 60;
    let (world, gateway) = served(|_| {}).await;
    let (mut quick, mut stalled) = (rider(&gateway).await, first_item(Socket::narrow(gateway.address).await).await);
    riding(&gateway, 2).await;
    let sql = world.sql().await;
    for n in 1..=COMMITS {
        // 1 MB: more than the buffers between the two hold
        sql.execute("update items set n = $1, pad = repeat('x', 20000) where id = 1", &[&n]).await.unwrap();
        assert_eq!(numbers_to(&mut quick, i64::from(n)).await, [i64::from(n)]);
    }
    riding(&gateway, 1).await;
    let all: Vec<i64> = (1..=i64::from(COMMITS)).collect();
    assert_eq!(numbers_to(&mut stalled, i64::from(COMMITS)).await, all);
    write(&world, [-1]).await;
    assert_eq!(numbers_to(&mut stalled, -1).await, [-1]);
    riding(&gateway, 2).await;
    gateway.stop().await;
}

#[tokio::test]
async fn one_that_takes_nothing_is_closed_and_the_other_rides_on() {
    let (world, gateway) = served(|s| s.write_timeout = Duration::from_millis(500)).await;
    let (mut quick, mut slow) = (rider(&gateway).await, first_item(Socket::narrow(gateway.address).await).await);
    riding(&gateway, 2).await;
    let sql = world.sql().await;
    let mut n = 0;
    while gateway.gateway().core().hub.parked() == 2 {
        n += 1;
        sql.execute("update items set n = $1, pad = repeat('y', 20000) where id = 1", &[&n]).await.unwrap();
        numbers_to(&mut quick, i64::from(n)).await;
    }
    let closes = || gateway.gateway().closes().of(CloseReason::TooSlow);
    eventually("it is given up", || async { closes() == 1 }).await;
    // awake again just now: the rest of the frame, then why
    assert_eq!(slow.until("bye").await["reason"], "too-slow");
    assert_eq!(slow.closed().await, 4002);
    write(&world, [-1]).await;
    numbers_to(&mut quick, -1).await;
    riding(&gateway, 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_stops_is_told_in_whole_frames() {
    let (world, gateway) = served(|_| {}).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(rider(&gateway).await);
    }
    let (url, (told, tell)) = (world.url.clone(), tokio::sync::oneshot::channel::<()>());
    let writing = tokio::spawn(async move {
        let (sql, mut tell) = (crate::support::world::connect(&url).await, tell);
        while tell.try_recv().is_err() {
            sql.batch_execute("update items set n = n + 1").await.unwrap();
        }
    });
    for socket in &mut sockets {
        socket.until("changes").await;
    }
    tokio::join!(gateway.stop(), async {
        for socket in &mut sockets {
            assert_eq!(socket.until("bye").await["reason"], "shutting-down");
            assert_eq!(socket.end().await, Ended::Closed(1012, "shutting-down".to_owned()));
        }
    });
    told.send(()).unwrap();
    writing.await.unwrap();
}

#[tokio::test]
async fn silence_is_broken_before_15_seconds() {
    let (world, gateway) = served(|_| {}).await;
    let mut socket = rider(&gateway).await;
    let before = socket.seen.last().unwrap()["position"].clone();
    riding(&gateway, 1).await;
    // what does not match is not told, and yet need not be read again
    world.run("update items set n = 5 where id = 2").await;
    let mut position = before.clone();
    while position == before {
        let beat = tokio::time::timeout(Duration::from_secs(15), socket.next()).await.expect("a heartbeat");
        assert_eq!(beat["type"], "cursor");
        position = beat["position"].clone();
    }
    assert_eq!(gateway.gateway().core().hub.parked(), 1);
    gateway.stop().await;
}
