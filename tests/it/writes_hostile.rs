//! Hostile writes: the right refusal, nothing written, nothing told. The numbers are those of the list of faults.

use crate::support::{Client, Proxy, Sse, TestGateway, Writing, eventually, proxy, writing};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TABLES: &str = "
    create table teams (id int primary key, hidden_name text unique);
    create table t (id int primary key, name text unique, n int check (n < 1000), big bigint, f float8, team int references teams, hidden text default 'canary');
    insert into teams values (1, 'canary'); insert into t values (1, 'canary-name', 1), (2, 'b', 2);
    select rowcast.watch('t', exclude => array['hidden'], public => true); select rowcast.allow('t', 'anon', write => true)";

const STATE: &str = "select string_agg(t::text, ' ' order by id) from t";

#[tokio::test]
async fn h9_large_and_broken_bodies() {
    let w = Writing::new(TABLES).await;
    let before = w.text(STATE).await;
    let body = |n: usize| format!("{{\"id\":9,\"name\":\"{}\"}}", "x".repeat(n - 18));
    for size in [1024 * 1024 + 1, 5 * 1024 * 1024] {
        w.json("POST", "/v1/tables/t", &[], &body(size)).await.refused(413, "payload-too-large");
    }
    // refused for something else while the body is still being sent: the answer arrives
    for _ in 0..20 {
        let large = body(1000 * 1000);
        w.json("POST", "/v1/tables/nothing", &[], &large).await.refused(404, "not-found");
        w.send("POST", "/v1/tables/t", &[], large.clone()).await.refused(415, "unsupported-media-type");
        w.json("PATCH", "/v1/tables/t/1", &[("if-match", "x")], &large).await.refused(400, "malformed-request");
    }
    // chunked, so without a length to look at
    let chunks = futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
    let request = writing::http().post(w.gateway.url("/v1/tables/t")).header("content-type", "application/json");
    let answer = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    for (what, rest, status) in [
        ("a chunk size that overflows", "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}", "400"),
        ("a chunk size that is none", "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}", "400"),
        ("a gigantic length", "Content-Length: 99999999999\r\n\r\n{}", "413"),
        ("a length that is none", "Content-Length: -1\r\n\r\n{}", "400"),
    ] {
        let answer = raw(
            &w.gateway,
            &format!("POST /v1/tables/t HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{rest}"),
        )
        .await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{what}: {answer}");
    }
    // too large for the index on the column
    w.json("POST", "/v1/tables/t", &[], &body(1024 * 1024)).await.refused(422, "invalid-value");
    assert_eq!(w.text(STATE).await, before);
    // the largest that is taken
    w.world.run("alter table t drop constraint t_name_key").await;
    w.json("POST", "/v1/tables/t", &[], &body(1024 * 1024)).await.ok(201);
    w.gateway.stop().await;
}

async fn raw(gateway: &TestGateway, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let n = tokio::time::timeout(crate::bad_input::ANSWER, socket.read(&mut answer)).await.expect("an answer").unwrap();
    String::from_utf8_lossy(&answer[..n]).into_owned()
}

