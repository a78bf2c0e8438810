//! A commit whose outcome nobody knows: said so, and never repeated by the gateway.

use crate::support::cutter::{AtCommit, Cutter};
use crate::support::{World, writing};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn cut_exactly_at_the_commit() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int); insert into t values (1, 0);
             select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
        )
        .await;
    let (cutter, through) = Cutter::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    let http = writing::http();
    let sql = world.sql().await;
    let n = async || -> i32 { sql.query_one("select n from t", &[]).await.unwrap().get(0) };
    let patch = async |n: i32| {
        let request = http.patch(gateway.url("/v1/tables/t/1")).header("if-match", "*");
        let request = request.header("content-type", "application/json").body(format!("{{\"n\":{n}}}"));
        let answer = request.send().await.unwrap();
        let headers = answer.headers().clone();
        (answer.status().as_u16(), headers, answer.json::<serde_json::Value>().await.unwrap())
    };
    for (round, mode, took_effect) in
        [(1, AtCommit::CutBefore, false), (2, AtCommit::CutAfter, true), (3, AtCommit::Silent, true)]
    {
        assert_eq!(patch(round * 10).await.0, 200, "{mode:?}: the pool recovers");
        let before = cutter.commits.load(Ordering::SeqCst);
        cutter.set(mode);
        let (status, headers, problem) = patch(round * 10 + 1).await;
        cutter.set(AtCommit::Pass);
        assert_eq!((status, problem["code"].as_str()), (503, Some("outcome-unknown")), "{mode:?}: {problem}");
        assert!(!headers.contains_key("retry-after") && problem["retry_after"].is_null(), "{mode:?}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("may have taken effect") && detail.contains("Idempotency-Key"), "{detail}");
        let deadline = "select count(*) from pg_stat_activity where datname = current_database() and query = 'commit' and state = 'active'";
        crate::support::eventually("the commit is over", || async {
            sql.query_one(deadline, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        assert_eq!(n().await, round * 10 + i32::from(took_effect), "{mode:?}");
        assert_eq!(cutter.commits.load(Ordering::SeqCst), before + 1, "{mode:?}: not tried again");
    }
    gateway.stop().await;
}

/// The backend ends while the statement runs: nothing was committed, and that is certain.
#[tokio::test]
async fn killed_before_the_commit_is_no_riddle() {
    let w = crate::support::Writing::new(
        "create table t (id int primary key, n int); insert into t values (1, 0);
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let blocker = w.world.sql().await;
    blocker.batch_execute("begin; select from t where id = 1 for update").await.unwrap();
    let write = w.patch("/v1/tables/t/1", "*", r#"{"n": 1}"#);
    let kill = async {
        let waits = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        crate::support::eventually("it is killed", || async { w.text(waits).await == "1" }).await;
    };
    let (answer, ()) = futures_util::future::join(write, kill).await;
    answer.refused(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    blocker.batch_execute("commit").await.unwrap();
    assert_eq!(w.text("select n from t").await, "0");
    w.patch("/v1/tables/t/1", "*", r#"{"n": 2}"#).await.ok(200);
    w.gateway.stop().await;
}

/// A constraint that is checked at the end refuses before the commit is sent: with its own code, and in certainty.
#[tokio::test]
async fn what_is_deferred_fails_before_the_commit() {
    let w = crate::support::Writing::new(
        "create table p (id int primary key); create table t (id int primary key, p int references p deferrable initially deferred);
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    w.json("POST", "/v1/tables/t", &[], r#"{"id": 1, "p": 5}"#).await.refused(409, "conflict");
    assert_eq!(w.text("select count(*) from t").await, "0");
    w.gateway.stop().await;
}

/// A synchronous standby that is away: each commit without an answer keeps its connection and its place, so there are
/// never more of them than places.
#[tokio::test]
async fn unanswered_commits_do_not_add_up() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int); insert into t select n, 0 from generate_series(1, 12) as n;
             select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
        )
        .await;
    let (cutter, through) = Cutter::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    let http = writing::http();
    let patch = async |id: i32| {
        let request = http.patch(gateway.url(&format!("/v1/tables/t/{id}"))).header("if-match", "*");
        let answer = request.header("content-type", "application/json").body("{\"n\":1}").send().await.unwrap();
        answer.json::<serde_json::Value>().await.unwrap()["code"].as_str().map(str::to_owned)
    };
    cutter.set(AtCommit::Silent);
    let codes = futures_util::future::join_all((1..=12).map(patch)).await;
    let count = |code: &str| codes.iter().filter(|c| c.as_deref() == Some(code)).count();
    assert_eq!((count("outcome-unknown"), count("unavailable")), (3, 9), "{codes:?}");
    assert_eq!(patch(1).await.as_deref(), Some("unavailable"), "the places are still taken");
    // the connections end: so do the commits, and the places are free again
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query = 'commit'";
    world.run(end).await;
    cutter.set(AtCommit::Pass);
    crate::support::eventually("it writes again", || async { patch(1).await.is_none() }).await;
    gateway.stop().await;
}
