//! Subscribers that are told by passes over their sockets: one that stalls, one that leaves, the end, and silence.

use crate::support::client::SseEvent;
use crate::support::{PATIENCE, Sse, TestGateway, World};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

async fn world() -> World {
    let world = World::new().await;
    world
        .run(
            "create table items (id int primary key, n int, pad text); select rowcast.watch('items', public => true);
             create table quiet (id int primary key); select rowcast.watch('quiet', public => true);
             insert into items select i, 0, '' from generate_series(1, 50) as i",
        )
        .await;
    world
}

/// A gateway that has told what happened before it came.
async fn gateway(world: &World) -> TestGateway {
    let gateway = world.gateway_with(|s| s.ring_bytes = 256 << 20).await;
    let mut client = Sse::open(gateway.address, "table=items&id=eq.1").await;
    client.event().await.unwrap();
    world.run("update items set n = -1 where id = 1").await;
    until(&mut client, "the first change", -1).await;
    gateway
}

/// The numbers of row 1 in the `changes` of these events.
fn numbers(events: &[SseEvent]) -> Vec<i64> {
    let told = events.iter().map(|e| serde_json::from_str::<serde_json::Value>(&e.data).unwrap());
    let changes = told.filter(|m| m["type"] == "changes").flat_map(|m| m["changes"].as_array().unwrap().clone());
    changes.filter(|c| c["key"] == "1").map(|c| c["row"]["n"].as_i64().unwrap()).collect()
}

async fn until(client: &mut Sse, what: &str, n: i64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, client.event()).await {
            Ok(Ok(event)) if numbers(std::slice::from_ref(&event)) == [n] => return,
            Ok(Ok(_)) => {}
            other => panic!("{what}, {n}: {other:?} after {:#?}", client.events),
        }
    }
}

#[tokio::test]
async fn one_that_stalls_holds_up_nobody_and_gets_everything() {
    const COMMITS: i64 = 60;
    let world = world().await;
    let gateway = gateway(&world).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(Sse::open(gateway.address, "table=items&id=eq.1&since=now").await);
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut stalled = socket.connect(gateway.address).await.unwrap();
    let request = "GET /v1/stream?table=items&id=eq.1&since=now HTTP/1.1\r\nhost: a\r\n\r\n";
    stalled.write_all(request.as_bytes()).await.unwrap();
    let mut held = read_until(&mut stalled, Vec::new(), "event: cursor").await;
    for other in &mut others {
        other.event().await.unwrap();
    }
    let sql = world.sql().await;
    let update = sql.prepare("update items set n = $1, pad = repeat('x', 20000) where id = 1").await.unwrap();
    for n in 1..=COMMITS {
        sql.execute(&update, &[&i32::try_from(n).unwrap()]).await.unwrap();
        for other in &mut others {
            until(other, "a change while another stalls", n).await;
        }
    }
    // 1 MB: more than the buffers between the two hold. No more, as the kernel gives up one that takes nothing for 15 s
    held = read_until(&mut stalled, held, &format!("\"n\":{COMMITS},")).await;
    let text = String::from_utf8(held).unwrap();
    let told: Vec<i64> =
        text.split("\"n\":").skip(1).map(|rest| rest.split(',').next().unwrap().parse().unwrap()).collect();
    assert_eq!(told, (1..=COMMITS).collect::<Vec<_>>());
    assert!(!text.contains("event: reset"), "what it missed was kept");
    sql.execute(&update, &[&0]).await.unwrap();
    read_until(&mut stalled, Vec::new(), "\"n\":0,").await;
    gateway.stop().await;
}

async fn read_until(socket: &mut TcpStream, mut held: Vec<u8>, what: &str) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    let mut from = 0;
    while !held[from..].windows(what.len()).any(|w| w == what.as_bytes()) {
        from = held.len().saturating_sub(what.len());
        let n = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect(what).unwrap();
        assert!(n > 0, "{what}: ended");
        held.extend_from_slice(&buffer[..n]);
    }
    held
}

