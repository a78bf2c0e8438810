//! A request that is sent again: one effect, the same answer.

use crate::support::cutter::{AtCommit, Cutter};
use crate::support::{Writing, eventually};

const TABLES: &str =
    "create table orders (id int generated always as identity primary key, item text not null, n int default 1);
    create table watched_only (id int primary key);
    select rowcast.watch('orders', public => true); select rowcast.allow('orders', 'anon', write => true)";

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

#[tokio::test]
async fn sent_twice_it_is_done_once() {
    let w = Writing::new(TABLES).await;
    let key = [("idempotency-key", KEY)];
    let body = r#"{"item": "tea"}"#;
    let first = w.json("POST", "/v1/tables/orders", &key, body).await;
    first.ok(201);
    let again = w.json("POST", "/v1/tables/orders", &[("idempotency-key", &format!("\"{KEY}\""))], body).await;
    assert_eq!((again.status, &again.body), (201, &first.body));
    for header in ["location", "etag", "content-type"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    // by another gateway too, with a position of the stream that contains it
    let other = w.world.gateway().await;
    let headers = [("content-type", "application/json"), key[0]];
    let third = w.send_to(&other, "POST", "/v1/tables/orders", &headers, body).await;
    assert_eq!((third.status, &third.body, third.header("idempotency-replayed")), (201, &first.body, Some("true")));
    assert!(third.header("rowcast-position").is_some());
    assert_eq!(w.text("select count(*) from orders").await, "1");

    // another request with the same key
    for (method, path, headers, body) in [
        ("POST", "/v1/tables/orders", &[][..], r#"{"item": "coffee"}"#),
        ("POST", "/v1/tables/orders", &[("prefer", "return=minimal")], r#"{"item": "tea"}"#),
        ("PATCH", "/v1/tables/orders/1", &[("if-match", "*")], r#"{"item": "tea"}"#),
        ("POST", "/v1/batch", &[], r#"{"ops":[{"op":"insert","table":"orders","row":{"item":"x"}}]}"#),
    ] {
        let headers = [headers, &key].concat();
        w.json(method, path, &headers, body).await.refused(422, "idempotency-key-reused");
    }
    // what failed is not kept: the same key may do better
    let key = [("idempotency-key", "second")];
    w.json("POST", "/v1/tables/orders", &key, r#"{"item": null}"#).await.refused(422, "constraint-violation");
    w.json("POST", "/v1/tables/orders", &key, r#"{"item": "milk"}"#).await.ok(201);
    assert_eq!(w.text("select string_agg(item, ' ' order by id) from orders").await, "tea milk");
    other.stop().await;
    w.gateway.stop().await;
}

#[tokio::test]
async fn every_kind_of_write() {
    let w = Writing::new(TABLES).await;
    w.world.run("insert into orders (item) values ('a'), ('b')").await;
    let version = w.text("select row_version from orders where id = 1").await;
    let tag = format!("\"{version}\"");
    let batch = r#"{"ops":[{"op":"insert","table":"orders","row":{"item":"batch"}}]}"#;
    for (n, (method, path, tag, body)) in [
        ("PATCH", "/v1/tables/orders/1", Some(tag.as_str()), r#"{"n": 7}"#),
        ("DELETE", "/v1/tables/orders/2", Some("*"), ""),
        ("POST", "/v1/batch", None, batch),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{n}");
        let mut headers = vec![("idempotency-key", key.as_str())];
        headers.extend(tag.map(|tag| ("if-match", tag)));
        let first = w.json(method, path, &headers, body).await;
        assert!(first.status < 300, "{method}: {}", first.body);
        let again = w.json(method, path, &headers, body).await;
        assert_eq!(
            (again.status, again.header("etag"), again.header("idempotency-replayed")),
            (first.status, first.header("etag"), Some("true")),
            "{method}"
        );
        let rows =
            |text: &str| serde_json::from_str::<serde_json::Value>(text).map(|v| v["rows"].clone()).unwrap_or_default();
        assert_eq!(rows(&again.body), rows(&first.body));
        if path == "/v1/batch" {
            assert!(again.value()["position"].is_string());
        }
    }
    assert_eq!(
        w.text("select string_agg(concat_ws(':', id, item, n), ' ' order by id) from orders").await,
        "1:a:7 3:batch:1"
    );
    w.gateway.stop().await;
}

#[tokio::test]
async fn while_one_is_running_the_other_is_told() {
    let w = Writing::new(TABLES).await;
    w.world.run("insert into orders (item) values ('a')").await;
    let blocker = w.world.sql().await;
    blocker.batch_execute("begin; update orders set n = 5 where id = 1").await.unwrap();
    let headers = [("idempotency-key", KEY), ("if-match", "*")];
    let slow = async { w.json("PATCH", "/v1/tables/orders/1", &headers, r#"{"n": 9}"#).await };
    let other = async {
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("the first waits for the row", || async { w.text(waits).await == "1" }).await;
        let answer = w.json("PATCH", "/v1/tables/orders/1", &headers, r#"{"n": 9}"#).await;
        answer.refused(409, "in-progress");
        assert_eq!(answer.header("retry-after"), Some("1"));
        // another key is not held up by it
        w.json("POST", "/v1/tables/orders", &[("idempotency-key", "other")], r#"{"item": "b"}"#).await.ok(201);
        blocker.batch_execute("commit").await.unwrap();
    };
    let (slow, ()) = futures_util::future::join(slow, other).await;
    slow.ok(200);
    let again = w.json("PATCH", "/v1/tables/orders/1", &headers, r#"{"n": 9}"#).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
    w.gateway.stop().await;
}

#[tokio::test]
async fn a_connection_killed_between_commit_and_answer() {
    let mut cutter = None;
    let (made, through) = {
        let world = crate::support::World::new().await;
        let (made, through) = Cutter::postgres(&world.url).await;
        cutter.replace(made);
        (world, through)
    };
    made.run(TABLES).await;
    let gateway = made.gateway_with(|settings| settings.database_url = through).await;
    let cutter = cutter.unwrap();
    let http = crate::support::writing::http();
    let post = async || {
        let request = http.post(gateway.url("/v1/tables/orders")).header("content-type", "application/json");
        let answer = request.header("idempotency-key", KEY).body(r#"{"item":"tea"}"#).send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("idempotency-replayed"), answer.text().await.unwrap())
    };
    for (mode, replayed) in [(AtCommit::CutBefore, false), (AtCommit::CutAfter, true)] {
        made.run("truncate orders, rowcast.idempotency").await;
        cutter.set(mode);
        let (status, _, body) = post().await;
        assert!(status == 503 && body.contains("outcome-unknown"), "{mode:?}: {status} {body}");
        cutter.set(AtCommit::Pass);
        // the lost transaction may still be ending
        let mut done = post().await;
        while done.0 == 409 || done.0 == 503 {
            done = post().await;
        }
        assert_eq!((done.0, done.1), (201, replayed), "{mode:?}: {}", done.2);
        let count: i64 = made.sql().await.query_one("select count(*) from orders", &[]).await.unwrap().get(0);
        assert_eq!(count, 1, "{mode:?}: once");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn answers_are_kept_for_a_day() {
    let w = Writing::new(TABLES).await;
    let key = [("idempotency-key", KEY)];
    w.json("POST", "/v1/tables/orders", &key, r#"{"item": "tea"}"#).await.ok(201);
    w.world.run("update rowcast.idempotency set at = at - interval '23 h'").await;
    assert_eq!(w.text("select rowcast.forget_answers()").await, "0");
    w.json("POST", "/v1/tables/orders", &key, r#"{"item": "milk"}"#).await.refused(422, "idempotency-key-reused");
    w.world.run("update rowcast.idempotency set at = at - interval '2 h'").await;
    w.world
        .run(
            "insert into rowcast.idempotency (subject, key, request, status, headers, at)
             select 'anon', n::text, '', 204, '[]', now() - interval '25 h' from generate_series(1, 2500) as n",
        )
        .await;
    assert_eq!(w.text("select rowcast.forget_answers(most => 100)").await, "100", "in small steps");
    // the leader calls it
    eventually("all are gone", || async { w.text("select count(*) from rowcast.idempotency").await == "0" }).await;
    w.json("POST", "/v1/tables/orders", &key, r#"{"item": "milk"}"#).await.ok(201);
    assert_eq!(w.text("select string_agg(item, ' ' order by id) from orders").await, "tea milk");
    w.gateway.stop().await;
}

#[tokio::test]
async fn a_kept_answer_does_not_tell_what_is_not_published_any_more() {
    let w = Writing::new(TABLES).await;
    let key = [("idempotency-key", KEY)];
    let body = r#"{"item": "tea"}"#;
    let first = w.json("POST", "/v1/tables/orders", &key, body).await;
    first.ok(201);
    let batch = r#"{"ops":[{"op":"insert","table":"orders","row":{"item":"canary"}}]}"#;
    w.json("POST", "/v1/batch", &[("idempotency-key", "batch")], batch).await.ok(200);
    // one more column hides nothing
    w.world.run("alter table orders add more int; select rowcast.watch('orders', public => true)").await;
    assert_eq!(w.json("POST", "/v1/tables/orders", &key, body).await.ok(201), first.body);
    w.world.run("select rowcast.watch('orders', public => true, columns => array['id', 'item'])").await;
    // until the gateway knows, it is told to ask again
    let mut again = w.json("POST", "/v1/tables/orders", &key, body).await;
    eventually("the gateway knows", || async {
        w.send("GET", "/v1/tables/orders", &[], "").await.ok(200).find("\"n\":").is_none()
    })
    .await;
    if again.status == 503 {
        again.refused(503, "unavailable");
        again = w.json("POST", "/v1/tables/orders", &key, body).await;
    }
    assert_eq!((again.ok(201), again.header("idempotency-replayed")), ("", Some("true")));
    assert_eq!(again.header("etag"), first.header("etag"));
    let again = w.json("POST", "/v1/batch", &[("idempotency-key", "batch")], batch).await;
    assert_eq!((again.ok(204), again.header("idempotency-replayed")), ("", Some("true")));
    assert_eq!(w.text("select count(*) from orders").await, "2");
    w.gateway.stop().await;
}
