//! The command line: what it prints, how it ends.

use crate::support::client::SseEvent;
use crate::support::{GatewayProcess, LongPoll, Sse, World, eventually};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

fn rowcast(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
    command.args(args).env("DATABASE_URL", &world.url).env("ROWCAST_LOG", "error").stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

async fn run(world: &World, args: &[&str]) -> Output {
    rowcast(world, args).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_table_is_watched_listed_and_unwatched() {
    let world = World::bare().await;
    world.run("create table scores (id int primary key, league text, secret text)").await;
    let early = run(&world, &["tables"]).await;
    assert_eq!(early.status.code(), Some(3), "no schema yet: {}", text(&early.stderr));
    assert!(run(&world, &["migrate"]).await.status.success());
    let none = run(&world, &["tables"]).await;
    assert!(text(&none.stdout).contains("no table is watched"), "{}", text(&none.stdout));

    let done = run(&world, &["watch", "scores", "--public", "--ttl", "3 s", "--exclude", "secret"]).await;
    assert!(done.status.success(), "{}", text(&done.stderr));
    let listed = run(&world, &["tables", "--json"]).await;
    let line: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&line["table"], &line["public"], &line["ttl_ms"]), (&"scores".into(), &true.into(), &3000.into()));
    assert_eq!(line["columns"], serde_json::json!(["id", "league", "row_version"]));
    assert_eq!(line["problem"], Value::Null);

    let allow = ["allow", "scores", "member", "--filter", "league=eq.{league}", "--columns", "league", "--write"];
    let done = run(&world, &allow).await;
    assert_eq!(text(&done.stdout), "`member` reads and writes scores (league=eq.{league})\n", "{}", text(&done.stderr));
    let listed = run(&world, &["tables", "--json"]).await;
    let line: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let rule = serde_json::json!({ "role": "member", "filter": "league=eq.{league}",
        "columns": ["id", "league", "row_version"], "write": true, "version_required": true });
    assert_eq!(line["rules"][1], rule, "{line}");
    let listed = text(&run(&world, &["tables"]).await.stdout);
    assert!(listed.contains("    anon: all rows\n"), "{listed}");
    assert!(listed.contains("    member: league=eq.{league}; only id, league, row_version; writes\n"), "{listed}");
    let wrong = run(&world, &["allow", "scores", "member", "--filter", "secret=eq.1"]).await;
    assert_eq!(wrong.status.code(), Some(1));
    let says = text(&wrong.stderr);
    assert!(says.contains("unknown column `secret`") && says.contains("publish it with rowcast.watch"), "{says}");
    let done = run(&world, &["deny", "scores", "member"]).await;
    assert!(text(&done.stdout).contains("no rule for scores"), "{}", text(&done.stderr));

    let missing = run(&world, &["watch", "nothing"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("nothing"), "{}", text(&missing.stderr));
    assert_eq!(run(&world, &["watch"]).await.status.code(), Some(2), "wrong usage");

    assert!(run(&world, &["unwatch", "scores", "--drop-version"]).await.status.success());
    assert!(run(&world, &["tables", "--json"]).await.stdout.is_empty());
    world.run("insert into scores values (1, 'nfl', 'x'); update scores set league = 'nba'").await;
    let sql = world.sql().await;
    let left = "select from pg_attribute where attrelid = 'scores'::regclass and attname = 'row_version'";
    assert!(sql.query_opt(left, &[]).await.unwrap().is_none(), "nothing is left on the table");
}

#[tokio::test]
async fn tail_prints_one_json_object_a_line_when_piped() {
    let world = World::new().await;
    world.run("create table scores (id int primary key, league text); select rowcast.watch('scores')").await;
    world.run("insert into scores values (1, 'nfl'), (2, 'nba')").await;
    let mut tail = rowcast(&world, &["tail", "scores", "league=eq.nfl"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = async || -> Value { serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap() };
    let first = next().await;
    assert_eq!((&first["type"], &first["rows"][0]["row"]["id"]), (&"snapshot".into(), &1.into()), "{first}");
    assert_eq!(first["rows"].as_array().unwrap().len(), 1, "a table that is not public is shown, and filtered");
    world.run("update scores set league = 'nfl' where id = 2").await;
    let second = next().await;
    assert_eq!((&second["type"], &second["changes"][0]["op"]), (&"changes".into(), &"insert".into()), "{second}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(tail.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(tail.wait().await.unwrap().code(), Some(0));
    let wrong = run(&world, &["tail", "scores", "league"]).await;
    assert!(wrong.status.code() == Some(2) && text(&wrong.stderr).contains("column=operator.value"), "{wrong:?}");
}

#[tokio::test]
async fn sigterm_says_bye_in_whole_events_and_ends_within_the_drain() {
    let world = World::new().await;
    world.run("create table t (id int primary key, v text); select rowcast.watch('t', public => true)").await;
    world.run("insert into t select i, repeat('x', 500) from generate_series(1, 300) as i").await;
    let drain = 2;
    let mut gateway = GatewayProcess::start(&world.url, &[("ROWCAST_DRAIN_SECONDS", &drain.to_string())]).await;
    let mut stream = Sse::open(gateway.address, "table=t").await;
    let client: &mut dyn crate::support::Client = &mut stream;
    client.until("all rows", |r| r.rows("1").len() == 300).await;
    // a poll that waits must be answered, not cut
    let mut poll = LongPoll::new(gateway.address, "table=t&id=lt.0");
    let first: &mut dyn crate::support::Client = &mut poll;
    first.until("an empty table", |r| r.position.is_some()).await;
    poll.wait = 50;
    let waiting = tokio::spawn(async move { crate::support::Client::advance(&mut poll).await });
    eventually("the poll waits there", || async { gateway.readyz().await["subscriptions"] == 2 }).await;
    // changes of many bytes are on their way while it stops
    let url = world.url.clone();
    let writing = tokio::spawn(async move {
        let client = crate::support::world::connect(&url).await;
        for _ in 0..60 {
            client.batch_execute("update t set v = v || 'y'").await.unwrap();
        }
    });
    for _ in 0..5 {
        stream.event().await.unwrap();
    }
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    let last = loop {
        match stream.event().await {
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    assert_eq!(last, "end", "after a whole event, and without an error of the connection");
    let SseEvent { event, data, .. } = stream.events.last().unwrap();
    let bye: Value = serde_json::from_str(data).unwrap();
    assert_eq!((event.as_str(), &bye["type"], &bye["reason"]), ("bye", &"bye".into(), &"shutting-down".into()));
    assert!(bye["retry_ms"].as_u64().is_some_and(|ms| ms > 0));
    waiting.await.unwrap().expect("the poll is answered");
    let status = gateway.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(drain + 1), "took {:?}", began.elapsed());
    writing.await.unwrap();
}

/// Some 12 s: that is the heartbeat.
#[tokio::test]
async fn a_stream_with_nothing_to_say_says_where_it_stands() {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let mut stream = Sse::open(gateway.address, "table=t&id=lt.0").await;
    let client: &mut dyn crate::support::Client = &mut stream;
    client.until("the snapshot", |r| r.position.is_some()).await;
    let before = stream.replica.tick().unwrap();
    world.run("insert into t values (1)").await;
    let began = Instant::now();
    let cursor = loop {
        let event =
            tokio::time::timeout(Duration::from_secs(15), stream.event()).await.expect("silent for 15 s").unwrap();
        // the one at the beginning may come late
        if event.event == "cursor" && crate::support::replica::tick_of(event.id.as_deref().unwrap()) > before {
            break event;
        }
    };
    assert!(began.elapsed() < Duration::from_secs(15));
    let body: Value = serde_json::from_str(&cursor.data).unwrap();
    assert_eq!(body["position"].as_str(), cursor.id.as_deref(), "past what did not match");
    assert!(body["lag_ms"].as_u64().is_some_and(|lag| lag < 5000), "{body}");
    gateway.stop().await;
}
