//! Settings that change, and a database or a stream that is away: how old an answer may be is always the table's word.

use crate::support::{Proxy, ReadClient, TestGateway, World, eventually, proxy::Mode};
use std::time::{Duration, Instant};

/// A gateway whose stream and whose pool go through a proxy each.
async fn breakable(world: &World) -> (TestGateway, Proxy, Proxy) {
    let (stream, notify_url) = Proxy::postgres(&world.url).await;
    let (pool, database_url) = Proxy::postgres(&world.url).await;
    let gateway = world
        .gateway_with(|settings| {
            settings.database_url = database_url;
            settings.notify_url = Some(notify_url);
            settings.safety_poll = Duration::from_millis(200);
        })
        .await;
    (gateway, stream, pool)
}

const SCHEMA: &str = "create table t (id int primary key, n int); insert into t values (1, 0), (2, 0);";

#[tokio::test]
async fn settings_take_effect_while_it_runs() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("select rowcast.watch('t', public => true, ttl => '1 h', stale => '2 h')").await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    assert!(client.get("/v1/tables/t").await.header("cache-control").contains("s-maxage=3600"));
    assert!(client.get("/v1/tables/t").await.cache_status().contains("hit"));
    let loads = || gateway.gateway().core().reads.counts().loads.load(std::sync::atomic::Ordering::Relaxed);

    let changed = Instant::now();
    world.run("select rowcast.watch('t', public => true, ttl => '1 s', stale => '4 s')").await;
    eventually("the new time is told", || async {
        client.get("/v1/tables/t").await.header("cache-control").contains("s-maxage=1, stale-while-revalidate=4")
    })
    .await;
    eprintln!("settings took effect after {:?}", changed.elapsed());
    // an answer past its time is served while it is read again, once
    client.get("/v1/tables/t").await;
    eventually("it is young", || async { client.get("/v1/tables/t").await.header("age") == "0" }).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    let before = loads();
    let past = client.get("/v1/tables/t").await;
    assert!(past.cache_status().contains("detail=stale-while-revalidate"), "{}", past.cache_status());
    // 1 and not more, unless the machine was away
    let age: i64 = past.header("age").parse().unwrap();
    assert!(past.cache_status().contains("ttl=-") && (1..5).contains(&age), "{age} {}", past.cache_status());
    eventually("it was read again", || async {
        let status = client.get("/v1/tables/t").await.cache_status().to_owned();
        status.contains("hit") && !status.contains("stale")
    })
    .await;
    assert_eq!(loads() - before, 1);
    // past both it is waited for
    tokio::time::sleep(Duration::from_millis(5300)).await;
    assert!(client.get("/v1/tables/t").await.cache_status().contains("fwd="), "{}", past.cache_status());

    world.run("select rowcast.watch('t', public => true, ttl => '0', stale => '0')").await;
    eventually("nothing is kept", || async {
        client.get("/v1/tables/t").await;
        client.get("/v1/tables/t").await.cache_status() == "rowcast; fwd=miss"
    })
    .await;
    assert_eq!(client.get("/v1/tables/t").await.header("cache-control"), "public, max-age=0, s-maxage=0");
    world.run("select rowcast.watch('t', public => false)").await;
    eventually("it is not for everybody any more", || async { client.get("/v1/tables/t").await.status == 404 }).await;
    assert_eq!(client.get("/v1/tables/t/1").await.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn the_database_is_away() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("select rowcast.watch('t', public => true, ttl => '2 s', stale => '3 s')").await;
    let (gateway, stream, pool) = breakable(&world).await;
    let client = ReadClient::at(gateway.address);
    // the answer is at most so old, and at least as old as since `began`
    let first = Instant::now();
    for path in ["/v1/tables/t", "/v1/tables/t/1"] {
        assert_eq!(client.get(path).await.status, 200);
    }
    let position = client.get("/v1/tables/t").await.position().to_owned();
    let began = Instant::now();
    stream.set(Mode::Refuse);
    pool.set(Mode::Refuse);
    let (ttl, both) = (Duration::from_secs(2), Duration::from_secs(5));
    let (mut fresh, mut stale) = (0, 0);
    loop {
        let asked = began.elapsed();
        let list = client.get("/v1/tables/t").await;
        let answered = first.elapsed();
        if list.status == 503 {
            assert_eq!(list.code(), "unavailable");
            assert!(!list.header("retry-after").is_empty());
            assert!(answered >= both, "given up after {answered:?}");
            break;
        }
        assert_eq!(list.rows().len(), 2);
        // a try to read it comes before
        assert!(asked < both + Duration::from_secs(2), "served after {asked:?}");
        match list.cache_status() {
            // while the gateway has not noticed yet
            kept if kept.contains("detail=stale-while-revalidate") => assert!(answered >= ttl, "{kept} {answered:?}"),
            kept if kept.contains("detail=stale-if-error") => {
                stale += 1;
                assert!(answered >= ttl, "{kept} after {answered:?}");
                assert_eq!(list.position(), position);
            }
            kept => {
                assert!(kept.starts_with("rowcast; hit; ttl="), "{kept}");
                assert!(asked <= ttl, "{kept} after {asked:?}");
                fresh += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(fresh > 5 && stale > 5, "{fresh} fresh, {stale} stale");
    let row = client.get("/v1/tables/t/2").await;
    assert_eq!((row.status, row.code().as_str()), (503, "unavailable"), "never read");
    world.run("update t set n = 7").await;
    stream.set(Mode::Pass);
    pool.set(Mode::Pass);
    eventually("it is back, and so is what happened meanwhile", || async {
        let list = client.get("/v1/tables/t").await;
        list.status == 200 && list.rows()[0]["n"] == 7
    })
    .await;
    eventually("the row too", || async { client.get("/v1/tables/t/1").await.json()["n"] == 7 }).await;
    gateway.stop().await;
}

/// The stream goes on and rows cannot be read: what a change touched may be served for as long as the table says, but
/// not to whoever has seen that change.
#[tokio::test]
async fn only_the_pool_is_away() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("select rowcast.watch('t', public => true, ttl => '1 h', stale => '1 h')").await;
    let (gateway, _stream, pool) = breakable(&world).await;
    let client = ReadClient::at(gateway.address);
    let list = client.get("/v1/tables/t").await;
    assert_eq!(client.get("/v1/tables/t/1").await.status, 200);
    pool.set(Mode::Refuse);
    world.run("update t set n = 1").await;
    let row = || async { client.get("/v1/tables/t/1").await };
    eventually("the row is written through", || async { row().await.json()["n"] == 1 }).await;
    let position = row().await.position().to_owned();

    let old = client.get("/v1/tables/t").await;
    assert!(old.cache_status().contains("detail=stale-if-error"), "{}", old.cache_status());
    assert!(old.body == list.body && old.tick() >= list.tick(), "{}", old.text());
    let refused = client.get_from("/v1/tables/t", &position).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"));
    assert_eq!(client.get_from("/v1/tables/t/1", &position).await.json()["n"], 1);
    pool.set(Mode::Pass);
    assert_eq!(client.get_from("/v1/tables/t", &position).await.rows()[0]["n"], 1);
    gateway.stop().await;
}

/// Nothing tells of changes, and rows can be read: the time to live alone rules, and nothing past it is served.
#[tokio::test]
async fn only_the_stream_is_away() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("select rowcast.watch('t', public => true, ttl => '1 s', stale => '1 h')").await;
    let (gateway, stream, _pool) = breakable(&world).await;
    let client = ReadClient::at(gateway.address);
    client.get("/v1/tables/t").await;
    stream.set(Mode::Refuse);
    let hub = gateway.gateway().core().hub.clone();
    // two safety polls and a second
    eventually("it is noticed", || async { hub.lag().unwrap() > Duration::from_millis(1400) }).await;
    let (mut n, mut hits) = (0, 0);
    // on a busy machine an update can take longer than the second that an answer is kept
    while n < 3 || (hits == 0 && n < 40) {
        n += 1;
        world.run(&format!("update t set n = {n}")).await;
        let written = Instant::now();
        loop {
            let asked = written.elapsed();
            let list = client.get("/v1/tables/t").await;
            let status = list.cache_status();
            assert!(!status.contains("revalidate") && !status.contains("error"), "{status}");
            assert!(status.contains("hit") || status.contains("fwd=stale"), "{status}");
            if list.rows()[0]["n"] == n {
                break;
            }
            hits += 1;
            assert!(asked <= Duration::from_secs(1), "old after {asked:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(hits > 0, "kept for its second");
    stream.set(Mode::Pass);
    world.run("update t set n = 9").await;
    eventually("the stream is back", || async { client.get("/v1/tables/t").await.rows()[0]["n"] == 9 }).await;
    gateway.stop().await;
}

/// Somebody holds a table exclusively: its readers are told to come back, and the readers of other tables do not notice.
#[tokio::test]
async fn a_locked_table_harms_no_other() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("create table other (id int primary key); select rowcast.watch('other', public => true)").await;
    world.run("select rowcast.watch('t', public => true, ttl => '1 s', stale => '1 h')").await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    let kept = client.get("/v1/tables/t").await;
    let sql = world.sql().await;
    sql.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
    let began = Instant::now();
    let refused = (0..6).map(|i| {
        let client = client.clone();
        async move { client.get(&format!("/v1/tables/t/{i}")).await }
    });
    let others = async {
        let mut worst = Duration::ZERO;
        for i in 0..10 {
            let asked = Instant::now();
            assert_eq!(client.get(&format!("/v1/tables/other?limit={i}")).await.status, 200);
            worst = worst.max(asked.elapsed());
        }
        worst
    };
    let (refused, worst) = tokio::join!(futures_util::future::join_all(refused), others);
    for answer in refused {
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert!(!answer.header("retry-after").is_empty());
    }
    eprintln!("all told after {:?}; a reader of another table waited {worst:?} at most", began.elapsed());
    assert!(worst < Duration::from_secs(4), "{worst:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let old = client.get("/v1/tables/t").await;
    assert_eq!((old.status, &old.body), (200, &kept.body), "{}", old.text());
    sql.batch_execute("commit").await.unwrap();
    eventually("it is served again", || async { client.get("/v1/tables/t/1").await.status == 200 }).await;
    gateway.stop().await;
}

/// A database that takes requests and never answers: what is kept is served after a moment, not after a timeout.
#[tokio::test]
async fn the_database_is_silent() {
    let world = World::new().await;
    world.run(SCHEMA).await;
    world.run("select rowcast.watch('t', public => true, ttl => '0.5 s', stale => '1 h')").await;
    let (gateway, stream, pool) = breakable(&world).await;
    let client = ReadClient::at(gateway.address);
    let kept = client.get("/v1/tables/t").await;
    stream.set(Mode::Swallow);
    pool.set(Mode::Swallow);
    let hub = gateway.gateway().core().hub.clone();
    eventually("it is noticed", || async { hub.lag().unwrap() > Duration::from_millis(1500) }).await;
    let asked = Instant::now();
    let old = client.get("/v1/tables/t").await;
    assert!(old.cache_status().contains("detail=stale-if-error"), "{}", old.cache_status());
    assert!(old.body == kept.body && asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    stream.set(Mode::Pass);
    pool.set(Mode::Pass);
    // what was swallowed is lost: these connections have to be given up first
    stream.cut();
    pool.cut();
    world.run("update t set n = 5").await;
    eventually("it is back", || async {
        let list = client.get("/v1/tables/t").await;
        list.status == 200 && list.rows()[0]["n"] == 5
    })
    .await;
    gateway.stop().await;
}

/// Capture is off for a while, and then all is as before: what was read before that says nothing any more, though the
/// table looks the same and no change touched it.
#[tokio::test]
async fn a_table_that_was_not_captured_for_a_while() {
    let world = World::new().await;
    world
        .run(
            "create table p (id int, part text, n int, primary key (id, part)) partition by list (part);
             create table p_a partition of p for values in ('a'); create table p_b partition of p for values in ('b');
             insert into p values (1, 'a', 0), (2, 'b', 0);
             create table t (id int primary key, n int); insert into t values (1, 0);
             select rowcast.watch('p', public => true, ttl => '1 h', stale => '1 h'),
                rowcast.watch('t', public => true, ttl => '1 h', stale => '1 h')",
        )
        .await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    for path in ["/v1/tables/p", "/v1/tables/p/2,b", "/v1/tables/t", "/v1/tables/t/1"] {
        assert_eq!(client.get(path).await.status, 200);
        assert!(client.get(path).await.cache_status().contains("hit"));
    }
    world.run("alter table p detach partition p_b; alter table t disable trigger zzz_rowcast_update").await;
    eventually("the gateway knows", || async {
        let (parts, table) = (client.get("/v1/tables/p").await, client.get("/v1/tables/t").await);
        table.status == 503 && parts.status == 200 && parts.rows().len() == 1
    })
    .await;
    world
        .run(
            "update p_b set n = 7; update t set n = 7;
             alter table p attach partition p_b for values in ('b'); alter table t enable always trigger zzz_rowcast_update",
        )
        .await;
    eventually("both are served again", || async {
        let (parts, table) = (client.get("/v1/tables/p").await, client.get("/v1/tables/t").await);
        table.status == 200 && parts.status == 200 && parts.rows().len() == 2
    })
    .await;
    assert_eq!(client.get("/v1/tables/p").await.rows()[1]["n"], 7);
    assert_eq!(client.get("/v1/tables/p/2,b").await.json()["n"], 7);
    assert_eq!(client.get("/v1/tables/t").await.rows()[0]["n"], 7);
    assert_eq!(client.get("/v1/tables/t/1").await.json()["n"], 7);
    gateway.stop().await;
}
