//! Ordering and ticks: what commits late, in parts, or far away arrives once, and costs no more than it must.
//!
//! The stories take a world, so that trap 9 tells them again on a cluster beyond 2^32 transaction ids.

use crate::support::{Client as _, Everyone, GatewayProcess, PATIENCE, Sse, World, eventually, postgres};
use rowcast::localpg::{LocalPg, LocalPgOptions};
use rowcast::pg::queries;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

const SCORES: &str = "create table scores (id int primary key, home int);
    select rowcast.watch('scores', public => true)";

#[tokio::test]
async fn trap_01_a_late_commit_arrives_once() {
    let world = World::new().await;
    world.run(SCORES).await;
    late_commit(&world).await;
}

async fn late_commit(world: &World) {
    world.run("truncate scores").await;
    let gateway = world.gateway().await;
    let mut live = Everyone::on(gateway.address, "table=scores").await;
    let mut away = Everyone::on(gateway.address, "table=scores").await;
    let late = world.sql().await;
    late.batch_execute("begin; insert into scores values (1, 1)").await.unwrap();
    for id in [2, 3] {
        // two ticks go by
        world.run(&format!("insert into scores values ({id}, 1)")).await;
        live.until("what committed first", |r| r.row(&id.to_string()).is_some()).await;
    }
    away.until("what committed first", |r| r.row("3").is_some()).await;
    assert!(live.all(|r| r.row("1").is_none()), "not committed yet");
    late.batch_execute("commit").await.unwrap();
    world.run("insert into scores values (4, 1)").await;
    // the replica panics when anything comes twice
    live.until("the late one and the one after it", |r| r.row("1").is_some() && r.row("4").is_some()).await;
    // a gateway that has nothing in memory reads the same from the log: the position lies between write and commit
    let fresh = world.gateway().await;
    away.reconnect(fresh.address).await;
    away.until("the late one, after a resume", |r| r.row("1").is_some() && r.row("4").is_some()).await;
    for everyone in [&mut live, &mut away] {
        everyone.until_equal(world, "scores").await;
        everyone.assert_no_reset();
    }
    gateway.stop().await;
    fresh.stop().await;
}

#[tokio::test]
async fn trap_02_the_last_update_wins_whatever_the_order_of_transaction_ids() {
    let world = World::new().await;
    world.run(SCORES).await;
    order_of_ids(&world).await;
}

async fn order_of_ids(world: &World) {
    world.run("truncate scores; insert into scores values (1, 0)").await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let first = world.sql().await;
    let race = "begin; select pg_current_xact_id()";
    // in two ticks
    first.batch_execute(race).await.unwrap();
    world.run("update scores set home = 2").await;
    everyone.until("the later id's update", |r| r.row("1").is_some_and(|row| row["home"] == 2)).await;
    first.batch_execute("update scores set home = 1; commit").await.unwrap();
    everyone.until("the earlier id's update", |r| r.row("1").is_some_and(|row| row["home"] == 1)).await;
    // in one tick: nobody reads meanwhile
    gateway.stop().await;
    first.batch_execute(race).await.unwrap();
    world.run("update scores set home = 4").await;
    first.batch_execute("update scores set home = 3; commit").await.unwrap();
    let gateway = world.gateway().await;
    everyone.reconnect(gateway.address).await;
    everyone.until("the earlier id's update", |r| r.row("1").is_some_and(|row| row["home"] == 3)).await;
    everyone.until_equal(world, "scores").await;
    everyone.assert_no_reset();
    gateway.stop().await;
}

#[tokio::test]
async fn trap_03_two_warm_sessions_draw_versions_in_execution_order() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("insert into scores values (1, 0)").await;
    let (one, two) = (world.sql().await, world.sql().await);
    let row = one
        .query_one("select cache_size, increment_by from pg_sequences where schemaname = 'rowcast' and sequencename = 'version'", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 2));
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let mut last = 0;
    for turn in 1..=20 {
        let session = if turn % 2 == 0 { &one } else { &two };
        let row = session.query_one("update scores set home = $1 returning row_version", &[&turn]).await.unwrap();
        let version: i64 = row.get(0);
        assert!(version > last && version % 2 == 0, "turn {turn}: {version} after {last}");
        last = version;
    }
    everyone.until("the last turn", |r| r.row("1").is_some_and(|row| row["home"] == 20)).await;
    everyone.until_equal(&world, "scores").await;
    gateway.stop().await;
}

