//! Rules beside row level security, tokens that are renewed with other claims, and what is left when all is removed.

use crate::support::client::TRANSPORTS;
use crate::support::socket::Socket;
use crate::support::tenants::{Listener, gateway, token};
use crate::support::{World, eventually};
use rowcast::pg::migrate::UNINSTALL;
use serde_json::json;

const TABLES: &str = "create table notes (id int primary key, tenant text not null, body text);
    insert into notes values (1, 'a', 'canary-a'), (2, 'b', 'canary-b'), (3, 'a', 'canary-a');
    select rowcast.watch('notes');
    select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', write => true)";

/// A login that is a member of rowcast_gateway and nothing else: row level security holds it.
async fn plain_login(world: &World) -> String {
    let login = format!("gate_{}", world.database);
    world.run(&format!("create role {login} login password 'secret'; grant rowcast_gateway to {login}")).await;
    let (_, rest) = world.url.split_once('@').unwrap();
    format!("postgres://{login}:secret@{rest}")
}

#[tokio::test]
async fn row_level_security_ends_what_was_not_declared_beside_it() {
    let world = World::new().await;
    world.run(TABLES).await;
    let url = plain_login(&world).await;
    let gateway = world
        .gateway_with(|settings| {
            crate::support::with_secret(settings);
            settings.database_url = url;
        })
        .await;
    let member = token(json!({ "role": "member", "tenant": "a" }));
    let mut held = Vec::new();
    for transport in TRANSPORTS {
        let mut l = Listener::open(transport, gateway.address, "table=notes", Some(&member)).await;
        l.until("its rows", |r| r.rows("1").len() == 2).await;
        held.push(l);
    }
    world.run("alter table notes enable row level security").await;
    for l in &mut held {
        assert_eq!(l.ends().await, "not-found", "{:?}", l.transport);
    }
    let status = "select concat_ws(' / ', rules, writes, array_to_string(warnings, ' ')) from rowcast.status()";
    let sql = world.sql().await;
    let said: String = sql.query_one(status, &[]).await.unwrap().get(0);
    assert!(said.contains("the rules of `member` do not count"), "{said}");
    // said to be meant: the rule decides, for what is read and for what is heard
    let allow = "select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', write => true, ignore_row_security => true)";
    world.run(allow).await;
    let said: String = sql.query_one(status, &[]).await.unwrap().get(0);
    assert_eq!(said, "member: tenant=eq.{tenant}; row level security ignored / member / row level security is enabled");
    eventually("the gateway knows", || async {
        let tables = gateway.gateway().core().hub.tables();
        tables.by_name("notes").is_some_and(|table| !table.rules.is_empty())
    })
    .await;
    for transport in TRANSPORTS {
        let mut l = Listener::open(transport, gateway.address, "table=notes", Some(&member)).await;
        l.until("its rows, read", |r| r.rows("1").len() == 2).await;
        let body = format!("{transport:?}");
        let answer = crate::support::writing::http()
            .patch(gateway.url("/v1/tables/notes/1"))
            .bearer_auth(&member)
            .header("if-match", "*")
            .json(&json!({ "body": body }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
        l.until("the change, heard", |r| r.row("1").unwrap()["body"] == body).await;
        assert!(!l.said.contains("canary-b"));
    }
    // and nothing is left of it
    let left = "select count(*) from pg_policy where polrelid = 'notes'::regclass";
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 1);
    gateway.stop().await;
    sql.batch_execute(&format!("begin; {UNINSTALL} commit;")).await.unwrap();
    assert_eq!(sql.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_policy_goes_with_the_last_rule_that_needs_it() {
    let world = World::new().await;
    world.run(TABLES).await;
    let sql = world.sql().await;
    let policies = async || -> i64 {
        sql.query_one("select count(*) from pg_policy where polrelid = 'notes'::regclass", &[]).await.unwrap().get(0)
    };
    world
        .run(
            "alter table notes enable row level security;
             select rowcast.allow('notes', 'x', ignore_row_security => true), rowcast.allow('notes', 'y', ignore_row_security => true)",
        )
        .await;
    assert_eq!(policies().await, 1);
    world.run("select rowcast.deny('notes', 'x')").await;
    assert_eq!(policies().await, 1);
    world.run("select rowcast.deny('notes', 'y')").await;
    assert_eq!(policies().await, 0);
    world.run("select rowcast.allow('notes', 'x', ignore_row_security => true); select rowcast.unwatch('notes')").await;
    assert_eq!(policies().await, 0);
    let rules: i64 = sql.query_one("select count(*) from rowcast.rule", &[]).await.unwrap().get(0);
    assert_eq!(rules, 0);
}

/// What the owner of a table made and granted is not ours to take away.
#[tokio::test]
async fn an_owner_s_own_policy_and_grants_stay() {
    let world = World::new().await;
    world.run(TABLES).await;
    let sql = world.sql().await;
    world
        .run(
            "create policy rowcast_gateway on notes to rowcast_gateway using (id > 1); alter table notes enable row level security;
             create table mine (id int primary key); select rowcast.watch('mine'); grant insert on mine to rowcast_gateway;
             select rowcast.allow('mine', 'x'), rowcast.deny('mine', 'x')",
        )
        .await;
    let own = "select pg_get_expr(polqual, polrelid) from pg_policy where polrelid = 'notes'::regclass";
    let error = sql.batch_execute("select rowcast.allow('notes', 'x', ignore_row_security => true)").await.unwrap_err();
    let said = error.as_db_error().unwrap();
    assert!(said.code().code() == "42710" && said.hint().unwrap().contains("rename"), "{said:?}");
    world.run("select rowcast.deny('notes', 'member')").await;
    assert_eq!(sql.query_one(own, &[]).await.unwrap().get::<_, String>(0), "(id > 1)");
    let writes = async |table: &str| -> bool {
        let may = "select has_table_privilege('rowcast_gateway', $1::text, 'insert')";
        sql.query_one(may, &[&table]).await.unwrap().get(0)
    };
    assert!(writes("mine").await && !writes("notes").await, "granted by hand, and with the last rule that writes");
    world.run("select rowcast.unwatch('mine')").await;
    assert!(writes("mine").await);
}

#[tokio::test]
async fn a_token_that_is_renewed_with_other_claims_shows_other_rows() {
    let world = World::new().await;
    world.run(TABLES).await;
    let gateway = gateway(&world).await;
    let of = |tenant: &str| token(json!({ "role": "member", "sub": "ann", "tenant": tenant }));
    let mut socket = Socket::ready_as(gateway.address, Some(&of("a"))).await;
    for sub in ["x", "y"] {
        socket.send(json!({ "type": "subscribe", "sub": sub, "table": "notes" })).await;
        assert_eq!(socket.until("snapshot").await["rows"].as_array().unwrap().len(), 2);
    }
    // the same claims: it goes on
    socket.send(json!({ "type": "auth", "token": of("a") })).await;
    socket.until("auth").await;
    world.run("update notes set body = 'canary-a2' where id = 1").await;
    for _ in 0..2 {
        assert_eq!(socket.until("changes").await["changes"][0]["row"]["body"], "canary-a2");
    }
    assert!(!socket.seen.iter().any(|m| m["type"] == "reset"));
    // others: what was held is worthless
    let before = socket.seen.len();
    socket.send(json!({ "type": "auth", "token": of("b") })).await;
    world.run("update notes set body = 'canary-a3' where id = 3").await;
    let mut resets = 0;
    while socket.seen[before..].iter().filter(|m| m["type"] == "snapshot").count() < 2 {
        let message = socket.next().await;
        resets += usize::from(message["type"] == "reset" && message["reason"] == "permission-changed");
        if message["type"] == "snapshot" {
            assert_eq!((message["rows"].as_array().unwrap().len(), &message["rows"][0]["key"]), (1, &json!("2")));
        }
    }
    assert_eq!(resets, 2);
    let after: String = socket.seen[before..].iter().map(ToString::to_string).collect();
    assert!(!after.contains("canary-a"), "{after}");
    // and none: they end
    let none = token(json!({ "role": "member", "sub": "ann" }));
    socket.send(json!({ "type": "auth", "token": none })).await;
    for _ in 0..2 {
        assert_eq!(socket.until("problem").await["problem"]["code"], "not-found");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn several_subscriptions_share_a_position_and_each_knows_its_part() {
    let world = World::new().await;
    world.run(TABLES).await;
    world.run("create table open (id int primary key); insert into open values (1); select rowcast.watch('open', public => true)").await;
    let gateway = gateway(&world).await;
    let of = |tenant: &str| token(json!({ "role": "member", "sub": "ann", "tenant": tenant }));
    for transport in TRANSPORTS {
        let query = "sub=n~notes&sub=o~open";
        let mut l = Listener::open(transport, gateway.address, query, Some(&of("a"))).await;
        l.until("both", |r| r.snapshots == 2 && r.position.is_some()).await;
        // a position with both their marks
        let position = l.replica().position.clone().unwrap();
        assert_eq!(position.split('.').count(), 3, "{transport:?} {position}");
        l.client.reconnect(gateway.address).await;
        world.run("insert into open select max(id) + 1 from open").await;
        l.until("it goes on", |r| r.changes > 0).await;
        assert!(l.replica().resets.is_empty() && l.replica().snapshots == 2, "{transport:?} {:?}", l.replica().resets);
        l.until("a position", |r| r.position.as_ref() != Some(&position)).await;
        // shown something else of one table: that one begins anew
        l.client.show(Some(&of("b")));
        l.client.reconnect(gateway.address).await;
        l.until("a reset", |r| !r.resets.is_empty() && r.rows("n").len() == 1).await;
        assert_eq!(
            (&l.replica().resets[..], l.replica().snapshots),
            (&["permission-changed".to_owned()][..], 3),
            "{transport:?}"
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_single_subscription_is_told_the_rows_of_the_new_claims_alone() {
    let world = World::new().await;
    world.run(TABLES).await;
    let gateway = gateway(&world).await;
    let of = |tenant: &str| token(json!({ "role": "member", "sub": "ann", "tenant": tenant }));
    let mut socket = Socket::ready_as(gateway.address, Some(&of("a"))).await;
    socket.send(json!({ "type": "subscribe", "sub": "x", "table": "notes" })).await;
    socket.until("snapshot").await;
    // it is told by the passes that tell everybody of the same rule
    world.run("update notes set body = 'canary-a2' where id = 1").await;
    socket.until("changes").await;
    socket.send(json!({ "type": "auth", "token": of("b") })).await;
    socket.until("auth").await;
    let before = socket.seen.len();
    world.run("update notes set body = 'canary-a3' where id = 1").await;
    let reset = socket.until("reset").await;
    assert_eq!(reset["reason"], "permission-changed");
    assert_eq!(socket.until("snapshot").await["rows"][0]["key"], "2");
    world.run("update notes set body = 'canary-a4' where id = 1; update notes set body = 'new' where id = 2").await;
    socket.until("changes").await;
    let after: String = socket.seen[before..].iter().map(ToString::to_string).collect();
    assert!(!after.contains("canary-a"), "{after}");
    // nobody is named by these: they may be two
    let nobody = |tenant: &str| token(json!({ "role": "member", "tenant": tenant }));
    let mut socket = Socket::ready_as(gateway.address, Some(&nobody("a"))).await;
    socket.send(json!({ "type": "auth", "token": nobody("a") })).await;
    socket.until("auth").await;
    socket.send(json!({ "type": "auth", "token": nobody("b") })).await;
    assert_eq!(socket.closed().await, 4403);
    gateway.stop().await;
}
