//! Where rows that were read meet changes that were published: joins, repairs, resets, cuts.

use crate::support::client::{TRANSPORTS, Transport, subscribe};
use crate::support::proxy::Mode;
use crate::support::witness::finish;
use crate::support::world::connect;
use crate::support::{Client, Manner, Oracle, Proxy, Replica, Sse, View, Watched, World, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rowcast::hub::Happening;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

fn plan(transport: Transport, view: usize, query: &str, seed: u64) -> Manner {
    let (views, query) = (vec![("1", view)], query.to_owned());
    Manner { transport, views, query, roams: None, at_leader: true, invariant: None, seed }
}

/// Rows come, go and move between filters until told to stop.
async fn churn(url: String, seed: u64, stop: Arc<AtomicBool>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let client = connect(&url).await;
    while !stop.load(Ordering::Relaxed) {
        let (id, n) = (rng.random_range(1..=400), rng.random_range(0..6));
        let sql = match rng.random_range(0..6) {
            0 => format!(
                "insert into t values ({id}, {n}, repeat('y', 600)) on conflict (id) do update set n = excluded.n"
            ),
            1 => format!("delete from t where id = {id}"),
            2 => format!("update t set n = {n} where id between {id} and {id} + 5"),
            // here and gone within a tick, mostly
            3 => format!(
                "insert into t values ({id} + 1000, {n}, 'brief') on conflict do nothing; delete from t where id > 1000"
            ),
            _ => format!("update t set v = v || 'z' where id = {id}"),
        };
        // two clients in one key's way
        let _ = client.batch_execute(&sql).await;
    }
}

/// Some 6 s: subscriptions begin at random moments, each its own shape, while the table is written to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_joins_the_stream_exactly_under_load() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, i % 6, repeat('x', 600) from generate_series(1, 400) as i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let (_keep, gateways) = watch::channel(vec![gateway.address]);
    // the last condition changes nothing but the shape: none is warm
    let views: Vec<View> = (0..6).map(|n| View::new("", "t", "id", &format!("n >= {n}"))).collect();
    let mut oracle = Oracle::new(&world.url, &["t"], views).await.at_pace_of(gateway.address);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..3).map(|i| tokio::spawn(churn(world.url.clone(), seed.wrapping_add(i), stop.clone()))).collect();
    let mut clients = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        for _ in 0..2 {
            let (n, number) = (rng.random_range(0..6), clients.len());
            let query = format!("table=t&n=gte.{n}&id=neq.{}", 100_000 + number);
            clients.push(Watched::start(
                plan(TRANSPORTS[number % TRANSPORTS.len()], n, &query, rng.random()),
                gateways.clone(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..60))).await;
        let truth = oracle.tick().await;
        if !clients.iter().all(|client| client.tell(&truth)) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let truth = oracle.tick().await;
    clients.iter().for_each(|client| {
        client.tell(&truth);
    });
    let reports = finish(clients).await;
    let checked: usize = reports.iter().map(|r| r.checked).sum();
    eprintln!("{} subscriptions begun, {checked} states checked", reports.len());
    assert!(reports.iter().all(|r| r.checked > 0 && r.resets.is_empty()), "{reports:?}");
    gateway.stop().await;
}

