//! No read is older than what its gateway had told before it was asked; and the test that says so can fail.
//!
//! Reads of the database are slow here (everything the pool says and hears comes late), so that changes and ticks fall
//! into every one of them. What the gateway had told is known from a stream of it: the versions at every tick.

use crate::support::{Client, Proxy, ReadClient, Sse, World, eventually, proxy, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rows, all of them hot.
const KEYS: i64 = 8;

/// Readers; each asks again at once.
const READERS: u64 = 16;

/// Late on either way of the pool's connections. A read takes two turns.
const LATE_MS: u64 = 4;

const LISTS: [&str; 3] =
    ["/v1/tables/hot", "/v1/tables/hot?id=lte.4&order=n.desc", "/v1/tables/hot?part=eq.a&select=id,row_version,part"];

/// The newest tick, and whether anything is behind it.
const NEWEST: &str =
    "select id, rowcast.pending(snap, pg_current_snapshot()) from rowcast.tick order by id desc limit 1";

/// A read: the head of the gateway before it was asked, the position it said, and what it held.
struct Sample {
    path: String,
    head: i64,
    said: i64,
    rows: Vec<(i64, i64)>,
}

#[derive(Debug, Default)]
struct Outcome {
    reads: usize,
    /// Rows older than the head before the question.
    stale: usize,
    /// Rows older than the position that the answer said.
    older_than_said: usize,
    /// Rows of exactly the position that the answer said.
    exact: usize,
    rows: usize,
    writes: usize,
    loads: u64,
    written_through: u64,
    hits: u64,
    collapsed: u64,
    /// Paths that never came to what the table holds.
    wrong_for_good: Vec<String>,
}

async fn reader(client: ReadClient, head: impl Fn() -> i64, seed: u64, stop: Arc<AtomicBool>) -> Vec<Sample> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let path = match rng.random_range(0..6) {
            list @ 0..3 => LISTS[list].to_owned(),
            _ => format!("/v1/tables/hot/{}", rng.random_range(1..=KEYS)),
        };
        let head = head();
        let reading = client.get(&path).await;
        assert_eq!(reading.status, 200, "{path}: {}", reading.text());
        let rows: Vec<Value> = match reading.json() {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        let number = |row: &Value, column: &str| row[column].as_i64().unwrap();
        let rows = rows.iter().map(|row| (number(row, "id"), number(row, "row_version"))).collect();
        samples.push(Sample { path, head, said: reading.tick(), rows });
    }
    samples
}

/// The versions of each key, by the tick at which a stream told them.
async fn stream(at: std::net::SocketAddr, stop: Arc<AtomicBool>) -> BTreeMap<i64, BTreeMap<i64, i64>> {
    let mut sse = Sse::open(at, "table=hot").await;
    sse.recording = false;
    let mut told: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
    let mut quiet = Instant::now();
    while !stop.load(Ordering::Relaxed) || quiet.elapsed() < Duration::from_secs(1) {
        let Ok(messages) = tokio::time::timeout(Duration::from_millis(200), sse.advance()).await else { continue };
        for message in messages.unwrap() {
            let Some(position) = message["position"].as_str() else { continue };
            for row in [&message["rows"], &message["changes"]].into_iter().filter_map(Value::as_array).flatten() {
                quiet = Instant::now();
                let id = row["key"].as_str().unwrap().parse().unwrap();
                let tick = crate::support::replica::tick_of(position);
                told.entry(id).or_default().insert(tick, row["version"].as_i64().unwrap());
            }
        }
    }
    assert!(sse.replica.resets.is_empty(), "the stream knows every tick: {:?}", sse.replica.resets);
    told
}

