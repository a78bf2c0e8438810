//! One change to many subscribers: what a delivery costs, how many a second there can be, how late they are.
//!
//! See README.md. Invariant: floor and gateway send the same bytes to the same crowd in the same run, and every subscriber's
//! changes are counted and summed.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use support::gateway::Gateway;
use support::part::{Part, micros};
use support::report::{Spread, table, verdict};
use support::server::{Flush, Server};
use support::{Outcome, cpu, crowd, sender};
use tokio_postgres::{Client, Statement};

/// Fan-out of one shape, beside a bare tokio server that writes the same frames to as many sockets.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench fan_out --")]
struct Args {
    /// Subscribers of one shape
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
    subscribers: Vec<u32>,
    /// Updates a second for the cost of a delivery
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds of a block
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Blocks, floor and gateway in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Subscribers for saturation and for latency under load
    #[arg(long, default_value_t = 1000)]
    crowd: u32,
    /// Changes of a saturation block
    #[arg(long, default_value_t = 20_000)]
    burst: i64,
    /// Commits a second for the latency
    #[arg(long, default_value_t = 500)]
    load: u32,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Rows: a key comes again long after its last change was told, so that no two changes are folded.
const ROWS: i64 = 20_000;

const PATH: &str = "/v1/stream?table=item&since=now";

/// What is measured: a sender, its crowd, and the number of the last change.
struct Side {
    crowd: Part,
    pid: u32,
}

struct Writer {
    sql: Client,
    one: Statement,
    many: Statement,
}

impl Writer {
    async fn new(server: &Server) -> Outcome<Writer> {
        let sql = server.sql("bench").await?;
        let one = sql.prepare("update item set n = $1::bigint where id = $1::bigint % 20000").await?;
        let many = sql
            .prepare(
                "update item set n = s.n from generate_series($1::bigint, $2::bigint) as s(n) where id = s.n % 20000",
            )
            .await?;
        Ok(Writer { sql, one, many })
    }