#[tokio::test]
async fn h10_to_h13_types_and_methods() {
    let w = Writing::new(TABLES).await;
    let before = w.text(STATE).await;
    let json = ("content-type", "application/json");
    for (method, path, headers, status, code) in [
        ("POST", "/v1/tables/t", &[json, ("content-encoding", "gzip")][..], 415, "unsupported-media-type"),
        ("POST", "/v1/tables/t", &[json, ("content-encoding", "br")], 415, "unsupported-media-type"),
        ("POST", "/v1/batch", &[json, ("content-encoding", "deflate")], 415, "unsupported-media-type"),
        ("POST", "/v1/tables/t", &[], 415, "unsupported-media-type"),
        ("POST", "/v1/batch", &[], 415, "unsupported-media-type"),
        ("POST", "/v1/tables/t", &[("content-type", "text/plain")], 415, "unsupported-media-type"),
        ("POST", "/v1/tables/t", &[("content-type", "multipart/form-data; boundary=x")], 415, "unsupported-media-type"),
        (
            "POST",
            "/v1/tables/t",
            &[("content-type", "application/json; charset=latin1")],
            415,
            "unsupported-media-type",
        ),
        ("POST", "/v1/tables/t", &[("content-type", "application/merge-patch+json")], 415, "unsupported-media-type"),
        (
            "PUT",
            "/v1/tables/t/1",
            &[("if-match", "*"), ("content-type", "application/merge-patch+json")],
            415,
            "unsupported-media-type",
        ),
        (
            "PATCH",
            "/v1/tables/t/1",
            &[("if-match", "*"), ("content-type", "application/json-patch+json")],
            415,
            "unsupported-media-type",
        ),
        ("POST", "/v1/tables/t", &[json, ("accept", "application/xml")], 406, "not-acceptable"),
        ("DELETE", "/v1/tables/t/1", &[("if-match", "*"), ("accept", "text/html")], 406, "not-acceptable"),
        ("GET", "/v1/batch", &[], 405, "method-not-allowed"),
        ("DELETE", "/v1/tables/t", &[], 405, "method-not-allowed"),
        ("TRACE", "/v1/tables/t/1", &[], 405, "method-not-allowed"),
        ("OPTIONS", "/v1/batch", &[], 405, "method-not-allowed"),
        ("BREW", "/v1/tables/t", &[], 405, "method-not-allowed"),
    ] {
        let body = if method == "DELETE" || status == 405 { "" } else { r#"{"id":9}"# };
        let answer = w.send(method, path, headers, body).await;
        answer.refused(status, code);
        if status == 405 {
            let allow = answer.header("allow").unwrap();
            assert!(allow.contains(if path.ends_with("/1") { "PATCH, PUT, DELETE" } else { "POST" }), "{allow}");
        }
    }
    w.send("POST", "/v1/tables/t", &[json, ("accept", "text/html, application/*;q=0.1")], r#"{"id":9}"#).await.ok(201);
    w.send("DELETE", "/v1/tables/t/9", &[("if-match", "*")], "{}").await.refused(400, "malformed-request");
    w.send("DELETE", "/v1/tables/t/9", &[("if-match", "*")], "").await.ok(204);
    assert_eq!(w.text(STATE).await, before);
    w.gateway.stop().await;
}

#[tokio::test]
async fn h14_h15_bodies_without_one_meaning() {
    let w = Writing::new(TABLES).await;
    let before = w.text(STATE).await;
    let deep = format!("{{\"id\":9,\"name\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for (body, status, code) in [
        ("", 400, "malformed-request"),
        ("[]", 400, "malformed-request"),
        ("[{\"id\":9}]", 400, "malformed-request"),
        ("{\"id\":9", 400, "malformed-request"),
        ("{\"id\":9}x", 400, "malformed-request"),
        ("{\"id\":9,\"id\":10}", 400, "malformed-request"),
        ("{\"id\":9,\"\\u0069d\":10}", 400, "malformed-request"),
        (deep.as_str(), 400, "malformed-request"),
        ("{\"id\":9,\"f\":NaN}", 400, "malformed-request"),
        ("{\"id\":9,\"name\":\"\\ud800\"}", 400, "malformed-request"),
        ("\u{feff}{\"id\":9}", 400, "malformed-request"),
        ("{\"id\":9,\"name\":\"a\\u0000b\"}", 422, "invalid-value"),
        ("{\"id\":9,\"f\":1e400}", 422, "invalid-value"),
        ("{\"id\":9,\"big\":9223372036854775808}", 422, "invalid-value"),
        ("{\"id\":9,\"big\":1e999999999}", 422, "invalid-value"),
        ("{\"id\":9.5}", 422, "invalid-value"),
        ("{\"id\":{\"a\":1}}", 422, "invalid-value"),
        ("{\"id\":\"1; drop table t\"}", 422, "invalid-value"),
    ] {
        w.json("POST", "/v1/tables/t", &[], body).await.refused(status, code);
        if status == 400 {
            w.json("PATCH", "/v1/tables/t/1", &[("if-match", "*")], body).await.refused(status, code);
            w.json("POST", "/v1/batch", &[], body).await.refused(status, code);
        }
    }
    let nested = r#"{"ops":[{"op":"insert","table":"t","row":{"id":9,"id":9}}]}"#;
    w.json("POST", "/v1/batch", &[], nested).await.refused(400, "malformed-request");
    w.send("POST", "/v1/tables/t", &[("content-type", "application/json")], b"{\"id\":9,\"name\":\"\xff\"}".to_vec())
        .await
        .refused(400, "malformed-request");
    assert_eq!(w.text(STATE).await, before);
    w.json("POST", "/v1/tables/t", &[], r#"{"id":9,"big":9007199254740993}"#).await.ok(201);
    assert_eq!(w.text("select big from t where id = 9").await, "9007199254740993");
    w.gateway.stop().await;
}

#[tokio::test]
async fn h43_to_h46_versions_keys_and_columns() {
    let w = Writing::new(TABLES).await;
    let before = w.text(STATE).await;
    for key in ["", "\"\"", "a b", &"x".repeat(256), &"x".repeat(10_000)] {
        w.json("POST", "/v1/tables/t", &[("idempotency-key", key)], r#"{"id":9}"#)
            .await
            .refused(400, "malformed-request");
    }
    // whether the row exists cannot be seen, nor whether the column does
    for (body, code) in [
        (json!({"hidden": "x"}), "unknown-column"),
        (json!({"nothing": "x"}), "unknown-column"),
        (json!({"row_version": 44}), "read-only-column"),
        (json!({"row_version": null}), "read-only-column"),
        (json!({"ctid": "(0,1)"}), "unknown-column"),
        (json!({"n\", hidden = 'x' --": 1}), "unknown-column"),
    ] {
        let mut told = Vec::new();
        for (method, path) in [
            ("PATCH", "/v1/tables/t/1"),
            ("PATCH", "/v1/tables/t/99"),
            ("PUT", "/v1/tables/t/1"),
            ("PUT", "/v1/tables/t/99"),
        ] {
            let mut problem =
                w.json(method, path, &[("if-match", "\"4\"")], &body.to_string()).await.refused(422, code);
            problem["request_id"] = "".into();
            told.push(problem.to_string().replace("hidden", "nothing"));
        }
        assert!(told.windows(2).all(|p| p[0] == p[1]), "{told:#?}");
        let name = body.as_object().unwrap().keys().next().unwrap();
        w.json("POST", "/v1/tables/t", &[], &json!({"id": 9, name: body[name]}).to_string()).await.refused(422, code);
    }
    let hidden = w.json("POST", "/v1/tables/t", &[], r#"{"id":9,"hidden":1}"#).await.refused(422, "unknown-column");
    let absent = w.json("POST", "/v1/tables/t", &[], r#"{"id":9,"absent":1}"#).await.refused(422, "unknown-column");
    assert_eq!(hidden["detail"].as_str().unwrap().replace("hidden", "absent"), absent["detail"].as_str().unwrap());
    // the key
    w.patch("/v1/tables/t/1", "*", r#"{"id": 5}"#).await.refused(422, "read-only-column");
    w.patch("/v1/tables/t/99", "*", r#"{"id": 5}"#).await.refused(422, "read-only-column");
    w.patch("/v1/tables/t/1", "*", r#"{"id": null}"#).await.refused(422, "read-only-column");
    w.patch("/v1/tables/t/1", "*", r#"{"id": "x"}"#).await.refused(422, "invalid-value");
    assert_eq!(w.text(STATE).await, before);
    w.patch("/v1/tables/t/1", "*", r#"{"id": 1, "n": 5}"#).await.ok(200);
    w.patch("/v1/tables/t/1", "*", r#"{"id": "1", "n": 6}"#).await.ok(200);
    w.gateway.stop().await;
}

#[tokio::test]
async fn h48_collisions_name_nothing() {
    let w = Writing::new(TABLES).await;
    let before = w.text(STATE).await;
    w.world.run("create table child (t int references t); insert into child values (2)").await;
    for (method, path, body, state) in [
        ("POST", "/v1/tables/t", r#"{"id":9,"name":"canary-name"}"#, "23505"),
        ("POST", "/v1/tables/t", r#"{"id":1}"#, "23505"),
        ("POST", "/v1/tables/t", r#"{"id":9,"team":77}"#, "23503"),
        ("PATCH", "/v1/tables/t/2", r#"{"name":"canary-name"}"#, "23505"),
        ("PUT", "/v1/tables/t/2", r#"{"team":77}"#, "23503"),
        ("DELETE", "/v1/tables/t/2", "", "23503"),
    ] {
        let headers: &[(&str, &str)] = if method == "POST" { &[] } else { &[("if-match", "*")] };
        let problem = w.json(method, path, headers, body).await.refused(409, "conflict");
        assert_eq!(problem["sqlstate"], state);
        let text = problem.to_string().replace(problem["request_id"].as_str().unwrap(), "");
        assert!(
            ["t_name", "name", "77", "fkey", "teams", "child", "canary"].iter().all(|secret| !text.contains(secret)),
            "{text}"
        );
    }
    let problem = w.patch("/v1/tables/t/2", "*", r#"{"n": 4711}"#).await.refused(422, "constraint-violation");
    assert!(!problem.to_string().contains("4711") && !problem.to_string().contains("t_n_check"), "{problem}");
    let problem = w.patch("/v1/tables/t/2", "*", r#"{"n": "canary-value"}"#).await.refused(422, "invalid-value");
    assert!(!problem.to_string().contains("canary"), "{problem}");
    assert_eq!(w.text(STATE).await, before);
    w.gateway.stop().await;
}

#[tokio::test]
async fn h53_whatever_the_database_says() {
    let w = Writing::new(
        "create table t (id int primary key, code text, swallow boolean default false);
         create function refuse() returns trigger language plpgsql as $$ begin
           if new.swallow then return null; end if;
           if new.code <> '' then raise exception using errcode = new.code, message = 'canary message', detail = 'canary detail', hint = 'canary hint'; end if;
           return new; end $$;
         create trigger refuse before insert or update on t for each row execute function refuse();
         insert into t values (1, '');
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let before = w.text("select row_version from t").await;
    for (state, status, code, told) in [
        ("23505", 409, "conflict", true),
        ("23503", 409, "conflict", true),
        ("23P01", 409, "conflict", true),
        ("23502", 422, "constraint-violation", true),
        ("23514", 422, "constraint-violation", true),
        ("22003", 422, "invalid-value", true),
        ("428C9", 422, "invalid-value", true),
        ("42804", 422, "invalid-value", true),
        ("RC409", 412, "version-conflict", true),
        ("42501", 403, "forbidden", true),
        ("40001", 409, "retry", true),
        ("40P01", 409, "retry", true),
        ("55P03", 503, "unavailable", true),
        ("57014", 503, "unavailable", true),
        ("53200", 503, "unavailable", true),
        ("57P03", 503, "unavailable", true),
        ("25006", 503, "unavailable", true),
        ("P0001", 422, "refused-by-database", false),
        ("UE042", 422, "refused-by-database", false),
        ("XX001", 500, "internal", false),
    ] {
        let patch = w.patch("/v1/tables/t/1", "*", &json!({ "code": state }).to_string()).await;
        let post = w.json("POST", "/v1/tables/t", &[], &json!({ "id": 2, "code": state }).to_string()).await;
        for answer in [patch, post] {
            let problem = answer.refused(status, code);
            assert_eq!(problem["sqlstate"], if told { json!(state) } else { json!(null) }, "{problem}");
            assert_eq!(answer.header("retry-after").is_some(), ["retry", "unavailable"].contains(&code), "{state}");
        }
    }
    // a trigger that drops the row says nothing, and we do not say that it is written
    w.patch("/v1/tables/t/1", "*", r#"{"swallow": true}"#).await.refused(409, "conflict");
    w.json("POST", "/v1/tables/t", &[], r#"{"id": 2, "swallow": true}"#).await.refused(409, "conflict");
    assert_eq!(w.text("select row_version from t").await, before);
    // nothing of it hurt the connections
    for n in 0..20 {
        w.patch("/v1/tables/t/1", "*", r#"{"code": ""}"#).await.ok(200);
        assert_eq!(idle_in_transaction(&w).await, "0", "{n}");
    }
    w.gateway.stop().await;
}

async fn idle_in_transaction(w: &Writing) -> String {
    w.text("select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'").await
}

#[tokio::test]
async fn h53_a_locked_row_and_a_database_that_is_away() {
    let world = crate::support::World::new().await;
    world.run(TABLES).await;
    let (proxy, through) = Proxy::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    let http = writing::http();
    let patch = async || {
        let request = http
            .patch(gateway.url("/v1/tables/t/1"))
            .header("if-match", "*")
            .header("content-type", "application/json");
        let answer = request.body(r#"{"n": 7}"#).send().await.unwrap();
        let (status, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
        (status, retry, answer.json::<serde_json::Value>().await.unwrap())
    };
    let blocker = world.sql().await;
    blocker.batch_execute("begin; update t set n = 3 where id = 1").await.unwrap();
    let began = std::time::Instant::now();
    let (status, retry, problem) = patch().await;
    assert_eq!(
        (status, retry, &problem["code"], &problem["sqlstate"]),
        (503, true, &json!("unavailable"), &json!("55P03")),
        "{problem}"
    );
    assert!(began.elapsed() >= std::time::Duration::from_secs(4), "it waits for the row first");
    blocker.batch_execute("rollback").await.unwrap();
    assert_eq!(patch().await.0, 200);

    proxy.set(proxy::Mode::Refuse);
    let (status, retry, problem) = patch().await;
    assert_eq!((status, retry, &problem["code"]), (503, true, &json!("unavailable")), "{problem}");
    proxy.set(proxy::Mode::Pass);
    eventually("it writes again", || async { patch().await.0 == 200 }).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_transaction_behind() {
    let w = Writing::with(TABLES, |_, settings| {
        settings.pool_size = 2;
        settings.snapshot_reads = 1;
    })
    .await;
    let blocker = w.world.sql().await;
    for n in 10..14 {
        blocker.batch_execute("begin; select from t where id = 1 for update").await.unwrap();
        let body = format!("{{\"n\":{n}}}");
        let request = format!(
            "PATCH /v1/tables/t/1 HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut socket = tokio::net::TcpStream::connect(w.gateway.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("it waits for the row", || async { w.text(waits).await == "1" }).await;
        drop(socket);
        blocker.batch_execute("commit").await.unwrap();
        // the write had begun: it comes to its end
        eventually("it is written", || async { w.text("select n from t where id = 1").await == n.to_string() }).await;
        eventually("no transaction is left", || async { idle_in_transaction(&w).await == "0" }).await;
    }
    for _ in 0..10 {
        w.patch("/v1/tables/t/1", "*", r#"{"n": 1}"#).await.ok(200);
    }
    w.gateway.stop().await;
}

/// Writes that all stand before one row leave connections to everybody else.
#[tokio::test]
async fn a_locked_row_does_not_hold_up_who_reads() {
    let w = Writing::new(TABLES).await;
    let blocker = w.world.sql().await;
    blocker.batch_execute("begin; select from t where id = 1 for update").await.unwrap();
    let writes = (10..30).map(|n| {
        let w = &w;
        async move { w.patch("/v1/tables/t/1", "*", &json!({ "n": n }).to_string()).await }
    });
    let reader = async {
        let waits =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        eventually("as many wait as may", || async { w.text(waits).await == "3" }).await;
        let client: &mut dyn Client = &mut Sse::open(w.gateway.address, "table=t&id=eq.2").await;
        client.until("its snapshot", |r| r.row("2").is_some()).await;
        assert_eq!(w.text(waits).await, "3", "while they wait");
        w.send("GET", "/v1/tables/t?name=eq.b", &[], "").await.ok(200);
    };
    let (answers, ()) = futures_util::future::join(futures_util::future::join_all(writes), reader).await;
    for answer in answers {
        answer.refused(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    blocker.batch_execute("rollback").await.unwrap();
    w.patch("/v1/tables/t/1", "*", r#"{"n": 1}"#).await.ok(200);
    w.gateway.stop().await;
}

/// Small patches of large rows: the answer is bounded, and refused before anything is written.
#[tokio::test]
async fn an_answer_that_would_be_too_large() {
    let w = Writing::new(
        "create table big (id int primary key, n int, text text);
         insert into big select n, 0, repeat('x', 1000 * 1000) from generate_series(1, 10) as n;
         select rowcast.watch('big', public => true); select rowcast.allow('big', 'anon', write => true, version_required => false)",
    )
    .await;
    let ops: Vec<_> =
        (1..=10).map(|id| json!({"op": "update", "table": "big", "key": id.to_string(), "set": {"n": id}})).collect();
    let body = json!({ "ops": ops }).to_string();
    let problem = w.json("POST", "/v1/batch", &[], &body).await.refused(413, "payload-too-large");
    assert!(problem["detail"].as_str().unwrap().contains("return=minimal"), "{problem}");
    assert_eq!(w.text("select sum(n) from big").await, "0");
    let eight = json!({ "ops": ops[..8] }).to_string();
    assert!(w.json("POST", "/v1/batch", &[], &eight).await.ok(200).len() > 8_000_000);
    w.json("POST", "/v1/batch", &[("prefer", "return=minimal")], &body).await.ok(200);
    assert_eq!(w.text("select sum(n) from big").await, "55");
    w.gateway.stop().await;
}
