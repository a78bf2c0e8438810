//! Traps 25 to 29: several changes of one key, in an order that is not the log's.

use crate::support::mirror::{blocked, counted, pid};
use crate::support::{Mirror, World, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::error::SqlState;

/// A trigger of the application that changes, removes and inserts anew the row it fires for.
const MEDDLER: &str = "
    create table t (id int primary key, n int not null);
    create function meddle() returns trigger language plpgsql as $$
    begin
      if new.n % 8 = 1 then
        update t set n = n + 1 where id = new.id;
      elsif new.n % 8 = 3 then
        delete from t where id = new.id;
        insert into t values (new.id, new.n + 1);
      elsif new.n % 8 = 5 then
        delete from t where id = new.id;
      end if;
      return null;
    end $$;
    create trigger meddle after insert or update on t for each row execute function meddle();
    select rowcast.watch('t', public => true)";

#[tokio::test]
async fn trap_25_row_triggers_of_the_application_change_the_same_row() {
    let mut random = StdRng::seed_from_u64(seed());
    let world = World::new().await;
    world.run(MEDDLER).await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let sql = world.sql().await;
    for round in 0..40 {
        let (from, n) = (random.random_range(1..30), random.random_range(0..8));
        let statement = match round % 4 {
            0 => format!(
                "insert into t select g, {n} + g from generate_series({from}, {from} + 9) g on conflict do nothing"
            ),
            1 => format!("update t set n = n + {n} where id >= {from}"),
            2 => format!("begin; update t set n = n + 1; update t set n = n + 1 where id < {from}; commit"),
            _ => format!("delete from t where id % 5 = {n} % 5"),
        };
        sql.batch_execute(&statement).await.unwrap();
        mirror.settled().await;
    }
    assert!(mirror.sse.replica.resets.is_empty(), "told change by change: {:?}", mirror.sse.replica.resets);
    // the test bites only if who folds the log in the order of its rows is wrong
    let unordered =
        "select count(*) from rowcast.log_0 as a join rowcast.log_0 as b on a.relid = b.relid and a.key = b.key
        where a.relid = 't'::regclass and a.ctid < b.ctid and a.version > b.version";
    let row = sql.query_one(unordered, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) > 10, "the log's order should not be that of the versions");
    gateway.stop().await;
}