    /// Commits at a pace; returns when each was known to be committed.
    async fn paced(&self, base: i64, changes: i64, rate: u32) -> Outcome<Vec<(i64, i64)>> {
        let began = tokio::time::Instant::now();
        let mut commits = Vec::new();
        for i in 1..=changes {
            tokio::time::sleep_until(began + Duration::from_secs(1) * u32::try_from(i)? / rate).await;
            self.sql.execute(&self.one, &[&(base + i)]).await?;
            commits.push((base + i, micros()));
        }
        Ok(commits)
    }
}

fn crowd_of(count: u32, at: &str, path: &str) -> Outcome<Part> {
    let mut part = Part::start(crowd::ROLE)?;
    part.ask(&json!({ "do": "open", "at": at, "path": path, "count": count }))?;
    Ok(part)
}

/// The event of one change as the gateway writes it, with `@` where its number stands. The first changes of a table may be
/// told as a snapshot: it is changed until one is told as such.
async fn frame(gateway: &Gateway, writer: &Writer, mut n: i64) -> Outcome<String> {
    let mut socket = TcpStream::connect(gateway.address)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(socket, "GET {PATH} HTTP/1.1\r\nhost: bench\r\n\r\n")?;
    let mut held = String::new();
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..1000 {
        match socket.read(&mut buffer) {
            Ok(read) => held.push_str(std::str::from_utf8(&buffer[..read])?),
            Err(_) => {
                n -= 1;
                writer.sql.execute(&writer.one, &[&n]).await?;
            }
        }
        let found = held.find("\"type\":\"changes\"").and_then(|at| {
            let from = held[..at].rfind("\n\n").map_or(0, |end| end + 2);
            Some(&held[from..from + held[from..].find("\n\n")? + 2])
        });
        if let Some(event) = found {
            return Ok(event.replace(&format!("\"n\":{n}"), "\"n\":@"));
        }
    }
    Err("no change came".into())
}

struct Block {
    cpu: f64,
    seconds: f64,
    deliveries: f64,
    bytes: f64,
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
fn block(answer: &Value, began: i64, cpu: f64) -> Block {
    let ended = answer["at"].as_i64().unwrap_or_default();
    Block {
        cpu,
        seconds: (ended - began) as f64 / 1e6,
        deliveries: float(&answer["deliveries"]),
        bytes: float(&answer["bytes"]),
    }
}

fn begin(side: &mut Side, base: i64, changes: i64, timed: bool) -> Outcome {
    side.crowd.ask(&json!({ "do": "begin", "base": base, "changes": changes, "timed": timed }))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run")]
fn spent(pid: u32, before: u64) -> f64 {
    cpu::nanos(pid).saturating_sub(before) as f64 / 1e9
}

/// A block of the floor: `together` changes in one write, `pause_us` apart.
fn floor_block(
    floor: &mut Part,
    side: &mut Side,
    frame: &str,
    changes: i64,
    together: i64,
    pause_us: i64,
) -> Outcome<Block> {
    begin(side, 0, changes, false)?;
    let before = cpu::nanos(side.pid);
    let sent = floor.ask(&json!({ "do": "send", "frame": frame, "base": 0, "changes": changes, "together": together, "pause_us": pause_us }))?;
    let answer = side.crowd.ask(&json!({ "do": "wait" }))?;
    Ok(block(&answer, sent["began"].as_i64().unwrap_or_default(), spent(side.pid, before)))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn measure(args: Args) -> Outcome {
    let server = Server::start(Flush::Free).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute("create table item (id bigint primary key, n bigint not null default 0, pad text not null)")
        .await?;
    sql.batch_execute(&format!(
        "insert into item select i, 0, repeat('x', 40) from generate_series(0, {}) as i",
        ROWS - 1
    ))
    .await?;
    sql.batch_execute("select rowcast.watch('item', public => true, snapshot_every => '0')").await?;
    sql.batch_execute("vacuum analyze item").await?;
    let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), &[("ROWCAST_WORKERS", "2")])?;
    gateway.ready().await?;
    let writer = Writer::new(&server).await?;
    let mut n = 1_000_000;
    let event = frame(&gateway, &writer, n).await?;
    anstream::println!("one change: {} bytes\n", event.len() + 6);
    let mut rows = Vec::new();
    for &count in &args.subscribers {
        let changes = i64::from(args.rate * args.seconds);
        let mut floor = Part::start(sender::ROLE)?;
        let at = floor.ask(&json!({ "do": "where" }))?["at"].as_str().unwrap_or_default().to_owned();
        let mut bare = Side { crowd: crowd_of(count, &at, "/")?, pid: floor.pid() };
        let mut ours = Side { crowd: crowd_of(count, &gateway.address.to_string(), PATH)?, pid: gateway.pid() };
        let (mut bares, mut oursies, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            let one = floor_block(&mut floor, &mut bare, &event, changes, 1, 1_000_000 / i64::from(args.rate))?;
            begin(&mut ours, n, changes, false)?;
            let before = cpu::nanos(ours.pid);
            writer.paced(n, changes, args.rate).await?;
            n += changes;
            let two = block(&ours.crowd.ask(&json!({ "do": "wait" }))?, 0, spent(ours.pid, before));
            let each = |block: &Block| block.cpu * 1e6 / block.deliveries;
            ratios.push(each(&two) / each(&one));
            bares.push(each(&one));
            oursies.push(each(&two));
        }
        let (bares, oursies, ratios) = (Spread::of(bares), Spread::of(oursies), Spread::of(ratios));
        rows.push(vec![count.to_string(), oursies.show(2), bares.show(2), ratios.show(2)]);
        if count == 1000 {
            verdict("P3 CPU per delivery <= 1.5x the floor", ratios.median <= 1.5, &ratios.show(2));
        }
    }
    anstream::println!("\n## {} updates/s, us of processor time per delivery", args.rate);
    table(&["subscribers", "rowcast", "floor", "ratio"], &rows);
    saturation(&args, &gateway, &writer, &event, &mut n).await?;
    latency(&args, &gateway, &writer, &mut n).await
}

async fn saturation(args: &Args, gateway: &Gateway, writer: &Writer, event: &str, n: &mut i64) -> Outcome {
    let mut floor = Part::start(sender::ROLE)?;
    let at = floor.ask(&json!({ "do": "where" }))?["at"].as_str().unwrap_or_default().to_owned();
    let mut bare = Side { crowd: crowd_of(args.crowd, &at, "/")?, pid: floor.pid() };
    let mut ours = Side { crowd: crowd_of(args.crowd, &gateway.address.to_string(), PATH)?, pid: gateway.pid() };
    let mut found: Vec<[Block; 3]> = Vec::new();
    for _ in 0..args.rounds {
        let passes = floor_block(&mut floor, &mut bare, event, args.burst, 100, 5000)?;
        let single = floor_block(&mut floor, &mut bare, event, args.burst / 10, 1, 0)?;
        begin(&mut ours, *n, args.burst, false)?;
        let (before, began) = (cpu::nanos(ours.pid), micros());
        let end = *n + args.burst;
        let mut from = *n + 1;
        while from <= end {
            let to = (from + 99).min(end);
            writer.sql.execute(&writer.many, &[&from, &to]).await?;
            from = to + 1;
        }
        *n = end;
        let answer = ours.crowd.ask(&json!({ "do": "wait" }))?;
        found.push([block(&answer, began, spent(ours.pid, before)), passes, single]);
    }
    anstream::println!("## saturation, {} subscribers, {} changes a block, all counted", args.crowd, args.burst);
    let names =
        ["rowcast, 100 changes a commit", "floor, 100 changes a write, 5 ms apart", "floor, a write per change"];
    let rates: Vec<Spread> =
        (0..3).map(|i| Spread::of(found.iter().map(|f| f[i].deliveries / f[i].seconds / 1e6))).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let each = Spread::of(found.iter().map(|f| f[i].cpu * 1e6 / f[i].deliveries));
            let bytes = Spread::of(found.iter().map(|f| f[i].bytes / f[i].deliveries));
            vec![(*name).to_owned(), rates[i].show(2), each.show(3), format!("{:.0}", bytes.median)]
        })
        .collect();
    table(&["", "million deliveries/s", "us per delivery", "bytes per delivery"], &rows);
    verdict("P3 saturation >= 1.6 million deliveries/s", rates[0].median >= 1.6, &rates[0].show(2));
    Ok(())
}

