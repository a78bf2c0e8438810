//! Crashes and lost sessions: Postgres killed or restarted, sessions ended, a leader that stands still.

use crate::support::{Everyone, GatewayProcess, World, eventually, postgres};
use rowcast::localpg::LocalPg;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

const SCORES: &str = "create table scores (id int primary key, home int);
    select rowcast.watch('scores', public => true)";

/// A server of the test's own that survives a crash, with a world on it.
async fn durable() -> (LocalPg, World) {
    let pg = LocalPg::start(postgres::options(&[], true)).await.unwrap();
    let world = World::on(&|database| pg.url(database)).await;
    rowcast::pg::migrate::apply(&world.url).await.unwrap();
    world.run(SCORES).await;
    (pg, world)
}

/// Uses up transaction ids that are gone after a crash, and makes a tick that may count them as seen.
async fn burn(world: &World, id: i32) {
    let sql = world.sql().await;
    for _ in 0..300 {
        sql.batch_execute("begin; select pg_current_xact_id(); rollback").await.unwrap();
    }
    sql.batch_execute(&format!("insert into scores values ({id}, 0)")).await.unwrap();
    // handed out, never flushed
    for _ in 0..300 {
        sql.batch_execute("begin; select pg_current_xact_id(); rollback").await.unwrap();
    }
}

// 8 s: three crashes, each recovered from
#[tokio::test]
async fn trap_11_nothing_is_skipped_when_transaction_ids_are_used_again_after_a_crash() {
    let (mut pg, world) = durable().await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    for round in 0..3 {
        let (before, after) = (2 * round + 1, 2 * round + 2);
        burn(&world, before).await;
        everyone.until("before the crash", |r| r.row(&before.to_string()).is_some()).await;
        pg.kill().await.unwrap();
        pg.restart().await.unwrap();
        world
            .run(&format!(
                "insert into scores values ({after}, 1); update scores set home = {round} where id = {before}"
            ))
            .await;
        gateway.ready().await;
        everyone.until("after the crash", |r| r.row(&after.to_string()).is_some()).await;
        everyone.until_equal(&world, "scores").await;
    }
    everyone.assert_no_reset();
    // the same positions on a gateway that was not there
    let fresh = world.gateway().await;
    everyone.reconnect(fresh.address).await;
    world.run("insert into scores values (100, 1)").await;
    everyone.until("a resume elsewhere", |r| r.row("100").is_some()).await;
    everyone.assert_no_reset();
    gateway.stop().await;
    fresh.stop().await;
}

// 5 s
#[tokio::test]
async fn trap_12_nothing_is_skipped_when_one_backend_is_killed() {
    let (pg, world) = durable().await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let postmaster = pg.pid();
    for round in 0..3 {
        let (before, after) = (2 * round + 1, 2 * round + 2);
        burn(&world, before).await;
        everyone.until("before the crash", |r| r.row(&before.to_string()).is_some()).await;
        let victim = world.sql().await;
        let pid: i32 = victim.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        eventually("every session is ended", || async { victim.is_closed() }).await;
        eventually("the server recovered", || async {
            tokio_postgres::connect(&world.url, tokio_postgres::NoTls).await.is_ok()
        })
        .await;
        world
            .run(&format!(
                "insert into scores values ({after}, 1); update scores set home = {round} where id = {before}"
            ))
            .await;
        everyone.until("after the crash", |r| r.row(&after.to_string()).is_some()).await;
        everyone.until_equal(&world, "scores").await;
    }
    assert_eq!(pg.pid(), postmaster);
    everyone.assert_no_reset();
    gateway.stop().await;
}

// 4 s
#[tokio::test]
async fn a_restart_of_postgres_is_lived_through() {
    let (mut pg, world) = durable().await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let mut on_one = Everyone::on(one.address, "table=scores").await;
    let mut on_two = Everyone::on(two.address, "table=scores").await;
    for id in 1..=2 {
        pg.restart().await.unwrap();
        world.run(&format!("insert into scores values ({id}, 1)")).await;
        for everyone in [&mut on_one, &mut on_two] {
            everyone.until("what was committed after the restart", |r| r.row(&id.to_string()).is_some()).await;
            everyone.assert_no_reset();
        }
    }
    one.ready().await;
    two.ready().await;
    eventually("one leads", || async {
        let roles = [one.readyz().await["role"].clone(), two.readyz().await["role"].clone()];
        roles.iter().filter(|role| **role == "leader").count() == 1
    })
    .await;
    one.stop().await;
    two.stop().await;
}

// 6 s
#[tokio::test]
async fn sessions_ended_again_and_again_lose_nothing() {
    let world = World::new().await;
    world.run(SCORES).await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let mut on_one = Everyone::on(one.address, "table=scores").await;
    let mut on_two = Everyone::on(two.address, "table=scores&home=gte.0").await;
    let sql = world.sql().await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'rowcast'";
    for round in 0..12 {
        // the listener, the ticker, the pool, each alone, then all at once
        let which = match round % 4 {
            0 => " and query like '%; listen rowcast%'",
            1 => " and pid in (select pid from pg_locks where locktype = 'advisory')",
            2 => {
                " and query not like '%; listen rowcast%' and pid not in (select pid from pg_locks where locktype = 'advisory')"
            }
            _ => "",
        };
        sql.batch_execute(&format!("insert into scores values ({round}, 0); {end}{which}")).await.unwrap();
        sql.batch_execute(&format!("insert into scores values (100 + {round}, 0); update scores set home = home + 1"))
            .await
            .unwrap();
        for everyone in [&mut on_one, &mut on_two] {
            everyone.until("what was committed around it", |r| r.row(&(100 + round).to_string()).is_some()).await;
        }
    }
    for everyone in [&mut on_one, &mut on_two] {
        everyone.until_equal(&world, "scores").await;
        everyone.assert_no_reset();
    }
    one.stop().await;
    two.stop().await;
}

// 6 s
#[tokio::test]
async fn a_leader_that_stands_still_is_replaced() {
    let world = World::new().await;
    world.run(SCORES).await;
    let leader = GatewayProcess::start(&world.url, &[]).await;
    eventually("it leads", || async { leader.readyz().await["role"] == "leader" }).await;
    let second = world.gateway().await;
    assert_eq!(second.readyz().await["role"], "follower");
    let mut on_first = Everyone::on(leader.address, "table=scores").await;
    let mut everyone = Everyone::on(second.address, "table=scores").await;
    leader.signal(Signal::STOP);
    let began = tokio::time::Instant::now();
    world.run("insert into scores values (1, 1)").await;
    everyone.until("what the leader makes no tick for", |r| r.row("1").is_some()).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(second.readyz().await["role"], "leader");
    // it wakes up, finds its session ended, and follows
    leader.signal(Signal::CONT);
    on_first.until("what it slept through", |r| r.row("1").is_some()).await;
    world.run("insert into scores values (2, 1)").await;
    on_first.until("the next row", |r| r.row("2").is_some()).await;
    everyone.until("the next row", |r| r.row("2").is_some()).await;
    eventually("it follows", || async { leader.readyz().await["role"] == "follower" }).await;
    on_first.assert_no_reset();
    everyone.assert_no_reset();
    second.stop().await;
}
