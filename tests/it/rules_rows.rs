//! What rules let through to reads and writes of rows.

use crate::bad_input::Answer;
use crate::support::tenants::{member, token};
use crate::support::{Writing, eventually, with_secret};
use serde_json::json;

const TABLES: &str = "create table notes (id int primary key, tenant text not null default 'a', body text, hidden int default 7, doc jsonb);
    insert into notes values (1, 'a', 'note-a', 1, '{\"x\": 1}'), (2, 'b', 'note-b', 2, '{}'), (3, 'a', 'note-a', 3, null);
    select rowcast.watch('notes', ttl => '1 min');
    select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', columns => array['tenant', 'body', 'doc'], write => true);
    select rowcast.allow('notes', 'reader', filter => 'tenant=eq.{tenant}');
    select rowcast.allow('notes', 'narrow', filter => 'tenant=eq.{tenant}', columns => array['body']);
    create table open (id int primary key, n int); insert into open values (1, 1); select rowcast.watch('open', public => true);
    create table shared (id int primary key, n int); insert into shared values (1, 1), (2, 2); select rowcast.watch('shared', public => true);
    select rowcast.allow('shared', 'member', filter => 'id=eq.1')";

async fn scene() -> Writing {
    Writing::with(TABLES, |_, settings| with_secret(settings)).await
}

/// A request with a token.
async fn ask(w: &Writing, token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let all: Vec<_> = [("authorization", bearer.as_str()), ("content-type", "application/json")]
        .into_iter()
        .chain(headers.iter().copied())
        .filter(|(name, _)| !body.is_empty() || *name != "content-type")
        .collect();
    w.send(method, path, &all, body).await
}

/// Everything but what differs between any two requests.
fn bare(answer: &Answer) -> String {
    let mut problem = answer.value();
    problem.as_object_mut().unwrap().remove("request_id");
    let names: Vec<_> = answer.headers.iter().filter(|(n, _)| n != "date" && n != "x-request-id").collect();
    format!("{} {names:?} {problem}", answer.status)
}

