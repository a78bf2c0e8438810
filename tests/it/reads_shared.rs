//! However many ask for the same, the database is asked once.

use crate::support::{Proxy, ReadClient, World, eventually, proxy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often the table was scanned, by the database's own count.
async fn scans(sql: &tokio_postgres::Client) -> i64 {
    let count = "select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 't'";
    sql.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_reads_are_one() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, pad text);
             insert into t select i, repeat('x', 100) from generate_series(1, 200) as i;
             select rowcast.watch('t', public => true, ttl => '1 h')",
        )
        .await;
    let (slow, through) = Proxy::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    let sql = world.sql().await;
    let counts = || gateway.gateway().core().reads.counts();
    for path in ["/v1/tables/t?order=id.desc", "/v1/tables/t/7"] {
        let (before, loads) = (scans(&sql).await, counts().loads.load(Ordering::Relaxed));
        // until all have come
        slow.set(proxy::Mode::Delay(400));
        let client = ReadClient::at(gateway.address);
        let asked = (0..1000).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get(path).await })
        });
        let answers = futures_util::future::join_all(asked.collect::<Vec<_>>()).await;
        slow.set(proxy::Mode::Pass);
        let first = answers[0].as_ref().unwrap().body.clone();
        let mut joined = 0;
        for answer in &answers {
            let answer = answer.as_ref().unwrap();
            assert_eq!((answer.status, &answer.body), (200, &first), "{}", answer.text());
            joined += usize::from(answer.cache_status().contains("collapsed"));
        }
        assert_eq!(counts().loads.load(Ordering::Relaxed) - loads, 1, "one read");
        // a session tells its counts when it ends or is idle for a second
        tokio::time::sleep(Duration::from_millis(1500)).await;
        client.get(&format!("{path}{}select=id", if path.contains('?') { '&' } else { '?' })).await;
        eventually("the database counts", || async { scans(&sql).await > before }).await;
        let scanned = scans(&sql).await - before;
        eprintln!("{path}: 1000 asked at once, {scanned} scans of the table, {joined} joined the read of another");
        assert!(scanned <= 2, "{scanned} scans, one of them ours");
        assert!(joined > 900, "{joined}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_list_is_read_once_a_change() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int); insert into t select i, 0 from generate_series(1, 100) as i;
             select rowcast.watch('t', public => true, ttl => '2 s', stale => '30 s')",
        )
        .await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..200)
        .map(|_| {
            let (client, stop, reads) = (client.clone(), stop.clone(), reads.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/v1/tables/t?order=n.desc&limit=10").await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    reads.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
        })
        .collect();
    let sql = world.sql().await;
    let (began, mut changes) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        sql.batch_execute("update t set n = n + 1 where id = 50").await.unwrap();
        changes += 1;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let loads = gateway.gateway().core().reads.counts().loads.load(Ordering::Relaxed);
    // at most: the change that comes within a refresh reads once more
    let expiries = began.elapsed().as_secs() / 2 + 1;
    let reads = reads.load(Ordering::Relaxed);
    eprintln!(
        "{reads} reads by 200 clients, {changes} changes, at most {expiries} expiries: {loads} reads of the database"
    );
    assert!(loads >= changes && loads <= 1 + changes + expiries, "{loads}");
    assert!(reads > 1000, "{reads}");
    gateway.stop().await;
}

/// Nothing is kept, and yet nobody waits alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_memory_reads_are_still_shared() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key); insert into t values (1);
             create table never (id int primary key); insert into never values (1);
             select rowcast.watch('t', public => true), rowcast.watch('never', public => true, ttl => '0')",
        )
        .await;
    let (slow, through) = Proxy::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |settings| settings.cache_bytes = 0).await;
    let keeping = world.gateway().await;
    let counts = || gateway.gateway().core().reads.counts().loads.load(Ordering::Relaxed);
    let client = ReadClient::at(gateway.address);
    for path in ["/v1/tables/t", "/v1/tables/t/1", "/v1/tables/never"] {
        for _ in 0..2 {
            let before = counts();
            assert_eq!(client.get(path).await.cache_status(), "rowcast; fwd=miss", "{path}");
            assert_eq!(counts() - before, 1);
        }
        let before = counts();
        slow.set(proxy::Mode::Delay(200));
        let asked = (0..100).map(|_| client.get(path));
        let answers = futures_util::future::join_all(asked).await;
        slow.set(proxy::Mode::Pass);
        assert!(answers.iter().all(|answer| answer.status == 200));
        assert_eq!(counts() - before, 1, "{path}");
    }
    let never = ReadClient::at(keeping.address);
    for _ in 0..2 {
        let answer = never.get("/v1/tables/never").await;
        assert_eq!(answer.cache_status(), "rowcast; fwd=miss");
        assert!(answer.header("cache-control").contains("s-maxage=0"), "{}", answer.header("cache-control"));
    }
    gateway.stop().await;
    keeping.stop().await;
}
