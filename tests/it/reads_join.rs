//! A list and a stream from its position are one state: nothing is missed in between, and hardly anything repeated.

use crate::support::{Oracle, PATIENCE};
use crate::support::{ReadClient, Reading, Sse, View, World, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Many rows, each changed rarely: a change that was missed is still missing at the end.
const ROWS: i32 = 900;

/// Lists read and continued, one after the other, while the table changes.
const JOINS: usize = 25;

/// What the documentation tells clients to do: rows by key and version, and a repeat does no harm.
#[derive(Default)]
struct Held {
    rows: BTreeMap<i64, (i64, Value)>,
    repeated: usize,
    changes: usize,
}

impl Held {
    fn of(list: &Reading) -> Held {
        let rows = list.rows().into_iter();
        let rows = rows.map(|row| (row["id"].as_i64().unwrap(), (row["row_version"].as_i64().unwrap(), row)));
        Held { rows: rows.collect(), ..Held::default() }
    }

    fn apply(&mut self, message: &Value) {
        assert_ne!(message["type"], "reset", "{message}");
        assert_ne!(message["type"], "snapshot", "{message}");
        for change in message["changes"].as_array().into_iter().flatten() {
            self.changes += 1;
            let (key, version) =
                (change["key"].as_str().unwrap().parse().unwrap(), change["version"].as_i64().unwrap());
            if self.rows.get(&key).is_some_and(|(held, _)| *held >= version) {
                self.repeated += 1;
                continue;
            }
            match change["op"].as_str().unwrap() {
                "delete" => self.repeated += usize::from(self.rows.remove(&key).is_none()),
                op => {
                    let known = self.rows.insert(key, (version, change["row"].clone())).is_some();
                    assert_eq!(known, op == "update", "{change}");
                }
            }
        }
    }
}

async fn follow(at: SocketAddr, query: &'static str, list: Reading, end: tokio::sync::watch::Receiver<i64>) -> Held {
    let mut held = Held::of(&list);
    let mut sse = Sse::open(at, &format!("table=t&{query}&since={}", list.position())).await;
    sse.recording = false;
    sse.replica.adopt("1");
    loop {
        let position = sse.replica.tick().unwrap_or_default();
        if *end.borrow() > 0 && position >= *end.borrow() {
            return held;
        }
        match tokio::time::timeout(Duration::from_millis(100), sse.event()).await {
            Ok(event) => {
                let event = event.unwrap();
                held.apply(&serde_json::from_str(&event.data).unwrap());
                if let Some(id) = event.id {
                    sse.replica.settle(id);
                }
            }
            Err(_) => continue,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_continues_a_list() {
    let seed = seed();
    let world = World::new().await;
    world
        .run(&format!(
            "create table t (id int primary key, g text collate \"C\" not null, n int not null);
             insert into t select i, 'a', 0 from generate_series(1, {ROWS}) as i;
             select rowcast.watch('t', public => true, ttl => '300 ms', stale => '10 s', snapshot_every => '0')"
        ))
        .await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|i| {
            let (url, stop) = (world.url.clone(), stop.clone());
            tokio::spawn(async move {
                let sql = crate::support::world::connect(&url).await;
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(i));
                while !stop.load(Ordering::Relaxed) {
                    let id = rng.random_range(1..=ROWS);
                    let statement = match rng.random_range(0..10) {
                        0 => format!("delete from t where id = {id}"),
                        1 | 2 => {
                            format!("insert into t values ({id}, 'a', 1) on conflict (id) do update set n = t.n + 1")
                        }
                        3 | 4 => format!("update t set g = case g when 'a' then 'b' else 'a' end where id = {id}"),
                        _ => format!("update t set n = n + 1 where id between {id} and {id} + 2"),
                    };
                    sql.batch_execute(&statement).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(rng.random_range(0..12))).await;
                }
            })
        })
        .collect();

    let (end, ended) = tokio::sync::watch::channel(0);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut followers = Vec::new();
    for i in 0..JOINS {
        // also from another gateway than the list came from
        let (from, to) = if i % 3 == 0 { (&one, &two) } else { (&two, &two) };
        let view = i % 2;
        let (list, query) = [("order=n.desc", ""), ("g=eq.a", "g=eq.a")][view];
        let list = ReadClient::at(from.address).get(&format!("/v1/tables/t?{list}")).await;
        assert!(list.header("link").is_empty());
        followers.push((view, tokio::spawn(follow(to.address, query, list, ended.clone()))));
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..150))).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let views = vec![View::new("t", "t", "id", "true"), View::new("t?g=eq.a", "t", "id", "g = 'a'")];
    let mut oracle = Oracle::new(&world.url, &["t"], views).await.at_pace_of(one.address);
    let truth = oracle.tick().await;
    // a change that concerns every view brings every stream past the truth's tick
    world.run(&format!("insert into t values ({ROWS} + 100, 'a', 0)")).await;
    eventually("the last change has its tick", || async {
        two.gateway().core().hub.position().unwrap().tick > truth.tick
    })
    .await;
    end.send_replace(truth.tick + 1);
    let (mut changes, mut repeated, mut exact) = (0, 0, 0);
    for (view, follower) in followers {
        let mut held = tokio::time::timeout(PATIENCE, follower).await.expect("every stream gets there").unwrap();
        held.rows.remove(&i64::from(ROWS + 100));
        let wanted = truth.views[view].as_ref().unwrap();
        let held_rows: BTreeMap<String, (i64, Value)> =
            held.rows.into_iter().map(|(key, row)| (key.to_string(), row)).collect();
        let wrong: Vec<_> = wanted.iter().filter(|(key, row)| held_rows.get(*key) != Some(*row)).take(3).collect();
        assert!(
            wrong.is_empty() && held_rows.len() == wanted.len(),
            "view {view}: {} rows, {wrong:?}",
            held_rows.len()
        );
        changes += held.changes;
        repeated += held.repeated;
        exact += usize::from(held.repeated == 0);
    }
    eprintln!(
        "{JOINS} lists continued by streams, {changes} changes, {exact} joined without a repeat, {repeated} changes repeated"
    );
    // how many depends on the machine: on a busy one a read seldom falls between two changes
    assert!(changes > 1000 && exact > 0, "{exact} of {JOINS} joined exactly");
    one.stop().await;
    two.stop().await;
}
