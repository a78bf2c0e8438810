//! Each message of a WebSocket client, and each answer.

use crate::bad_input::served;
use crate::support::socket::{Ended, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_first_message_is_init() {
    let (_world, gateway) = served().await;
    let at = gateway.address;
    let mut socket = Socket::ready(at).await;
    let ready = &socket.seen[0];
    assert_eq!(*ready, json!({ "type": "ready", "heartbeat_ms": 15000, "token_expires_in": null }));
    socket.send(json!({ "type": "init" })).await;
    assert_eq!(socket.end().await, Ended::Closed(4400, "bad-message: `init` came twice".to_owned()));
    for (first, code, says) in [
        (json!({ "type": "subscribe", "sub": "1", "table": "t" }), 4401, "the first message is `init`"),
        (json!({ "type": "ping" }), 4401, "the first message is `init`"),
        (json!({ "type": "init", "token": "eyJ" }), 4401, "the token is not accepted"),
        (json!({ "type": "init", "tokens": "eyJ" }), 4400, "unknown field"),
        (json!({ "type": "hello" }), 4400, "`type` is"),
        (json!([]), 4400, "one JSON object"),
    ] {
        let (mut socket, _) = Socket::connect(at, &[]).await.unwrap();
        socket.send(first.clone()).await;
        let Ended::Closed(closed, reason) = socket.end().await else { panic!("{first}: cut") };
        assert_eq!(closed, code, "{first}: {reason}");
        assert!(reason.contains(says) && reason.len() <= 123, "{first}: {reason}");
        assert!(socket.seen.is_empty(), "{first}: {:?}", socket.seen);
    }
    let (mut socket, _) = Socket::connect(at, &[]).await.unwrap();
    socket.send(json!({ "type": "init", "token": null })).await;
    assert_eq!(socket.next().await["type"], "ready");
    gateway.stop().await;
}

#[tokio::test]
async fn garbage_ends_the_connection_and_says_why() {
    let (_world, gateway) = served().await;
    for garbage in [
        "",
        "{",
        "null",
        "{\"type\":\"ping\",\"type\":\"ping\"}",
        "{\"type\":\"unsubscribe\"}",
        "{\"type\":\"subscribe\"}",
    ] {
        let mut socket = Socket::ready(gateway.address).await;
        assert!(socket.try_send(Message::text(garbage)).await);
        let Ended::Closed(code, reason) = socket.end().await else { panic!("{garbage}: cut") };
        assert_eq!(code, 4400, "{garbage}");
        assert!(reason.starts_with("bad-message: "), "{reason}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn each_message_has_its_answer() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    socket.send(json!({ "type": "ping" })).await;
    assert_eq!(socket.next().await, json!({ "type": "pong" }));

    socket.send(json!({ "type": "subscribe", "sub": "a", "table": "t", "where": "n=eq.1", "select": "id,n", "numbers": "string" })).await;
    assert_eq!(socket.next().await, json!({ "type": "subscribed", "sub": "a" }));
    let snapshot = socket.next().await;
    assert_eq!(
        snapshot["rows"],
        json!([{ "key": "1", "version": snapshot["rows"][0]["version"], "row": { "id": 1, "n": 1 } }])
    );
    assert_eq!((&snapshot["sub"], &snapshot["table"], &snapshot["more"]), (&json!("a"), &json!("t"), &json!(false)));
    world.run("update t set n = 1 where id = 2").await;
    let changes = socket.until("changes").await;
    assert_eq!((&changes["sub"], &changes["changes"][0]["op"]), (&json!("a"), &json!("insert")));
    socket.send(json!({ "type": "unsubscribe", "sub": "a" })).await;
    assert_eq!(socket.until("unsubscribed").await, json!({ "type": "unsubscribed", "sub": "a" }));
    socket.send(json!({ "type": "unsubscribe", "sub": "never there" })).await;
    assert_eq!(
        socket.until("unsubscribed").await["sub"],
        "never there",
        "there may have been one that ended by itself"
    );

    for (subscribe, code) in [
        (json!({ "table": "nothing" }), "not-found"),
        (json!({ "table": "private" }), "not-found"),
        (json!({ "table": "t", "where": "nope=eq.1" }), "unknown-column"),
        (json!({ "table": "t", "where": "hidden=eq.1" }), "unknown-column"),
        (json!({ "table": "t", "where": "n=almost.1" }), "unknown-operator"),
        (json!({ "table": "t", "select": "hidden" }), "unknown-column"),
        (json!({ "table": "t", "where": "limit=1" }), "malformed-request"),
        (json!({ "table": "t", "since": "garbage" }), "invalid-position"),
    ] {
        let mut message = json!({ "type": "subscribe", "sub": "b" });
        message.as_object_mut().unwrap().extend(subscribe.as_object().unwrap().clone());
        socket.send(message).await;
        let problem = socket.until("problem").await;
        assert_eq!((&problem["sub"], problem["problem"]["code"].as_str()), (&json!("b"), Some(code)), "{subscribe}");
    }
    // a position that nobody knows: a reset and a snapshot, in-band
    socket.send(json!({ "type": "subscribe", "sub": "b", "table": "t", "since": "0-000000" })).await;
    let reset = socket.until("reset").await;
    assert_eq!((&reset["sub"], &reset["reason"]), (&json!("b"), &json!("position-expired")));
    assert_eq!(socket.next().await["type"], "snapshot");
    // the name is taken: what has it goes on
    socket.send(json!({ "type": "subscribe", "sub": "b", "table": "t" })).await;
    let problem = socket.until("problem").await;
    assert_eq!((problem.get("sub"), &problem["problem"]["code"]), (None, &json!("already-subscribed")));
    world.run("update t set n = 7 where id = 1").await;
    assert_eq!(socket.until("changes").await["sub"], "b");
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_has_so_many_subscriptions() {
    let (world, gateway) = served().await;
    let mut socket = Socket::ready(gateway.address).await;
    for i in 0..128 {
        socket
            .send(json!({ "type": "subscribe", "sub": i.to_string(), "table": "t", "where": format!("id=eq.{i}") }))
            .await;
    }
    socket.send(json!({ "type": "subscribe", "sub": "one more", "table": "t" })).await;
    let problem = socket.until("problem").await;
    assert_eq!((&problem["sub"], &problem["problem"]["code"]), (&json!("one more"), &json!("too-many-subscriptions")));
    while socket.seen.iter().filter(|m| m["type"] == "snapshot").count() < 128 {
        socket.next().await;
    }
    socket.send(json!({ "type": "unsubscribe", "sub": "7" })).await;
    socket.until("unsubscribed").await;
    socket.send(json!({ "type": "subscribe", "sub": "one more", "table": "t" })).await;
    assert_eq!(socket.until("snapshot").await["sub"], "one more");
    socket.seen.clear();
    world.run("update t set n = n + 1 where id = 1").await;
    let told = |seen: &[Value]| {
        let mut subs: Vec<String> =
            seen.iter().filter(|m| m["type"] == "changes").map(|m| m["sub"].as_str().unwrap().to_owned()).collect();
        subs.sort();
        subs
    };
    while told(&socket.seen).len() < 2 {
        socket.next().await;
    }
    assert_eq!(told(&socket.seen), ["1", "one more"]);
    gateway.stop().await;
}
