//! Subscriptions that come, go and come back while others of the connection go on.

use crate::support::proxy::Mode;
use crate::support::replica::tick_of;
use crate::support::socket::Socket;
use crate::support::{Proxy, World};
use serde_json::{Value, json};

const TABLES: &str =
    "create table scores (id int primary key, n int not null); insert into scores values (1, 0), (2, 0);
    create table picks (id int primary key, n int not null); insert into picks values (1, 0);
    select rowcast.watch('scores', public => true), rowcast.watch('picks', public => true)";

async fn served() -> (World, crate::support::TestGateway) {
    let world = World::new().await;
    world.run(TABLES).await;
    let gateway = world.gateway().await;
    (world, gateway)
}

/// Messages of a subscription.
fn of<'a>(seen: &'a [Value], sub: &str) -> Vec<&'a Value> {
    seen.iter().filter(|m| m["sub"] == *sub && m["type"] != "subscribed" && m["type"] != "unsubscribed").collect()
}

#[tokio::test]
async fn one_is_added_and_the_other_is_told_every_change_once() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores", "where": "id=eq.1" })).await;
    socket.until("snapshot").await;
    let writer = world.sql().await;
    let last = 60;
    for i in 1..=last {
        writer.batch_execute(&format!("update scores set n = {i}; update picks set n = {i}")).await.unwrap();
        if i % 10 == 0 {
            // in the middle of it, others come and go
            let sub = format!("p{i}");
            socket.send(json!({ "type": "subscribe", "sub": sub, "table": "picks" })).await;
            if i % 20 == 0 {
                socket.send(json!({ "type": "unsubscribe", "sub": format!("p{}", i - 10) })).await;
            }
        }
    }
    let done = |seen: &[Value], sub: &str| {
        of(seen, sub).iter().any(|m| {
            let rows = m["changes"].as_array().or(m["rows"].as_array());
            rows.is_some_and(|rows| rows.iter().any(|row| row["row"]["n"] == last))
        })
    };
    while !["s", "p20", "p40", "p60"].iter().all(|sub| done(&socket.seen, sub)) {
        socket.next().await;
    }
    let told: Vec<i64> = of(&socket.seen, "s")
        .iter()
        .filter(|m| m["type"] == "changes")
        .map(|m| m["changes"][0]["version"].as_i64().unwrap())
        .collect();
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order: {told:?}");
    assert_eq!(of(&socket.seen, "s").iter().filter(|m| m["type"] == "snapshot").count(), 1, "only its own");
    for sub in ["s", "p20", "p40", "p60"] {
        let ticks: Vec<i64> = of(&socket.seen, sub).iter().map(|m| tick_of(m["position"].as_str().unwrap())).collect();
        assert!(ticks.is_sorted(), "{sub}: {ticks:?}");
        assert_eq!(of(&socket.seen, sub)[0]["type"], "snapshot", "{sub} begins with its rows");
    }
    for gone in ["p10", "p30", "p50"] {
        let at = |kind: &str| socket.seen.iter().position(|m| m["type"] == kind && m["sub"] == gone);
        let after = &socket.seen[at("unsubscribed").expect("acknowledged")..];
        assert!(of(after, gone).is_empty(), "{gone}: {after:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn each_goes_on_from_its_own_position() {
    let (world, gateway) = served().await;
    let other = world.gateway().await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores" })).await;
    let scores_at = socket.until("snapshot").await["position"].clone();
    world.run("update scores set n = 1 where id = 1; update picks set n = 1").await;
    socket.until("changes").await;
    socket.send(json!({ "type": "subscribe", "sub": "p", "table": "picks" })).await;
    let picks = socket.until("snapshot").await;
    assert_eq!(picks["rows"][0]["row"]["n"], 1);
    drop(socket);
    world.run("update scores set n = 2 where id = 2; update picks set n = 2").await;

    let mut socket = Socket::ready(other.address).await;
    // one from long ago, one from its snapshot
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores", "since": scores_at })).await;
    socket.send(json!({ "type": "subscribe", "sub": "p", "table": "picks", "since": picks["position"] })).await;
    let whole = |seen: &[Value], sub: &str, rows: usize| {
        of(seen, sub).iter().filter_map(|m| m["changes"].as_array()).map(Vec::len).sum::<usize>() >= rows
    };
    while !whole(&socket.seen, "s", 2) || !whole(&socket.seen, "p", 1) {
        socket.next().await;
    }
    assert!(
        of(&socket.seen, "s").iter().chain(&of(&socket.seen, "p")).all(|m| m["type"] == "changes"),
        "{:?}",
        socket.seen
    );
    socket.send(json!({ "type": "subscribe", "sub": "now", "table": "picks", "since": "now" })).await;
    socket.until("subscribed").await;
    // it is where all stand now
    while socket.until("cursor").await["position"].is_null() {}
    assert!(of(&socket.seen, "now").is_empty(), "{:?}", socket.seen);
    world.run("update picks set n = 3").await;
    while of(&socket.seen, "now").is_empty() {
        socket.next().await;
    }
    assert_eq!(of(&socket.seen, "now")[0]["changes"][0]["row"]["n"], 3);
    gateway.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn one_that_resumes_where_nothing_happened_is_told_where_it_stands() {
    let (world, gateway) = served().await;
    world.run("update scores set n = 5").await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores" })).await;
    let position = socket.until("snapshot").await["position"].clone();
    // its own snapshot is told, so is where all stand
    assert!(socket.until("cursor").await["position"].is_string());
    socket.send(json!({ "type": "subscribe", "sub": "p", "table": "picks", "since": position })).await;
    assert_eq!(socket.next().await, json!({ "type": "subscribed", "sub": "p" }));
    let cursor = socket.until("cursor").await;
    let stands = cursor["position"].as_str().expect("both hold everything up to here");
    assert!(tick_of(stands) >= tick_of(position.as_str().unwrap()), "{cursor}");
    gateway.stop().await;
}

#[tokio::test]
async fn one_that_ended_holds_nobody_back_and_its_name_is_free() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    for table in ["scores", "picks"] {
        socket.send(json!({ "type": "subscribe", "sub": table, "table": table })).await;
        socket.until("snapshot").await;
    }
    world.run("select rowcast.unwatch('picks')").await;
    let problem = socket.until("problem").await;
    assert_eq!((&problem["sub"], &problem["problem"]["code"]), (&json!("picks"), &json!("not-found")));
    world.run("update scores set n = 9 where id = 1").await;
    socket.until("changes").await;
    loop {
        // the resume point moves on without the one that ended
        let cursor = socket.until("cursor").await;
        if cursor["position"].is_string() {
            break;
        }
    }
    world.run("select rowcast.watch('picks', public => true)").await;
    crate::support::eventually("the table is served again", || async {
        gateway.gateway().core().hub.tables().by_name("picks").is_some()
    })
    .await;
    socket.send(json!({ "type": "subscribe", "sub": "picks", "table": "picks" })).await;
    assert_eq!(socket.until("snapshot").await["sub"], "picks");
    gateway.stop().await;
}

#[tokio::test]
async fn no_cursor_lies_before_what_another_was_told() {
    let world = World::new().await;
    world.run(TABLES).await;
    let (slow, through) = Proxy::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "p", "table": "picks" })).await;
    let from = socket.until("snapshot").await["position"].clone();
    world.run("update picks set n = 1").await;
    socket.until("changes").await;
    drop(socket);

    // what one missed is read while the other is told what happens
    slow.set(Mode::Delay(5000));
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores", "since": "now" })).await;
    socket.until("subscribed").await;
    let other = json!({ "type": "subscribe", "sub": "p", "table": "picks", "where": "n=gte.0", "since": from });
    socket.send(other).await;
    for n in 2..=5 {
        world.run(&format!("update scores set n = {n}; update picks set n = {n}")).await;
        while of(&socket.seen, "s").iter().filter(|m| m["type"] == "changes").count() < n - 1 {
            socket.next().await;
        }
    }
    assert!(of(&socket.seen, "p").is_empty(), "it was to come later: {:#?}", socket.seen);
    slow.set(Mode::Pass);
    let held = |seen: &[Value]| of(seen, "p").last().is_some_and(|m| m["changes"][0]["row"]["n"] == 5);
    while !held(&socket.seen) || socket.seen.last().is_none_or(|m| m["type"] != "cursor" || m["position"].is_null()) {
        socket.next().await;
    }
    let mut told = 0;
    for message in &socket.seen {
        let Some(position) = message["position"].as_str() else { continue };
        match message["type"].as_str() {
            Some("cursor") => assert!(tick_of(position) >= told, "{message} in {:#?}", socket.seen),
            _ => told = told.max(tick_of(position)),
        }
    }
    gateway.stop().await;
}