#[tokio::test]
async fn trap_26_a_table_that_references_itself() {
    let world = World::new().await;
    world
        .run(
            "create table cascading (id int primary key, parent int references cascading on update cascade on delete cascade);
             create table nulling (id int primary key, parent int references nulling on update set null on delete set null);
             select rowcast.watch('cascading', public => true), rowcast.watch('nulling', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["cascading", "nulling"]).await;
    let sql = world.sql().await;
    for table in ["cascading", "nulling"] {
        for statement in [
            "insert into T values (1, null), (2, 1), (3, 2), (4, 3), (5, 1), (6, 6)",
            "update T set id = 10 where id = 1",
            // parent and child in one statement: the child is updated by it and by the cascade
            "update T set id = id + 100",
            "update T set id = 200, parent = null where id = 106",
            "delete from T where id in (102, 104)",
            "begin; delete from T; insert into T values (102, null), (103, 102); commit",
            "delete from T where parent is null",
        ] {
            // two updates of a key by one statement and its own cascade may be refused by Postgres: then nothing happened
            let statement = statement.replace('T', table);
            if let Err(e) = sql.batch_execute(&statement).await {
                assert_eq!(e.code(), Some(&SqlState::TRIGGERED_DATA_CHANGE_VIOLATION), "{statement}: {e:?}");
            }
            mirror.settled().await;
        }
    }
    let log = mirror.log("nulling").await;
    assert!(counted(&log)["u"] >= 4, "{log:?}");
    assert!(mirror.sse.replica.resets.is_empty());
    gateway.stop().await;
}

#[tokio::test]
async fn trap_27_keys_are_swapped_and_shifted() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int, n text, primary key (id) deferrable);
             insert into t values (1, 'a'), (2, 'b');
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let sql = world.sql().await;
    for statement in [
        "update t set id = 3 - id",
        "insert into t select g, 'x' || g from generate_series(3, 20) g",
        "update t set id = id + 1",
        "update t set id = id - 1",
        "update t set id = 21 - id",
        // two rows share a key for a while, and either one stays
        "begin; set constraints all deferred; insert into t values (5, 'new'); delete from t where id = 5 and n <> 'new'; commit",
        "begin; set constraints all deferred; insert into t values (6, 'new'); delete from t where id = 6 and n = 'new'; commit",
        "begin; set constraints all deferred; update t set id = 8 where id = 7; update t set id = 9 where id = 8 and n = 'x8'; \
         delete from t where id = 9 and n <> 'x8'; update t set id = id + 1000; commit",
        "begin; set constraints all deferred; update t set id = 1; delete from t where n <> 'new'; commit",
        "update t set id = id + 1 where n = 'no such row'",
    ] {
        if let Err(e) = sql.batch_execute(statement).await {
            assert_eq!(e.code(), Some(&SqlState::UNIQUE_VIOLATION), "{statement}: {e:?}");
            sql.batch_execute("rollback").await.unwrap();
        }
        mirror.settled().await;
        // in the log, too, nothing of a key is newer than the row that has it: whoever reads it in other pieces is right
        let newer = "select count(*) from t join rowcast.log_0 as l on l.key = t.id::text and l.relid = 't'::regclass
            where l.version > t.row_version";
        assert_eq!(sql.query_one(newer, &[]).await.unwrap().get::<_, i64>(0), 0, "{statement}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn trap_28_a_key_is_deleted_and_inserted_in_one_transaction() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int);
             insert into t select g, 0 from generate_series(1, 5) g;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let sql = world.sql().await;
    for statement in [
        "begin; delete from t where id = 1; insert into t values (1, 1); commit",
        "with gone as (delete from t where id <= 3 returning id, n) insert into t select id, n + 10 from gone",
        "begin; delete from t where id = 2; insert into t values (2, 2); delete from t where id = 2; commit",
        "begin; insert into t values (2, 3); update t set n = 4 where id = 2; delete from t where id = 2; insert into t values (2, 5); commit",
        "begin; insert into t values (9, 1); delete from t where id = 9; commit",
        "do $$ begin for i in 1..50 loop delete from t where id = 3; insert into t values (3, i); end loop; end $$",
        "begin; delete from t; insert into t select g, 7 from generate_series(3, 8) g; commit",
    ] {
        sql.batch_execute(statement).await.unwrap();
        mirror.settled().await;
    }
    let log = mirror.log("t").await;
    let of_3: Vec<i64> =
        log.iter().filter(|(_, key, _)| key.as_deref() == Some("3")).map(|(_, _, version)| *version).collect();
    assert!(of_3.len() > 100 && of_3.windows(2).all(|w| w[0] < w[1]), "one version, one change: {of_3:?}");
    assert!(log.iter().all(|(op, _, version)| (op == "d") == (version % 2 == 1)), "tombstones are odd, versions even");
    gateway.stop().await;
}

/// T2 updates the row and holds it, T1 comes with the same key and waits, T2 updates again, deletes and commits:
/// T1's version is older than the tombstone, although T1's row is the one that is there.
async fn race(isolation: &str, come: &str) {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let (one, two, watcher) = (world.sql().await, world.sql().await, world.sql().await);
    one.batch_execute(&format!("set default_transaction_isolation = '{isolation}'")).await.unwrap();
    let one_pid = pid(&one).await;
    for round in 0..20 {
        watcher.batch_execute("delete from t; insert into t values (1, 0), (2, 0)").await.unwrap();
        two.batch_execute("begin; update t set n = n + 1 where id = 1").await.unwrap();
        let (came, ()) = tokio::join!(one.batch_execute(come), async {
            blocked(&watcher, one_pid).await;
            two.batch_execute("update t set n = n + 1 where id = 1; delete from t where id = 1; commit").await.unwrap();
        });
        came.unwrap();
        mirror.settled().await;
        assert_eq!(mirror.sse.replica.row("1").expect("the row is there")["n"], 7, "round {round}");
        // what happened is what was to be tested, and the guard healed it in the log, for whoever reads it
        let log = mirror.log("t").await;
        let of_1 =
            |op: &str| log.iter().rfind(|(o, key, _)| o == op && key.as_deref() == Some("1")).map(|l| l.2).unwrap();
        let (came, gone, newest) = (of_1("i"), of_1("d"), of_1("u"));
        assert!(came < gone, "round {round}: the race did not happen: {came}, tombstone {gone}");
        assert!(newest > gone, "round {round}: not stamped anew: {newest}, tombstone {gone}");
    }
    assert!(mirror.sse.replica.resets.is_empty(), "{:?}", mirror.sse.replica.resets);
    gateway.stop().await;
}

#[tokio::test]
async fn trap_29_an_insert_waits_for_a_delete_in_read_committed() {
    race("read committed", "insert into t values (1, 7)").await;
}

#[tokio::test]
async fn trap_29_an_insert_waits_for_a_delete_in_repeatable_read() {
    race("repeatable read", "insert into t values (1, 7)").await;
}

#[tokio::test]
async fn trap_29_a_key_change_waits_for_a_delete_in_read_committed() {
    race("read committed", "update t set id = 1, n = 7 where id = 2").await;
}

#[tokio::test]
async fn trap_29_a_key_change_waits_for_a_delete_in_repeatable_read() {
    race("repeatable read", "update t set id = 1, n = 7 where id = 2").await;
}

#[tokio::test]
async fn trap_29_hot_keys() {
    let seed = seed();
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let writers: Vec<_> = (0..6)
        .map(|w| {
            let url = world.url.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed + w);
                let sql = crate::support::world::connect(&url).await;
                let isolation = ["read committed", "repeatable read", "serializable"][w as usize % 3];
                sql.batch_execute(&format!("set default_transaction_isolation = '{isolation}'")).await.unwrap();
                for n in 0..150 {
                    let (a, b) = (random.random_range(1..4), random.random_range(1..4));
                    let statement = match random.random_range(0..6) {
                        0 => format!("insert into t values ({a}, {n}) on conflict (id) do update set n = {n}"),
                        1 => format!("delete from t where id = {a}"),
                        2 => format!("update t set id = {a} where id = {b}"),
                        3 => format!(
                            "begin; update t set n = n + 1 where id = {a}; delete from t where id = {a}; commit"
                        ),
                        4 => format!("begin; delete from t where id = {a}; insert into t values ({a}, {n}); commit"),
                        _ => format!("insert into t values ({a}, {n})"),
                    };
                    if let Err(e) = sql.batch_execute(&statement).await {
                        let code = e.code().unwrap_or_else(|| panic!("{e}")).code().to_owned();
                        assert!(["23505", "40001", "40P01"].contains(&code.as_str()), "{statement}: {e:?}");
                        sql.batch_execute("rollback").await.unwrap();
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    mirror.settled().await;
    gateway.stop().await;
}
