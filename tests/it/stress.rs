//! Random writers against everything that makes order hard, and clients whose every state is compared with Postgres.
//!
//! Some 10 s in the suite. A longer run is a command of its own:
//! `ROWCAST_STRESS_SECONDS=60 cargo test --test it stress -- --nocapture`; `ROWCAST_SEED=<seed>` repeats the choices.

mod writers;

use crate::support::client::{TRANSPORTS, Transport};
use crate::support::witness::finish;
use crate::support::{Manner, Oracle, Replica, View, Watched, World, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Six writers keep two cores busy with locks that collide.
const WRITERS: u64 = 6;

fn seconds() -> u64 {
    std::env::var("ROWCAST_STRESS_SECONDS").map_or(8, |s| s.parse().expect("ROWCAST_STRESS_SECONDS is a number"))
}

/// Money moves between two tables in one transaction: a client that sees half a transaction sees another sum.
fn nothing_is_lost(replica: &Replica) {
    let sum = |sub: &str| replica.rows(sub).iter().map(|row| row["v"].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum("a") + sum("b"), 0, "half a transaction at {:?}", replica.position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_state_is_one_postgres_was_in() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    world.run(writers::SCHEMA).await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let (_keep, gateways) = watch::channel(vec![one.address, two.address]);

    let views = vec![
        View::new("hot", "hot", "id", "true"),
        View::new("hot?owner=eq.a", "hot", "id", "owner = 'a'"),
        View::new("hot?n=gte.10&note=is.null", "hot", "id", "n >= 10 and note is null"),
        View::of_columns(
            "hot?select=id,owner&or=(id.lt.4,owner.eq.b)",
            "hot",
            "id",
            "id < 4 or owner = 'b'",
            "t.id, t.owner",
        ),
        View::new("pair_a", "pair_a", "id", "true"),
        View::new("pair_b", "pair_b", "id", "true"),
        View::new("pair_a?v=gt.0", "pair_a", "id", "v > 0"),
        View::new("seat", "seat", "id", "true"),
    ];
    let mut oracle =
        Oracle::new(&world.url, &["hot", "pair_a", "pair_b", "seat"], views.clone()).await.at_pace_of(one.address);
    let clients: Vec<Watched> =
        plans(&views, &mut rng).into_iter().map(|plan| Watched::start(plan, gateways.clone())).collect();

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|i| tokio::spawn(writers::write(world.url.clone(), seed.wrapping_add(i), stop.clone())))
        .collect();
    let (began, mut sampled) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(seconds()) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(5..60))).await;
        let truth = oracle.tick().await;
        sampled += 1;
        if !clients.iter().all(|client| client.tell(&truth)) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = writers::Done::default();
    for writer in writers {
        done.add(&writer.await.unwrap());
    }
    // the last word: everybody ends with what the tables hold
    let truth = oracle.tick().await;
    clients.iter().for_each(|client| {
        client.tell(&truth);
    });
    let reports = finish(clients).await;

    let sql = world.sql().await;
    let row = sql
        .query_one("select (select count(*) from rowcast.tick), (select count(*) from rowcast.log_0)", &[])
        .await
        .unwrap();
    let (ticks, logged): (i64, i64) = (row.get(0), row.get(1));
    eprintln!(
        "{done:?}\n{ticks} ticks, {logged} changes logged, {sampled} ticks sampled ({} more lost to the leader)",
        oracle.late
    );
    reports.iter().for_each(|report| eprintln!("{report:?}"));
    let checked: usize = reports.iter().map(|r| r.checked).sum();
    let changes: usize = reports.iter().map(|r| r.changes).sum();
    eprintln!("{checked} states of clients checked, {changes} messages of changes applied, 0 states inconsistent");
    // a client that roams among few ticks of its own stands at an oracle's tick now and then
    assert!(reports.iter().all(|r| r.checked > 0) && checked > sampled * 5, "hardly anything was checked");
    assert!(done.truncated > 0 || seconds() < 30, "no TRUNCATE in the whole run");
    one.stop().await;
    two.stop().await;
}

/// Every view alone, at the leader and anywhere, staying or roaming, and several on one connection.
fn plans(views: &[View], rng: &mut StdRng) -> Vec<Manner> {
    let mut plans = Vec::new();
    let roaming = |yes: bool| yes.then_some(Duration::from_millis(700));
    for (i, view) in views.iter().enumerate() {
        let (table, filter) = view.query.split_once('?').unwrap_or((&view.query, ""));
        let transport = TRANSPORTS[i % TRANSPORTS.len()];
        let query = format!("table={table}&{filter}");
        let query = query.trim_end_matches('&').to_owned();
        let views = vec![("1", i)];
        plans.push(Manner {
            transport,
            views: views.clone(),
            query: query.clone(),
            roams: None,
            at_leader: true,
            invariant: None,
            seed: rng.random(),
        });
        plans.push(Manner {
            transport,
            views,
            query,
            roams: roaming(i % 2 == 0),
            at_leader: false,
            invariant: None,
            seed: rng.random(),
        });
    }
    let labels = [("h", 1), ("o", 3), ("a", 4), ("b", 5), ("p", 6), ("s", 7)];
    let encode = |query| percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
    let subs: Vec<String> =
        labels.iter().map(|(label, i)| format!("sub={label}~{}", encode(&views[*i].query))).collect();
    // (transport, roams, at the leader)
    let many = [
        (Transport::Sse, false, true),
        (Transport::Sse, false, false),
        (Transport::Sse, true, false),
        (Transport::Sse, true, true),
        (Transport::WebSocket, false, true),
        (Transport::WebSocket, true, false),
        (Transport::LongPoll, false, true),
        (Transport::LongPoll, true, false),
    ];
    for (transport, roams, at_leader) in many {
        let invariant = Some(nothing_is_lost as fn(&Replica));
        let (views, query) = (labels.to_vec(), subs.join("&"));
        plans.push(Manner { transport, views, query, roams: roaming(roams), at_leader, invariant, seed: rng.random() });
    }
    plans
}
