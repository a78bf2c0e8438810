//! F10, F11: subscribers that do not read, or hardly. They cost little, are cut, and harm nobody; whoever reads again is
//! brought forward instead of being reset.

use crate::support::client::{Transport, subscribe};
use crate::support::stalled::{Stalled, send_queues};
use crate::support::witness::finish;
use crate::support::{Client, GatewayProcess, Manner, Oracle, PATIENCE, Sse, View, Watched, World, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rowcast::hub::{Happening, ResetReason};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The kernel's share of what a stalled connection may cost.
const SEND_QUEUE: usize = 160 * 1024;

/// All of it.
const STALLED: u64 = 256 * 1024;

/// 30 s: the kernel gives up on whoever takes nothing for 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_f11_those_who_never_read_or_read_a_byte_a_second_are_cut_and_harm_nobody() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, 0, repeat('x', 2000) from generate_series(1, 20) as i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = GatewayProcess::start(&world.url, &[("ROWCAST_RING_BYTES", "1000000")]).await;
    let mut healthy = subscribe(Transport::Sse, gateway.address, "table=t").await;
    healthy.until("all rows", |r| r.rows("1").len() == 20).await;
    let mut stalled = Vec::new();
    for i in 0..500 {
        let client = Stalled::open(gateway.address, "table=t").await;
        if i % 25 == 0 {
            drop(tokio::spawn(client.trickles()));
        } else {
            stalled.push(client);
        }
    }
    eventually("everybody is there", || async { gateway.readyz().await["subscriptions"] == 501 }).await;
    let before = gateway.memory();
    let sql = world.sql().await;
    let began = Instant::now();
    let (mut times, mut largest, mut memory, mut full) = (Vec::new(), 0, before, None);
    let mut left = 501;
    for n in 1.. {
        sql.execute("update t set n = $1", &[&n]).await.unwrap();
        let committed = Instant::now();
        healthy.until("each tick in time", |r| r.row("1").unwrap()["n"] == n).await;
        times.push(committed.elapsed());
        if n % 20 == 0 {
            let queues = send_queues(gateway.address.port());
            largest = largest.max(queues.iter().copied().max().unwrap_or(0));
            memory = memory.max(gateway.memory());
            if full.is_none() && queues.iter().filter(|q| **q > 50_000).count() > 400 {
                full = Some(Instant::now());
            }
            left = gateway.readyz().await["subscriptions"].as_u64().unwrap();
            if left == 1 {
                break;
            }
        }
        assert!(began.elapsed() < 2 * PATIENCE, "{left} subscribers are still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    let full = full.expect("they were stalled");
    let (gone, cost) = (full.elapsed(), (memory.saturating_sub(before)) / 500);
    eprintln!(
        "{} ticks; the healthy one: median {:?}, p99 {:?}; the largest send queue {largest}; {cost} bytes of memory a stalled \
         client; gone {gone:?} after most were full",
        times.len(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
    );
    assert!(largest > 50_000 && largest <= SEND_QUEUE, "{largest}");
    assert!(cost + largest as u64 <= STALLED, "{cost} and {largest} bytes");
    assert!(gone < Duration::from_secs(25), "{gone:?}");
    assert!(healthy.replica().resets.is_empty());
    drop((healthy, stalled));
}

/// Whoever falls off the ring is told the newest version of what it missed, once, however much happened, and however many
/// fell behind at the same place cost one read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_who_reads_again_is_brought_forward_and_many_at_one_place_cost_one_read() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, 0, repeat('x', 4000) from generate_series(1, 100) as i;
             select rowcast.watch('t', public => true, snapshot_every => '0')",
        )
        .await;
    let gateway = world.gateway_with(|settings| settings.ring_bytes = 64 * 1024).await;
    let (mut behind, mut parts) = (Vec::new(), 0);
    for _ in 0..8 {
        let mut client = Sse::open(gateway.address, "table=t").await;
        client.recording = false;
        let there: &mut dyn Client = &mut client;
        there.until("all rows", |r| r.rows("1").len() == 100 && r.position.is_some()).await;
        parts = client.replica.snapshots;
        behind.push(client);
    }
    let sql = world.sql().await;
    // 24 MB each: more than the sockets of both sides hold
    for n in 1..=60 {
        sql.execute("update t set n = $1", &[&n]).await.unwrap();
    }
    sql.batch_execute("delete from t where id = 100; insert into t values (101, 7, 'new')").await.unwrap();
    let counts = gateway.gateway().core().hub.counts();
    let mut told = 0;
    for client in &mut behind {
        let there: &mut dyn Client = client;
        there
            .until("the end", |r| r.rows("1").len() == 100 && r.row("101").is_some() && r.row("7").unwrap()["n"] == 60)
            .await;
        assert!(client.replica.resets.is_empty() && client.replica.snapshots == parts, "{:?}", client.replica.resets);
        told += client.replica.changes;
    }
    let (folded, reads) = (counts.of(Happening::Folded), counts.of(Happening::MissedRead));
    eprintln!("folded {folded} times, {reads} reads, {} changes a client of {}", told / 8, 60 * 100);
    assert!(folded >= 8, "{folded}");
    assert!(reads <= folded, "{reads} reads for {folded}");
    assert!(ResetReason::ALL.iter().all(|reason| counts.resets(*reason) == 0));
    world.run("update t set n = 500 where id = 7").await;
    for client in &mut behind {
        let there: &mut dyn Client = client;
        there.until("live again", |r| r.row("7").unwrap()["n"] == 500).await;
    }
    drop(behind);
    gateway.stop().await;
}

/// A ring that holds a single tick: everybody falls behind all the time, and every state is one Postgres was in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f11_folded_states_are_exact() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int not null, v text);
             insert into t select i, i % 6, repeat('x', 60) from generate_series(1, 60) as i;
             create table u (id int primary key, n int not null); insert into u select i, 0 from generate_series(1, 5) as i;
             select rowcast.watch(r, public => true) from unnest(array['t', 'u']::regclass[]) as r",
        )
        .await;
    let gateway = world
        .gateway_with(|settings| {
            settings.ring_bytes = 1;
            settings.tick_interval = Duration::from_millis(1);
        })
        .await;
    let (_keep, gateways) = watch::channel(vec![gateway.address]);
    let views =
        vec![View::new("", "t", "id", "true"), View::new("", "t", "id", "n >= 3"), View::new("", "u", "id", "true")];
    let mut oracle = Oracle::new(&world.url, &["t", "u"], views).await.at_pace_of(gateway.address);
    let plan = |views: Vec<(&'static str, usize)>, query: &str, seed| Manner {
        transport: Transport::Sse,
        views,
        query: query.to_owned(),
        roams: None,
        at_leader: false,
        invariant: None,
        seed,
    };
    let both = "sub=a~t%3Fn%3Dgte.3&sub=b~u";
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Watched::start(plan(vec![("1", 0)], "table=t", rng.random()), gateways.clone()));
        clients.push(Watched::start(plan(vec![("1", 1)], "table=t&n=gte.3", rng.random()), gateways.clone()));
        clients.push(Watched::start(plan(vec![("a", 1), ("b", 2)], both, rng.random()), gateways.clone()));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|i| {
            let (url, stop, mut rng) = (world.url.clone(), stop.clone(), StdRng::seed_from_u64(seed.wrapping_add(i)));
            tokio::spawn(async move {
                let client = crate::support::world::connect(&url).await;
                while !stop.load(Ordering::Relaxed) {
                    let (id, n) = (rng.random_range(1..=60), rng.random_range(0..6));
                    let sql = match rng.random_range(0..4) {
                        0 => format!("insert into t values ({id}, {n}) on conflict (id) do update set n = excluded.n"),
                        1 => format!("delete from t where id = {id}"),
                        2 => format!("update u set n = n + 1 where id = {id} % 5 + 1"),
                        _ => format!(
                            "begin; update t set n = {n} where id = {id}; update u set n = {n} where id = 1; commit"
                        ),
                    };
                    if client.batch_execute(&sql).await.is_err() {
                        let _ = client.batch_execute("rollback").await;
                    }
                }
            })
        })
        .collect();
    let counts = gateway.gateway().core().hub.counts();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) || counts.of(Happening::Folded) < 20 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..40))).await;
        let truth = oracle.tick().await;
        if !clients.iter().all(|client| client.tell(&truth)) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{counts:?}");
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let truth = oracle.tick().await;
    clients.iter().for_each(|client| {
        client.tell(&truth);
    });
    let reports = finish(clients).await;
    reports.iter().for_each(|report| eprintln!("{report:?}"));
    eprintln!("{counts:?}");
    assert!(reports.iter().all(|r| r.checked > 0));
    assert!(reports.iter().all(|r| r.resets.is_empty()), "nobody is reset");
    gateway.stop().await;
}
