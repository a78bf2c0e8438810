//! Traps 35 to 38: capture stays linear, survives DDL, and gives nobody rights.

use crate::support::world::connect;
use crate::support::{Mirror, Sse, World, eventually};
use futures_util::StreamExt;
use serde_json::json;
use std::sync::{Arc, Mutex};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};

/// A connection whose notices are kept.
async fn noticed(url: &str) -> (tokio_postgres::Client, Arc<Mutex<Vec<String>>>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let kept = notices.clone();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                kept.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    (client, notices)
}

/// Takes 5 s. A plan is made for the first, one-row update of a session and kept: it must be good for 100,000 rows.
#[tokio::test]
async fn trap_35_a_plan_made_for_one_row_is_good_for_100_000() {
    let world = World::new().await;
    world
        .run("create table t (id int primary key, n int); insert into t select g, 0 from generate_series(1, 100000) g")
        .await;
    world.run("create table c (a int, b text, n int, primary key (a, b)); insert into c select g, g, 0 from generate_series(1, 100000) g").await;
    world.run("select rowcast.watch('t'), rowcast.watch('c')").await;
    let (sql, notices) = noticed(&world.url).await;
    sql.batch_execute(
        "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
         set auto_explain.log_analyze = on; set auto_explain.log_timing = off;
         set auto_explain.log_level = 'notice'; set statement_timeout = '60s'",
    )
    .await
    .unwrap();
    for (table, key) in [("t", "id"), ("c", "a")] {
        for id in 1..=7 {
            sql.batch_execute(&format!("update {table} set n = n + 1 where {key} = {id}")).await.unwrap();
        }
        notices.lock().unwrap().clear();
        sql.batch_execute(&format!("update {table} set n = n + 1")).await.unwrap();
        let plans: Vec<String> =
            notices.lock().unwrap().drain(..).filter(|n| n.contains("insert into rowcast.log_")).collect();
        // what is for one row alone finds out that there are more and does not run
        let ran = |plan: &String| plan.lines().any(|l| l.contains("Nested Loop") && !l.contains("never executed"));
        assert!(plans.iter().any(|plan| plan.contains("Full Join")), "the capture statement was seen: {plans:#?}");
        assert!(!plans.iter().any(ran), "{plans:#?}");
        let row = sql
            .query_one("select count(*) from rowcast.log_0 where relid = $1::text::regclass and op = 'u'", &[&table])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), 100_007);
    }
}

