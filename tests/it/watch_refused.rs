//! What `rowcast.watch` refuses: with which SQLSTATE, and with a remedy.

use crate::support::World;
use tokio_postgres::Client;

/// What is there, what is called, SQLSTATE, part of the message, part of the hint (empty: the message says it).
const REFUSED: &[(&str, &str, &str, &str, &str)] = &[
    ("create view v as select 1 as id", "'v'", "42809", "`public.v` is a view, not a table", "watch the tables it is made of"),
    ("create materialized view mv as select 1 as id", "'mv'", "42809", "is a materialized view", "watch the tables"),
    (
        "create foreign data wrapper w; create server s foreign data wrapper w; create foreign table ft (id int) server s",
        "'ft'",
        "42809",
        "is a foreign table",
        "watch the tables",
    ),
    ("create sequence seq", "'seq'", "42809", "is a sequence", "watch the tables"),
    ("create temp table tmp (id int primary key)", "'tmp'", "42809", "is a temporary table", "use an ordinary table"),
    ("", "'pg_class'", "42809", "is a system table", "tables of the application"),
    ("", "'rowcast.tick'", "42809", "is a system table", "tables of the application"),
    ("", "'information_schema.sql_features'", "42809", "is a system table", "tables of the application"),
    ("", "'no_such_table'", "42P01", "no_such_table", ""),
    ("", "4294967000::oid::regclass", "42P01", "there is no table", ""),
    ("create table nokey (id int)", "'nokey'", "55000", "has no primary key", "key => array["),
    ("create table nokey (id int unique)", "'nokey', key => array['id']", "55000", "not-null columns (id)", "set them not null"),
    (
        "create table nokey (id int not null); create unique index on nokey (id) where id > 0",
        "'nokey', key => array['id']",
        "55000",
        "no unique index",
        "without `where`",
    ),
    (
        "create table nokey (id text not null); create unique index on nokey (lower(id))",
        "'nokey', key => array['id']",
        "55000",
        "no unique index",
        "create a unique index",
    ),
    (
        "create table part (id int primary key) partition by range (id); create table leaf partition of part for values from (0) to (9)",
        "'leaf'",
        "42809",
        "`public.leaf` is a partition",
        "select rowcast.watch('public.part')",
    ),
    (
        "create table part (id int) partition by range (id); create foreign data wrapper w; create server s foreign data wrapper w;
         create foreign table fleaf partition of part for values from (0) to (9) server s",
        "'part', key => array['id']",
        "42809",
        "foreign tables among the partitions",
        "detach them",
    ),
    ("create table base (id int primary key); create table child (x int) inherits (base)", "'base'", "42809", "table inheritance", "declarative partitioning"),
    (
        "create table base (id int primary key); create table child (x int, primary key (id)) inherits (base)",
        "'child'",
        "42809",
        "table inheritance",
        "declarative partitioning",
    ),
    (
        "create table rls (id int primary key); alter table rls enable row level security",
        "'rls', public => true",
        "0A000",
        "has row level security and cannot be public",
        "public => false",
    ),
    (
        "create table foreign_version (id int primary key, row_version int)",
        "'foreign_version'",
        "42701",
        "has a column `row_version` that is not rowcast's",
        "rename it",
    ),
    (
        "create table foreign_version (id int primary key, row_version bigint not null default 0)",
        "'foreign_version'",
        "42701",
        "not rowcast's",
        "comment on column public.foreign_version.row_version",
    ),
    ("", "'t', columns => array['id', 'nope', 'neither']", "42703", "has no column `nope`, `neither`", ""),
    ("", "'t', exclude => array['nope']", "42703", "has no column `nope`", ""),
    ("", "'t', key => array['nope']", "42703", "has no column `nope`", ""),
    ("", "'t', columns => array['ctid']", "42703", "has no column `ctid`", ""),
    ("", "'t', exclude => array['id']", "22023", "key column `id` must be published", "take it out of `exclude`"),
    ("", "'t', columns => array['n']", "22023", "key column `id` must be published", "add it to `columns`"),
    ("", "'t', columns => array['id'], exclude => array['n']", "22023", "both given", "give one of them"),
    ("", "'t', key => array['row_version']", "", "row_version", ""),
    ("", "'t', ttl => '-1 s'", "22023", "`ttl` must not be null or negative", ""),
    ("", "'t', stale => null", "22023", "`stale` must not be null or negative", ""),
    ("", "'t', snapshot_every => '-1 s', ttl => null", "22023", "`ttl`, `snapshot_every`", ""),
    ("", "'t', bulk_limit => 0", "22023", "`bulk_limit` must be at least 1", ""),
    ("", "'t', public => null", "22023", "`public` must not be null", ""),
];

