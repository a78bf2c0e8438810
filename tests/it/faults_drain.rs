//! A gateway that stops, streams that grow old, and more connections than are taken.

use crate::support::client::TRANSPORTS;
use crate::support::stalled::Stalled;
use crate::support::witness::finish;
use crate::support::{
    GatewayProcess, Manner, Oracle, PATIENCE, Sse, TestGateway, View, Watched, World, eventually, seed,
};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

const SCORES: &str = "create table t (id int primary key, n int not null, v text);
    insert into t select i, 0, repeat('x', 200) from generate_series(1, 10) as i;
    select rowcast.watch('t', public => true)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_spread_whole_and_in_time() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("select rowcast.allow('t', 'anon', write => true)").await;
    let mut gateway = GatewayProcess::start(&world.url, &[("ROWCAST_DRAIN_SECONDS", "4")]).await;
    let at = gateway.address;
    let clients = join_all((0..400).map(|_| async move {
        let mut client = Stalled::open(at, "table=t").await;
        assert!(client.reads_until("\"more\":false").await);
        client
    }))
    .await;
    // a request in flight: it waits for a lock
    let sql = world.sql().await;
    sql.batch_execute("begin; update t set n = 1 where id = 1").await.unwrap();
    let write = tokio::spawn(async move {
        let request = reqwest::Client::new().patch(format!("http://{at}/v1/tables/t/1"));
        let request = request.header("content-type", "application/merge-patch+json").header("if-match", "*");
        request.body("{\"n\":5}").send().await.map(|answer| answer.status().as_u16())
    });
    let watcher = world.sql().await;
    let blocked = "select count(*) from pg_locks where not granted";
    eventually("the write waits", || async { watcher.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) > 0 })
        .await;

    gateway.signal(Signal::TERM);
    let told = Instant::now();
    let byes = tokio::spawn(join_all(clients.into_iter().map(|mut client| async move {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
        loop {
            match client.socket.read(&mut buffer).await {
                Ok(0) => break,
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(e) => panic!("the end was not clean: {e}, after {}", String::from_utf8_lossy(&all)),
            }
        }
        (told.elapsed(), String::from_utf8(all).unwrap())
    })));
    eventually("it is not ready any more", || async {
        match reqwest::get(format!("http://{at}/readyz")).await {
            Ok(answer) => answer.status() == 503,
            Err(_) => true,
        }
    })
    .await;
    assert!(told.elapsed() < Duration::from_secs(1), "at once: {:?}", told.elapsed());
    sql.batch_execute("commit").await.unwrap();
    assert_eq!(write.await.unwrap().unwrap(), 200, "what was asked for before is answered");
    let byes = byes.await.unwrap();
    let status = gateway.ended().await;
    let took = told.elapsed();
    let mut at: Vec<Duration> = byes.iter().map(|(at, _)| *at).collect();
    at.sort();
    eprintln!("first bye after {:?}, last after {:?}, ended after {took:?}", at[0], at[399]);
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert!(at[399] - at[0] > Duration::from_millis(500), "spread: {:?}", at[399] - at[0]);
    let mut waits = std::collections::HashSet::new();
    for (_, text) in byes {
        let text = text.trim_end_matches(['0', '\r', '\n']).trim_end();
        let bye = text.rsplit("event: bye").next().unwrap();
        let (before, after) = bye.split_once("\"retry_ms\":").unwrap_or_else(|| panic!("no whole bye: {text:?}"));
        assert!(before.contains("\"reason\":\"shutting-down\"") && after.ends_with('}'), "{text:?}");
        waits.insert(after.to_owned());
    }
    assert!(waits.len() > 50, "the waits differ: {}", waits.len());
}