async fn run(fence: bool, seconds: u64) -> Outcome {
    let seed = seed();
    let world = World::new().await;
    world
        .run(&format!(
            "create table hot (id int primary key, n int not null, part text collate \"C\" not null);
             insert into hot select i, 0, 'a' from generate_series(1, {KEYS}) as i;
             select rowcast.watch('hot', public => true, ttl => '1 h', stale => '1 h')"
        ))
        .await;
    let (slow, through) = Proxy::postgres(&world.url).await;
    let direct = world.url.clone();
    let gateway = world
        .gateway_with(|settings| {
            settings.database_url = through;
            settings.notify_url = Some(direct);
        })
        .await;
    slow.set(proxy::Mode::Delay(LATE_MS));
    let core = gateway.gateway().core().clone();
    core.reads.set_fence(fence);
    let client = ReadClient::at(gateway.address);

    let (stop, told_all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let told = tokio::spawn(stream(gateway.address, told_all.clone()));
    let readers: Vec<_> = (0..READERS)
        .map(|i| {
            let hub = core.hub.clone();
            let head = move || hub.position().unwrap().tick;
            tokio::spawn(reader(client.clone(), head, seed.wrapping_add(i), stop.clone()))
        })
        .collect();
    let sql = world.sql().await;
    let (mut rng, began, mut outcome) = (StdRng::seed_from_u64(seed), Instant::now(), Outcome::default());
    while began.elapsed() < Duration::from_secs(seconds) {
        let id = rng.random_range(1..=i32::try_from(KEYS).unwrap());
        let part = if rng.random() { "a" } else { "b" };
        sql.execute("update hot set n = n + 1, part = $2 where id = $1", &[&id, &part]).await.unwrap();
        outcome.writes += 1;
        // from all at once to slower than a read
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..25))).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut samples = Vec::new();
    for reader in readers {
        samples.extend(reader.await.unwrap());
    }

    // the last word
    slow.set(proxy::Mode::Pass);
    let there = |path: &str| {
        let condition = match path.split_once("/hot/") {
            Some((_, id)) => format!("id = {id}"),
            None if path.contains("lte.4") => "id <= 4".to_owned(),
            None if path.contains("part") => "part = 'a'".to_owned(),
            None => "true".to_owned(),
        };
        format!("select id::int8, row_version from hot where {condition} order by id")
    };
    let paths = (1..=KEYS).map(|id| format!("/v1/tables/hot/{id}")).chain(LISTS.map(str::to_owned));
    let settled = Instant::now();
    for path in paths {
        let wanted: Vec<(i64, i64)> =
            sql.query(&there(&path), &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        loop {
            let rows = match client.get(&path).await.json() {
                Value::Array(rows) => rows,
                row => vec![row],
            };
            let mut held: Vec<(i64, i64)> =
                rows.iter().map(|r| (r["id"].as_i64().unwrap(), r["row_version"].as_i64().unwrap())).collect();
            held.sort_unstable();
            if held == wanted {
                break;
            }
            if settled.elapsed() > Duration::from_secs(3) {
                outcome.wrong_for_good.push(path);
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    told_all.store(true, Ordering::Relaxed);
    let told = told.await.unwrap();
    let at = |id: i64, tick: i64| told[&id].range(..=tick).next_back().map(|(_, version)| *version);
    outcome.reads = samples.len();
    for sample in &samples {
        for (id, version) in &sample.rows {
            outcome.rows += 1;
            if at(*id, sample.head).is_some_and(|told| *version < told) {
                outcome.stale += 1;
                if fence {
                    eprintln!(
                        "{}: key {id} version {version}, head {}, said {}",
                        sample.path, sample.head, sample.said
                    );
                }
            }
            outcome.older_than_said += usize::from(at(*id, sample.said).is_some_and(|told| *version < told));
            outcome.exact += usize::from(at(*id, sample.said) == Some(*version));
        }
    }
    let counts = core.reads.counts();
    outcome.loads = counts.loads.load(Ordering::Relaxed);
    outcome.written_through = counts.written_through.load(Ordering::Relaxed);
    outcome.hits = counts.hits.load(Ordering::Relaxed);
    outcome.collapsed = counts.collapsed.load(Ordering::Relaxed);
    gateway.stop().await;
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_what_was_told_before() {
    let outcome = run(true, 6).await;
    eprintln!("{outcome:?}");
    assert!(outcome.reads > 500 && outcome.loads > 50, "hardly anything was read: {outcome:?}");
    assert_eq!((outcome.stale, outcome.older_than_said), (0, 0), "{outcome:?}");
    assert_eq!(outcome.wrong_for_good, Vec::<String>::new(), "{outcome:?}");
}

/// A cache that takes what was read to be true when the read ends serves old rows here: the test above can fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_fence_reads_are_stale() {
    let outcome = run(false, 3).await;
    eprintln!("{outcome:?}");
    assert!(outcome.stale > 0, "the fence is not what keeps reads fresh: {outcome:?}");
}

/// Reads and writes of a row that comes and goes: an absence is as true as a row.
#[tokio::test]
async fn an_absence_is_never_older_either() {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true, ttl => '1 h')").await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    let hub = gateway.gateway().core().hub.clone();
    let sql = world.sql().await;
    for round in 0..40 {
        let there = round % 2 == 0;
        let change = if there { "insert into t values (1)" } else { "delete from t" };
        let load = client.get("/v1/tables/t/1");
        let (_, written) = tokio::join!(load, sql.batch_execute(change));
        written.unwrap();
        // not any tick: what watching logged may still have been waiting for one
        eventually("the change's tick", || async {
            let newest = sql.query_one(NEWEST, &[]).await.unwrap();
            !newest.get::<_, bool>(1) && hub.position().unwrap().tick >= newest.get(0)
        })
        .await;
        let status = client.get("/v1/tables/t/1").await.status;
        assert_eq!(status, if there { 200 } else { 404 }, "round {round}");
    }
    gateway.stop().await;
}
