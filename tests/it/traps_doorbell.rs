//! The doorbell: nothing committed waits for the safety poll, whoever was muted, killed, stalled or cut off.
//!
//! The safety poll is set to 60 s, twice as long as a test waits: what arrives was rung for.

use crate::support::world::connect;
use crate::support::{Ear, Everyone, Gate, Gated, GatewayProcess, TestGateway, World, eventually};
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;

const SCORES: &str = "create table scores (id int primary key, home int);
    select rowcast.watch('scores', public => true)";

const NEVER: Duration = Duration::from_secs(60);

/// Whether writers are mute now.
const MUTE: &str = "select last_value > extract(epoch from clock_timestamp()) * 1000 from rowcast.quiet";

async fn is_mute(sql: &Client) -> bool {
    sql.query_one(MUTE, &[]).await.unwrap().get(0)
}

/// A gateway whose safety poll does not help, and that has gone to sleep.
async fn sleeping_gateway(world: &World) -> TestGateway {
    let gateway = world.gateway_with(|s| s.safety_poll = NEVER).await;
    asleep(world).await;
    gateway
}

/// Waits until the leader sleeps: the lease is given back, and its session has asked nothing for half a second,
/// twice as long as it ever waits between two looks while it is awake.
async fn asleep(world: &World) {
    let sql = world.sql().await;
    let quiet = "select (select last_value from rowcast.quiet) = 0 and count(*) = 1
        and bool_and(a.state = 'idle' and a.state_change < clock_timestamp() - interval '0.5 s')
        from pg_locks as l join pg_stat_activity as a using (pid)
        where l.locktype = 'advisory' and l.objsubid = 1
          and l.database = (select oid from pg_database where datname = current_database())
          and (l.classid::bigint << 32 | l.objid::bigint) = rowcast.leader_lock()";
    eventually("the leader sleeps", || async {
        sql.query_one(quiet, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
}

async fn heard_doorbell(gateway: &TestGateway) {
    eventually("the doorbell works", || async { gateway.readyz().await["doorbell"] == "ok" }).await;
}

const LEVELS: [&str; 3] = ["read committed", "repeatable read", "serializable"];

// 3 s
#[tokio::test]
async fn trap_17_a_writer_with_a_snapshot_from_before_the_bell_was_armed_rings() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = sleeping_gateway(&world).await;
    heard_doorbell(&gateway).await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    for (i, level) in LEVELS.into_iter().enumerate() {
        let (before, after) = (2 * i + 1, 2 * i + 2);
        let writer = world.sql().await;
        // its snapshot is of the time when writers are mute
        loop {
            world
                .run(&format!(
                    "insert into scores values ({}, 0) on conflict (id) do update set home = 1",
                    100 + before
                ))
                .await;
            writer.batch_execute(&format!("begin isolation level {level}; select count(*) from scores")).await.unwrap();
            if is_mute(&writer).await {
                break;
            }
            writer.batch_execute("rollback").await.unwrap();
        }
        asleep(&world).await;
        writer.batch_execute(&format!("insert into scores values ({after}, 1); commit")).await.unwrap();
        everyone.until(level, |r| r.row(&after.to_string()).is_some()).await;
    }
    everyone.until_equal(&world, "scores").await;
    gateway.stop().await;
}

// 5 s
#[tokio::test]
async fn trap_17_a_writer_that_was_mute_is_waited_for() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = sleeping_gateway(&world).await;
    heard_doorbell(&gateway).await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let sql = world.sql().await;
    let mut ear = Ear::on(&world.url).await;
    for (id, level) in LEVELS.into_iter().enumerate() {
        let writer = world.sql().await;
        // it has written, and not rung: the lease held before and after
        loop {
            world.run("insert into scores values (100, 0) on conflict (id) do update set home = scores.home + 1").await;
            let open = format!("begin isolation level {level}; insert into scores values ({id}, 1)");
            let mute_before = is_mute(&sql).await;
            writer.batch_execute(&open).await.unwrap();
            if mute_before && is_mute(&sql).await {
                break;
            }
            writer.batch_execute("rollback").await.unwrap();
        }
        eventually("the lease is given back", || async { !is_mute(&sql).await }).await;
        // long enough for a gateway that does not wait for the writer to have gone to sleep
        tokio::time::sleep(Duration::from_millis(700)).await;
        let before = ear.rung().await;
        writer.batch_execute("commit").await.unwrap();
        assert_eq!(ear.rung().await, 0, "{before} rang before, this one must not, or nothing is proved");
        everyone.until(level, |r| r.row(&id.to_string()).is_some()).await;
    }
    gateway.stop().await;
}

// 3 s
#[tokio::test]
async fn trap_18_a_killed_leader_leaves_the_writers_mute_only_for_its_lease() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("insert into scores values (1, 0)").await;
    let leader = GatewayProcess::start(&world.url, &[("ROWCAST_SAFETY_POLL_MS", "60000")]).await;
    eventually("it leads", || async { leader.readyz().await["role"] == "leader" }).await;
    let second = world.gateway_with(|s| s.safety_poll = NEVER).await;
    heard_doorbell(&second).await;
    assert_eq!(second.readyz().await["role"], "follower");
    let mut everyone = Everyone::on(second.address, "table=scores").await;
    let sql = world.sql().await;
    let mut ear = Ear::on(&world.url).await;
    eventually("writers are mute", || async {
        sql.batch_execute("update scores set home = home + 1").await.unwrap();
        is_mute(&sql).await
    })
    .await;
    leader.kill().await;
    ear.rung().await;
    let killed = Instant::now();
    eventually("the lease lapses", || async { !is_mute(&sql).await }).await;
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    world.run("insert into scores values (2, 0)").await;
    assert_eq!(ear.rung().await, 1, "the next commit rings");
    everyone.until("what was committed since", |r| r.row("2").is_some()).await;
    everyone.until_equal(&world, "scores").await;
    assert_eq!(second.readyz().await["role"], "leader");
    second.stop().await;
}