/// Two gateways, one after the other replaced three times, while rows are written: every state of every client is one
/// Postgres was in, and nobody is reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_and_repeats_nothing() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    world.run(SCORES).await;
    let mut gateways: Vec<Option<TestGateway>> = vec![Some(world.gateway().await), Some(world.gateway().await)];
    let addresses = |gateways: &[Option<TestGateway>]| gateways.iter().flatten().map(|g| g.address).collect::<Vec<_>>();
    let (tell, told) = watch::channel(addresses(&gateways));
    let views = vec![View::new("", "t", "id", "true"), View::new("", "t", "id", "n >= 3")];
    let mut oracle = Oracle::new(&world.url, &["t"], views).await;
    let mut clients = Vec::new();
    for transport in TRANSPORTS {
        for (view, query) in [(0, "table=t"), (1, "table=t&n=gte.3")] {
            for _ in 0..3 {
                let manner = Manner {
                    transport,
                    views: vec![("1", view)],
                    query: query.to_owned(),
                    roams: None,
                    at_leader: false,
                    invariant: None,
                    seed: rng.random(),
                };
                clients.push(Watched::start(manner, told.clone()));
            }
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (url, stopped, mut random) = (world.url.clone(), stop.clone(), StdRng::seed_from_u64(seed));
    let writer = tokio::spawn(async move {
        let client = crate::support::world::connect(&url).await;
        while !stopped.load(Ordering::Relaxed) {
            let (id, n) = (random.random_range(1..=10), random.random_range(0..6));
            let sql = match random.random_range(0..4) {
                0 => format!("delete from t where id = {id}"),
                _ => format!("insert into t values ({id}, {n}, 'v') on conflict (id) do update set n = excluded.n"),
            };
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for round in 0..4 {
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(rng.random_range(5..40))).await;
            let truth = oracle.tick().await;
            clients.iter().for_each(|client| _ = client.tell(&truth));
        }
        let old = gateways[round % 2].take().unwrap();
        // a load balancer sends nobody to who says it is not ready
        tell.send_replace(addresses(&gateways));
        old.stop().await;
        gateways[round % 2] = Some(world.gateway().await);
        tell.send_replace(addresses(&gateways));
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let truth = oracle.tick().await;
    clients.iter().for_each(|client| _ = client.tell(&truth));
    let reports = finish(clients).await;
    reports.iter().for_each(|report| eprintln!("{report:?}"));
    assert!(reports.iter().all(|r| r.checked > 0 && r.resets.is_empty()), "nobody is reset");
    assert!(reports.iter().filter(|r| r.reconnects > 1).count() >= 6, "streams moved");
    for gateway in gateways.into_iter().flatten() {
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_grew_old_is_told_to_come_back_and_misses_nothing() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world.gateway_with(|settings| settings.max_stream_age = Duration::from_secs(2)).await;
    let mut client = Sse::open(gateway.address, "table=t").await;
    let began = Instant::now();
    while client.event().await.is_ok() {}
    // the event stands in the list; what was told before is applied below
    let age = began.elapsed();
    let bye = client.events.last().unwrap().clone();
    assert!(bye.event == "bye" && bye.data.contains("\"reason\":\"resume\""), "{bye:?}");
    assert!(age > Duration::from_millis(1500) && age < Duration::from_secs(10), "{age:?}");
    let last = client.events.iter().rev().find_map(|event| event.id.clone()).unwrap();
    world.run("update t set n = 9 where id = 3").await;
    let mut back = Stalled::resume(gateway.address, "table=t", Some(&last)).await;
    let mut text = vec![0; 4096];
    let mut told = String::new();
    while !told.contains("\"n\":9") {
        let n = tokio::time::timeout(PATIENCE, back.socket.read(&mut text)).await.unwrap().unwrap();
        told.push_str(std::str::from_utf8(&text[..n]).unwrap());
    }
    assert!(!told.contains("snapshot") && !told.contains("reset"), "{told}");
    drop(back);
    gateway.stop().await;
}

/// The answer to a request on a connection of its own, to its end.
async fn answer(gateway: &TestGateway, path: &str, accept: &str) -> String {
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn h41_above_the_limits_everybody_is_told_so() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world
        .gateway_with(|settings| {
            settings.max_connections = 12;
            settings.max_streams_per_address = 2;
        })
        .await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = Stalled::open(gateway.address, "table=t").await;
        assert!(stream.reads_until("\"more\":false").await);
        streams.push(stream);
    }
    let third = answer(&gateway, "/v1/stream?table=t", "text/event-stream").await;
    assert!(third.starts_with("HTTP/1.1 200") && third.contains("\"reason\":\"overloaded\",\"retry_ms\":"), "{third}");
    let third = answer(&gateway, "/v1/stream?table=t", "*/*").await;
    assert!(third.starts_with("HTTP/1.1 429") && third.contains("\"code\":\"connection-limit\""), "{third}");
    assert!(third.contains("retry-after: "), "{third}");
    drop(streams.pop());
    eventually("the place is free", || async { gateway.readyz().await["subscriptions"] == 1 }).await;
    let mut again = Stalled::open(gateway.address, "table=t").await;
    assert!(again.reads_until("\"more\":false").await);

    // connections that say nothing yet
    let mut idle = Vec::new();
    loop {
        idle.push(TcpStream::connect(gateway.address).await.unwrap());
        if idle.len() < 9 {
            continue;
        }
        let refused = answer(&gateway, "/v1/tables/t", "*/*").await;
        if refused.starts_with("HTTP/1.1 503") {
            assert!(
                refused.contains("\"code\":\"connection-limit\"") && refused.contains("retry-after: "),
                "{refused}"
            );
            assert!(refused.contains("connection: close"), "{refused}");
            break;
        }
        assert!(idle.len() < 20, "more than the limit: {refused}");
    }
    let stream = answer(&gateway, "/v1/stream?table=t", "text/event-stream").await;
    assert!(stream.starts_with("HTTP/1.1 200") && stream.contains("\"reason\":\"overloaded\""), "{stream}");
    let ready = answer(&gateway, "/readyz", "*/*").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    drop(idle);
    eventually("there is room again", || async {
        answer(&gateway, "/v1/tables/t", "*/*").await.starts_with("HTTP/1.1 200")
    })
    .await;
    drop((streams, again));
    gateway.stop().await;
}
