//! Traps 30 and 31: every kind of statement, and partitions.

use crate::support::mirror::counted;
use crate::support::{Mirror, Sse, World};
use futures_util::SinkExt;
use std::pin::pin;

async fn version_num(world: &World) -> i32 {
    world.sql().await.query_one("select current_setting('server_version_num')::int", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn trap_30_every_kind_of_statement() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int);
             create table u (id int primary key, n int);
             select rowcast.watch('t', public => true), rowcast.watch('u', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t", "u"]).await;
    let sql = world.sql().await;

    {
        let mut copy = pin!(sql.copy_in::<_, bytes::Bytes>("copy t (id, n) from stdin").await.unwrap());
        let lines: String = (1..=1000).map(|i| format!("{i}\t0\n")).collect();
        copy.send(lines.into()).await.unwrap();
        copy.close().await.unwrap();
    }
    mirror.settled().await;
    assert_eq!(mirror.sse.replica.rows("1").len(), 1000);

    let mut statements = vec![
        "insert into t select g, 1 from generate_series(990, 1010) g on conflict (id) do update set n = excluded.n",
        "insert into t select g, 2 from generate_series(1000, 1015) g on conflict (id) do nothing",
        "insert into t select g, 2 from generate_series(1, 20) g on conflict (id) do update set n = 5 where t.id < 3",
        "with moved as (delete from t where id <= 10 returning id, n) insert into u select id, n from moved",
        "with a as (update t set n = 7 where id = 11 returning id), b as (insert into t values (2000, 1) returning id), \
         c as (delete from t where id = 12 returning id) update t set n = 8 where id = 13",
        "with a as (insert into u values (500, 0) returning id) update t set n = a.id from a where t.id = 14",
        "update t set n = u.n from u where t.id = u.id + 20",
        "delete from t using u where t.id = u.id + 100",
        "do $$ begin for i in 1..100 loop update t set n = n + 1 where id = 15; end loop; end $$",
    ];
    if version_num(&world).await >= 150_000 {
        statements.push(
            "merge into t using (select g as id from generate_series(1, 40) g) s on t.id = s.id \
             when matched and s.id % 2 = 0 then delete when matched then update set n = -1 when not matched then insert values (s.id, -2)",
        );
        statements.push(
            "merge into t using u on t.id = u.id when matched then update set n = 9 when not matched then do nothing",
        );
    }
    for statement in statements {
        sql.batch_execute(statement).await.unwrap();
        mirror.settled().await;
    }
    assert!(mirror.sse.replica.resets.is_empty(), "told change by change");

    sql.batch_execute("truncate t, u").await.unwrap();
    mirror.settled().await;
    assert_eq!(mirror.sse.replica.resets, ["truncated", "truncated"]);
    sql.batch_execute("begin; insert into t values (1, 1); truncate t, u; insert into t values (2, 2); insert into u values (3, 3); commit")
        .await
        .unwrap();
    mirror.settled().await;
    let log = mirror.log("t").await;
    assert_eq!(counted(&log)["t"], 2, "{:?}", counted(&log));
    gateway.stop().await;
}

const PARTS: &str = "
    create table p (id int, region text, n int, primary key (id, region)) partition by list (region);
    create table p_eu partition of p for values in ('eu');
    create table p_us partition of p for values in ('us') partition by range (id);
    create table p_us_low partition of p_us for values from (0) to (100);
    create table p_us_high partition of p_us for values from (100) to (1000);
    insert into p values (1, 'eu', 0), (2, 'us', 0), (200, 'us', 0);
    select rowcast.watch('p', public => true)";

#[tokio::test]
async fn trap_31_writes_to_the_root_and_straight_to_partitions() {
    let world = World::new().await;
    world.run(PARTS).await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["p"]).await;
    let sql = world.sql().await;
    for (statement, rows) in [
        ("insert into p values (3, 'eu', 0), (4, 'us', 0), (400, 'us', 0)", 3),
        ("insert into p_eu values (5, 'eu', 0)", 1),
        ("insert into p_us values (6, 'us', 0), (600, 'us', 0)", 2),
        ("insert into p_us_high values (700, 'us', 0)", 1),
        ("update p set n = n + 1", 10),
        ("update p_us set n = n + 1", 7),
        ("update p_us_low set n = n + 1 where id = 2", 1),
        ("delete from p_eu where id = 3", 1),
        ("delete from p where id in (4, 700)", 2),
        // moves: the key changes with the region, or does not
        ("update p set region = 'us' where id = 5", 2),
        ("update p_us set id = id + 100 where id = 6", 2),
        ("update p set region = case region when 'eu' then 'us' else 'eu' end where id < 100", 6),
    ] {
        let before = mirror.log("p").await.len();
        sql.batch_execute(statement).await.unwrap();
        mirror.settled().await;
        let logged = mirror.log("p").await.split_off(before);
        assert_eq!(logged.len(), rows, "{statement}: each change once: {logged:?}");
    }
    assert!(mirror.sse.replica.resets.is_empty(), "told change by change");
    for leaf in ["p_eu", "p_us", "p_us_low"] {
        assert!(mirror.log(leaf).await.is_empty(), "{leaf}: logged under the root");
    }
    sql.batch_execute("truncate p_us_high").await.unwrap();
    mirror.settled().await;
    assert_eq!(mirror.sse.replica.resets, ["bulk"], "the others still have their rows");
    gateway.stop().await;
}

