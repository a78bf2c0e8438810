//! `watch` and `unwatch` under a running gateway.

use crate::support::{Client, Sse, World, eventually};
use std::time::Duration;

async fn changes(address: std::net::SocketAddr, query: &str) -> u16 {
    reqwest::get(format!("http://{address}/v1/changes?{query}")).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn settings_change_under_a_running_gateway_without_a_reset() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); insert into t values (1, 0); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "table=t").await;
    let client: &mut dyn Client = &mut sse;
    client.until("the row", |r| r.row("1").is_some() && r.position.is_some()).await;
    let sql = world.sql().await;
    for seconds in [7, 8, 9] {
        sql.batch_execute(&format!(
            "select rowcast.watch('t', ttl => '{seconds} s', stale => '{seconds} min', snapshot_every => '{seconds} h', bulk_limit => {seconds}, public => true)"
        ))
        .await
        .unwrap();
        eventually("the gateway knows", || async {
            let tables = gateway.gateway().core().hub.tables();
            let table = tables.by_name("t").unwrap().clone();
            (table.ttl, table.stale, table.snapshot_every)
                == (
                    Duration::from_secs(seconds),
                    Duration::from_secs(seconds * 60),
                    Duration::from_secs(seconds * 3600),
                )
        })
        .await;
        sql.batch_execute("update t set n = n + 1").await.unwrap();
        client.until("a change", |r| r.row("1").unwrap()["n"] == seconds - 6).await;
    }
    assert!(client.replica().resets.is_empty(), "{:?}", client.replica().resets);
    assert_eq!(client.replica().snapshots, 1);
    // told through the log, not found at the next look at the catalog
    let told = sql.query_one("select count(*) from rowcast.log_0 where relid = 0", &[]).await.unwrap();
    assert_eq!(told.get::<_, i64>(0), 3);
    // the limit counts for the next statement
    sql.batch_execute("insert into t select g from generate_series(10, 30) g").await.unwrap();
    client.until("a reload", |r| r.rows("1").len() == 22).await;
    assert_eq!(client.replica().resets, ["bulk"]);
    gateway.stop().await;
}

#[tokio::test]
async fn columns_change_under_a_running_gateway_with_a_reset() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int, secret text); insert into t values (1, 0, 'x')").await;
    world.run("select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "table=t").await;
    let client: &mut dyn Client = &mut sse;
    client.until("the row", |r| r.row("1").is_some_and(|row| row["secret"] == "x")).await;
    world.run("select rowcast.watch('t', exclude => array['secret'], public => true)").await;
    client
        .until("without the column", |r| {
            !r.resets.is_empty() && r.row("1").is_some_and(|row| row.get("secret").is_none())
        })
        .await;
    world.run("update t set secret = 'y'").await;
    world.run("update t set n = 1").await;
    client.until("the change", |r| r.row("1").is_some_and(|row| row["n"] == 1)).await;
    let after: String = sse.events.iter().skip_while(|e| e.event != "reset").map(|e| e.data.as_str()).collect();
    assert!(!after.contains("secret"), "{after}");
    assert_eq!(changes(gateway.address, "table=t&secret=eq.y").await, 400);
    assert_eq!(changes(gateway.address, "table=t&select=secret").await, 400);
    gateway.stop().await;
}

#[tokio::test]
async fn a_table_that_is_not_public_any_more_is_as_if_absent() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); insert into t values (1, 0); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "table=t").await;
    let client: &mut dyn Client = &mut sse;
    client.until("the row", |r| r.row("1").is_some()).await;
    world.run("select rowcast.watch('t')").await;
    world.run("update t set n = 1").await;
    client.until("the end", |r| !r.problems.is_empty()).await;
    assert_eq!(client.replica().problems[0]["problem"]["code"], "not-found");
    assert_eq!(client.replica().row("1").unwrap()["n"], 0, "nothing of it is told any more");
    assert_eq!(changes(gateway.address, "table=t").await, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn unwatching_and_dropping_end_subscriptions_and_leave_others() {
    let world = World::new().await;
    world
        .run(
            "create table a (id int primary key); create table b (id int primary key); create table c (id int primary key);
             insert into a values (1); insert into b values (1); insert into c values (1);
             select rowcast.watch('a', public => true), rowcast.watch('b', public => true), rowcast.watch('c', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "sub=a~a&sub=b~b&sub=c~c").await;
    let client: &mut dyn Client = &mut sse;
    client.until("the rows", |r| ["a", "b", "c"].iter().all(|s| r.rows(s).len() == 1)).await;
    world.run("select rowcast.unwatch('a')").await;
    client.until("the end of a", |r| r.problems.len() == 1).await;
    world.run("drop table b").await;
    client.until("the end of b", |r| r.problems.len() == 2).await;
    for (problem, sub) in client.replica().problems.iter().zip(["a", "b"]) {
        assert_eq!(
            (problem["sub"].as_str(), problem["problem"]["status"].as_u64()),
            (Some(sub), Some(404)),
            "{problem}"
        );
    }
    // the writers of what is not watched any more go on, and so do other subscriptions
    world.run("insert into a values (2); insert into c values (2)").await;
    client.until("c goes on", |r| r.rows("c").len() == 2).await;
    world.run("select rowcast.unwatch('a'); select rowcast.unwatch('c')").await;
    while sse.event().await.is_ok() {}
    let bye = sse.events.last().unwrap();
    assert!(bye.event == "bye" && bye.data.contains("no-subscription-left"), "{bye:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn watching_twice_is_watching_once() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true)").await;
    let sql = world.sql().await;
    let state = async || -> String {
        let sql = &sql;
        let triggers = "select string_agg(tgname || tgenabled::text || tgfoid::regproc::text, ',' order by tgname) from pg_trigger where tgrelid = 't'::regclass";
        let objects = "select string_agg(proname, ',' order by proname) from pg_proc where pronamespace = 'rowcast'::regnamespace";
        format!(
            "{} {}",
            sql.query_one(triggers, &[]).await.unwrap().get::<_, String>(0),
            sql.query_one(objects, &[]).await.unwrap().get::<_, String>(0)
        )
    };
    let before = state().await;
    sql.batch_execute("select rowcast.watch('t', public => true); select rowcast.watch('public.t', public => true)")
        .await
        .unwrap();
    assert_eq!(state().await, before);
    sql.batch_execute("insert into t values (1)").await.unwrap();
    let logged = sql.query_one("select count(*) from rowcast.log_0 where op = 'i'", &[]).await.unwrap();
    assert_eq!(logged.get::<_, i64>(0), 1, "captured once");
    // and it mends what was broken
    sql.batch_execute("drop trigger zzz_rowcast_insert on t; alter table t disable trigger zzz_rowcast_update; select rowcast.watch('t', public => true)")
        .await
        .unwrap();
    assert_eq!(state().await, before);
    sql.batch_execute("select rowcast.unwatch('t'); select rowcast.unwatch('t')").await.unwrap();
    let left = sql.query_one("select count(*) from pg_trigger where tgrelid = 't'::regclass", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}