/// Two sessions force it: the rows are read between an insert and a delete that are one tick. Holds the leader back by
/// a lock on the ticks.
#[tokio::test]
async fn a_row_that_came_and_went_while_the_rows_were_read_is_not_in_the_snapshot() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true); insert into t values (1, 1)").await;
    let gateway = world.gateway().await;
    let holder = world.sql().await;
    // readers read the ticks, the leader cannot insert one
    holder.batch_execute("begin; lock table rowcast.tick in exclusive mode").await.unwrap();
    world.run("insert into t values (2, 2)").await;
    let mut client = subscribe(Transport::Sse, gateway.address, "table=t&n=gt.0").await;
    let sql = world.sql().await;
    eventually("the rows are read", || async {
        let read = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle'
                    and (query ilike '%public\".\"t\" as t%' or query ~* '^(commit|rollback)')";
        sql.query_one(read, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    world.run("delete from t where id = 2; update t set n = 5 where id = 1").await;
    holder.batch_execute("commit").await.unwrap();
    client.until("the state after", |r| r.row("1").is_some_and(|row| row["n"] == 5)).await;
    assert!(client.replica().row("2").is_none(), "{:?}", client.replica());
    drop(client);
    gateway.stop().await;
}

/// A client that was told a tick by one gateway comes to another that has not read it yet, and then reads it together
/// with the next: what came in the first and went in the second must still go.
#[tokio::test]
async fn a_client_ahead_of_its_gateway_is_not_told_what_it_knows() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true); insert into t values (1, 1)").await;
    let one = world.gateway().await;
    let (proxy, through) = Proxy::postgres(&world.url).await;
    let two = world.gateway_with(|settings| settings.database_url = through).await;
    let mut client = subscribe(Transport::Sse, one.address, "table=t").await;
    client.until("the row", |r| r.row("1").is_some() && r.position.is_some()).await;
    let at = client.replica().position.clone().unwrap();
    eventually("the second gateway is there too", || async { two.readyz().await["position"] == at.as_str() }).await;
    proxy.set(Mode::Swallow);
    world.run("insert into t values (2, 2)").await;
    client.until("the second row", |r| r.row("2").is_some() && r.position.as_deref() != Some(&at)).await;
    assert_eq!(two.readyz().await["position"], at.as_str(), "the second gateway hears nothing");

    let mut client = tokio::spawn(async move {
        client.reconnect(two.address).await;
        (client, two)
    });
    // it is registered there before that gateway hears anything
    let early = tokio::time::timeout(Duration::from_millis(300), &mut client).await;
    assert!(early.is_err(), "answered by a gateway that is behind");
    world.run("delete from t where id = 2; update t set n = 5 where id = 1").await;
    proxy.set(Mode::Pass);
    proxy.cut();
    let (mut client, two) = client.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.replica().row("1").is_none_or(|row| row["n"] != 5) {
        assert!(Instant::now() < deadline, "{:?}", client.replica());
        if client.advance().await.is_err() {
            client.reconnect(two.address).await;
        }
    }
    assert!(client.replica().row("2").is_none(), "{:?}", client.replica());
    drop(client);
    one.stop().await;
    two.stop().await;
}

