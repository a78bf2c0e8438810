//! Read your own write: the position of an answer is where the stream contains it, on every gateway.

use crate::support::{Client, Sse, Writing, eventually};
use serde_json::Value;

#[tokio::test]
async fn on_another_gateway_nothing_older_and_nothing_twice() {
    let w = Writing::new(
        "create table t (id int primary key, n int); insert into t select n, 0 from generate_series(1, 5) as n;
         create table noise (id int primary key, n int); insert into noise values (1, 0);
         select rowcast.watch('t', public => true), rowcast.watch('noise', public => true);
         select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let other = w.world.gateway().await;
    let sql = w.world.sql().await;
    let noise = tokio::spawn(async move {
        loop {
            sql.batch_execute("update noise set n = n + 1; update t set n = -n - 1 where id = 5").await.unwrap();
        }
    });
    let mut version = w.text("select row_version from t where id = 1").await;
    for n in 1..=30 {
        let answer = w.patch("/v1/tables/t/1", &format!("\"{version}\""), &format!("{{\"n\": {n}}}")).await;
        answer.ok(200);
        version = answer.value()["row_version"].to_string();
        let position = answer.header("rowcast-position").expect("a position").to_owned();
        // nobody else writes this row: resumed there, its next change is the next that is told
        let mut sse = Sse::open(other.address, &format!("table=t&id=eq.1&since={position}")).await;
        let after = w.patch("/v1/tables/t/1", &format!("\"{version}\""), &format!("{{\"n\": {}}}", -n)).await;
        after.ok(200);
        version = after.value()["row_version"].to_string();
        loop {
            let event = sse.event().await.unwrap();
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            match data["type"].as_str() {
                Some("changes") => {
                    let changes = data["changes"].as_array().unwrap();
                    assert_eq!(changes.len(), 1, "{data}");
                    assert_eq!(changes[0]["row"]["n"], -n, "{data}");
                    assert_eq!(changes[0]["version"].to_string(), version);
                    break;
                }
                Some("cursor") => {}
                _ => panic!("{event:?}"),
            }
        }
        // a snapshot taken there contains it
        let mut fresh = Sse::open(other.address, &format!("table=t&id=eq.1&since={position}~")).await;
        let client: &mut dyn Client = &mut fresh;
        client.until("the row", |r| r.row("1").is_some()).await;
        let seen = client.replica().row("1").unwrap()["n"].as_i64().unwrap();
        assert!(seen == n || seen == -n, "an older state: {seen} at {n}");
    }
    noise.abort();
    other.stop().await;
    w.gateway.stop().await;
}

/// The row of an answer may be older than the state at its position: who streams from it reads there first.
#[tokio::test]
async fn two_writers_of_one_row_and_a_reader_that_follows() {
    let w = Writing::new(
        "create table t (id int primary key, n int); insert into t values (1, 0);
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let other = w.world.gateway().await;
    let sql = w.world.sql().await;
    let second = tokio::spawn(async move {
        loop {
            sql.batch_execute("update t set n = n + 1 where id = 1").await.unwrap();
        }
    });
    for _ in 0..20 {
        let answer = w.patch("/v1/tables/t/1", "*", "{\"n\": 0}").await;
        let own = serde_json::from_str::<Value>(answer.ok(200)).unwrap()["row_version"].as_i64().unwrap();
        let position = answer.header("rowcast-position").expect("a position").to_owned();
        let read = w.send_to(&other, "GET", "/v1/tables/t", &[("rowcast-min-position", &position)], "").await;
        let rows: Value = serde_json::from_str(read.ok(200)).unwrap();
        let mut version = rows[0]["row_version"].as_i64().unwrap_or_else(|| panic!("{rows}"));
        assert!(version >= own, "a state without the write: {version} < {own}");
        // from the read's position on there is every change: the next is the successor, or what was read told again
        let since = read.header("rowcast-position").expect("a position").to_owned();
        let mut sse = Sse::open(other.address, &format!("table=t&since={since}")).await;
        let last = w.patch("/v1/tables/t/1", "*", "{\"n\": 0}").await;
        let last = serde_json::from_str::<Value>(last.ok(200)).unwrap()["row_version"].as_i64().unwrap();
        while version < last {
            let data: Value = serde_json::from_str(&sse.event().await.unwrap().data).unwrap_or_default();
            for change in data["changes"].as_array().into_iter().flatten() {
                version = version.max(change["version"].as_i64().unwrap());
            }
        }
    }
    second.abort();
    other.stop().await;
    w.gateway.stop().await;
}

#[tokio::test]
async fn without_a_stream_the_write_is_answered_all_the_same() {
    // the direct connection leads nowhere soon: ticks stop, the pool goes on
    let world = crate::support::World::new().await;
    world
        .run(
            "create table t (id int primary key); select rowcast.watch('t', public => true);
             select rowcast.allow('t', 'anon', write => true)",
        )
        .await;
    let (proxy, through) = crate::support::Proxy::postgres(&world.url).await;
    let gateway = world.gateway_with(|settings| settings.notify_url = Some(through)).await;
    proxy.set(crate::support::proxy::Mode::Refuse);
    eventually("the feed is lost", || async { gateway.readyz().await["ready"] == false }).await;
    let http = crate::support::writing::http();
    let request = http.post(gateway.url("/v1/tables/t")).header("content-type", "application/json").body("{\"id\":1}");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert!(!answer.headers().contains_key("rowcast-position"));
    assert_eq!(answer.headers()["rowcast-position-unknown"], "?1");
    let request = http.post(gateway.url("/v1/batch")).header("content-type", "application/json");
    let batch = request.body(r#"{"ops":[{"op":"insert","table":"t","row":{"id":2}}]}"#).send().await.unwrap();
    assert!(batch.json::<Value>().await.unwrap()["position"].is_null());
    // nobody tells this gateway of a change of the table; the transaction sees it all the same
    let post = async |id: i32| {
        let request = http.post(gateway.url("/v1/tables/t")).header("content-type", "application/json");
        let answer = request.body(format!("{{\"id\":{id}}}")).send().await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"), answer.json::<Value>().await.unwrap())
    };
    for (change, back) in [
        ("select rowcast.watch('t', public => false)", "select rowcast.watch('t', public => true)"),
        ("alter table t rename to u; create table t (id int primary key)", "drop table t; alter table u rename to t"),
        // the whole row was told, and is not any more
        ("alter table t add more int; select rowcast.watch('t', public => true, columns => array['id'])", "select 1"),
    ] {
        world.run(change).await;
        let (status, retry, problem) = post(3).await;
        assert_eq!((status, retry, problem["code"].as_str()), (503, true, Some("unavailable")), "{change}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains("being changed"), "{problem}");
        world.run(back).await;
    }
    gateway.stop().await;
}