/// Buffers a statement touched, by EXPLAIN. The second run counts: the first fills the session's caches.
async fn buffers(session: &Client, execute: &str) -> i64 {
    let mut touched = 0;
    for _ in 0..2 {
        let explain = format!("begin; explain (analyze, buffers, format json) {execute}; rollback");
        let messages = session.simple_query(&explain).await.unwrap();
        let text: String = messages
            .iter()
            .filter_map(|m| match m {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            })
            .collect();
        let plan: Value = serde_json::from_str(&text).unwrap();
        let plan = &plan[0]["Plan"];
        touched = plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
    }
    touched
}

// 4 s
#[tokio::test]
async fn trap_04_a_poll_beside_an_open_writer_touches_few_buffers() {
    let world = World::new().await;
    world
        .run("create table t (id int primary key); select rowcast.watch('t', public => true, bulk_limit => 1000000)")
        .await;
    let open = world.sql().await;
    open.batch_execute("begin; insert into t values (0)").await.unwrap();
    let writer = world.sql().await;
    for part in 0..20 {
        let from = part * 10_000 + 1;
        writer.batch_execute(&format!("insert into t select generate_series({from}, {})", from + 9_999)).await.unwrap();
    }
    let ticker = world.sql().await;
    ticker.batch_execute(rowcast::pg::SESSION).await.unwrap();
    let lease = 300_i64;
    let types = [Type::INT8, Type::INT8];
    let first: i64 = ticker.query_one(queries::LAST_TICK, &[]).await.unwrap().get("id");
    let made = ticker.query_typed(queries::TICK, &[(&first, Type::INT8), (&lease, Type::INT8)]).await.unwrap();
    assert!(made[0].get::<_, bool>("made"));
    let (id, snap): (i64, &str) = (made[0].get("id"), made[0].get("snap"));
    assert!(snap.split(':').nth(2).is_some_and(|xip| !xip.is_empty()), "the open writer is in the snapshot: {snap}");
    let text = format!("prepare poll (bigint, bigint) as {}", queries::TICK);
    ticker.batch_execute(&text).await.unwrap();
    ticker.batch_execute(&format!("prepare batch (text, text, oid[], oid[]) as {}", queries::RANGE)).await.unwrap();
    let poll = format!("execute poll ({id}, {lease})");

    let idle = buffers(&ticker, &poll).await;
    assert!(idle < 100, "nothing pending: {idle} buffers");

    // rows of a transaction that is still writing are not visited either
    let long = world.sql().await;
    long.batch_execute("begin; insert into t select generate_series(300001, 320000)").await.unwrap();
    let idle = buffers(&ticker, &poll).await;
    assert!(idle < 100, "an open transaction with 20,000 rows: {idle} buffers");

    writer.batch_execute("insert into t values (400000)").await.unwrap();
    let busy = buffers(&ticker, &poll).await;
    assert!(busy < 100, "one row pending: {busy} buffers");

    let made = ticker.query_typed(queries::TICK, &[(&id, types[0].clone()), (&lease, types[1].clone())]).await.unwrap();
    assert!(made[0].get::<_, bool>("made"));
    let next: &str = made[0].get("snap");
    let read = buffers(&ticker, &format!("execute batch ('{snap}', '{next}', '{{0}}', '{{4294967295}}')")).await;
    assert!(read < 100, "reading one row: {read} buffers");
    eprintln!("buffers: idle {idle}, one pending {busy}, reading it {read}");
}

