//! The JSON Schema of all messages, against real ones of every transport.

use crate::support::keys;
use crate::support::socket::Socket;
use crate::support::{Client, LongPoll, Sse, TestGateway, World, with_secret};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn schema(gateway: &TestGateway) -> Value {
    let answer = reqwest::get(gateway.url("/v1/schemas/message.json")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    answer.json().await.unwrap()
}

#[tokio::test]
async fn every_message_is_as_the_schema_says() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n numeric, j jsonb); insert into t values (1, 1.10, '{\"a\": null}'), (2, null, null);
             select rowcast.watch('t', public => true, bulk_limit => 5);
             select rowcast.allow('t', 'anon', write => true, version_required => false)",
        )
        .await;
    let gateway = world.gateway_with(with_secret).await;
    let schema = schema(&gateway).await;
    assert!(jsonschema::meta::is_valid(&schema), "it is a schema");
    let judge = jsonschema::validator_for(&schema).unwrap();

    // reminded after four fifths of its time, and goes on with another
    let mut socket = Socket::ready_as(gateway.address, Some(&keys::token(5))).await;
    let mut sse = Sse::open(gateway.address, "table=t").await;
    let mut poll = LongPoll::new(gateway.address, "table=t");
    let mut messages: Vec<Value> = poll.advance().await.unwrap();
    for message in [
        json!({ "type": "ping" }),
        json!({ "type": "subscribe", "sub": "1", "table": "t" }),
        json!({ "type": "subscribe", "sub": "1", "table": "t" }),
        json!({ "type": "subscribe", "sub": "2", "table": "nothing" }),
        json!({ "type": "write", "id": "a", "ops": [{ "op": "insert", "table": "t", "row": { "id": 3 } }, { "op": "delete", "table": "t", "key": "3" }] }),
        json!({ "type": "write", "id": "b", "ops": [{ "op": "update", "table": "t", "key": "1", "version": 1, "set": {} }] }),
        json!({ "type": "write", "id": "c", "ops": [{ "op": "insert", "table": "t", "row": { "id": 1 } }] }),
        json!({ "type": "write", "id": "d", "idempotency_key": "k", "ops": [{ "op": "update", "table": "t", "key": "1", "set": { "n": 2 } }] }),
    ] {
        socket.send(message).await;
    }
    socket.until("reauth").await;
    socket.send(json!({ "type": "auth", "token": keys::token(60) })).await;
    let answered = |seen: &[Value], id: &str| seen.iter().any(|m| m["id"] == *id);
    while !["a", "b", "c", "d"].iter().all(|id| answered(&socket.seen, id)) {
        socket.next().await;
    }
    socket.send(json!({ "type": "write", "id": "e", "idempotency_key": "k", "ops": [{ "op": "update", "table": "t", "key": "1", "set": { "n": 2 } }] })).await;
    while !answered(&socket.seen, "e") {
        socket.next().await;
    }
    world.run("insert into t select i from generate_series(10, 30) as i").await;
    socket.until("reset").await;
    socket.until("snapshot").await;
    world.run("update t set n = 'NaN' where id = 2; delete from t where id = 1").await;
    socket.until("changes").await;
    socket.send(json!({ "type": "unsubscribe", "sub": "1" })).await;
    socket.until("unsubscribed").await;
    messages.extend(poll.advance().await.unwrap());
    world.run("select rowcast.unwatch('t')").await;
    let stopping = tokio::spawn(gateway.stop());
    socket.until("bye").await;
    while sse.advance().await.is_ok() {}
    stopping.await.unwrap();

    messages.extend(sse.events.iter().map(|event| serde_json::from_str::<Value>(&event.data).unwrap()));
    messages.extend(socket.seen);
    let mut kinds = BTreeSet::new();
    for message in &messages {
        let errors: Vec<String> = judge.iter_errors(message).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{message}: {errors:#?}");
        kinds.insert(message["type"].as_str().unwrap().to_owned());
    }
    let named = [
        "ack",
        "auth",
        "bye",
        "changes",
        "conflict",
        "cursor",
        "pong",
        "problem",
        "ready",
        "reauth",
        "reset",
        "snapshot",
        "subscribed",
        "unsubscribed",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), named, "each was seen");
    // and the schema says no where no is right
    for wrong in [
        json!({}),
        json!({ "type": "hello" }),
        json!({ "type": "snapshot", "sub": "1", "table": "t", "position": "x", "rows": [], "more": false }),
        json!({ "type": "changes", "sub": "1", "table": "t", "position": "1-000000", "at": "2026-11-21T20:12:17Z", "changes": [{ "op": "upsert" }], "more": false }),
        json!({ "type": "ack", "id": "a", "position": null }),
        json!({ "type": "ready" }),
    ] {
        assert!(!judge.is_valid(&wrong), "{wrong}");
    }
}

#[tokio::test]
async fn messages_of_clients_are_as_the_schema_says() {
    let world = World::new().await;
    let gateway = world.gateway_with(with_secret).await;
    let mut schema = schema(&gateway).await;
    schema["oneOf"] = json!([{ "$ref": "#/$defs/ClientMessage" }]);
    let judge = jsonschema::validator_for(&schema).unwrap();
    let mut socket = Socket::ready_as(gateway.address, Some(&keys::token(600))).await;
    for (message, right) in [
        (json!({ "type": "ping" }), true),
        (json!({ "type": "auth", "token": keys::token(60) }), true),
        (json!({ "type": "auth", "token": null }), false),
        (json!({ "type": "subscribe", "table": "t", "since": null, "where": null }), true),
        (
            json!({ "type": "subscribe", "sub": "x", "table": "t", "since": "now", "numbers": "string", "select": "id" }),
            true,
        ),
        (json!({ "type": "unsubscribe", "sub": "x" }), true),
        (
            json!({ "type": "write", "id": "w", "ops": [{ "op": "delete", "table": "t", "key": "1" }], "idempotency_key": null }),
            true,
        ),
        (json!({ "type": "ping", "id": 1 }), false),
        (json!({ "type": "unsubscribe" }), false),
        (json!({ "type": "write", "ops": [] }), false),
        (json!({ "type": "subscribe", "table": "t", "filter": "" }), false),
    ] {
        assert_eq!(judge.is_valid(&message), right, "{message}");
        socket.send(message.clone()).await;
        // what the schema does not know ends the connection, and nothing else does
        socket.send(json!({ "type": "ping" })).await;
        if right {
            socket.until("pong").await;
        } else {
            assert_eq!(socket.closed().await, 4400, "{message}");
            socket = Socket::ready_as(gateway.address, Some(&keys::token(600))).await;
        }
    }
    gateway.stop().await;
}
