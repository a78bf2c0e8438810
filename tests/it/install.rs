//! Migrations, rights, and leaving nothing behind.

use crate::support::world::connect;
use crate::support::{Sse, World, eventually, postgres};
use rowcast::localpg::LocalPg;
use rowcast::pg::migrate::{self, MIGRATIONS};
use std::process::Stdio;
use tokio_postgres::Client;

/// Everything of a schema's objects that two installs must have in common, one line each.
const DUMP: &str = "
    select string_agg(line, E'\\n' order by line) from (
      select concat_ws(' ', 'class', relname, relkind, reloptions, relacl, pg_get_userbyid(relowner)) from pg_class where relnamespace = 'rowcast'::regnamespace
      union all select concat_ws(' ', 'column', c.relname, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
          pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, attnum))
        from pg_class c join pg_attribute a on a.attrelid = c.oid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
        where relnamespace = 'rowcast'::regnamespace and attnum > 0 and relkind in ('r', 'i', 'S')
      union all select concat_ws(' ', 'index', pg_get_indexdef(indexrelid)) from pg_index i join pg_class c on c.oid = i.indrelid
        where relnamespace = 'rowcast'::regnamespace
      union all select concat_ws(' ', 'constraint', conname, pg_get_constraintdef(oid)) from pg_constraint where connamespace = 'rowcast'::regnamespace
      union all select concat_ws(' ', 'sequence', s.seqrelid::regclass, seqtypid, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle)
        from pg_sequence s join pg_class c on c.oid = seqrelid where relnamespace = 'rowcast'::regnamespace
      union all select concat_ws(' ', 'function', pg_get_functiondef(oid), proacl, pg_get_userbyid(proowner)) from pg_proc where pronamespace = 'rowcast'::regnamespace
      union all select concat_ws(' ', 'comment', pg_describe_object(classoid, objoid, objsubid), description)
        from pg_description where pg_describe_object(classoid, objoid, objsubid) like '%rowcast%'
      union all select concat_ws(' ', 'schema', nspname, nspacl, pg_get_userbyid(nspowner)) from pg_namespace where nspname = 'rowcast'
      union all select concat_ws(' ', 'migration', id, name, breaking) from rowcast.migration
    ) as l (line)";

async fn dump(sql: &Client) -> String {
    let text: String = sql.query_one(DUMP, &[]).await.unwrap().get(0);
    assert!(text.lines().count() > 100, "{text}");
    text
}

#[tokio::test]
async fn migrating_twice_does_it_once() {
    let world = World::bare().await;
    let names: Vec<_> = MIGRATIONS.iter().map(|m| m.name).collect();
    assert_eq!(migrate::apply(&world.url).await.unwrap(), names);
    let before = dump(&world.sql().await).await;
    assert!(migrate::apply(&world.url).await.unwrap().is_empty());
    assert_eq!(dump(&world.sql().await).await, before);
}

#[tokio::test]
async fn twenty_migrate_at_once() {
    let world = World::bare().await;
    let all = futures_util::future::join_all((0..20).map(|_| migrate::apply(&world.url))).await;
    let applied: usize = all.into_iter().map(|one| one.unwrap_or_else(|e| panic!("{e}")).len()).sum();
    assert_eq!(applied, MIGRATIONS.len(), "each by one of them");
    let reference = World::new().await;
    assert_eq!(dump(&world.sql().await).await, dump(&reference.sql().await).await);
}