#[tokio::test]
async fn a_rider_and_one_with_two_subscriptions_are_told_the_same() {
    let world = world().await;
    let gateway = gateway(&world).await;
    let mut rider = Sse::open(gateway.address, "sub=a~items%3Fid%3Dlte.40").await;
    let mut walker = Sse::open(gateway.address, "sub=a~items%3Fid%3Dlte.40&sub=q~quiet").await;
    let sql = world.sql().await;
    for n in 1..=150 {
        // in and out of the filter, deletes, inserts, several rows a commit, and now and then all at once
        let pick = n % 50 + 1;
        let change = match n % 5 {
            0 => format!(
                "update items set id = id + 100 where id = {pick}; update items set n = {n} where id = {}",
                pick + 3
            ),
            1 => format!("delete from items where id = {pick}"),
            2 => format!("insert into items values ({pick}, {n}, 'é') on conflict (id) do update set n = excluded.n"),
            _ if n % 49 == 0 => {
                "truncate items; insert into items select i, -1, '' from generate_series(1, 50) as i".to_owned()
            }
            _ => format!("update items set n = {n}"),
        };
        sql.batch_execute(&change).await.unwrap();
    }
    sql.batch_execute("insert into items values (1, 1, '') on conflict (id) do update set n = 1; update items set n = 12345 where id = 1")
        .await
        .unwrap();
    let data = |client: &Sse| -> Vec<serde_json::Value> {
        let events = client.events.iter().filter(|e| e.data.contains("\"sub\":\"a\"")).cloned();
        events.map(|e| serde_json::from_str(&e.data).unwrap()).collect()
    };
    for client in [&mut rider, &mut walker] {
        while !client.events.last().is_some_and(|e| e.data.contains("12345")) {
            let event = tokio::time::timeout(PATIENCE, client.event()).await.expect("the last change").unwrap();
            assert!(event.event != "bye" && event.event != "problem", "{event:?}");
        }
    }
    let (rider, walker) = (data(&rider), data(&walker));
    // snapshots differ: each began with its own, and after a reset each got the rows of its own moment
    let changes = |told: &[serde_json::Value]| -> Vec<serde_json::Value> {
        told.iter().filter(|m| m["type"] == "changes").cloned().collect()
    };
    assert_eq!(changes(&rider), changes(&walker));
    // how many ticks the changes fall into is a matter of speed
    assert!(changes(&rider).len() >= 5, "{}", changes(&rider).len());
    gateway.stop().await;
}

#[tokio::test]
async fn every_change_of_a_rider_is_a_place_to_come_back_to() {
    let world = world().await;
    let gateway = gateway(&world).await;
    let mut client = Sse::open(gateway.address, "table=items&id=eq.1&since=now").await;
    client.event().await.unwrap();
    let sql = world.sql().await;
    for n in 1..=20 {
        sql.batch_execute(&format!("update items set n = {n} where id = 1")).await.unwrap();
    }
    until(&mut client, "the last change", 20).await;
    let changes: Vec<&SseEvent> = client.events.iter().filter(|e| e.data.contains("\"changes\"")).collect();
    for (i, event) in changes.iter().enumerate() {
        let message: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(event.id.as_deref(), message["position"].as_str(), "{event:?}");
        // from there it goes on with what comes after
        let next = changes.get(i + 1).map_or(21, |next| numbers(std::slice::from_ref(*next))[0]);
        let mut back =
            Sse::open(gateway.address, &format!("table=items&id=eq.1&since={}", event.id.clone().unwrap())).await;
        if i + 1 == changes.len() {
            sql.batch_execute("update items set n = 21 where id = 1").await.unwrap();
        }
        until(&mut back, "what came after", next).await;
        assert_eq!(numbers(&back.events)[0], next);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_end_of_the_gateway_is_told_in_whole_events() {
    let world = world().await;
    let gateway = gateway(&world).await;
    let mut riders = Vec::new();
    for _ in 0..20 {
        let mut rider = Sse::open(gateway.address, "table=items&since=now").await;
        rider.event().await.unwrap();
        riders.push(rider);
    }
    let sql = world.sql().await;
    let (told, tell) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut tell = tell;
        let mut n = 0;
        while tell.try_recv().is_err() {
            n += 1;
            sql.batch_execute(&format!("update items set n = {n}")).await.unwrap();
        }
    });
    for rider in &mut riders {
        rider.event().await.unwrap();
    }
    let stopped = tokio::time::Instant::now();
    tokio::join!(gateway.stop(), async {
        for rider in &mut riders {
            let last = loop {
                // a part of an event at the end is an error here
                match tokio::time::timeout(PATIENCE, rider.event()).await.expect("the end") {
                    Ok(event) => assert!(!event.data.is_empty()),
                    Err(end) => break end,
                }
            };
            assert_eq!(last, "end");
            let bye = rider.events.last().unwrap();
            assert!(bye.event == "bye" && bye.data.contains("\"reason\":\"shutting-down\""), "{bye:?}");
        }
    });
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    told.send(()).unwrap();
    writing.await.unwrap();
}

#[tokio::test]
async fn silence_is_broken_before_15_seconds_and_moves_the_position() {
    let world = world().await;
    let gateway = gateway(&world).await;
    let mut rider = Sse::open(gateway.address, "table=items&id=eq.1&since=now").await;
    let first = rider.event().await.unwrap();
    // what does not match is not told, and yet need not be read again
    world.run("update items set n = 5 where id = 2").await;
    for _ in 0..2 {
        let beat = tokio::time::timeout(Duration::from_secs(15), rider.event()).await.expect("a heartbeat").unwrap();
        assert_eq!(beat.event, "cursor");
        assert!(beat.id.is_some() && beat.id != first.id, "{beat:?}");
    }
    gateway.stop().await;
}