#[tokio::test]
async fn a_hidden_row_and_no_row_are_the_same() {
    let w = scene().await;
    let a = member("a");
    let statements =
        || async { w.gateway.gateway().core().reads.counts().loads.load(std::sync::atomic::Ordering::Relaxed) };
    for (method, headers, body) in [
        ("GET", &[][..], ""),
        ("PATCH", &[("if-match", "*")], r#"{"body":"x"}"#),
        ("PATCH", &[("if-match", "\"1\"")], r#"{"body":"x"}"#),
        ("PUT", &[("if-match", "\"1\"")], r#"{"body":"x"}"#),
        ("DELETE", &[("if-match", "*")], ""),
    ] {
        let before = statements().await;
        let hidden = ask(&w, &a, method, "/v1/tables/notes/2", headers, body).await;
        let between = statements().await;
        let absent = ask(&w, &a, method, "/v1/tables/notes/9", headers, body).await;
        assert_eq!(hidden.status, 404, "{method}: {}", hidden.body);
        assert_eq!(bare(&hidden), bare(&absent), "{method}");
        assert_eq!(between - before, statements().await - between, "{method}: as many statements");
    }
    let rows = "select string_agg(concat(id, tenant, body), ' ' order by id) from notes";
    assert_eq!(w.text(rows).await, "1anote-a 2bnote-b 3anote-a");
    w.gateway.stop().await;
}

#[tokio::test]
async fn an_answer_for_one_group_is_never_another_s() {
    let w = scene().await;
    let (a, b) = (member("a"), member("b"));
    let narrow = token(json!({ "role": "narrow", "tenant": "a" }));
    let reader = token(json!({ "role": "reader", "tenant": "a" }));
    for round in 0..3 {
        for (token, own, other, columns) in [
            (&a, "note-a", "note-b", 5),
            (&b, "note-b", "note-a", 5),
            (&narrow, "note-a", "note-b", 3),
            (&reader, "note-a", "note-b", 6),
        ] {
            let list = ask(&w, token, "GET", "/v1/tables/notes", &[], "").await;
            assert_eq!(list.status, 200, "{}", list.body);
            assert!(list.body.contains(own) && !list.body.contains(other), "{round}: {}", list.body);
            assert_eq!(list.value()[0].as_object().unwrap().len(), columns, "{}", list.body);
            assert_eq!(list.header("cache-control"), Some("private, no-store"));
            assert!(list.header("vary").unwrap().contains("Authorization"));
        }
        w.send("GET", "/v1/tables/notes", &[], "").await.refused(404, "not-found");
    }
    // one row of one version, two representations, two tags
    let row =
        async |token: &str, tag: &str| ask(&w, token, "GET", "/v1/tables/notes/1", &[("if-none-match", tag)], "").await;
    let tag = |answer: &Answer| answer.header("etag").unwrap().to_owned();
    let (of_member, of_narrow, of_reader) =
        (row(&a, "\"0\"").await, row(&narrow, "\"0\"").await, row(&reader, "\"0\"").await);
    let version = w.text("select row_version from notes where id = 1").await;
    assert_eq!(tag(&of_reader), format!("\"{version}\""));
    assert!(tag(&of_member).starts_with(&format!("\"{version}-")) && tag(&of_member) != tag(&of_narrow));
    assert_eq!(row(&a, &tag(&of_member)).await.status, 304);
    assert_eq!(row(&a, &tag(&of_narrow)).await.status, 200);
    assert_eq!(row(&reader, &tag(&of_member)).await.status, 200);
    // and it is written back with
    let patched =
        ask(&w, &a, "PATCH", "/v1/tables/notes/1", &[("if-match", &tag(&of_member))], r#"{"body":"note-a2"}"#).await;
    patched.ok(200);
    assert!(patched.header("etag").unwrap().contains('-') && !patched.body.contains("hidden"), "{}", patched.body);
    w.gateway.stop().await;
}

#[tokio::test]
async fn what_everybody_is_shown_may_be_kept_and_nothing_else() {
    let w = scene().await;
    let guest = token(json!({ "role": "guest" }));
    let control = |answer: &Answer| {
        (answer.header("cache-control").unwrap().to_owned(), answer.header("vary").unwrap().to_owned())
    };
    let get = async |path: &str, who: Option<&str>| match who {
        Some(token) => ask(&w, token, "GET", path, &[], "").await,
        None => w.send("GET", path, &[], "").await,
    };
    for (path, who, kept, by_token) in [
        ("/v1/tables/open", None, true, false),
        ("/v1/tables/open", Some(guest.as_str()), true, false),
        ("/v1/tables/open/1", Some(&guest), true, false),
        ("/v1/tables/shared", None, true, true),
        ("/v1/tables/shared", Some(&guest), true, true),
        ("/v1/tables/shared", Some(&member("a")), false, true),
        ("/v1/tables/shared/1", Some(&member("a")), false, true),
    ] {
        let answer = get(path, who).await;
        assert_eq!(answer.status, 200, "{path} {}", answer.body);
        let (control, vary) = control(&answer);
        assert_eq!((control.starts_with("public"), control == "private, no-store"), (kept, !kept), "{path} {control}");
        assert_eq!((vary.contains("Authorization"), vary.contains("Cookie")), (by_token, by_token), "{path} {vary}");
    }
    w.gateway.stop().await;
}

#[tokio::test]
async fn a_write_begins_and_ends_within_the_rule() {
    let w = scene().await;
    let a = member("a");
    let send = async |method: &str, path: &str, body: &str| {
        let headers: &[(&str, &str)] = if method == "POST" { &[] } else { &[("if-match", "*")] };
        ask(&w, &a, method, path, headers, body).await
    };
    // within it
    let made = send("POST", "/v1/tables/notes", r#"{"id":10,"body":"new"}"#).await;
    made.ok(201);
    assert!(!made.body.contains("hidden"), "{}", made.body);
    send("PATCH", "/v1/tables/notes/10", r#"{"body":"newer","doc":{"y":2}}"#).await.ok(200);
    // out of it: nothing is written
    send("POST", "/v1/tables/notes", r#"{"id":11,"tenant":"b"}"#).await.refused(403, "forbidden");
    send("PATCH", "/v1/tables/notes/10", r#"{"tenant":"b"}"#).await.refused(403, "forbidden");
    send("PUT", "/v1/tables/notes/10", r#"{"tenant":"b"}"#).await.refused(403, "forbidden");
    ask(&w, &a, "PUT", "/v1/tables/notes/12", &[("if-none-match", "*")], r#"{"tenant":"b"}"#)
        .await
        .refused(403, "forbidden");
    let batch = r#"{"ops":[{"op":"update","table":"notes","key":"1","version":VERSION,"set":{"body":"lost"}},
        {"op":"insert","table":"notes","row":{"id":13,"tenant":"b"}}]}"#;
    let version = w.text("select row_version from notes where id = 1").await;
    let refused = send("POST", "/v1/batch", &batch.replace("VERSION", &version)).await.refused(403, "forbidden");
    assert_eq!(refused["errors"][0]["op"], 1, "{refused}");
    // a column that is not shown is not written, and not told from none
    for (name, column) in [("hidden", "hidden"), ("absent", "nope")] {
        let body = format!("{{\"{column}\":1}}");
        let problem = send("PATCH", "/v1/tables/notes/10", &body).await.refused(422, "unknown-column");
        assert_eq!(problem["detail"], format!("unknown column `{column}`"), "{name}");
        send("POST", "/v1/tables/notes", &format!("{{\"id\":14,\"{column}\":1}}")).await.refused(422, "unknown-column");
    }
    // a replacement leaves it as it was
    w.world.run("update notes set hidden = 99 where id = 10").await;
    send("PUT", "/v1/tables/notes/10", r#"{"body":"put"}"#).await.ok(200);
    assert_eq!(w.text("select concat_ws(' ', tenant, body, hidden, doc) from notes where id = 10").await, "a put 99");
    // what a conflict tells
    let conflict = ask(&w, &a, "PATCH", "/v1/tables/notes/1", &[("if-match", "\"2\"")], r#"{"body":"x"}"#).await;
    let conflict = conflict.refused(412, "version-conflict");
    assert!(
        conflict["current"]["row"].get("body").is_some() && conflict["current"]["row"].get("hidden").is_none(),
        "{conflict}"
    );
    // a hidden row's key is taken, and no more is said
    let taken = send("POST", "/v1/tables/notes", r#"{"id":2,"body":"mine"}"#).await.refused(409, "conflict");
    assert!(!taken.to_string().contains("note-b"), "{taken}");
    let taken = ask(&w, &a, "PUT", "/v1/tables/notes/2", &[("if-none-match", "*")], r#"{"body":"mine"}"#).await;
    assert!(taken.status == 409 && !taken.body.contains("note-b"), "{} {}", taken.status, taken.body);
    send("DELETE", "/v1/tables/notes/10", "").await.ok(204);
    let rows = "select string_agg(concat(id, tenant, body), ' ' order by id) from notes";
    assert_eq!(w.text(rows).await, "1anote-a 2bnote-b 3anote-a");
    // who may only read
    let reader = token(json!({ "role": "reader", "tenant": "a" }));
    let denied = ask(&w, &reader, "DELETE", "/v1/tables/notes/1", &[("if-match", "*")], "").await;
    denied.refused(403, "writing-not-allowed");
    w.gateway.stop().await;
}

#[tokio::test]
async fn what_a_trigger_makes_of_a_row_counts() {
    let w = scene().await;
    w.world
        .run(
            "create function steal() returns trigger language plpgsql as $$ begin
               if new.body = 'steal' then new.tenant := 'b'; end if; return new; end $$;
             create trigger steal before insert or update on notes for each row execute function steal();
             create function late() returns trigger language plpgsql as $$ begin
               if new.body = 'late' then update notes set tenant = 'b', body = 'was late' where id = new.id; end if; return null; end $$;
             create trigger late after insert or update on notes for each row execute function late();",
        )
        .await;
    let a = member("a");
    for body in ["steal", "late"] {
        let text = format!("{{\"body\":\"{body}\"}}");
        ask(&w, &a, "PATCH", "/v1/tables/notes/1", &[("if-match", "*")], &text).await.refused(403, "forbidden");
        let text = format!("{{\"id\":20,\"body\":\"{body}\"}}");
        ask(&w, &a, "POST", "/v1/tables/notes", &[], &text).await.refused(403, "forbidden");
    }
    assert_eq!(
        w.text("select concat(tenant, body, (select count(*) from notes)) from notes where id = 1").await,
        "anote-a3"
    );
    w.gateway.stop().await;
}

/// A row that a trigger removes was written all the same, and what it was made of counts.
#[tokio::test]
async fn a_row_that_a_trigger_removes_was_one_of_the_caller_s() {
    let w = scene().await;
    w.world
        .run(
            "create table inbox (who text);
             create function take() returns trigger language plpgsql as $$ begin
               if new.body = 'take' then insert into inbox values (new.tenant); delete from notes where id = new.id; end if; return null; end $$;
             create trigger take after insert or update on notes for each row execute function take();",
        )
        .await;
    let a = member("a");
    let send = async |body: &str| ask(&w, &a, "POST", "/v1/tables/notes", &[], body).await;
    send(r#"{"id":20,"tenant":"b","body":"take"}"#).await.refused(403, "forbidden");
    let patch = r#"{"tenant":"b","body":"take"}"#;
    ask(&w, &a, "PATCH", "/v1/tables/notes/1", &[("if-match", "*")], patch).await.refused(403, "forbidden");
    assert_eq!(w.text("select count(*) from inbox").await, "0");
    send(r#"{"id":20,"tenant":"a","body":"take"}"#).await.ok(201);
    assert_eq!(w.text("select concat(string_agg(who, ' '), (select count(*) from notes)) from inbox").await, "a3");
    w.gateway.stop().await;
}

#[tokio::test]
async fn a_kept_answer_tells_no_more_than_the_rule_of_now() {
    let w = scene().await;
    let a = member("a");
    let again = async || {
        ask(&w, &a, "POST", "/v1/tables/notes", &[("idempotency-key", "k1")], r#"{"id":30,"body":"kept"}"#).await
    };
    assert!(again().await.ok(201).contains("kept"));
    assert!(again().await.ok(201).contains("kept"));
    for rule in [
        "filter => 'tenant=eq.{tenant}', columns => array['tenant', 'doc', 'body']",
        "filter => 'tenant=eq.{tenant}', columns => array['tenant', 'body']",
        "filter => 'tenant=eq.{tenant}&id=lt.10', columns => array['tenant', 'doc', 'body']",
    ] {
        w.world.run(&format!("select rowcast.allow('notes', 'member', {rule}, write => true)")).await;
        let filter = rule.split('\'').nth(1).unwrap();
        let columns = rule.split("array").nth(1).unwrap().matches(',').count() + 3;
        eventually("the gateway knows", || async {
            let tables = w.gateway.gateway().core().hub.tables();
            let table = tables.by_name("notes").unwrap();
            let rule = table.rules.iter().find(|rule| rule.role == "member").unwrap();
            rule.filter.as_deref() == Some(filter) && rule.columns.as_ref().unwrap().len() == columns
        })
        .await;
        let answer = again().await;
        let same = columns == 5 && !filter.contains("id");
        assert_eq!((answer.status, answer.body.contains("kept")), (201, same), "{rule}: {}", answer.body);
    }
    assert_eq!(w.text("select count(*) from notes where body = 'kept'").await, "1");
    w.gateway.stop().await;
}

/// What was kept while all rows were shown is not told when some are not.
#[tokio::test]
async fn an_answer_kept_before_a_rule_was_narrowed_has_no_row() {
    let w = scene().await;
    let allow = async |filter: Option<&str>| {
        let of = filter.map_or_else(String::new, |filter| format!("filter => '{filter}', "));
        w.world.run(&format!("select rowcast.allow('open', 'member', {of}write => true)")).await;
        eventually("the gateway knows", || async {
            let tables = w.gateway.gateway().core().hub.tables();
            let rules = &tables.by_name("open").unwrap().rules;
            rules.iter().any(|rule| rule.role == "member" && rule.filter.as_deref() == filter)
        })
        .await;
    };
    allow(None).await;
    let a = member("a");
    let again =
        async || ask(&w, &a, "POST", "/v1/tables/open", &[("idempotency-key", "k")], r#"{"id":20,"n":5}"#).await;
    let first = again().await;
    first.ok(201);
    assert_eq!((again().await.body, again().await.header("etag")), (first.body.clone(), first.header("etag")));
    allow(Some("id=lt.10")).await;
    let narrowed = again().await;
    assert_eq!((narrowed.status, narrowed.header("idempotency-replayed")), (201, Some("true")), "{}", narrowed.body);
    assert!(narrowed.header("etag").is_none() && narrowed.header("location").is_none() && narrowed.body.is_empty());
    assert_eq!(w.text("select count(*) from open where id = 20").await, "1");
    w.gateway.stop().await;
}

/// Who has no `sub` is told from others by what the claims make of the rules.
#[tokio::test]
async fn an_idempotency_key_of_another_tenant_is_another_key() {
    let w = scene().await;
    let of = |tenant: &str| token(json!({ "role": "member", "tenant": tenant }));
    w.world.run("select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', write => true, version_required => false)").await;
    eventually("the gateway knows", || async {
        let tables = w.gateway.gateway().core().hub.tables();
        tables.by_name("notes").unwrap().rules.iter().any(|rule| rule.role == "member" && !rule.version_required)
    })
    .await;
    let (a, b) = (of("a"), of("b"));
    let headers = [("idempotency-key", "k"), ("if-match", "*")];
    let patch = async |token: &str| ask(&w, token, "PATCH", "/v1/tables/notes/2", &headers, r#"{"body":"once"}"#).await;
    let key = [("idempotency-key", "k")];
    let batch =
        json!({ "ops": [{ "op": "insert", "table": "notes", "row": { "id": 40, "tenant": "a" } }] }).to_string();
    ask(&w, &a, "POST", "/v1/batch", &key, &batch).await.ok(200);
    assert_eq!(ask(&w, &a, "POST", "/v1/batch", &key, &batch).await.header("idempotency-replayed"), Some("true"));
    // neither repeated nor a reuse
    let other = patch(&b).await;
    assert_eq!((other.status, other.header("idempotency-replayed")), (200, None), "{}", other.body);
    assert_eq!(patch(&b).await.header("idempotency-replayed"), Some("true"));
    patch(&a).await.refused(422, "idempotency-key-reused");
    assert_eq!(w.text("select body from notes where id = 2").await, "once");
    w.gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_that_has_not_heard_of_it_writes_nothing_by_the_old_rule() {
    let w = scene().await;
    let a = member("a");
    let patch = async || ask(&w, &a, "PATCH", "/v1/tables/notes/1", &[("if-match", "*")], r#"{"body":"x"}"#).await;
    for change in [
        "select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}&id=gt.1', columns => array['tenant', 'body', 'doc'], write => true)",
        "select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', columns => array['tenant', 'doc'], write => true)",
        "select rowcast.deny('notes', 'member')",
    ] {
        // in the transaction of the change nobody hears of it, and whoever asks after it is committed is answered by it
        w.world.run(change).await;
        let answer = patch().await;
        assert!([403, 404, 422, 503].contains(&answer.status), "{change}: {} {}", answer.status, answer.body);
    }
    assert_eq!(w.text("select body from notes where id = 1").await, "note-a");
    w.gateway.stop().await;
}

/// Two rows may share such a key for a while, and only one of them is the caller's.
#[tokio::test]
async fn a_row_that_shares_a_key_for_a_while_is_not_reached() {
    let w = Writing::with(
        "create table slots (id int primary key deferrable initially deferred, tenant text not null, body text);
         insert into slots values (7, 'b', 'canary-b');
         select rowcast.watch('slots');
         select rowcast.allow('slots', 'member', filter => 'tenant=eq.{tenant}', write => true, version_required => false)",
        |_, settings| with_secret(settings),
    )
    .await;
    let a = member("a");
    let insert = json!({ "op": "insert", "table": "slots", "row": { "id": 7, "tenant": "a" } });
    for second in [
        json!({ "op": "delete", "table": "slots", "key": "7" }),
        json!({ "op": "update", "table": "slots", "key": "7", "set": { "body": "mine" } }),
        json!({ "op": "update", "table": "slots", "key": "7", "set": { "body": "mine", "tenant": "a" } }),
    ] {
        let body = json!({ "ops": [insert, second] }).to_string();
        let answer = ask(&w, &a, "POST", "/v1/batch", &[], &body).await;
        answer.refused(409, "conflict");
        assert!(!answer.body.contains("canary-b"), "{}", answer.body);
        assert_eq!(w.text("select string_agg(concat(id, tenant, body), ' ') from slots").await, "7bcanary-b");
    }
    // its own: in and out again
    let own = json!({ "op": "insert", "table": "slots", "row": { "id": 8, "tenant": "a" } });
    let gone = json!({ "op": "delete", "table": "slots", "key": "8" });
    ask(&w, &a, "POST", "/v1/batch", &[], &json!({ "ops": [own, gone] }).to_string()).await.ok(200);
    assert_eq!(w.text("select count(*) from slots").await, "1");
    // also where a trigger lets them share it
    w.world
        .run(
            "create function later() returns trigger language plpgsql as $$ begin set constraints all deferred; return new; end $$;
             create trigger later before insert on slots for each row execute function later()",
        )
        .await;
    for second in [
        json!({ "op": "delete", "table": "slots", "key": "7" }),
        json!({ "op": "update", "table": "slots", "key": "7", "set": { "body": "mine" } }),
    ] {
        let answer = ask(&w, &a, "POST", "/v1/batch", &[], &json!({ "ops": [insert, second] }).to_string()).await;
        assert!([403, 409].contains(&answer.status) && !answer.body.contains("canary-b"), "{}", answer.body);
        assert_eq!(w.text("select string_agg(concat(id, tenant, body), ' ') from slots").await, "7bcanary-b");
    }
    w.gateway.stop().await;
}