#[tokio::test]
async fn what_is_printed_installs_the_same() {
    let (printed, applied) = (World::bare().await, World::new().await);
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["migrate", "--print"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    printed.run(&text).await;
    assert_eq!(dump(&printed.sql().await).await, dump(&applied.sql().await).await);
    let (again, sql) = (text.clone(), printed.sql().await);
    sql.batch_execute(&again).await.expect_err("a second time it stops at the first statement that is there");
}

/// `rowcast serve`, until it ends by itself.
async fn serve(url: &str) -> (Option<i32>, String) {
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_rowcast"))
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", url])
        .env_remove("ROWCAST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let output =
        tokio::time::timeout(crate::support::PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_schema_it_does_not_know_stops_the_gateway_with_a_reason() {
    let world = World::bare().await;
    let (code, says) = serve(&world.url).await;
    assert_eq!(code, Some(3), "{says}");
    assert!(
        says.contains(&format!(
            "the schema `rowcast` is missing in database `{}`: run `rowcast migrate`",
            world.database
        )),
        "{says}"
    );

    migrate::apply(&world.url).await.unwrap();
    let last = MIGRATIONS.last().unwrap();
    world.run(&format!("delete from rowcast.migration where id = {}", last.id)).await;
    let (code, says) = serve(&world.url).await;
    assert_eq!(code, Some(3), "{says}");
    assert!(says.contains(&format!("migrations are missing: {}: run `rowcast migrate`", last.name)), "{says}");

    world.run(&format!("insert into rowcast.migration (id, name) values ({}, '{}')", last.id, last.name)).await;
    world.run("insert into rowcast.migration (id, name, breaking) values (9998, 'harmless', false)").await;
    let gateway = world.gateway().await;
    gateway.stop().await;
    assert!(migrate::apply(&world.url).await.unwrap().is_empty());

    world.run("insert into rowcast.migration (id, name, breaking) values (9999, 'another_log', true)").await;
    let (code, says) = serve(&world.url).await;
    assert_eq!(code, Some(3), "{says}");
    assert!(says.contains("migrated by a newer rowcast (another_log): upgrade this program"), "{says}");
    assert!(migrate::apply(&world.url).await.unwrap_err().to_string().contains("another_log"));
}

/// The url of a database for another login.
fn login(world: &World, name: &str) -> String {
    let (_, rest) = world.url.split_once('@').unwrap();
    format!("postgres://{name}:secret@{rest}")
}

#[tokio::test]
async fn a_dba_without_superuser_installs_and_a_plain_login_serves() {
    let world = World::bare().await;
    let (dba, app, gate) =
        (format!("dba_{}", world.database), format!("app_{}", world.database), format!("gate_{}", world.database));
    world
        .run(&format!(
            "create role {dba} login createrole password 'secret'; create role {app} login password 'secret'; create role {gate} login password 'secret';
             grant create on database {0} to {dba}, {app}",
            world.database
        ))
        .await;
    let sql = world.sql().await;
    let version: i32 = sql.query_one("select current_setting('server_version_num')::int", &[]).await.unwrap().get(0);
    let roles: i64 =
        sql.query_one("select count(*) from pg_roles where rolname = 'rowcast_owner'", &[]).await.unwrap().get(0);
    if version >= 160_000 && roles == 1 {
        // from 16 on CREATEROLE alone gives no right on roles that somebody else made
        sql.batch_execute(&format!(
            "grant rowcast_owner to {dba}; grant rowcast_admin, rowcast_gateway to {dba} with admin option"
        ))
        .await
        .unwrap();
    }
    migrate::apply(&login(&world, &dba)).await.unwrap_or_else(|e| panic!("{e}"));
    let dba_sql = connect(&login(&world, &dba)).await;
    dba_sql.batch_execute(&format!("grant rowcast_gateway to {gate}; grant rowcast_admin to {app}")).await.unwrap();

    let app_sql = connect(&login(&world, &app)).await;
    app_sql
        .batch_execute(
            "create schema app; create table app.t (id int primary key, n int); insert into app.t values (1, 1);
             select rowcast.watch('app.t', public => true)",
        )
        .await
        .unwrap();
    let (url, member) = (login(&world, &gate), connect(&login(&world, &gate)).await);
    let gateway = world.gateway_with(|settings| settings.database_url = url).await;
    let mut sse = Sse::open(gateway.address, "table=app.t").await;
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("the row", |r| r.row("1").is_some()).await;
    for n in 2..5 {
        app_sql.batch_execute(&format!("update app.t set n = {n}; insert into app.t values ({n}, 0)")).await.unwrap();
        client.until("the change", |r| r.row("1").unwrap()["n"] == n && r.rows("1").len() == n).await;
    }
    app_sql.batch_execute("truncate app.t").await.unwrap();
    client.until("the reset", |r| r.rows("1").is_empty()).await;
    member.batch_execute("select rowcast.rotate('1 h'); select * from rowcast.status()").await.unwrap();
    for statement in [
        "update app.t set n = 0",
        "insert into rowcast.log_0 (version, relid, op) values (1, 1, 'r')",
        "delete from rowcast.tick",
        "select rowcast.watch('app.t')",
        "select setval('rowcast.version', 2)",
        "update rowcast.source set public = true",
    ] {
        let error = member.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().unwrap().code(), "42501", "{statement}: {error:?}");
    }
    assert_eq!(gateway.readyz().await["ready"], true);
    gateway.stop().await;
}

/// Functions without a pinned search_path, each with its reason.
const UNPINNED: &[(&str, &str)] = &[
    ("stamp", "fires per row, and the setting doubles its cost: every name in it is qualified"),
    ("spans", "must be inlined: parsed when it was made (begin atomic), so nothing is looked up"),
    ("leader_lock", "a constant, parsed when it was made"),
    ("lock", "fires per row that names a version: every name in it is qualified"),
    ("fits_", "must be inlined and planned once a session: every name in it is qualified"),
    ("capture_", "fires per statement: every name in it is qualified"),
];

#[tokio::test]
async fn everything_is_commented_and_nothing_is_public() {
    let world = World::new().await;
    world.run("create table t (id int primary key, n int); select rowcast.watch('t', public => true)").await;
    let sql = world.sql().await;
    let list = async |query: &str| -> Vec<String> {
        sql.query(query, &[]).await.unwrap_or_else(|e| panic!("{query}: {e:?}")).iter().map(|r| r.get(0)).collect()
    };
    let uncommented = list(
        "select 'table ' || c.relname from pg_class c where relnamespace = 'rowcast'::regnamespace and relkind in ('r', 'S', 'v')
           and obj_description(oid, 'pg_class') is null and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('i', 'a') and relkind = 'S')
         union all select 'column ' || relname || '.' || attname from pg_class c join pg_attribute a on a.attrelid = c.oid
           where relnamespace = 'rowcast'::regnamespace and relkind = 'r' and attnum > 0 and not attisdropped and col_description(c.oid, attnum) is null
         union all select 'function ' || oid::regprocedure from pg_proc where pronamespace = 'rowcast'::regnamespace and obj_description(oid, 'pg_proc') is null
         union all select 'column t.row_version' from pg_attribute where attrelid = 't'::regclass and attname = 'row_version' and col_description(attrelid, attnum) is null
         union all select 'schema' from pg_namespace where nspname = 'rowcast' and obj_description(oid, 'pg_namespace') is null",
    )
    .await;
    assert!(uncommented.is_empty(), "{uncommented:#?}");
    let public = list(
        "select 'table ' || relname from pg_class c, aclexplode(coalesce(relacl, acldefault((case relkind when 'S' then 's' else 'r' end)::\"char\", relowner))) a
           where relnamespace = 'rowcast'::regnamespace and grantee = 0
         union all select 'function ' || p.oid::regprocedure from pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a
           where pronamespace = 'rowcast'::regnamespace and grantee = 0
         union all select 'schema' from pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a where nspname = 'rowcast' and grantee = 0",
    )
    .await;
    assert!(public.is_empty(), "{public:#?}");
    let unpinned = list(
        "select proname::text from pg_proc where pronamespace = 'rowcast'::regnamespace
           and not exists (select from unnest(proconfig) c where c = 'search_path=pg_catalog, pg_temp')",
    )
    .await;
    let unexplained: Vec<_> =
        unpinned.iter().filter(|name| !UNPINNED.iter().any(|(known, _)| name.starts_with(known))).collect();
    assert!(unexplained.is_empty(), "{unexplained:?}");
    for (known, reason) in UNPINNED {
        assert!(
            unpinned.iter().any(|name| name.starts_with(known)),
            "`{known}` is pinned now, strike it off: {reason}"
        );
    }
}

/// What is in the database beside what Postgres itself brings.
const CATALOG: &str = "
    select string_agg(line, E'\\n' order by line) from (
      select concat_ws(' ', 'class', relnamespace::regnamespace, relname, relkind, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::\"char\", relowner))) from pg_class where relnamespace::regnamespace::text not like 'pg_toast%'
      union all select concat_ws(' ', 'column', attrelid::regclass, attname, atttypid::regtype, attacl) from pg_attribute
        where attnum > 0 and not attisdropped and attrelid >= 16384 and attrelid::regclass::text not like 'pg_toast%'
      union all select concat_ws(' ', 'function', oid::regprocedure, proacl) from pg_proc where oid >= 16384
      union all select concat_ws(' ', 'type', oid::regtype) from pg_type where oid >= 16384 and typrelid = 0 and typcategory <> 'A'
      union all select concat_ws(' ', 'trigger', tgrelid::regclass, tgname) from pg_trigger
      union all select concat_ws(' ', 'schema', nspname, nspacl) from pg_namespace where nspname not like 'pg_t%'
      union all select concat_ws(' ', 'role', rolname) from pg_roles
      union all select concat_ws(' ', 'member', roleid::regrole, member::regrole) from pg_auth_members
      union all select concat_ws(' ', 'default acl', defaclrole, defaclacl) from pg_default_acl
      union all select concat_ws(' ', 'depends', classid::regclass, refobjid::regrole) from pg_shdepend where refclassid = 'pg_authid'::regclass
      union all select concat_ws(' ', 'comment', classoid::regclass, description) from pg_description where objoid >= 16384
      union all select concat_ws(' ', 'event trigger', evtname) from pg_event_trigger
      union all select concat_ws(' ', 'setting', setdatabase, setconfig) from pg_db_role_setting
    ) as l (line)";

/// On a server of its own, 3 s: the roles belong to the cluster.
#[tokio::test]
async fn uninstalling_leaves_nothing() {
    let server = LocalPg::start(postgres::options(&[], false)).await.unwrap_or_else(|e| panic!("{e}"));
    let world = World::on(&|database| server.url(database)).await;
    world
        .run(
            "create schema app; create role writer; grant usage on schema app to writer;
             create table app.t (id int primary key, n int); grant insert on app.t to writer;
             create table app.\"Odd Name\" (\"Id\" int primary key);
             create table app.p (id int primary key, n int) partition by range (id);
             create table app.p1 partition of app.p for values from (0) to (100);
             create table app.p2 partition of app.p for values from (100) to (200);
             create table app.gone (id int primary key); create table app.written (id serial primary key);
             create table app.own (id int primary key, row_version int)",
        )
        .await;
    let sql = world.sql().await;
    let catalog = async || -> String { sql.query_one(CATALOG, &[]).await.unwrap().get(0) };
    let before = catalog().await;
    migrate::apply(&world.url).await.unwrap();
    world
        .run(
            "select rowcast.watch('app.t', public => true), rowcast.watch('app.\"Odd Name\"'), rowcast.watch('app.p'), rowcast.watch('app.gone'), rowcast.watch('app.written', public => true);
             select rowcast.allow('app.written', 'anon', write => true);
             insert into app.t values (1, 1); insert into app.p values (1, 1), (101, 1); insert into app.gone values (1);
             alter table app.p detach partition app.p2; select rowcast.unwatch('app.gone')",
        )
        .await;
    let gateway = world.gateway().await;
    eventually("a change was read", || async { gateway.gateway().core().hub.position().is_some() }).await;
    gateway.stop().await;
    assert_ne!(catalog().await, before);
    world.run("alter table app.p attach partition app.p2 for values from (100) to (200)").await;
    sql.batch_execute(&format!("begin; {}; commit", migrate::UNINSTALL)).await.unwrap();
    let after = catalog().await;
    let (was, is): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let (lost, left): (Vec<_>, Vec<_>) =
        (was.iter().filter(|l| !is.contains(l)).collect(), is.iter().filter(|l| !was.contains(l)).collect());
    assert!(lost.is_empty() && left.is_empty(), "lost {lost:#?}, left {left:#?}");
    // the tables work as before, and all of it can be installed again
    world
        .run("insert into app.t values (2, 2); insert into app.p2 values (102, 1); insert into app.own values (1, 1)")
        .await;
    migrate::apply(&world.url).await.unwrap();
    world.run("select rowcast.watch('app.t'); update app.t set n = 3").await;
    server.stop().await.unwrap();
}