/// How many sessions of the test's database wait for an advisory lock.
async fn waiting(admin: &Client) -> i64 {
    let sql = "select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())";
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn trap_05_a_commit_between_snapshot_and_rows_is_in_the_next_tick() {
    let world = World::new().await;
    world.run(SCORES).await;
    // the tick's statement has its snapshot already when it comes here
    world
        .run(
            "create function pause() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock_shared(5); return new; end $$;
            create trigger pause before insert on rowcast.tick for each row execute function pause()",
        )
        .await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "table=scores").await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let (admin, open) = (world.sql().await, world.sql().await);
    open.batch_execute("begin; insert into scores values (10, 1)").await.unwrap();
    admin.batch_execute("select pg_advisory_lock(5)").await.unwrap();
    world.run("insert into scores values (1, 1)").await;
    eventually("the tick waits between its snapshot and its end", || async { waiting(&admin).await > 0 }).await;
    // one that ran when the snapshot was taken, and one that began after it
    open.batch_execute("commit").await.unwrap();
    world.run("insert into scores values (2, 1)").await;
    admin.batch_execute("select pg_advisory_unlock(5)").await.unwrap();
    everyone.until("all three", |r| r.rows("1").len() == 3).await;
    everyone.until_equal(&world, "scores").await;
    everyone.assert_no_reset();
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("all three", |r| r.rows("1").len() == 3).await;
    let with_first: Vec<_> = sse.events.iter().filter(|e| e.data.contains(r#""key":"1""#)).collect();
    assert_eq!(with_first.len(), 1);
    let message: Value = serde_json::from_str(&with_first[0].data).unwrap();
    assert_eq!(message["changes"].as_array().unwrap().len(), 1, "the tick has what its snapshot saw: {message}");
    gateway.stop().await;
}

#[tokio::test]
async fn trap_05_a_commit_between_a_subscribers_snapshot_and_its_rows_is_a_change() {
    let world = World::new().await;
    world.run(SCORES).await;
    // a subscriber's snapshot has been taken when it asks this; the ticks ask it too and pass
    world
        .run(
            "alter function rowcast.pending(pg_snapshot, pg_snapshot) rename to pending_asked;
            create function rowcast.pending(prev pg_snapshot, snap pg_snapshot) returns boolean language plpgsql stable as
            $$ begin
              if current_setting('transaction_isolation') = 'repeatable read' then
                perform pg_advisory_xact_lock_shared(5);
              end if;
              return rowcast.pending_asked(prev, snap);
            end $$;
            insert into scores values (1, 0), (2, 0)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut live = Everyone::on(gateway.address, "table=scores&id=gt.0").await;
    let admin = world.sql().await;
    admin.batch_execute("select pg_advisory_lock(5)").await.unwrap();
    let mut sse = Sse::open(gateway.address, "table=scores").await;
    eventually("the newcomer's read waits", || async { waiting(&admin).await > 0 }).await;
    world.run("begin; update scores set home = 1 where id = 1; delete from scores where id = 2; insert into scores values (3, 0); commit").await;
    live.until("the commit", |r| r.row("3").is_some()).await;
    admin.batch_execute("select pg_advisory_unlock(5)").await.unwrap();
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("the commit", |r| r.row("3").is_some()).await;
    let truth = crate::support::everyone::versions(&world, "scores").await;
    assert_eq!(client.replica().versions("1"), truth);
    assert_eq!(client.replica().snapshots, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn trap_05_a_newcomer_is_served_though_no_tick_will_cover_its_snapshot() {
    let world = World::new().await;
    world.run(SCORES).await;
    world
        .run(
            "create function pause() returns trigger language plpgsql as
            $$ begin perform pg_advisory_xact_lock_shared(5); return new; end $$;
            create trigger pause before insert on rowcast.tick for each row execute function pause()",
        )
        .await;
    let gateway = world.gateway().await;
    let admin = world.sql().await;
    admin.batch_execute("select pg_advisory_lock(5)").await.unwrap();
    world.run("insert into scores values (1, 1)").await;
    eventually("the tick waits between its snapshot and its end", || async { waiting(&admin).await > 0 }).await;
    // a transaction that logs nothing ends after the tick's snapshot and before the newcomer's
    world.run("select pg_current_xact_id()").await;
    let began: std::time::SystemTime = admin.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
    let mut sse = Sse::open(gateway.address, "table=scores").await;
    eventually("the newcomer's rows are read", || async {
        let read = "select count(*) from pg_stat_activity where datname = current_database() and state = 'idle'
            and application_name = 'rowcast' and query ilike 'rollback%' and state_change > $1";
        admin.query_one(read, &[&began]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    admin.batch_execute("select pg_advisory_unlock(5)").await.unwrap();
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("the row, though nothing happens any more", |r| r.row("1").is_some()).await;
    gateway.stop().await;
}

#[tokio::test]
async fn trap_06_savepoints_arrive_once_when_released_and_never_when_rolled_back() {
    let world = World::new().await;
    world.run(SCORES).await;
    savepoints(&world).await;
}

async fn savepoints(world: &World) {
    world.run("truncate scores").await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let writer = world.sql().await;
    writer.batch_execute("begin").await.unwrap();
    for id in 1..=100 {
        let end = if id % 2 == 0 { "release" } else { "rollback to" };
        writer
            .batch_execute(&format!("savepoint s; insert into scores values ({id}, 1); {end} savepoint s"))
            .await
            .unwrap();
        if id % 40 == 0 {
            // a tick while it is open, with more subtransactions than a snapshot lists
            world.run(&format!("insert into scores values ({}, 1)", 1000 + id)).await;
            everyone.until("another's row", |r| r.row(&(1000 + id).to_string()).is_some()).await;
            assert!(everyone.all(|r| r.row("2").is_none()), "not committed yet");
        }
    }
    writer.batch_execute("commit").await.unwrap();
    world.run("insert into scores values (2000, 1)").await;
    everyone.until("the released ones", |r| r.row("100").is_some() && r.row("2000").is_some()).await;
    everyone.until_equal(world, "scores").await;
    assert!(everyone.all(|r| r.rows("1").len() == 53 && r.row("99").is_none()));
    everyone.assert_no_reset();
    gateway.stop().await;
}

// 4 s: a server of its own, restarted
#[tokio::test]
async fn trap_07_prepared_transactions_survive_a_restart() {
    let mut pg = LocalPg::start(postgres::options(&[("max_prepared_transactions", "5")], true)).await.unwrap();
    let world = World::on(&|database| pg.url(database)).await;
    rowcast::pg::migrate::apply(&world.url).await.unwrap();
    world.run(SCORES).await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    for (id, name) in [(1, "kept"), (2, "undone")] {
        let sql = format!(
            "begin; set local rowcast.doorbell = 'off'; insert into scores values ({id}, 1); prepare transaction '{name}'"
        );
        world.run(&sql).await;
    }
    world.run("insert into scores values (3, 1)").await;
    everyone.until("a tick", |r| r.row("3").is_some()).await;
    pg.restart().await.unwrap();
    gateway.ready().await;
    world.run("insert into scores values (4, 1)").await;
    everyone.until("a tick after the restart", |r| r.row("4").is_some()).await;
    assert!(everyone.all(|r| r.row("1").is_none() && r.row("2").is_none()));
    world.run("commit prepared 'kept'").await;
    world.run("rollback prepared 'undone'").await;
    world.run("insert into scores values (5, 1)").await;
    everyone.until("the prepared one", |r| r.row("1").is_some() && r.row("5").is_some()).await;
    everyone.until_equal(&world, "scores").await;
    assert!(everyone.all(|r| r.row("2").is_none()));
    everyone.assert_no_reset();
    gateway.stop().await;
}

#[tokio::test]
async fn trap_08_a_transaction_open_in_another_database_delays_nothing() {
    let world = World::new().await;
    world.run(SCORES).await;
    let elsewhere = crate::support::world::connect(&world.url.replace(&world.database, "postgres")).await;
    elsewhere.batch_execute("begin isolation level repeatable read; select pg_current_xact_id()").await.unwrap();
    let gateway = world.gateway_with(|s| s.safety_poll = Duration::from_secs(60)).await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    for id in 1..=4 {
        let began = Instant::now();
        world.run(&format!("insert into scores values ({id}, 1)")).await;
        everyone.until("the row", |r| r.row(&id.to_string()).is_some()).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // the gateway goes to sleep, or tries to
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let sql = world.sql().await;
    eventually("the log is emptied", || async {
        let did: String = sql.query_one("select rowcast.rotate('1 ms')", &[]).await.unwrap().get(0);
        did.starts_with("emptied")
    })
    .await;
    elsewhere.batch_execute("commit").await.unwrap();
    gateway.stop().await;
}

/// A data directory that outlives its server, until the end of the test.
struct KeptCluster(std::path::PathBuf);

impl Drop for KeptCluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// 8 s: a server of its own, started twice
#[tokio::test]
async fn trap_09_transaction_ids_beyond_32_bits() {
    let dir = KeptCluster(std::env::temp_dir().join(format!("rowcast-epoch-{:x}", rand::random::<u64>())));
    let options = || LocalPgOptions { data_dir: Some(dir.0.clone()), ..postgres::options(&[], false) };
    let pg = LocalPg::start(options()).await.unwrap();
    // where the server really is: PATH may hold links to some of its programs only
    let program = pg.binaries().program("postgres").canonicalize().unwrap().with_file_name("pg_resetwal");
    pg.stop().await.unwrap();
    let owner = std::fs::metadata(&dir.0).unwrap();
    let mut reset = std::process::Command::new(program);
    reset.args(["-e", "1"]).arg(&dir.0).current_dir(&dir.0);
    if rustix::process::geteuid().is_root() {
        reset.uid(owner.uid()).gid(owner.gid());
    }
    let done = reset.output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let pg = LocalPg::start(options()).await.unwrap();
    let world = World::on(&|database| pg.url(database)).await;
    rowcast::pg::migrate::apply(&world.url).await.unwrap();
    let row = world.sql().await.query_one("select pg_current_xact_id()::text", &[]).await.unwrap();
    assert!(row.get::<_, &str>(0).parse::<u64>().unwrap() > 1 << 32);
    world.run(SCORES).await;
    late_commit(&world).await;
    order_of_ids(&world).await;
    savepoints(&world).await;
    pg.stop().await.unwrap();
}

// 25 s
#[tokio::test]
async fn trap_10_two_million_rows_in_one_transaction() {
    let world = World::new().await;
    world
        .run(
            "create table big (id int primary key, v int); select rowcast.watch('big', public => true);
            create table small (id int primary key, v int); select rowcast.watch('small', public => true);
            insert into big select g, 0 from generate_series(1, 50000) as g; insert into small values (1, 0)",
        )
        .await;
    let gateway = GatewayProcess::start(&world.url, &[]).await;
    let mut client = Sse::open(gateway.address, "table=big").await;
    let big: &mut dyn crate::support::Client = &mut client;
    big.until("the rows", |r| r.rows("1").len() == 50_000).await;
    // reads all the time: one that does not is closed, and the commit may be minutes away
    let big = tokio::spawn(async move {
        while !client.replica().row("1").is_some_and(|row| row["v"] == 40) {
            client.advance().await.unwrap();
        }
        client
    });
    let mut small = Sse::open(gateway.address, "table=small").await;
    let small: &mut dyn crate::support::Client = &mut small;
    small.until("the row", |r| r.row("1").is_some()).await;

    let writer = world.sql().await;
    let bulk = tokio::spawn(async move {
        writer.batch_execute("begin").await.unwrap();
        // what 39 updates of all rows would have logged; captured row by row it takes two minutes
        for part in 0..39 {
            let logged = format!(
                "insert into rowcast.log_0 (version, relid, op, key, old_version, old, new)
                select b.row_version + 2, 'big'::regclass, 'u', b.id::text, b.row_version,
                  json_build_object('id', b.id, 'v', {part}), json_build_object('id', b.id, 'v', {part} + 1) from big as b"
            );
            writer.batch_execute(&logged).await.unwrap();
        }
        writer.batch_execute("update big set v = 40").await.unwrap();
        writer.batch_execute("commit").await.unwrap();
        Instant::now()
    });
    // one change after the other, each timed; goes on for a while after the large commit
    let other = world.sql().await;
    let (mut worst, mut worst_after, mut count, mut committed) = (Duration::ZERO, Duration::ZERO, 0, None);
    let mut bulk = Some(bulk);
    loop {
        count += 1;
        let began = Instant::now();
        other.execute("update small set v = $1", &[&count]).await.unwrap();
        small.until("the other table's change", |r| r.row("1").is_some_and(|row| row["v"] == count)).await;
        let took = began.elapsed();
        if bulk.as_ref().is_some_and(|task| task.is_finished()) {
            committed = Some(bulk.take().unwrap().await.unwrap());
        }
        match committed {
            None => worst = worst.max(took),
            Some(at) => {
                worst_after = worst_after.max(took);
                if at.elapsed() > Duration::from_secs(3) {
                    break;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let big = tokio::time::timeout(PATIENCE, big).await.expect("the last value").unwrap();
    assert!(big.replica().rows("1").iter().all(|row| row["v"] == 40));
    let peak = gateway.peak_memory();
    eprintln!(
        "peak {} MB; {count} changes of the other table, worst {worst:?} beside it, {worst_after:?} when it came",
        peak >> 20
    );
    assert!(peak < 256 << 20, "{} MB resident", peak >> 20);
    assert!(worst < Duration::from_secs(2), "beside the open transaction: {worst:?}");
}