async fn refused(sql: &Client, call: &str, state: &str, says: &str, hint: &str) {
    let statement = format!("select rowcast.watch({call})");
    let error = sql.batch_execute(&statement).await.expect_err(&statement);
    let db = error.as_db_error().unwrap();
    assert!(state.is_empty() || db.code().code() == state, "{statement}: {db:?}");
    assert!(db.message().contains(says), "{statement}: {db:?}");
    assert!(db.hint().unwrap_or_default().contains(hint), "{statement}: {db:?}");
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_with_a_remedy() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int)").await;
    let sql = world.sql().await;
    for (setup, call, state, says, hint) in REFUSED {
        sql.batch_execute("begin").await.unwrap();
        sql.batch_execute(setup).await.unwrap_or_else(|e| panic!("{setup}: {e:?}"));
        refused(&sql, call, state, says, hint).await;
        sql.batch_execute("rollback").await.unwrap();
    }
    let left = sql
        .query("select attname::text from pg_attribute where attname = 'row_version' and attrelid = 't'::regclass", &[])
        .await
        .unwrap();
    assert!(left.is_empty(), "a refusal leaves the table as it was");
    let left = sql.query_one("select count(*) from rowcast.source", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_target_of_logical_replication_is_refused() {
    let world = World::new().await;
    world.run("create table t (id int primary key)").await;
    let sql = world.sql().await;
    // nothing is connected to: the catalog alone decides
    sql.batch_execute(
        "create subscription never connection 'host=/nonexistent' publication p with (connect = false);
         insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
           select oid, 't'::regclass, 'r' from pg_subscription where subname = 'never' and subdbid = (select oid from pg_database where datname = current_database())",
    )
    .await
    .unwrap();
    refused(
        &sql,
        "'t'",
        "55006",
        "`public.t`: target of a logical replication subscription",
        "watch the table on the publisher",
    )
    .await;
    sql.batch_execute(
        "alter subscription never set (slot_name = none); drop subscription never; select rowcast.watch('t')",
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn who_does_not_own_the_table_or_may_not_watch_is_refused() {
    let world = World::new().await;
    let (owner, other) = (format!("owner_{}", world.database), format!("other_{}", world.database));
    world
        .run(&format!(
            "create role {owner} in role rowcast_admin; create role {other}; create schema app authorization {owner};
             set role {owner}; create table app.t (id int primary key); reset role;
             grant usage on schema app to {other}; grant all on app.t to {other}"
        ))
        .await;
    let sql = world.sql().await;
    sql.batch_execute(&format!("set role {other}")).await.unwrap();
    refused(&sql, "'app.t'", "42501", "permission denied", "").await;
    sql.batch_execute(&format!("reset role; grant rowcast_admin to {other}; set role {other}")).await.unwrap();
    refused(&sql, "'app.t'", "42501", &format!("`{other}` does not own `app.t`"), &format!("run it as `{owner}`"))
        .await;
    // its helpers check for themselves
    for call in [
        "rowcast._register('app.t'::regclass, array['id'], null, '1 s', '1 s', '1 s', 1, true, false)",
        "rowcast._sealed('app.t'::regclass, true)",
        "rowcast.unwatch('app.t')",
    ] {
        let error = sql.batch_execute(&format!("select {call}")).await.expect_err(call);
        assert_eq!(error.code().unwrap().code(), "42501", "{call}: {error:?}");
    }
    sql.batch_execute(&format!(
        "reset role; set role {owner}; select rowcast.watch('app.t'); insert into app.t values (1)"
    ))
    .await
    .unwrap();
    sql.batch_execute(&format!("reset role; set role {other}")).await.unwrap();
    for call in
        ["rowcast._forget('app.t'::regclass)", "rowcast.unwatch('app.t')", "rowcast._sealed('app.t'::regclass, true)"]
    {
        let error = sql.batch_execute(&format!("select {call}")).await.expect_err(call);
        assert_eq!(error.code().unwrap().code(), "42501", "{call}: {error:?}");
    }
    // nothing that was lent to the owner stays
    let lent = sql
        .query_one("select has_schema_privilege($1, 'rowcast', 'create'), has_function_privilege($1, 'rowcast.stamp()', 'execute')", &[&owner])
        .await
        .unwrap();
    assert_eq!((lent.get::<_, bool>(0), lent.get::<_, bool>(1)), (false, false));
}