/// On the second gateway one table's shape is warm and goes tick by tick, the other's is cold and is read in one: the
/// position must not pass through ticks that the second subscription never stood at.
#[tokio::test]
async fn subscriptions_that_resume_differently_share_only_positions_both_have() {
    let world = World::new().await;
    world
        .run(
            "create table a (id int primary key); create table b (id int primary key);
             select rowcast.watch(t, public => true) from unnest(array['a', 'b']::regclass[]) as t",
        )
        .await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let mut warm = subscribe(Transport::Sse, two.address, "table=a").await;
    warm.until("a position", |r| r.position.is_some()).await;
    let mut client = Sse::open(one.address, "sub=a~a&sub=b~b").await;
    let there: &mut dyn Client = &mut client;
    world.run("insert into a values (1)").await;
    there.until("the row, at a position", |r| r.rows("a").len() == 1 && r.position.is_some() && r.is_settled()).await;
    let at = client.replica.position.clone().unwrap();
    eventually("the second gateway is there too", || async { two.readyz().await["position"] == at.as_str() }).await;
    // a row in each, and gone again a tick later
    world.run("begin; insert into a values (2); insert into b values (2); commit").await;
    warm.until("two rows", |r| r.rows("1").len() == 2).await;
    world.run("begin; delete from a where id = 2; delete from b where id = 2; commit").await;
    warm.until("one row", |r| r.rows("1").len() == 1).await;
    // what was sent meanwhile is not read: it comes again from the other gateway
    client.reconnect(two.address).await;
    let whole = |replica: &Replica| {
        assert_eq!(replica.rows("a").len(), replica.rows("b").len() + 1, "at {:?}", replica.position)
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    let last = warm.replica().tick().unwrap();
    while client.replica.tick().unwrap() < last {
        assert!(Instant::now() < deadline, "the position is said at once: {:?}", client.replica.position);
        client.advance().await.unwrap();
        if client.replica.is_settled() {
            whole(&client.replica);
        }
    }
    drop((client, warm));
    one.stop().await;
    two.stop().await;
}

/// Some 6 s: the period is 1 s, and a look at it comes once a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repair_snapshots_arrive_and_change_nothing() {
    let seed = seed();
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, i % 6, repeat('x', 600) from generate_series(1, 400) as i;
             select rowcast.watch('t', public => true, snapshot_every => '1 s')",
        )
        .await;
    let gateway = world.gateway().await;
    let (_keep, gateways) = watch::channel(vec![gateway.address]);
    let view = View::new("", "t", "id", "n = 2");
    let mut oracle = Oracle::new(&world.url, &["t"], vec![view]).await.at_pace_of(gateway.address);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(churn(world.url.clone(), seed, stop.clone()));
    let client = Watched::start(plan(Transport::Sse, 0, "table=t&n=eq.2", seed), gateways);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(5500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if !client.tell(&oracle.tick().await) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    client.tell(&oracle.tick().await);
    let report = finish(vec![client]).await.remove(0);
    eprintln!("{report:?}");
    assert!(report.snapshots >= 3 && report.resets.is_empty(), "{report:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_subscriber_that_falls_off_the_ring_is_brought_forward() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, 0, repeat('x', 4000) from generate_series(1, 300) as i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway_with(|settings| settings.ring_bytes = 64 * 1024).await;
    let mut slow = subscribe(Transport::Sse, gateway.address, "table=t").await;
    let mut quick = subscribe(Transport::Sse, gateway.address, "table=t&id=lt.3").await;
    slow.until("all rows", |r| r.rows("1").len() == 300 && r.position.is_some()).await;
    quick.until("its rows", |r| r.rows("1").len() == 2).await;
    // 24 MB: more than the sockets of both sides hold. The quick one, beside it, gets every tick.
    let sql = world.sql().await;
    for n in 1..=20 {
        sql.execute("update t set n = $1", &[&n]).await.unwrap();
        quick.until("each tick in time", |r| r.row("1").unwrap()["n"] == n).await;
    }
    slow.until("the end", |r| r.rows("1").iter().all(|row| row["n"] == 20)).await;
    let counts = gateway.gateway().core().hub.counts();
    assert!(slow.replica().resets.is_empty() && counts.of(Happening::Folded) > 0, "{counts:?}");
    assert!(quick.replica().resets.is_empty(), "the slow one harms nobody");
    world.run("update t set n = 21 where id = 7").await;
    slow.until("live again", |r| r.row("7").unwrap()["n"] == 21).await;
    drop((slow, quick));
    gateway.stop().await;
}

#[tokio::test]
async fn a_statement_above_the_bulk_limit_is_told_as_a_reset() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null); insert into t select i, 0 from generate_series(1, 40) as i;
             select rowcast.watch('t', public => true, bulk_limit => 10)",
        )
        .await;
    let gateway = world.gateway().await;
    for (i, transport) in TRANSPORTS.into_iter().enumerate() {
        let n = 2 * i64::try_from(i).unwrap();
        let mut client = subscribe(transport, gateway.address, "table=t").await;
        client.until("all rows", |r| r.rows("1").len() == 40).await;
        world.run(&format!("update t set n = {n} + 1 where id <= 10")).await;
        client.until("ten changes", |r| r.row("10").unwrap()["n"] == n + 1).await;
        assert!(client.replica().resets.is_empty(), "at the limit, not above");
        world.run(&format!("update t set n = {n} + 2")).await;
        client.until("the new rows", |r| r.rows("1").iter().all(|row| row["n"] == n + 2)).await;
        assert_eq!(client.replica().resets, ["bulk"], "{transport:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_cut_between_the_parts_of_a_snapshot_comes_back_whole() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, 0, repeat('x', 2000) from generate_series(1, 600) as i;
             select rowcast.watch('t', public => true, snapshot_every => '1 s')",
        )
        .await;
    let gateway = world.gateway().await;
    let mut client = subscribe(Transport::Sse, gateway.address, "table=t").await;
    let sql = world.sql().await;
    // the first snapshot has no position to come back with; the later ones repair what is held
    for cut in 1..=3 {
        loop {
            let messages = client.advance().await.unwrap();
            if messages.iter().any(|m| m["type"] == "snapshot" && m["more"] == true) {
                break;
            }
        }
        sql.batch_execute(&format!("delete from t where id = {cut}; update t set n = {cut} where id = 600"))
            .await
            .unwrap();
        client.reconnect(gateway.address).await;
        let gone = cut.to_string();
        client
            .until("rows of after the cut", |r| {
                r.rows("1").len() == 600 - cut
                    && r.row(&gone).is_none()
                    && r.row("600").is_some_and(|row| row["n"] == cut)
            })
            .await;
        let held = client.replica().versions("1");
        let rows = sql.query("select id::text, row_version from t", &[]).await.unwrap();
        assert!(rows.iter().all(|row| held[row.get::<_, &str>(0)] == row.get::<_, i64>(1)), "cut {cut}");
    }
    assert!(client.replica().resets.is_empty());
    drop(client);
    gateway.stop().await;
}
