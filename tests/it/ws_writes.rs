//! Writes over a connection that is told changes at the same time.

use crate::support::socket::Socket;
use crate::support::world::connect;
use crate::support::{TestGateway, World};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const TABLES: &str = "create table scores (id int primary key, n int not null); insert into scores values (1, 0);
    create table picks (id int primary key, who text not null check (who <> ''), more numeric); insert into picks values (1, 'ann', 1.10);
    select rowcast.watch('scores', public => true), rowcast.watch('picks', public => true);
    select rowcast.allow('picks', 'anon', write => true)";

async fn served() -> (World, TestGateway) {
    let world = World::new().await;
    world.run(TABLES).await;
    let gateway = world.gateway().await;
    (world, gateway)
}

fn update(id: &str, version: &Value, who: &str) -> Value {
    json!({ "type": "write", "id": id, "ops": [{ "op": "update", "table": "picks", "key": "1", "version": version, "set": { "who": who } }] })
}

/// The answer to a write.
async fn answer(socket: &mut Socket, id: &str) -> Value {
    loop {
        let message = socket.next().await;
        if message["id"] == *id {
            return message;
        }
    }
}

#[tokio::test]
async fn a_pick_is_confirmed_while_scores_come() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    for table in ["scores", "picks"] {
        socket.send(json!({ "type": "subscribe", "sub": table, "table": table })).await;
    }
    while socket.seen.iter().filter(|m| m["type"] == "snapshot").count() < 2 {
        socket.next().await;
    }
    let picks = socket.seen.iter().find(|m| m["type"] == "snapshot" && m["sub"] == "picks").unwrap();
    let version = picks["rows"][0]["version"].clone();
    let stop = Arc::new(AtomicBool::new(false));
    let (writer, stopping) = (connect(&world.url).await, stop.clone());
    let scores = tokio::spawn(async move {
        while !stopping.load(Ordering::Relaxed) {
            writer.batch_execute("update scores set n = n + 1").await.unwrap();
        }
    });
    socket.send(update("w1", &version, "bob")).await;
    let ack = answer(&mut socket, "w1").await;
    assert_eq!(ack["type"], "ack", "{ack}");
    let row = &ack["rows"][0];
    assert_eq!(
        (&row["op"], &row["table"], &row["key"], &row["row"]["who"]),
        (&json!("update"), &json!("picks"), &json!("1"), &json!("bob"))
    );
    assert!(ack["position"].is_string() && ack.get("replayed").is_none(), "{ack}");
    // the pick comes as a change as well, to everybody alike, and the scores went on
    let told = |seen: &[Value], sub: &str| seen.iter().filter(|m| m["type"] == "changes" && m["sub"] == sub).count();
    while told(&socket.seen, "picks") < 1 || told(&socket.seen, "scores") < 3 {
        socket.next().await;
    }
    let change = socket.seen.iter().find(|m| m["type"] == "changes" && m["sub"] == "picks").unwrap();
    assert_eq!(change["changes"][0]["version"], row["version"]);
    // based on what is not any more: the row as it is, to decide anew
    socket.send(update("w2", &version, "eve")).await;
    let conflict = answer(&mut socket, "w2").await;
    assert_eq!((&conflict["type"], &conflict["op"]), (&json!("conflict"), &json!(0)), "{conflict}");
    assert_eq!((&conflict["current"]["version"], &conflict["current"]["row"]["who"]), (&row["version"], &json!("bob")));
    socket.send(update("w3", &conflict["current"]["version"], "eve")).await;
    assert_eq!(answer(&mut socket, "w3").await["type"], "ack");
    stop.store(true, Ordering::Relaxed);
    scores.await.unwrap();
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_told_by_its_id_and_nothing_is_written() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    let insert = |row: Value| json!([{ "op": "insert", "table": "picks", "row": row }]);
    for (ops, key, code, status) in [
        (json!([]), None, "malformed-request", 400),
        (json!([{ "op": "insert" }]), None, "malformed-request", 400),
        (json!([{ "op": "insert", "table": "nothing", "row": {} }]), None, "not-found", 404),
        (json!([{ "op": "insert", "table": "scores", "row": { "id": 9, "n": 1 } }]), None, "writing-not-allowed", 403),
        (
            json!([{ "op": "update", "table": "picks", "key": "1", "set": { "who": "x" } }]),
            None,
            "precondition-required",
            428,
        ),
        (
            json!([{ "op": "update", "table": "picks", "key": "7", "version": 2, "set": { "who": "x" } }]),
            None,
            "not-found",
            404,
        ),
        (insert(json!({ "id": 1, "who": "x" })), None, "conflict", 409),
        (insert(json!({ "id": 2, "who": "" })), None, "constraint-violation", 422),
        (insert(json!({ "id": 2, "nope": 1 })), None, "unknown-column", 422),
        (insert(json!({ "id": 2, "who": "a\u{0}b" })), None, "invalid-value", 422),
        (insert(json!({ "id": 2, "who": "x" })), Some("with space"), "malformed-request", 400),
    ] {
        let mut message = json!({ "type": "write", "id": "w", "ops": ops });
        if let Some(key) = key {
            message["idempotency_key"] = json!(key);
        }
        socket.send(message).await;
        let problem = answer(&mut socket, "w").await;
        let told =
            (problem["type"].as_str(), problem["problem"]["code"].as_str(), problem["problem"]["status"].as_u64());
        assert_eq!(told, (Some("problem"), Some(code), Some(status)), "{ops}: {problem}");
        assert!(problem.get("sub").is_none() && problem["problem"]["request_id"].is_string(), "{problem}");
    }
    // all or nothing
    let ops = json!([{ "op": "insert", "table": "picks", "row": { "id": 2, "who": "x" } }, { "op": "insert", "table": "picks", "row": { "id": 1, "who": "y" } }]);
    socket.send(json!({ "type": "write", "id": "both", "ops": ops })).await;
    assert_eq!(answer(&mut socket, "both").await["problem"]["errors"][0]["op"], 1);
    let rows = world.sql().await.query_one("select count(*) from picks", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_write_is_repeated_on_another_connection_and_done_once() {
    let (world, gateway) = served().await;
    let other = world.gateway().await;
    let write = json!({ "type": "write", "id": "a", "idempotency_key": "pick-7", "ops": [
        { "op": "insert", "table": "picks", "row": { "id": 7, "who": "ann", "more": 3 } }] });
    let mut first = Socket::ready(gateway.address).await;
    first.send(write.clone()).await;
    let ack = answer(&mut first, "a").await;
    let mut second = Socket::ready(other.address).await;
    second.send(write.clone()).await;
    let again = answer(&mut second, "a").await;
    assert_eq!((&again["rows"], &again["replayed"]), (&ack["rows"], &json!(true)), "{ack} {again}");
    let mut another = write;
    another["ops"][0]["row"]["who"] = json!("bob");
    second.send(another).await;
    assert_eq!(answer(&mut second, "a").await["problem"]["code"], "idempotency-key-reused");
    gateway.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_write_that_waits_holds_up_nothing_and_there_are_only_so_many() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "subscribe", "sub": "s", "table": "scores" })).await;
    socket.until("snapshot").await;
    let mut blocker = world.sql().await;
    let held = blocker.transaction().await.unwrap();
    held.batch_execute("select * from picks where id = 1 for update").await.unwrap();
    for i in 0..17 {
        socket.send(update(&format!("w{i}"), &json!(2), "x")).await;
    }
    let refused = answer(&mut socket, "w16").await;
    assert_eq!((&refused["problem"]["code"], &refused["problem"]["status"]), (&json!("too-many-writes"), &json!(429)));
    // the row is held: none of them can have been done, and the stream goes on
    world.run("update scores set n = 77").await;
    assert_eq!(socket.until("changes").await["changes"][0]["row"]["n"], 77);
    held.rollback().await.unwrap();
    let mut answered = std::collections::BTreeSet::new();
    for message in socket.seen.iter().filter(|m| m["id"].is_string()) {
        answered.insert(message["id"].as_str().unwrap().to_owned());
    }
    while answered.len() < 17 {
        let message = socket.next().await;
        if let Some(id) = message["id"].as_str() {
            assert!(answered.insert(id.to_owned()), "{id} is answered twice");
        }
    }
    gateway.stop().await;
}
