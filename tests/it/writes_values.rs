//! Values exact in both directions: what is sent is what is stored, digit for digit, and what is stored is what is sent
//! back.

use crate::support::Writing;

#[tokio::test]
async fn every_type_keeps_its_value() {
    let w = Writing::new(
        "create type mood as enum ('sad', 'ok', 'it''s \"fine\"'); create domain score as int check (value >= 0);
         create domain label as varchar(5) not null; create type pair as (a int, b text);
         create table v (id bigint primary key, num numeric, small numeric(10, 2), f float8, r real, t text, c char(4), vc varchar(3), ts timestamptz, tz timestamp,
           d date, i interval, b bytea, u uuid, bo boolean, j json, jb jsonb, a int[], ta text[], m mood, s score, ip inet, bi bit(3), p pair, rg int4range, ma mood[], x xml, \"Odd \"\"n\" int);
         select rowcast.watch('v', public => true); select rowcast.allow('v', 'anon', write => true)",
    )
    .await;
    w.json("POST", "/v1/tables/v", &[], r#"{"id": 9007199254740993}"#).await.ok(201);
    let path = "/v1/tables/v/9007199254740993";
    let digits = format!("{}.{}", "7".repeat(600), "3".repeat(400));
    let number = format!("-{digits}");
    // column, sent, as it is sent back (empty: the same), as SQL sees it
    for (column, sent, back, sql) in [
        ("num", "9007199254740993", "", "num = 9007199254740993"),
        ("num", number.as_str(), "", &format!("num = -{digits}")),
        ("num", "\"NaN\"", "", "num = 'NaN'"),
        ("num", "\"Infinity\"", "", "num = 'Infinity'"),
        ("num", "1e-20", "0.00000000000000000001", "num = 1e-20"),
        ("num", "12.500", "", "num::text = '12.500'"),
        ("small", "1.005", "1.01", "small = 1.01"),
        ("f", "\"-Infinity\"", "", "f = '-Infinity'"),
        ("f", "\"NaN\"", "", "f = 'NaN'"),
        ("f", "0.1", "", "f = 0.1::float8"),
        ("f", "5e-324", "", "f = 5e-324"),
        ("r", "3.4e38", "3.4e+38", "r = 3.4e38::real"),
        (
            "t",
            r#""ä\u20ac\ud83d\ude00\n\\x'; drop table v --""#,
            r#""ä€😀\n\\x'; drop table v --""#,
            r"t = E'ä€😀\n\\x''; drop table v --'",
        ),
        ("t", "null", "", "t is null"),
        ("c", "\"ab\"", "\"ab  \"", "c = 'ab'"),
        ("vc", "\"abc\"", "", "vc = 'abc'"),
        (
            "ts",
            "\"2026-11-21T20:12:17.265431+01:00\"",
            "\"2026-11-21T19:12:17.265431+00:00\"",
            "ts = '2026-11-21 19:12:17.265431+00'",
        ),
        ("ts", "\"infinity\"", "", "ts = 'infinity'"),
        ("tz", "\"2026-11-21T20:12:17\"", "", "tz = '2026-11-21 20:12:17'"),
        ("d", "\"2026-02-28\"", "", "d = '2026-02-28'"),
        ("i", "\"P1Y2M3DT4H5M6.7S\"", "", "i = '1 year 2 mons 3 days 04:05:06.7'"),
        ("b", r#""\\x00ff10""#, "", r"b = '\x00ff10'"),
        (
            "u",
            "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
            "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
            "u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        ),
        ("bo", "true", "", "bo"),
        (
            "j",
            r#"{"b":1,"a":[1.10,12345678901234567890.5]}"#,
            "",
            "j::text = '{\"b\":1,\"a\":[1.10,12345678901234567890.5]}'",
        ),
        ("jb", "[9007199254740993, 1.10]", "", "jb = '[9007199254740993, 1.10]'"),
        ("jb", "\"text\"", "", "jb = '\"text\"'"),
        ("a", "[1,null,3]", "", "a = '{1,null,3}'"),
        ("a", "[[1,2],[3,4]]", "", "a = '{{1,2},{3,4}}'"),
        ("a", "[]", "", "a = '{}'"),
        ("ta", r#"["a,b","\"q\"",null,"NULL"]"#, "", "ta = array['a,b', '\"q\"', null, 'NULL']"),
        ("m", r#""it's \"fine\"""#, "", "m = 'it''s \"fine\"'"),
        ("s", "5", "", "s = 5"),
        ("ip", "\"10.0.0.1\"", "", "ip = '10.0.0.1'"),
        ("bi", "\"101\"", "", "bi = B'101'"),
        ("p", r#"{"a":1,"b":"x"}"#, "", "p = row(1, 'x')::pair"),
        ("rg", "\"[1,5)\"", "", "rg = '[1,5)'"),
        ("ma", r#"["sad","ok"]"#, "", "ma = '{sad,ok}'"),
        ("x", "\"<a>1</a>\"", "", "x::text = '<a>1</a>'"),
        (r#"Odd \"n"#, "3", "", "\"Odd \"\"n\" = 3"),
    ] {
        let answer = w.patch(path, "*", &format!("{{\"{column}\":{sent}}}")).await;
        let body = answer.ok(200);
        let wanted = format!("\"{column}\":{}", if back.is_empty() { sent } else { back });
        assert!(body.contains(&wanted), "{column}: {wanted:.200} not in {body:.3000}");
        assert_eq!(w.text(&format!("select ({sql}) from v")).await, "true", "{column} {sent:.80}");
    }
    // a row goes back as it was read
    let row = w.patch(path, "*", "{}").await;
    let sent = row.ok(200).to_owned();
    let back = w.json("PUT", path, &[("if-match", row.header("etag").unwrap())], &sent).await;
    let strip = |text: &str| text.split(",\"row_version\":").next().unwrap().to_owned();
    assert_eq!(strip(back.ok(200)), strip(&sent));
    // and what does not fit is said to be so
    for (column, sent, code) in [
        ("id", "1.5", "invalid-value"),
        ("f", "1e400", "invalid-value"),
        ("small", "123456789.5", "invalid-value"),
        ("vc", "\"abcd\"", "invalid-value"),
        ("s", "-1", "constraint-violation"),
        ("m", "\"happy\"", "invalid-value"),
        ("ts", "\"soonish\"", "invalid-value"),
        ("a", "{}", "invalid-value"),
        ("a", "[[1],[2,3]]", "invalid-value"),
        ("bi", "\"1011\"", "invalid-value"),
        ("u", "\"x\"", "invalid-value"),
        ("bo", "\"perhaps\"", "invalid-value"),
        ("x", "\"<a>\"", "invalid-value"),
    ] {
        let problem = w.patch(path, "*", &format!("{{\"{column}\":{sent}}}")).await.refused(422, code);
        assert!(problem["sqlstate"].is_string(), "{problem}");
    }
    w.gateway.stop().await;
}

#[tokio::test]
async fn defaults_identity_and_generated_columns_do_what_they_do_in_sql() {
    let w = Writing::new(
        "create domain needed as text not null;
         create table t (id int generated always as identity primary key, n int default 7, s serial, at timestamptz default now(), double int generated always as (n * 2) stored,
           w needed default 'w', secret text default 'canary');
         select rowcast.watch('t', exclude => array['secret'], public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let row = w.json("POST", "/v1/tables/t", &[], "{}").await;
    row.ok(201);
    let row = row.value();
    assert_eq!(
        (&row["id"], &row["n"], &row["s"], &row["double"], &row["w"]),
        (&1.into(), &7.into(), &1.into(), &14.into(), &"w".into())
    );
    assert!(row["at"].is_string() && row.get("secret").is_none());
    // given is given, also null
    assert!(w.json("POST", "/v1/tables/t", &[], r#"{"n": null}"#).await.value()["n"].is_null());
    for body in [r#"{"id": 5}"#, r#"{"double": 5}"#] {
        assert_eq!(w.json("POST", "/v1/tables/t", &[], body).await.refused(422, "invalid-value")["sqlstate"], "428C9");
    }
    w.patch("/v1/tables/t/1", "*", r#"{"double": 14}"#).await.refused(422, "invalid-value");
    w.patch("/v1/tables/t/1", "*", r#"{"w": null}"#).await.refused(422, "constraint-violation");
    // a replacement: defaults for what is not given, and what is not published stays
    w.world.run("update t set secret = 'kept', n = 1 where id = 1").await;
    let row = w.json("PUT", "/v1/tables/t/1", &[("if-match", "*")], r#"{"s": 40}"#).await;
    row.ok(200);
    assert_eq!((&row.value()["n"], &row.value()["double"], &row.value()["s"]), (&7.into(), &14.into(), &40.into()));
    assert_eq!(w.text("select secret from t where id = 1").await, "kept");
    w.gateway.stop().await;
}

#[tokio::test]
async fn json_is_merged_and_keeps_its_digits() {
    let w = Writing::new(
        "create table t (id int primary key, jb jsonb, j json, n int);
         insert into t values (1, '{\"a\": {\"x\": 1.10, \"y\": 2}, \"keep\": 12345678901234567890.50}', '{\"z\":1e2,\"a\":{\"b\":[1,2]}}', 1), (2, null, '[1]', 1);
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    w.patch(
        "/v1/tables/t/1",
        "*",
        r#"{"jb": {"a": {"y": null, "w": 9007199254740993}, "new": [null]}, "j": {"a": {"c": {"d": null}}}}"#,
    )
    .await
    .ok(200);
    assert_eq!(
        w.text("select jb from t where id = 1").await,
        r#"{"a": {"w": 9007199254740993, "x": 1.10}, "new": [null], "keep": 12345678901234567890.50}"#
    );
    assert_eq!(w.text("select j from t where id = 1").await, r#"{"z":1e2,"a":{"b":[1,2],"c":{}}}"#);
    // into nothing, into no object, and null removes the value itself
    w.patch("/v1/tables/t/2", "*", r#"{"jb": {"a": null, "b": 1}, "j": {"c": 1}}"#).await.ok(200);
    assert_eq!(w.text("select concat_ws(' ', jb, j) from t where id = 2").await, r#"{"b": 1} {"c":1}"#);
    w.patch("/v1/tables/t/2", "*", r#"{"jb": null, "j": [1]}"#).await.ok(200);
    assert_eq!(w.text("select concat_ws(' ', coalesce(jb::text, 'none'), j) from t where id = 2").await, "none [1]");
    // PUT replaces
    w.json("PUT", "/v1/tables/t/1", &[("if-match", "*")], r#"{"jb": {"only": 1}}"#).await.ok(200);
    assert_eq!(w.text("select jb from t where id = 1").await, r#"{"only": 1}"#);

    // two patches of one object at once: both stay
    w.world.run("update t set jb = '{}' where id = 1").await;
    let patches = (0..20).map(|i| {
        let w = &w;
        async move { w.patch("/v1/tables/t/1", "*", &format!("{{\"jb\":{{\"k{i}\":{i}}}}}")).await.ok(200).len() }
    });
    futures_util::future::join_all(patches).await;
    assert_eq!(w.text("select count(*) from t, jsonb_object_keys(jb) where id = 1").await, "20");
    w.gateway.stop().await;
}
