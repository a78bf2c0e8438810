//! F14 to F16: many come at once. What they need is read once for all of them, and who cannot be served now is told when to
//! come back.

use crate::support::stalled::Stalled;
use crate::support::{Client, PATIENCE, Sse, World, eventually};
use futures_util::future::join_all;
use rowcast::hub::{Happening, ResetReason};
use std::time::{Duration, Instant};

const SCORES: &str = "create table t (id int primary key, n int not null, v text);
    insert into t select i, 0, repeat('x', 200) from generate_series(1, 10) as i;
    select rowcast.watch('t', public => true)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_storm_with_a_few_tokens_costs_as_many_reads() {
    let world = World::new().await;
    world.run(SCORES).await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let mut client = Sse::open(one.address, "table=t").await;
    let sql = world.sql().await;
    let mut tokens = Vec::new();
    for n in 1..=5 {
        sql.execute("update t set n = $1", &[&n]).await.unwrap();
        let there: &mut dyn Client = &mut client;
        there.until("the tick", |r| r.is_settled() && r.row("1").is_some_and(|row| row["n"] == n)).await;
        tokens.push(client.replica.position.clone().unwrap());
    }
    sql.execute("update t set n = 6", &[]).await.unwrap();
    drop(client);
    one.stop().await;
    let began = Instant::now();
    let all = (0..500).map(|i| {
        let token = tokens[i % tokens.len()].clone();
        async move {
            let mut client = Stalled::resume(two.address, "table=t", Some(&token)).await;
            assert!(client.reads_until("\"n\":6").await, "what it missed");
            client
        }
    });
    let mut clients = tokio::time::timeout(PATIENCE, join_all(all)).await.expect("all in time");
    let caught_up = began.elapsed();
    sql.execute("update t set n = 7", &[]).await.unwrap();
    let live = join_all(clients.iter_mut().map(|client| client.reads_until("\"n\":7")));
    assert!(tokio::time::timeout(PATIENCE, live).await.expect("all in time").into_iter().all(|live| live));
    let counts = two.gateway().core().hub.counts();
    eprintln!("500 have what they missed after {caught_up:?}: {counts:?}");
    assert!(counts.of(Happening::MissedRead) <= 5 + 20, "{counts:?}");
    assert_eq!(counts.of(Happening::SnapshotRead), 0);
    assert!(caught_up < Duration::from_secs(10), "{caught_up:?}");
    drop(clients);
    two.stop().await;
}

/// Every token is another one, and none is known any more: one snapshot serves them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_storm_of_expired_tokens_shares_a_snapshot() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world.gateway().await;
    let all = (0..300).map(|i| async move {
        let mut client = Stalled::resume(gateway.address, "table=t", Some(&format!("1-{i:06x}"))).await;
        assert!(client.reads_until("position-expired").await, "reset");
        assert!(client.reads_until("\"more\":false").await, "snapshot");
        client
    });
    let clients = tokio::time::timeout(PATIENCE, join_all(all)).await.expect("all in time");
    let counts = gateway.gateway().core().hub.counts();
    eprintln!("{counts:?}");
    assert_eq!(counts.resets(ResetReason::Expired), 300);
    assert!(counts.of(Happening::SnapshotRead) <= 2 && counts.of(Happening::MissedRead) <= 300 + 20, "{counts:?}");
    drop(clients);
    gateway.stop().await;
}

/// One snapshot is read at a time and five may wait; the database does not answer. Who comes then is sent away at once, in
/// the way its transport understands, and is served when it comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_beyond_the_queue_newcomers_are_told_to_come_back() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world
        .gateway_with(|settings| {
            settings.snapshot_reads = 1;
            settings.snapshot_queue = 5;
        })
        .await;
    let sql = world.sql().await;
    sql.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
    let mut waiting = Vec::new();
    for id in 1..=6 {
        waiting.push(Stalled::open(gateway.address, &format!("table=t&id=eq.{id}")).await);
        eventually("it is there", || async { gateway.readyz().await["subscriptions"] == id }).await;
        let blocked = "select count(*) from pg_locks where not granted";
        let watcher = world.sql().await;
        eventually("the first one reads", || async {
            watcher.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
    }
    let began = Instant::now();
    for id in 11..=20 {
        let answer = reqwest::get(gateway.url(&format!("/v1/changes?table=t&id=eq.{id}"))).await.unwrap();
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        assert!(answer.text().await.unwrap().contains("\"code\":\"overloaded\""));
        let mut stream = Stalled::open(gateway.address, &format!("table=t&id=eq.{id}")).await;
        assert!(stream.reads_until("\"type\":\"bye\",\"reason\":\"overloaded\",\"retry_ms\":").await);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "they are not kept waiting: {:?}", began.elapsed());
    // whoever wants what somebody waits for already waits with them
    let mut shared = Stalled::open(gateway.address, "table=t&id=eq.3").await;
    sql.batch_execute("commit").await.unwrap();
    for client in waiting.iter_mut().chain([&mut shared]) {
        assert!(tokio::time::timeout(PATIENCE, client.reads_until("\"more\":false")).await.unwrap());
    }
    let mut back = Stalled::open(gateway.address, "table=t&id=eq.11").await;
    assert!(tokio::time::timeout(PATIENCE, back.reads_until("\"more\":false")).await.unwrap());
    let counts = gateway.gateway().core().hub.counts();
    assert_eq!(counts.of(Happening::Overloaded), 20, "{counts:?}");
    drop((waiting, shared, back));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_a_thousand_newcomers_share_one_snapshot() {
    let rows: u32 = std::env::var("ROWCAST_F16_ROWS").map_or(2000, |rows| rows.parse().unwrap());
    let world = World::new().await;
    world
        .run(&format!(
            "create table t (id int primary key, v text not null);
             insert into t select i, md5(i::text) from generate_series(1, {rows}) as i;
             select rowcast.watch('t', public => true)",
        ))
        .await;
    let gateway = world.gateway().await;
    let began = Instant::now();
    let all = (0..1000).map(|_| async move {
        let mut client = Stalled::resume(gateway.address, "table=t", None).await;
        client.reads_until("\"more\":false").await
    });
    let whole = tokio::time::timeout(2 * PATIENCE * rows.div_ceil(2000), join_all(all)).await.expect("all in time");
    let counts = gateway.gateway().core().hub.counts();
    eprintln!("1,000 snapshots of {rows} rows in {:?}: {counts:?}", began.elapsed());
    assert!(whole.into_iter().all(|whole| whole));
    // one serves newcomers for some seconds, and the machine may be slow; and one may be read anew that belongs to no tick
    let read = counts.of(Happening::SnapshotRead);
    assert!((1..=2 + began.elapsed().as_secs() / 5).contains(&read), "{read} reads in {:?}", began.elapsed());
    gateway.stop().await;
}
