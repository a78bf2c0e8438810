//! What rules let through to subscribers: every transport, every way of beginning, and rules that change meanwhile.

use crate::support::client::TRANSPORTS;
use crate::support::tenants::{Listener, gateway, member, token};
use crate::support::{TestGateway, World, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

/// Rows of two tenants; every row names its own in a canary.
const TABLES: &str =
    "create table notes (id int primary key, tenant text not null, body text, hidden int default 7, n int default 0);
    insert into notes values (1, 'a', 'canary-a'), (2, 'b', 'canary-b'), (3, 'a', 'canary-a'), (4, 'b', 'canary-b');
    select rowcast.watch('notes');
    select rowcast.allow('notes', 'member', filter => 'tenant=eq.{tenant}', columns => array['tenant', 'body', 'n'])";

struct Scene {
    world: World,
    gateway: TestGateway,
}

impl Scene {
    async fn new() -> Scene {
        let world = World::new().await;
        world.run(TABLES).await;
        let gateway = gateway(&world).await;
        Scene { world, gateway }
    }

    /// A member of a tenant on every transport, with its first snapshot.
    async fn members(&self, tenant: &str, query: &str) -> Vec<Listener> {
        self.everybody(Some(&member(tenant)), query).await
    }

    /// Runs it, and waits until the gateway knows a rule for this role.
    async fn allow(&self, sql: &str, role: &str) {
        self.world.run(sql).await;
        eventually("the gateway knows", || async {
            let tables = self.gateway.gateway().core().hub.tables();
            tables.by_name("notes").unwrap().rules.iter().any(|rule| rule.role == role)
        })
        .await;
    }

    async fn everybody(&self, token: Option<&str>, query: &str) -> Vec<Listener> {
        let mut all = Vec::new();
        for transport in TRANSPORTS {
            let mut listener = Listener::open(transport, self.gateway.address, query, token).await;
            listener.until("the first snapshot", |r| r.snapshots > 0 && r.position.is_some()).await;
            all.push(listener);
        }
        all
    }
}

#[tokio::test]
async fn each_tenant_is_told_its_own_and_nothing_else() {
    let scene = Scene::new().await;
    let (mut a, mut b) = (scene.members("a", "table=notes").await, scene.members("b", "table=notes&n=gte.0").await);
    for (own, keys) in [(&a, ["1", "3"]), (&b, ["2", "4"])] {
        assert!(own.iter().all(|l| l.keys() == keys));
    }
    for n in 1..=5 {
        scene.world.run(&format!("update notes set n = {n}, hidden = {n}")).await;
    }
    // from one tenant to the other, in every way: a removal for one, a new row for the other
    scene.world.run("update notes set tenant = 'b', body = 'canary-b' where id = 1").await;
    scene.world.run("insert into notes values (5, 'a', 'canary-a')").await;
    scene.world.run("delete from notes where id = 2").await;
    for l in &mut a {
        l.until("what is a's", |r| r.rows("1").len() == 2 && r.row("5").is_some() && r.row("3").unwrap()["n"] == 5)
            .await;
        assert_eq!(l.keys(), ["3", "5"]);
    }
    for l in &mut b {
        l.until("what is b's", |r| r.row("1").is_some() && r.row("2").is_none()).await;
        assert_eq!(l.keys(), ["1", "4"]);
        assert_eq!(l.replica().row("1").unwrap()["tenant"], "b");
    }
    for (own, other) in [(&a, "canary-b"), (&b, "canary-a")] {
        for l in own {
            assert!(!l.said.contains(other) && !l.said.contains("hidden"), "{:?}: {}", l.transport, l.said);
            assert!(l.replica().resets.is_empty(), "{:?}", l.replica().resets);
        }
    }
    // b's row 2 and its removal are nothing to a
    assert!(a.iter().all(|l| !l.said.contains(r#""key":"2""#) && !l.said.contains(r#""key":"4""#)));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn groups_and_not_subscribers_are_decided_for() {
    let scene = Scene::new().await;
    let mut all = Vec::new();
    for subject in 0..20 {
        let claims = json!({ "role": "member", "sub": subject.to_string(), "tenant": "a", "jti": subject.to_string() });
        let mut l = Listener::open(TRANSPORTS[0], scene.gateway.address, "table=notes", Some(&token(claims))).await;
        l.until("the first snapshot", |r| r.snapshots > 0).await;
        all.push(l);
    }
    assert_eq!(scene.gateway.gateway().core().hub.size(), (1, 20), "one shape for all of a tenant");
    let other = scene.members("b", "table=notes").await;
    assert_eq!(scene.gateway.gateway().core().hub.size().0, 2);
    drop((all, other));
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_rule_that_is_taken_back_ends_its_subscriptions_and_no_others() {
    let scene = Scene::new().await;
    scene.allow("select rowcast.allow('notes', 'other', filter => 'tenant=eq.{tenant}')", "other").await;
    let other = token(json!({ "role": "other", "tenant": "a" }));
    let (mut members, mut others) =
        (scene.members("a", "table=notes").await, scene.everybody(Some(&other), "table=notes").await);
    scene.world.run("select rowcast.deny('notes', 'member'); update notes set n = 77").await;
    let began = Instant::now();
    for l in &mut members {
        assert_eq!(l.ends().await, "not-found", "{:?}", l.transport);
        assert!(!l.said.contains(r#""n":77"#), "{:?}: nothing more is told", l.transport);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    for l in &mut others {
        l.until("others go on", |r| r.row("1").unwrap()["n"] == 77).await;
        assert!(l.replica().resets.is_empty() && l.replica().snapshots == 1, "{:?}", l.replica().resets);
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_rule_that_changes_resets_its_subscriptions_and_no_others() {
    let scene = Scene::new().await;
    scene.allow("select rowcast.allow('notes', 'other', filter => 'tenant=eq.{tenant}')", "other").await;
    let other = token(json!({ "role": "other", "tenant": "a" }));
    let (mut members, mut others) =
        (scene.members("a", "table=notes").await, scene.everybody(Some(&other), "table=notes").await);
    for (rule, rows, shown) in [
        ("filter => 'tenant=eq.{tenant}&id=gt.1'", 1, "id,row_version,tenant,body,hidden,n"),
        ("filter => 'tenant=eq.{tenant}', columns => array['tenant']", 2, "id,row_version,tenant"),
        // the same again, and writing: nobody is told anything
        ("filter => 'tenant=eq.{tenant}', columns => array['tenant'], write => true", 2, "id,row_version,tenant"),
    ] {
        let resets = members[0].replica().resets.len();
        let writes = rule.contains("write");
        scene.world.run(&format!("select rowcast.allow('notes', 'member', {rule})")).await;
        let began = Instant::now();
        for l in &mut members {
            if !writes {
                l.until("a reset", |r| r.resets.len() > resets && r.rows("1").len() == rows).await;
            }
            let mut names: Vec<_> = l.replica().rows("1")[0].as_object().unwrap().keys().cloned().collect();
            let mut wanted: Vec<_> = shown.split(',').map(str::to_owned).collect();
            names.sort();
            wanted.sort();
            assert_eq!(names, wanted, "{rule} {:?}", l.transport);
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    scene.world.run("update notes set n = 9, body = 'late'").await;
    for l in &mut members {
        l.until("the change", |r| r.changes > 0).await;
        assert!(!l.said.contains("late") && l.replica().resets.len() == 2, "{:?}", l.replica().resets);
    }
    for l in &mut others {
        l.until("others go on", |r| r.row("1").unwrap()["n"] == 9).await;
        assert!(l.replica().resets.is_empty() && l.replica().snapshots == 1, "{:?}", l.replica().resets);
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn who_has_what_everybody_has_gets_a_rule_of_its_own() {
    let scene = Scene::new().await;
    scene.allow("select rowcast.watch('notes', public => true)", "anon").await;
    let guest = token(json!({ "role": "guest", "tenant": "a" }));
    let (mut guests, mut anyone) =
        (scene.everybody(Some(&guest), "table=notes").await, scene.everybody(None, "table=notes").await);
    assert!(guests.iter().chain(&anyone).all(|l| l.keys().len() == 4));
    scene.world.run("select rowcast.allow('notes', 'guest', filter => 'tenant=eq.{tenant}')").await;
    for l in &mut guests {
        l.until("its own", |r| r.rows("1").len() == 2).await;
    }
    // and back, by everybody's
    scene.world.run("select rowcast.deny('notes', 'guest')").await;
    for l in &mut guests {
        l.until("everybody's", |r| r.rows("1").len() == 4).await;
    }
    scene.world.run("select rowcast.allow('notes', 'anon', filter => 'id=eq.1')").await;
    for l in guests.iter_mut().chain(&mut anyone) {
        l.until("a part", |r| r.rows("1").len() == 1).await;
    }
    // taking that back opens nothing
    scene.world.run("select rowcast.deny('notes', 'anon')").await;
    for l in guests.iter_mut().chain(&mut anyone) {
        assert_eq!(l.ends().await, "not-found");
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn who_comes_back_and_may_see_less_forgets_what_it_held() {
    let scene = Scene::new().await;
    scene.allow("select rowcast.allow('notes', 'staff', filter => 'tenant=in.{tenants}')", "staff").await;
    let staff = |tenants: &[&str]| token(json!({ "role": "staff", "tenants": tenants }));
    let mut all = scene.everybody(Some(&staff(&["a", "b"])), "table=notes").await;
    assert!(all.iter().all(|l| l.keys().len() == 4));
    for (tenants, keys) in [(&["b"][..], &["2", "4"][..]), (&["a", "b"], &["1", "2", "3", "4"]), (&["b"], &["2", "4"])]
    {
        let token = staff(tenants);
        scene.world.run("update notes set n = n + 1").await;
        for l in &mut all {
            let resets = l.replica().resets.len();
            l.said.clear();
            l.client.show(Some(&token));
            l.client.reconnect(scene.gateway.address).await;
            l.until("a reset", |r| r.resets.len() > resets && r.rows("1").len() == keys.len()).await;
            assert_eq!(l.keys(), keys, "{:?}", l.transport);
            assert!(keys.len() == 4 || !l.said.contains("canary-a"), "{:?}: {}", l.transport, l.said);
            l.until("a position", |r| r.position.is_some()).await;
        }
    }
    // the same again goes on where it was
    for l in &mut all {
        let (resets, snapshots) = (l.replica().resets.len(), l.replica().snapshots);
        l.client.reconnect(scene.gateway.address).await;
        scene.world.run("update notes set n = n + 1").await;
        l.until("the change", |r| r.changes > 0).await;
        assert_eq!((l.replica().resets.len(), l.replica().snapshots), (resets, snapshots), "{:?}", l.transport);
        l.client.reconnect(scene.gateway.address).await;
    }
    scene.gateway.stop().await;
}

#[tokio::test]
async fn a_hidden_column_and_no_column_are_the_same() {
    let scene = Scene::new().await;
    let http = crate::support::writing::http();
    let token = member("a");
    let ask = async |path: &str| {
        let answer = http.get(scene.gateway.url(path)).bearer_auth(&token).send().await.unwrap();
        let status = answer.status().as_u16();
        let mut problem: serde_json::Value = answer.json().await.unwrap();
        problem.as_object_mut().unwrap().remove("request_id");
        (status, problem.to_string())
    };
    for form in [
        "/v1/changes?table=notes&COLUMN=eq.1",
        "/v1/changes?table=notes&COLUMN=gt.x",
        "/v1/changes?table=notes&COLUMN=nope.1",
        "/v1/changes?table=notes&or=(COLUMN.eq.1,id.eq.1)",
        "/v1/changes?table=notes&select=id,COLUMN",
        "/v1/tables/notes?COLUMN=eq.7",
        "/v1/tables/notes?select=COLUMN",
        "/v1/tables/notes?order=COLUMN",
        "/v1/tables/notes?order=COLUMN.desc",
        "/v1/tables/notes?order=COLUMN.sideways",
        "/v1/tables/notes/1?select=COLUMN",
    ] {
        let (hidden, absent) =
            (ask(&form.replace("COLUMN", "hidden")).await, ask(&form.replace("COLUMN", "hiddem")).await);
        assert_eq!(hidden.1.replace("hidden", "hiddem"), absent.1, "{form}");
        assert_eq!((hidden.0, absent.0), (400, 400), "{form}: {hidden:?}");
        assert!(hidden.1.contains("unknown-column"), "{form}: {hidden:?}");
    }
    // a table that is not shown and one that is not there
    let (hidden, absent) = (ask("/v1/changes?table=public.notes_").await, ask("/v1/changes?table=notes__").await);
    assert_eq!(hidden, absent);
    scene.gateway.stop().await;
}