/// Takes 15 s: rows that nobody writes are seen to have changed at the gateway's next look at the catalog.
#[tokio::test]
async fn trap_36_columns_come_change_and_go() {
    let world = World::new().await;
    world
        .run("create table t (id int primary key, n int); insert into t select g, g from generate_series(1, 5) g")
        .await;
    world.run("select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let sql = world.sql().await;
    for ddl in [
        "alter table t add column a int default 7; alter table t add column b text default random()::text",
        "alter table t drop column a; alter table t rename column b to c",
        "alter table t alter column c drop default, alter column c type numeric using c::numeric; alter table t alter column id type bigint",
        "alter table t alter column id type text; alter table t add column a int",
    ] {
        // with the same session, whose plans are old, and another one
        sql.batch_execute(&format!(
            "update t set n = n + 1 where id::text = '1'; {ddl}; update t set n = n + 1 where id::text in ('1', '2')"
        ))
        .await
        .unwrap_or_else(|e| panic!("{ddl}: {e:?}"));
        world.run("update t set n = n + 1 where id::text in ('2', '3'); delete from t where id::text = '4'").await;
        world.run("insert into t (id, n) values (4, 4)").await;
        mirror.settles().await;
    }
    assert!(mirror.sse.replica.problems.is_empty());
    // a rewriting change alone: no trigger fires, the catalog tells
    sql.batch_execute("alter table t alter column n type text using n || ' x'").await.unwrap();
    mirror.settles().await;
    assert_eq!(mirror.sse.replica.resets.last().map(String::as_str), Some("schema-changed"));
    gateway.stop().await;
}

/// Takes 5 s. Between the change and the gateway's look at the catalog nothing wrong may be told to who named the columns.
#[tokio::test]
async fn trap_36_a_named_column_is_renamed_or_changes_its_type() {
    let world = World::new().await;
    world.run("create table t (id int primary key, league text, n int); insert into t values (1, 'nfl', 1), (2, 'nba', 2)").await;
    world.run("select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    for (query, ddl, undo) in [
        (
            "table=t&league=eq.nfl",
            "alter table t rename column league to sport",
            "alter table t rename column sport to league",
        ),
        ("table=t&select=id,n", "alter table t rename column n to m", "alter table t rename column m to n"),
        (
            "table=t&n=lt.3",
            "alter table t alter column n type text using n || ' x'",
            "alter table t alter column n type int using left(n, 1)::int",
        ),
    ] {
        let mut sse = Sse::open(gateway.address, query).await;
        let client: &mut dyn crate::support::Client = &mut sse;
        client.until("the row", |r| r.row("1").is_some() && r.position.is_some()).await;
        let row = client.replica().row("1").unwrap().clone();
        // the change of the columns inside a tick: images from before it and from after it
        world.run(&format!("begin; update t set id = id; {ddl}; update t set id = id; commit")).await;
        // told to forget, and why: the column is not there any more, or is another one
        client.until("reset or problem", |r| !r.resets.is_empty() || !r.problems.is_empty()).await;
        for event in &sse.events {
            let message: serde_json::Value = serde_json::from_str(&event.data).unwrap();
            if message["type"] == "changes" {
                for change in message["changes"].as_array().unwrap() {
                    assert_eq!(change["op"], "update", "{ddl}: {message}");
                    let mut told = change["row"].clone();
                    if let (Some(told), Some(row)) = (told.get_mut("row_version"), row.get("row_version")) {
                        *told = row.clone();
                    }
                    assert_eq!(told, row, "{ddl}");
                }
            }
        }
        let changes = gateway.url(&format!("/v1/changes?{query}"));
        eventually("the gateway has seen it", || async {
            reqwest::get(&changes).await.is_ok_and(|a| a.status() == 400)
        })
        .await;
        world.run(undo).await;
        eventually(&format!("{query} as it was after {ddl}"), || async {
            reqwest::get(&changes).await.is_ok_and(|a| a.status() == 200)
        })
        .await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn trap_36_a_key_column_is_renamed() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); insert into t values (1, 1), (2, 2)").await;
    world.run("select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let sql = world.sql().await;
    sql.batch_execute("update t set n = 3 where id = 1").await.unwrap();
    mirror.settled().await;
    sql.batch_execute("alter table t rename column id to ident").await.unwrap();
    sql.batch_execute("update t set n = 4; insert into t values (3, 3); delete from t where ident = 2").await.unwrap();
    let client: &mut dyn crate::support::Client = &mut mirror.sse;
    client.until("the problem", |r| !r.problems.is_empty()).await;
    let problem = client.replica().problems[0]["problem"].clone();
    assert_eq!(problem["code"], "table-unavailable", "{problem}");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("(id) is not a key of `public.t` any more; call rowcast.watch again"),
        "{problem}"
    );
    let log = mirror.log("t").await;
    assert!(
        log.iter().rev().take(3).all(|(op, key, _)| op == "r" && key.is_none()),
        "no wrong key in the log: {log:?}"
    );
    let answer = reqwest::get(gateway.url("/v1/changes?table=t")).await.unwrap();
    assert_eq!(answer.status(), 503);

    sql.batch_execute("select rowcast.watch('t', public => true); update t set n = 5").await.unwrap();
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    mirror.settled().await;
    assert_eq!(mirror.sse.replica.rows("1").len(), 2);
    // and back, with another table's name taken over
    sql.batch_execute("alter table t rename to was_t; create table t (id int primary key); select rowcast.watch('t', public => true); insert into t values (77)")
        .await
        .unwrap();
    let mut fresh = Mirror::of(&world, &gateway, &["t", "was_t"]).await;
    fresh.settled().await;
    assert_eq!(fresh.sse.replica.rows("1").len(), 1);
    gateway.stop().await;
}

/// Whether the columns are still there is asked once a session and kept in its plans: nothing may outlive the change.
#[tokio::test]
async fn trap_36_a_warm_session_beside_the_change() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); insert into t values (1, 1), (2, 2)").await;
    world.run("select rowcast.watch('t', public => true)").await;
    let (warm, other) = (world.sql().await, world.sql().await);
    let last = || async {
        let row = other
            .query_one("select op::text, key from rowcast.log_0 order by xid desc, version desc limit 1", &[])
            .await
            .unwrap();
        (row.get::<_, String>(0), row.get::<_, Option<String>>(1))
    };
    let told = ("u".to_owned(), Some("1".to_owned()));
    let reload = ("r".to_owned(), None);
    // by no name of a column that changes
    let update = "update t set n = n + 1 where n < 100";
    world.run("update t set n = 1000 where id = 2").await;
    for _ in 0..7 {
        warm.batch_execute(update).await.unwrap();
    }
    warm.batch_execute(update).await.unwrap();
    assert_eq!(last().await, told);
    world.run("alter table t rename column id to ident").await;
    warm.batch_execute(update).await.unwrap();
    assert_eq!(last().await, reload);
    world.run("alter table t rename column ident to id").await;
    warm.batch_execute(update).await.unwrap();
    assert_eq!(last().await, told);

    // a snapshot from before the change still shows the old name, the table has the new one
    warm.batch_execute("begin isolation level repeatable read; select count(*) from pg_attribute").await.unwrap();
    world.run("alter table t rename column id to ident").await;
    warm.batch_execute("insert into t values (3, 3); commit").await.unwrap();
    assert_eq!(last().await, reload);
    warm.batch_execute("update t set n = 4 where ident = 3").await.unwrap();
    assert_eq!(last().await, reload);
    world.run("alter table t rename column ident to id").await;

    // another index is the key's now
    world.run("delete from t where id = 3").await;
    world.run("reindex table concurrently t").await;
    warm.batch_execute("update t set n = 0 where id = 1").await.unwrap();
    assert_eq!(last().await, told);
    world.run("alter table t drop constraint t_pkey").await;
    warm.batch_execute("update t set n = 1 where id = 1").await.unwrap();
    assert_eq!(last().await, reload);
}

