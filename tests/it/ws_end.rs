//! How connections end: by whom, with which code, and that each is counted.

use crate::bad_input::served;
use crate::support::raw_socket::{RawSocket, frame, text};
use crate::support::socket::{Ended, Socket};
use crate::support::{Sse, World, eventually};
use rowcast::wire::CloseReason;
use serde_json::json;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_gateway_that_stops_says_so_on_every_connection() {
    let (_world, gateway) = served().await;
    let mut sockets = Vec::new();
    for i in 0..5 {
        let mut socket = Socket::ready(gateway.address).await;
        if i > 0 {
            socket.send(json!({ "type": "subscribe", "sub": "1", "table": "t" })).await;
            socket.until("snapshot").await;
        }
        sockets.push(socket);
    }
    let (silent, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    sockets.push(silent);
    let stopping = tokio::spawn(gateway.stop());
    let mut pauses = std::collections::BTreeSet::new();
    for socket in &mut sockets {
        let bye = socket.until("bye").await;
        assert_eq!(bye["reason"], "shutting-down");
        pauses.insert(bye["retry_ms"].as_u64().unwrap());
        assert_eq!(socket.end().await, Ended::Closed(1012, "shutting-down".to_owned()));
    }
    assert!(pauses.len() > 1, "not all at one moment: {pauses:?}");
    stopping.await.unwrap();
}

#[tokio::test]
async fn whoever_says_nothing_is_closed() {
    let world = World::new().await;
    let gateway = world.gateway_with(|s| s.init_wait = Duration::from_millis(200)).await;
    let (mut socket, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    assert_eq!(socket.closed().await, 4408);
    assert_eq!(gateway.gateway().closes().of(CloseReason::NoInit), 1);
    let mut socket = Socket::ready(gateway.address).await;
    // the time is for `init` alone
    let (mut late, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    assert_eq!(late.closed().await, 4408);
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.next().await["type"], "pong");
    gateway.stop().await;
}

#[tokio::test]
async fn two_pings_without_an_answer_and_it_is_over() {
    let world = World::new().await;
    let gateway = world.gateway_with(|s| s.ping = Duration::from_millis(300)).await;
    let mut deaf = RawSocket::ready(gateway.address).await;
    // answers pings by itself while it is read
    let mut alive = Socket::ready(gateway.address).await;
    let reading = tokio::spawn(async move { alive.step().await });
    let mut pings = 0;
    loop {
        let frame = deaf.frame().await.unwrap();
        match frame.opcode {
            9 => pings += 1,
            8 => {
                assert_eq!(frame.code(), 4005);
                break;
            }
            // `bye`
            opcode => assert_eq!(opcode, 1),
        }
    }
    assert_eq!(pings, 2);
    // whoever sends anything is alive
    let mut busy = RawSocket::ready(gateway.address).await;
    for pings in 0..5 {
        while busy.frame().await.unwrap_or_else(|| panic!("closed after {pings} pings")).opcode != 9 {}
        busy.send(&text("{\"type\":\"ping\"}")).await;
    }
    assert!(!reading.is_finished(), "the one that answers lives");
    assert_eq!(gateway.gateway().closes().of(CloseReason::NoPong), 1);
    reading.abort();
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_and_others_go_on() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, v text);
             insert into t select i, repeat('x', 10000) from generate_series(1, 2000) i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway_with(|s| s.write_timeout = Duration::from_millis(500)).await;
    let mut slow = RawSocket::ready(gateway.address).await;
    slow.send(&text("{\"type\":\"subscribe\",\"sub\":\"1\",\"table\":\"t\"}")).await;
    let mut quick = Socket::ready(gateway.address).await;
    quick.send(json!({ "type": "subscribe", "sub": "1", "table": "t", "where": "id=eq.1" })).await;
    quick.until("snapshot").await;
    let closes = |reason| gateway.gateway().closes().of(reason);
    eventually("the slow one is given up", || async { closes(CloseReason::TooSlow) == 1 }).await;
    world.run("update t set v = 'y' where id = 1").await;
    assert_eq!(quick.until("changes").await["changes"][0]["row"]["v"], "y");
    eventually("its subscription is gone", || async { gateway.gateway().core().hub.size().1 == 1 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_too_little_reads_that_it_was_too_slow() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, v text);
             insert into t select i, repeat('x', 10000) from generate_series(1, 2000) i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway_with(|s| s.write_timeout = Duration::from_millis(500)).await;
    let mut slow = Socket::ready(gateway.address).await;
    slow.send(json!({ "type": "subscribe", "sub": "1", "table": "t" })).await;
    let closes = |reason| gateway.gateway().closes().of(reason);
    eventually("it is given up", || async { closes(CloseReason::TooSlow) == 1 }).await;
    // awake again just now: the rest of the frame, then why
    let bye = slow.until("bye").await;
    assert_eq!(bye["reason"], "too-slow");
    assert_eq!(slow.closed().await, 4002);
    gateway.stop().await;
}

#[tokio::test]
async fn a_flood_is_stopped_and_a_crowd_of_messages_is_not() {
    let (_world, gateway) = served().await;
    let mut busy = RawSocket::ready(gateway.address).await;
    busy.send(&text("{\"type\":\"ping\"}").repeat(900)).await;
    for _ in 0..900 {
        assert_eq!(busy.frame().await.unwrap().payload, b"{\"type\":\"pong\"}");
    }
    let mut flood = RawSocket::ready(gateway.address).await;
    flood.send(&frame(0x89, b"x").repeat(20_000)).await;
    assert_eq!(flood.close().await.code(), 4429);
    gateway.stop().await;
}

#[tokio::test]
async fn each_end_is_counted_once() {
    let (_world, gateway) = served().await;
    let at = gateway.address;
    let closes = |reason| gateway.gateway().closes().of(reason);
    let mut socket = Socket::ready(at).await;
    socket.inner.close(None).await.unwrap();
    socket.end().await;
    eventually("left", || async { closes(CloseReason::Left) == 1 }).await;
    drop(Socket::ready(at).await);
    eventually("lost", || async { closes(CloseReason::Lost) == 1 }).await;
    let mut socket = Socket::ready(at).await;
    assert!(socket.try_send(Message::text("?")).await);
    assert_eq!(socket.closed().await, 4400);
    let mut raw = RawSocket::ready(at).await;
    raw.send(&frame(0x82, b"")).await;
    assert_eq!(raw.close().await.code(), 1003);
    drop(Sse::open(at, "table=t").await);
    eventually("a stream left", || async { closes(CloseReason::Left) == 2 }).await;
    let counted: Vec<(&str, u64)> =
        CloseReason::ALL.into_iter().map(|r| (r.label(), closes(r))).filter(|(_, n)| *n > 0).collect();
    assert_eq!(counted, [("not-text", 1), ("bad-message", 1), ("left", 2), ("lost", 1)]);
    gateway.stop().await;
}