async fn latency(args: &Args, gateway: &Gateway, writer: &Writer, n: &mut i64) -> Outcome {
    let mut ours = Side { crowd: crowd_of(args.crowd, &gateway.address.to_string(), PATH)?, pid: gateway.pid() };
    let (mut rows, mut worst) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let changes = i64::from(args.load * args.seconds);
        begin(&mut ours, *n, changes, true)?;
        let before = cpu::nanos(ours.pid);
        let commits = writer.paced(*n, changes, args.load).await?;
        *n += changes;
        let answer = ours.crowd.ask(&json!({ "do": "wait" }))?;
        let us = spent(ours.pid, before) * 1e6 / float(&answer["deliveries"]);
        let times = ours.crowd.ask(&json!({ "do": "times", "commits": commits }))?;
        let ms = |name: &str| format!("{:.1}", float(&times[name]));
        rows.push(vec![times["samples"].to_string(), ms("p50"), ms("p99"), ms("max"), format!("{us:.2}")]);
        worst.push(float(&times["p99"]));
    }
    anstream::println!("\n## {} commits/s to {} subscribers, ms from commit to client", args.load, args.crowd);
    table(&["samples", "p50", "p99", "max", "us per delivery"], &rows);
    let worst = Spread::of(worst);
    verdict("P2 p99 <= 25 ms", worst.median <= 25.0, &worst.show(1));
    Ok(())
}

fn main() -> Outcome {
    match std::env::args().nth(1).as_deref() {
        Some(crowd::ROLE) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(crowd::run()),
        Some(sender::ROLE) => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(sender::run())
        }
        _ => measure(Args::parse()),
    }
}