/// Many rows need memory for a moment; the session's own setting is what it was.
#[tokio::test]
async fn a_large_statement_leaves_the_settings_alone() {
    let world = World::new().await;
    world
        .run("create table t (id int primary key, n int); insert into t select g, g from generate_series(1, 5000) g")
        .await;
    world.run("select rowcast.watch('t', public => true)").await;
    let sql = world.sql().await;
    sql.batch_execute("begin; set local work_mem = '128kB'; update t set n = n + 1; update t set id = -id")
        .await
        .unwrap();
    assert_eq!(sql.query_one("show work_mem", &[]).await.unwrap().get::<_, String>(0), "128kB");
    sql.batch_execute("commit").await.unwrap();
    let count = "select count(*) filter (where op = 'u'), count(*) filter (where op = 'i'), count(*) filter (where op = 'd') from rowcast.log_0";
    let row = sql.query_one(count, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2)), (5000, 5000, 5000));
}

/// A login that may write the table and nothing else, and its connection.
async fn writer(world: &World, name: &str) -> tokio_postgres::Client {
    let name = format!("{name}_{}", world.database);
    world
        .run(&format!(
            "create role {name} login password 'secret'; grant select, insert, update, delete, truncate on t to {name}"
        ))
        .await;
    let mut config: tokio_postgres::Config = world.url.parse().unwrap();
    config.user(&name).password("secret");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn trap_37_who_may_only_write_the_table_can() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let writer = writer(&world, "writer").await;
    for statement in [
        "insert into t select g, g from generate_series(1, 10) g",
        "update t set id = id + 100 where id > 5",
        "delete from t where id < 3",
        "insert into t values (1, 1) on conflict (id) do update set n = 2",
    ] {
        writer.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        mirror.settled().await;
    }
    writer.batch_execute("truncate t").await.unwrap();
    mirror.settled().await;
    for statement in [
        "select * from rowcast.log_0",
        "insert into rowcast.log_0 (version, relid, op) values (1, 1, 'r')",
        "truncate rowcast.log_0",
        "select * from rowcast.tick",
        "insert into rowcast.tick (prev_id, snap) values (99, pg_current_snapshot())",
        "select * from rowcast.source",
        "select nextval('rowcast.version')",
        "select setval('rowcast.quiet', 9223372036854775807)",
        "select last_value from rowcast.version",
        "select rowcast._mark('t'::regclass, 'r')",
        "select rowcast.begin_again()",
        "select rowcast.rotate('1 s')",
        "select rowcast.sources()",
        "select rowcast.watch('t')",
        "select rowcast.unwatch('t')",
        "set role rowcast_owner",
    ] {
        let error = writer.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{statement}: {error:?}");
    }
    mirror.settled().await;
    gateway.stop().await;
}

