//! Traps 32 to 34: values, settings and names that do not survive a careless trigger.

use crate::support::mirror::encoded;
use crate::support::{Mirror, Sse, World};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

const VALUES: &str =
    "create table v (id int primary key, j json, b jsonb, t text, f float8, r real, d numeric, l bigint, y bytea);
    select rowcast.watch('v', public => true)";

/// What Postgres writes for each, byte for byte.
const EXACT: &[(&str, &str, &str)] = &[
    ("j", r#"'{"a": "\u0000",  "b":1.0e3}'"#, r#"{"a": "\u0000",  "b":1.0e3}"#),
    ("j", r#"'{"k":1,"k":2}'"#, r#"{"k":1,"k":2}"#),
    ("b", r#"'[1.10, 9007199254740993, "\ud83d\ude00"]'"#, "[1.10, 9007199254740993, \"\u{1f600}\"]"),
    ("t", "E'\\u2028 \\t\\n\\\"\\\\ </script>'", "\"\u{2028} \\t\\n\\\"\\\\ </script>\""),
    ("t", "''", "\"\""),
    ("f", "'NaN'", "\"NaN\""),
    ("f", "'-Infinity'", "\"-Infinity\""),
    ("f", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
    ("f", "'-0'", "-0"),
    ("f", "1e308", "1e+308"),
    ("r", "'Infinity'", "\"Infinity\""),
    ("r", "1.1", "1.1"),
    ("d", "1.10", "1.10"),
    ("d", "'NaN'", "\"NaN\""),
    ("d", "12345678901234567890123456789.012345678900", "12345678901234567890123456789.012345678900"),
    ("l", "9007199254740993", "9007199254740993"),
    ("l", "-9223372036854775808", "-9223372036854775808"),
    ("y", r"'\x00ff5c22'", r#""\\x00ff5c22""#),
];

#[tokio::test]
async fn trap_32_values_arrive_as_they_are() {
    let world = World::new().await;
    world.run(VALUES).await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["v"]).await;
    let sql = world.sql().await;
    sql.batch_execute("insert into v select g from generate_series(0, 30) g").await.unwrap();
    for (i, (column, value, _)) in EXACT.iter().enumerate() {
        sql.batch_execute(&format!("update v set {column} = {value} where id = {i}"))
            .await
            .unwrap_or_else(|e| panic!("{value}: {e:?}"));
    }
    mirror.caught_up().await;
    // a client of a gateway that has no changes to tell reads the same from a snapshot
    let other = world.gateway().await;
    let mut fresh = Mirror::of(&world, &other, &["v"]).await;
    fresh.caught_up().await;
    let (told, read) = (mirror.raw("1"), fresh.raw("1"));
    for (i, (column, value, wire)) in EXACT.iter().enumerate() {
        let expected = format!("\"{column}\":{wire}");
        let ((_, changes), (snapshots, _)) = (told.of(&i.to_string()), read.of(&i.to_string()));
        let (change, snapshot) = (changes.last().expect("told"), snapshots.last().expect("read"));
        assert!(change.contains(&expected), "{value}: {change}");
        assert_eq!(change, snapshot, "{value}: stream and snapshot");
    }
    sql.batch_execute("delete from v").await.unwrap();
    mirror.settled().await;
    gateway.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn trap_32_wide_numbers_as_strings_keep_every_digit() {
    let world = World::new().await;
    world.run(VALUES).await;
    world.run("insert into v (id, d, l) values (1, 1.10, 9007199254740993), (2, 'NaN', null)").await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "table=v&numbers=string&select=id,d,l").await;
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("the rows", |r| r.rows("1").len() == 2).await;
    assert_eq!(*client.replica().row("1").unwrap(), serde_json::json!({"id": 1, "d": "1.10", "l": "9007199254740993"}));
    assert_eq!(*client.replica().row("2").unwrap(), serde_json::json!({"id": 2, "d": "NaN", "l": null}));
    world.run("update v set l = l + 2, d = d + 0.000").await;
    client.until("the change", |r| r.row("1").unwrap()["l"] == "9007199254740995").await;
    assert_eq!(client.replica().row("1").unwrap()["d"], "1.100");
    gateway.stop().await;
}

/// Takes 15 s: 300 MB pass through Postgres twice and through the gateway once.
#[tokio::test]
async fn trap_32_a_text_of_300_mb() {
    let world = World::new().await;
    world.run(VALUES).await;
    let gateway = world
        .gateway_with(|settings| {
            settings.batch_bytes = 1 << 30;
            settings.snapshot_max_bytes = 1 << 30;
        })
        .await;
    let mut sse = Sse::open(gateway.address, "table=v").await;
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("an empty table", |r| r.snapshots == 1).await;
    let sql = world.sql().await;
    sql.batch_execute("insert into v (id, t) values (1, repeat('0123456789abcdefghijklmnopqrst', 10000000))")
        .await
        .unwrap();
    let row = sql.query_one("select encode(sha256(t::bytea), 'hex') from v", &[]).await.unwrap();
    let event = loop {
        let event = sse.event().await.unwrap();
        if event.data.contains("\"changes\"") || event.data.contains("\"rows\":[{") {
            break event;
        }
        // a snapshot in between, or a heartbeat
        assert!(event.data.len() < 1000, "{}", &event.data[..1000]);
    };
    sse.events.clear();
    #[derive(serde::Deserialize)]
    struct Message<'a> {
        #[serde(borrow)]
        changes: Vec<Change<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Change<'a> {
        #[serde(borrow)]
        row: Row<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        t: &'a RawValue,
    }
    let message: Message<'_> = serde_json::from_str(&event.data).unwrap();
    let text = message.changes[0].row.t.get().trim_matches('"');
    assert_eq!(text.len(), 300_000_000);
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hash, row.get::<_, String>(0));
    gateway.stop().await;
}

/// Settings of writers that shape text.
const SETTINGS: &[&str] = &[
    "",
    "set timezone = 'Asia/Kolkata'",
    "set timezone = 'America/St_Johns'",
    "set datestyle = 'German, DMY'",
    "set datestyle = 'SQL, MDY'; set intervalstyle = 'postgres_verbose'",
    "set intervalstyle = 'sql_standard'",
    "set bytea_output = 'escape'",
    "set extra_float_digits = -15",
    "set extra_float_digits = 3; set bytea_output = 'escape'; set intervalstyle = 'postgres'; set timezone = 'Asia/Tokyo'",
    "set lc_monetary = 'C.utf8'; set lc_numeric = 'C.utf8'",
    "set standard_conforming_strings = off; set quote_all_identifiers = on; set xmlbinary = hex; set array_nulls = off",
    "set client_encoding = 'latin1'",
    "set session_replication_role = replica",
];

#[tokio::test]
async fn trap_33_settings_of_the_writer_change_nothing_on_the_wire() {
    let world = World::new().await;
    world
        .run(
            "create table w (at timestamptz, span interval, raw bytea, d date, t time, f float8, r real, m money, a timestamptz[],
               rng tstzrange, n int, primary key (at, span, raw));
             select rowcast.watch('w', public => true)",
        )
        .await;
    // what the database sets as defaults must not shape what the gateway reads, either
    world
        .run(&format!(
            "alter database {0} set timezone = 'Asia/Tokyo'; alter database {0} set datestyle = 'German, DMY';
             alter database {0} set intervalstyle = 'sql_standard'; alter database {0} set bytea_output = 'escape';
             alter database {0} set extra_float_digits = -10",
            world.database
        ))
        .await;
    let gateway = world.gateway().await;
    let mut mirror = Mirror::of(&world, &gateway, &["w"]).await;
    for settings in SETTINGS {
        let sql = world.sql().await;
        sql.batch_execute(settings).await.unwrap();
        let write =
            async |statement: &str| sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{settings}: {e:?}"));
        write(
            "insert into w values ('2026-11-21T20:12:17.265000Z', interval 'P1Y2M3DT4H5M6.700S', decode('00ff5c', 'hex'), date '2026-11-03', time '01:02:03.4',
               0.1::float8 + 0.2::float8, 1.1, 1234.5::numeric::money, array[timestamptz '2026-01-01T00:00:00Z', null],
               tstzrange('2026-01-01T00:00:00Z', null), 0)",
        )
        .await;
        // the same key: paired with the row before, not told as one deleted and another inserted
        write("update w set n = n + 1").await;
        write("delete from w").await;
    }
    mirror.settled().await;
    world.run("insert into w select '2026-11-21T20:12:17.265000Z', interval 'P1Y2M3DT4H5M6.700S', decode('00ff5c', 'hex'), date '2026-11-03', time '01:02:03.4',
               0.1::float8 + 0.2::float8, 1.1, 1234.5::numeric::money, array[timestamptz '2026-01-01T00:00:00Z', null],
               tstzrange('2026-01-01T00:00:00Z', null), 0").await;
    mirror.settled().await;
    let other = world.gateway().await;
    let mut fresh = Mirror::of(&world, &other, &["w"]).await;
    fresh.caught_up().await;

    let mut log = mirror.log("w").await;
    assert_eq!(log.remove(0).0, "r", "of watch itself");
    let keys: std::collections::BTreeSet<_> = log.iter().map(|(_, key, _)| key.as_deref()).collect();
    assert_eq!(keys.len(), 1, "one key text whoever wrote it: {keys:?}");
    let ops: String = log.iter().map(|(op, _, _)| op.as_str()).collect();
    assert_eq!(ops, "iud".repeat(SETTINGS.len()) + "i");

    // every image, but for its counter and version
    let sql = world.sql().await;
    let images = "select distinct regexp_replace(image::text, ',\"n\":.*', '') from rowcast.log_0 as l, unnest(array[old, new]) as image
        where image is not null and relid = 'w'::regclass";
    let images: Vec<String> = sql.query(images, &[]).await.unwrap().iter().map(|r| r.get(0)).collect();
    let expected = concat!(
        r#"{"at":"2026-11-21T20:12:17.265+00:00","span":"P1Y2M3DT4H5M6.7S","raw":"\\x00ff5c","d":"2026-11-03","t":"01:02:03.4","#,
        r#""f":0.30000000000000004,"r":1.1,"m":"1234.50","a":["2026-01-01T00:00:00+00:00",null],"#,
        r#""rng":"[\"2026-01-01 00:00:00+00\",)""#
    );
    assert_eq!(images.len(), 1, "{images:#?}");
    assert_eq!(images[0].replace("\"m\":\"$1,234.50\"", "\"m\":\"1234.50\""), expected);
    // and the snapshot of who comes later
    let raw = fresh.raw("1");
    assert!(raw.snapshots[0].1.starts_with(&images[0]), "{raw:?}");
    gateway.stop().await;
    other.stop().await;
}

/// Tables with odd names: what `create table` and SQL need, and which key.
const ODD: &[(&str, &str)] = &[
    // every word that the generated functions use
    (
        "words",
        "n int, o int, key int, xid int, old int, \"new\" int, rowcast_old int, rowcast_new int, rowcast_key int, rowcast_image int,
         rowcast_some int, v_slot int, v_rows int, v_again int, v_set int, d int, r int, t int, j int, k int, version int, op int, relid int,
         logged int, removal int, tg_op int, tg_relid int, id int, \"row\" int, \"select\" int, found int, rows int, \"exact\" int,
         primary key (key, old, rowcast_new)",
    ),
    ("alias", "t int, rowcast_t int, alias int, primary key (alias, t)"),
    ("\"Upper Case\"", "\"Id\" int, \"N\" int, primary key (\"Id\")"),
    ("\"quote\"\"d 'n' d\u{fc}n\"", "\"i\"\"d\" int primary key, n text default 'it''s'"),
    ("\"100% %s %1$I $1 $capture$ {0}\"", "\"%1$s\" int, \"%I\" int, n int, primary key (\"%1$s\", \"%I\")"),
    ("\"schema.table\"", "\"a.b\" int primary key, \"c,d\" int, \"e=f&g\" int"),
    ("\"semi;colon--\"", "\"\\\" int primary key, \"/*\" int, \"a\tb\" int"),
    // 63 bytes, the longest there is
    (
        "\"a23456789b123456789c123456789d123456789e123456789f123456789g1\u{fc}\"",
        "\"k23456789b123456789c123456789d123456789e123456789f123456789g123\" int primary key, n int",
    ),
];

#[tokio::test]
async fn trap_34_odd_names() {
    let world = World::new().await;
    let sql = world.sql().await;
    for (table, columns) in ODD {
        sql.batch_execute(&format!("create table {table} ({columns})")).await.unwrap();
        sql.execute("select rowcast.watch($1::text::regclass, public => true)", &[table])
            .await
            .unwrap_or_else(|e| panic!("{table}: {e:?}"));
    }
    let gateway = world.gateway().await;
    let names: Vec<&str> = ODD.iter().map(|(name, _)| *name).collect();
    let mut mirror = Mirror::of(&world, &gateway, &names).await;
    for (table, _) in ODD {
        let columns = "select array_agg(quote_ident(attname) order by attnum) filter (where atttypid = 'int'::regtype),
            array_agg(quote_ident(attname) order by attnum) filter (where attnum = any (i.indkey))
            from pg_attribute a join pg_index i on i.indrelid = a.attrelid and i.indisprimary where attrelid = $1::text::regclass and attnum > 0";
        let row = sql.query_one(columns, &[table]).await.unwrap();
        let (ints, key): (Vec<String>, Vec<String>) = (row.get(0), row.get(1));
        let (all, last) = (ints.join(", "), ints.last().unwrap());
        let values = vec!["g"; ints.len()].join(", ");
        for statement in [
            format!("insert into {table} ({all}) select {values} from generate_series(1, 9) g"),
            format!("update {table} set {last} = {last} + 100 where {} < 5", key[0]),
            format!("update {table} set {} = {} + 1000", key[0], key[0]),
            format!("delete from {table} where {} > 1005", key[0]),
            // versions are drawn in between, so that the guard against the race stamps every row anew, by its key
            format!(
                "begin isolation level repeatable read; insert into {table} ({all}) select {values} from \
                 (select g + 0 * nextval('rowcast.version')::int as g from generate_series(1, 3) g) g; commit"
            ),
        ] {
            sql.batch_execute(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
            mirror.settled().await;
        }
        let log = mirror.log(table).await;
        assert!(log.iter().skip(1).all(|(op, _, _)| op != "r"), "no reload but that of watch itself: {table}: {log:?}");
        assert!(log.iter().rev().take(3).all(|(op, _, _)| op == "u"), "{table}: stamped anew: {log:?}");
    }
    assert!(mirror.sse.replica.resets.is_empty(), "{:?}", mirror.sse.replica.resets);
    gateway.stop().await;
}

#[tokio::test]
async fn trap_34_odd_schemas_columns_and_filters() {
    let world = World::new().await;
    world
        .run(
            "create schema \"Odd.Schema, \"\"q\"\" %s\";
             create table \"Odd.Schema, \"\"q\"\" %s\".\"T t\" (\"K \"\"k\"\" %\" text primary key, \"a.b\" int, hidden int, \"%s\" int);
             select rowcast.watch('\"Odd.Schema, \"\"q\"\" %s\".\"T t\"', exclude => array['hidden'], public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let name = encoded("Odd.Schema, \"q\" %s.T t");
    let mut sse = Sse::open(gateway.address, &format!("table={name}&{}=eq.1", encoded("\"a.b\""))).await;
    let client: &mut dyn crate::support::Client = &mut sse;
    let sql = world.sql().await;
    sql.batch_execute("set search_path = \"Odd.Schema, \"\"q\"\" %s\"").await.unwrap();
    sql.batch_execute("insert into \"T t\" values ('x,%2C/ä', 1, 2, 3), ('y', 2, 2, 3)").await.unwrap();
    client.until("the row", |r| r.row("x%2C%252C%2F%C3%A4").is_some()).await;
    let row = client.replica().rows("1").remove(0);
    assert_eq!(row["%s"], 3);
    assert!(row.get("hidden").is_none() && client.replica().rows("1").len() == 1, "{row}");
    sql.batch_execute("update \"T t\" set \"a.b\" = 2, hidden = 4").await.unwrap();
    client.until("it left the filter", |r| r.rows("1").is_empty()).await;
    assert!(sse.replica.resets.is_empty());
    assert!(sse.events.iter().all(|e| !e.data.contains("hidden")));
    gateway.stop().await;
}