#[tokio::test]
async fn trap_19_a_statement_without_rows_rings_nothing_and_takes_no_transaction_id() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("insert into scores values (1, 0)").await;
    let mut ear = Ear::on(&world.url).await;
    let sql = world.sql().await;
    let nothing = [
        "update scores set home = 1 where false",
        "delete from scores where id = 99",
        "insert into scores select 5, 5 where false",
        "insert into scores values (1, 0) on conflict do nothing",
    ];
    let log = "select count(*) from (select from rowcast.log_0 union all select from rowcast.log_1 union all select from rowcast.log_2) as l";
    let before: i64 = sql.query_one(log, &[]).await.unwrap().get(0);
    for statement in nothing {
        // Once in 32 draws a sequence writes to the WAL, and that takes a transaction id whoever asks: an insert that
        // runs into a conflict has drawn its version already. Then the draw after it must be free.
        let mut with_xid = 0;
        for _ in 0..4 {
            sql.batch_execute(&format!("begin; {statement}")).await.unwrap();
            let row = sql.query_one("select pg_current_xact_id_if_assigned()::text", &[]).await.unwrap();
            with_xid += usize::from(row.get::<_, Option<&str>>(0).is_some());
            sql.batch_execute("commit").await.unwrap();
        }
        let allowed = usize::from(statement.contains("on conflict"));
        assert!(with_xid <= allowed, "{statement}: {with_xid} of 4 took a transaction id");
    }
    assert_eq!(ear.rung().await, 0);
    assert_eq!(sql.query_one(log, &[]).await.unwrap().get::<_, i64>(0), before);
    world.run("update scores set home = 1").await;
    assert_eq!(ear.rung().await, 1, "and a real one rings");
}

#[tokio::test]
async fn trap_20_two_phase_commit_works_with_the_doorbell_off() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let name = &world.database;
    let sql = world.sql().await;
    let off = "begin; set local rowcast.doorbell = 'off';";
    sql.batch_execute(&format!("{off} insert into scores values (1, 1); prepare transaction '{name}'")).await.unwrap();
    sql.batch_execute(&format!("commit prepared '{name}'")).await.unwrap();
    // by the safety poll: nothing rings for it
    everyone.until("the prepared row", |r| r.row("1").is_some()).await;
    sql.batch_execute(&format!("{off} insert into scores values (2, 1); prepare transaction '{name}'")).await.unwrap();
    sql.batch_execute(&format!("rollback prepared '{name}'")).await.unwrap();
    // the setting ended with its transaction
    let mut ear = Ear::on(&world.url).await;
    asleep(&world).await;
    world.run("insert into scores values (3, 1)").await;
    assert_eq!(ear.rung().await, 1);
    everyone.until("the next row", |r| r.row("3").is_some()).await;
    everyone.until_equal(&world, "scores").await;
    everyone.assert_no_reset();
    gateway.stop().await;
}