/// Everything that a careless trigger would look up by name.
const HOSTILE: &str = "
    create schema evil; grant usage on schema evil to public;
    create table evil.taken (what text); grant insert on evil.taken to public;
    create function evil.f() returns void language sql as $$ insert into evil.taken values (current_user) $$;
    create function evil.nextval(regclass) returns bigint language sql as $$ select evil.f(); select 1::bigint $$;
    create function evil.nextval(text) returns bigint language sql as $$ select evil.f(); select 1::bigint $$;
    create function evil.setval(text, int) returns bigint language sql as $$ select evil.f(); select 1::bigint $$;
    create function evil.setval(text, bigint) returns bigint language sql as $$ select evil.f(); select 1::bigint $$;
    create function evil.format(text, bigint, bigint) returns text language sql as $$ select evil.f(); select 'x'::text $$;
    create function evil.row_to_json(anyelement) returns json language sql as $$ select evil.f(); select '{}'::json $$;
    create function evil.pg_notify(text, text) returns void language sql as $$ select evil.f() $$;
    create function evil.pg_sequence_last_value(regclass) returns bigint language sql as $$ select evil.f(); select 0::bigint $$;
    create function evil.pg_sequence_last_value(text) returns bigint language sql as $$ select evil.f(); select 0::bigint $$;
    create function evil.pg_current_xact_id() returns xid8 language sql as $$ select evil.f(); select '1'::xid8 $$;
    create function evil.clock_timestamp() returns timestamptz language sql as $$ select evil.f(); select null::timestamptz $$;
    create function evil.current_setting(text) returns text language sql as $$ select evil.f(); select 'off'::text $$;
    create function evil.current_setting(text, boolean) returns text language sql as $$ select evil.f(); select 'off'::text $$;
    create function evil.set_config(text, text, boolean) returns text language sql as $$ select evil.f(); select ''::text $$;
    create function evil.pg_get_constraintdef(oid) returns text language sql as $$ select evil.f(); select ''::text $$;
    create function evil.pg_get_constraintdef(int) returns text language sql as $$ select evil.f(); select ''::text $$;
    create function evil.hashtextextended(text, int) returns bigint language sql as $$ select evil.f(); select 0::bigint $$;
    create function evil.json_populate_record(anyelement, json) returns anyelement language sql as $$ select evil.f(); select $1 $$;
    create function evil.lie(bigint, bigint) returns boolean language sql as $$ select evil.f(); select true $$;
    create operator evil.<> (leftarg = bigint, rightarg = bigint, procedure = evil.lie);
    create operator evil.> (leftarg = bigint, rightarg = bigint, procedure = evil.lie);
    create operator evil.< (leftarg = bigint, rightarg = bigint, procedure = evil.lie);
    create operator evil.= (leftarg = bigint, rightarg = bigint, procedure = evil.lie);
    create function evil.lie(text, text) returns boolean language sql as $$ select evil.f(); select true $$;
    create operator evil.= (leftarg = text, rightarg = text, procedure = evil.lie);
    create operator evil.<> (leftarg = text, rightarg = text, procedure = evil.lie);
    create function evil.lie(\"char\", \"char\") returns boolean language sql as $$ select evil.f(); select false $$;
    create operator evil.= (leftarg = \"char\", rightarg = \"char\", procedure = evil.lie);
    create type evil.json as (x int); create type evil.text as (x int); create type evil.bigint as (x int);
    create table evil.log_0 (like rowcast.log_0); create table evil.source (id int);";

#[tokio::test]
async fn trap_38_what_a_writer_names_like_ours_is_not_used() {
    let world = World::new().await;
    world
        .run("create table t (id int, k text, n int, primary key (id, k)); select rowcast.watch('t', public => true)")
        .await;
    world.run(HOSTILE).await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["t"]).await;
    let writer = writer(&world, "hostile").await;
    writer
        .batch_execute(
            "create temp table log_0 (like public.t); create temp table source (id int); create temp table rowcast_new (id int);
             create temp table rowcast_old (id int); create temp table pg_class (oid oid); create temp table slot (last_value bigint);
             create temp table version (last_value bigint); create temp table t (id int, k text, n int);
             create function pg_temp.pg_notify(text, text) returns void language sql as $$ select evil.f() $$;
             create function pg_temp.nextval(text) returns bigint language sql as $$ select evil.f(); select 1::bigint $$;
             set search_path = pg_temp, evil, pg_catalog, public",
        )
        .await
        .unwrap();
    // another setting of the notation, so that the pinning runs too
    writer.batch_execute("set timezone = 'Asia/Tokyo'").await.unwrap();
    for statement in [
        "insert into public.t values (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        "update public.t set n = 9 where id operator(pg_catalog.=) 1",
        "update public.t set id = id operator(pg_catalog.+) 10",
        "delete from public.t where id operator(pg_catalog.=) 12",
        "begin isolation level repeatable read; insert into public.t values (12, 'b', 0); commit",
        "insert into public.t values (12, 'b', 0) on conflict (id, k) do update set n = 5",
        "truncate public.t",
        "insert into public.t values (12, 'b', 0)",
    ] {
        writer.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        mirror.settled().await;
    }
    // the guard's own statements, too: versions are drawn in between by somebody else
    let sql = connect(&world.url).await;
    sql.batch_execute("set search_path = evil, pg_catalog, public").await.unwrap();
    sql.batch_execute(
        "begin isolation level repeatable read;
         insert into public.t select g, 'g', pg_catalog.nextval('rowcast.version')::int4 from pg_catalog.generate_series(1, 3) g; commit",
    )
    .await
    .unwrap();
    mirror.settled().await;
    let log = mirror.log("public.t").await;
    assert!(log.iter().rev().take(3).all(|(op, _, _)| op == "u"), "stamped anew: {log:?}");
    // a stale version is refused although `<>` says otherwise
    let error = writer.batch_execute("update public.t set row_version = 1").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "RC409", "{error:?}");
    let taken = sql.query("select what from evil.taken", &[]).await.unwrap();
    assert!(taken.is_empty(), "ran as {:?}", taken.iter().map(|r| r.get::<_, String>(0)).collect::<Vec<_>>());
    let stray = sql.query_one("select pg_catalog.count(*) from evil.log_0", &[]).await.unwrap();
    assert_eq!(json!(stray.get::<_, i64>(0)), json!(0));
    gateway.stop().await;
}