#[tokio::test]
async fn trap_31_partitions_come_and_go() {
    let world = World::new().await;
    world.run(PARTS).await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["p"]).await;
    let sql = world.sql().await;

    sql.batch_execute(
        "create table p_asia partition of p for values in ('asia'); insert into p values (10, 'asia', 0)",
    )
    .await
    .unwrap();
    mirror.settled().await;
    // statement triggers are not inherited: status says so, and watching again heals it
    let warnings = async || -> String {
        sql.query_one(
            "select coalesce(array_to_string(warnings, ' '), '') from rowcast.status() where source = 'public.p'",
            &[],
        )
        .await
        .unwrap()
        .get(0)
    };
    assert!(warnings().await.contains("`zzz_rowcast_insert` of `public.p_asia`"), "{}", warnings().await);
    sql.batch_execute("select rowcast.watch('p', public => true); insert into p_asia values (11, 'asia', 0)")
        .await
        .unwrap();
    mirror.settled().await;
    assert_eq!(warnings().await, "");

    // its rows come without a trigger firing: only the catalog tells
    sql.batch_execute(
        "create table p_mars (like p including all);
         insert into p_mars values (20, 'mars', 0), (21, 'mars', 0);
         alter table p attach partition p_mars for values in ('mars')",
    )
    .await
    .unwrap();
    mirror.settles().await;
    assert_eq!(mirror.sse.replica.resets.last().map(String::as_str), Some("schema-changed"));
    sql.batch_execute("update p set n = 5 where region = 'mars'").await.unwrap();
    mirror.settled().await;

    let before = mirror.log("p").await.len();
    sql.batch_execute(
        "alter table p detach partition p_eu; insert into p_eu values (30, 'eu', 0); update p_eu set n = 9",
    )
    .await
    .unwrap();
    assert_eq!(mirror.log("p").await.len(), before, "a table of its own now: {:?}", mirror.log("p").await);
    mirror.settles().await;

    sql.batch_execute("drop table p_us").await.unwrap();
    mirror.settles().await;
    assert!(mirror.sse.replica.rows("1").iter().all(|r| ["asia", "mars"].contains(&r["region"].as_str().unwrap())));

    // a client that comes now finds the same
    let mut fresh = Sse::open(gateway.address, "table=p").await;
    let rows = mirror.sse.replica.rows("1");
    let client: &mut dyn crate::support::Client = &mut fresh;
    client.until("the same rows", |r| r.rows("1") == rows).await;
    gateway.stop().await;
}