/// Through a stopped peer: nothing is read any more, and the buffers between fill up.
// 20 s: a stopped peer is given up after 15 s
#[tokio::test]
async fn trap_21_a_stalled_listener_holds_no_snapshot() {
    let world = World::new().await;
    world.run(SCORES).await;
    let (gate, through) = Gate::postgres(&world.url).await;
    let gateway = world.gateway_with(|s| s.notify_url = Some(through)).await;
    heard_doorbell(&gateway).await;
    let sql = world.sql().await;
    let listener: i32 = sql
        .query_one(
            "select pid from pg_stat_activity where datname = current_database() and query like '%; listen rowcast%' and pid <> pg_backend_pid()",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    gate.set(Gated::Stall);
    // far more than the sockets between hold
    for _ in 0..40 {
        let flood = "select pg_notify('rowcast', repeat('x', 7900) || g) from generate_series(1, 100) as g";
        sql.batch_execute(flood).await.unwrap();
    }
    world.run("insert into scores values (1, 1)").await;
    eventually("no snapshot is held", || async {
        let row = sql
            .query_one(
                "select count(*) from pg_stat_activity where pid = $1 and backend_xmin is not null",
                &[&listener],
            )
            .await;
        row.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    gate.set(Gated::Pass);
    gateway.stop().await;
}

#[tokio::test]
async fn trap_22_a_lease_far_in_the_future_is_ignored() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = sleeping_gateway(&world).await;
    heard_doorbell(&gateway).await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let sql = world.sql().await;
    let mut ear = Ear::on(&world.url).await;
    for (id, ahead) in [(1, "61 s"), (2, "1 day"), (3, "100 years")] {
        asleep(&world).await;
        sql.batch_execute(&format!(
            "select setval('rowcast.quiet', (extract(epoch from clock_timestamp() + interval '{ahead}') * 1000)::bigint)"
        ))
        .await
        .unwrap();
        world.run(&format!("insert into scores values ({id}, 1)")).await;
        assert_eq!(ear.rung().await, 1, "{ahead}");
        everyone.until(ahead, |r| r.row(&id.to_string()).is_some()).await;
    }
    // the test can fail: a lease of a second is honoured
    asleep(&world).await;
    sql.batch_execute(
        "select setval('rowcast.quiet', (extract(epoch from clock_timestamp() + interval '10 s') * 1000)::bigint)",
    )
    .await
    .unwrap();
    world.run("insert into scores values (4, 1)").await;
    assert_eq!(ear.rung().await, 0);
    sql.batch_execute("select setval('rowcast.quiet', 0)").await.unwrap();
    world.run("insert into scores values (5, 1)").await;
    everyone.until("both", |r| r.row("4").is_some() && r.row("5").is_some()).await;
    gateway.stop().await;
}

// 10 s: the bell is tried every 5 s
#[tokio::test]
async fn trap_23_a_half_open_listener_is_noticed_and_replaced() {
    let world = World::new().await;
    world.run(SCORES).await;
    let (gate, through) = Gate::postgres(&world.url).await;
    let gateway = world
        .gateway_with(|s| {
            s.safety_poll = NEVER;
            s.notify_url = Some(through);
        })
        .await;
    heard_doorbell(&gateway).await;
    asleep(&world).await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    gate.set(Gated::Swallow);
    let began = Instant::now();
    world.run("insert into scores values (1, 1)").await;
    eventually("it is noticed", || async { gateway.readyz().await["doorbell"] != "ok" }).await;
    // the bell is tried every 5 s and waited for 3 s
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    gate.set(Gated::Pass);
    everyone.until("what was rung for nobody", |r| r.row("1").is_some()).await;
    heard_doorbell(&gateway).await;
    asleep(&world).await;
    world.run("insert into scores values (2, 1)").await;
    everyone.until("what is rung for now", |r| r.row("2").is_some()).await;
    gateway.stop().await;
}

// 3 s
#[tokio::test]
async fn trap_24_a_commit_between_connect_and_listen_is_not_missed() {
    use std::sync::atomic::Ordering;
    let world = World::new().await;
    world.run(SCORES).await;
    let (gate, through) = Gate::postgres(&world.url).await;
    gate.set(Gated::Hold);
    let gateway = world
        .gateway_with(|s| {
            s.safety_poll = NEVER;
            s.notify_url = Some(through);
        })
        .await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let sql = connect(&world.url).await;
    for id in 1..=3 {
        eventually("it is about to listen", || async { gate.listens.load(Ordering::SeqCst) >= id }).await;
        asleep(&world).await;
        let before: std::time::SystemTime = sql.query_one("select clock_timestamp()", &[]).await.unwrap().get(0);
        world.run(&format!("insert into scores values ({id}, 1)")).await;
        let found: bool = sql.query_one("select max(at) > $1 from rowcast.tick", &[&before]).await.unwrap().get(0);
        assert!(!found, "nobody heard it yet");
        gate.set(Gated::Pass);
        everyone.until("what was committed before the LISTEN", |r| r.row(&id.to_string()).is_some()).await;
        heard_doorbell(&gateway).await;
        gate.set(Gated::Hold);
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and query like '%; listen rowcast%' and pid <> pg_backend_pid()";
        sql.batch_execute(end).await.unwrap();
    }
    gate.set(Gated::Pass);
    everyone.until_equal(&world, "scores").await;
    gateway.stop().await;
}
