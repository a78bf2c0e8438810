//! Answers from the cache beside the least that an answer can cost, and a read that the cache cannot answer beside the
//! bare query.
//!
//! See README.md. Invariant: floor and gateway are asked the same by the same connections' code, in turn.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::floor::{self, Floor};
use support::gateway::Gateway;
use support::http::{Answer, Connection, load, request};
use support::report::{Spread, percentile, table, verdict};
use support::server::{Flush, Server};
use support::{Outcome, cpu};
use tokio_postgres::Client;

/// Requests a second and processor time per request: from the cache, against a handler that returns the same bytes.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench polling --")]
struct Args {
    /// Keep-alive connections, one request at a time on each
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds of a block
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Blocks of each, floor and gateway in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// HTTP threads of both; one leaves a core to the clients
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Reads of the cold part, of each kind
    #[arg(long, default_value_t = 2000)]
    cold: usize,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Be the server of the floor
    #[arg(long, hide = true)]
    be_the_floor: Option<usize>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// 20 rows to a league, about 150 bytes a row.
const TABLE: &str = "create table item (id bigint primary key, league int not null, home int not null default 0, \
    away int not null default 0, name text not null default repeat('x', 40), at timestamptz not null default now()); \
    create index on item (league)";

const LEAGUE: usize = 20;

/// Keeps the answers for the whole run.
const WATCH: &str = "select rowcast.watch('item', public => true, ttl => '1 hour', stale => '1 hour')";

/// One side of a comparison.
struct Side {
    pid: u32,
    request: Vec<u8>,
    connections: Vec<Connection>,
    rate: Vec<f64>,
    cost: Vec<f64>,
}

impl Side {
    async fn new(pid: u32, address: std::net::SocketAddr, path: &str, extra: &str, count: usize) -> Outcome<Side> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Connection::open(address).await?);
        }
        Ok(Side { pid, request: request(address, path, extra), connections, rate: Vec::new(), cost: Vec::new() })
    }

    async fn block(&mut self, status: u16, time: Duration) -> Outcome {
        let before = cpu::nanos(self.pid);
        let load = load(&mut self.connections, &self.request, status, time).await?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (requests, nanos) = (load.requests as f64, (cpu::nanos(self.pid) - before) as f64);
        self.rate.push(requests / load.seconds);
        self.cost.push(nanos / requests / 1000.0);
        Ok(())
    }

    async fn look(&mut self) -> Outcome<Answer> {
        let connection = self.connections.first_mut().ok_or("no connection")?;
        connection.get(&self.request).await
    }
}

fn cached(answer: &Answer) -> Outcome {
    let status = answer.header("cache-status").unwrap_or_default();
    if status.starts_with("rowcast; hit") { Ok(()) } else { Err(format!("not from the cache: `{status}`").into()) }
}

/// Cached answers at one address, 200 and 304.
async fn hot(args: &Args, gateway: &Gateway, what: &str, path: &str) -> Outcome {
    let mut first = Connection::open(gateway.address).await?;
    // the first fills the cache
    first.get(&request(gateway.address, path, "")).await?;
    let full = first.get(&request(gateway.address, path, "")).await?;
    let extra = format!("if-none-match: {}\r\n", full.header("etag").ok_or("no etag")?);
    let held = first.get(&request(gateway.address, path, &extra)).await?;
    cached(&full)?;
    cached(&held)?;
    let floor = Floor::start(args.workers, [&full, &held])?;
    let mut rows = Vec::new();
    let mut verdicts = Vec::new();
    for (status, extra, bytes) in [(200, "", full.body.len()), (304, extra.as_str(), 0)] {
        let mut bare = Side::new(floor.pid(), floor.address, path, extra, args.connections).await?;
        let mut ours = Side::new(gateway.pid(), gateway.address, path, extra, args.connections).await?;
        let alike = |answer: &Answer| {
            answer.headers.iter().map(|(n, _)| n.to_ascii_lowercase()).collect::<std::collections::BTreeSet<_>>()
        };
        let (theirs, own) = (bare.look().await?, ours.look().await?);
        if alike(&theirs) != alike(&own) || theirs.body != own.body {
            return Err(format!("the floor answers something else: {theirs:?}, not {own:?}").into());
        }
        for _ in 0..args.rounds {
            for side in [&mut bare, &mut ours] {
                side.block(status, Duration::from_secs_f64(args.seconds)).await?;
            }
        }
        cached(&ours.look().await?)?;
        // of each round, as the machine was the same for both
        let ratio = Spread::of(ours.rate.iter().zip(&bare.rate).map(|(ours, bare)| ours / bare));
        let spent = Spread::of(bare.cost.iter().zip(&ours.cost).map(|(bare, ours)| bare / ours));
        for (name, side) in [("floor", &bare), ("rowcast", &ours)] {
            let of = |values: &[f64], digits| Spread::of(values.iter().copied()).show(digits);
            rows.push(vec![format!("{status}, {bytes} bytes, {name}"), of(&side.rate, 0), of(&side.cost, 1)]);
        }
        verdicts.push((format!("P7 {what}, {status}: rate >= 0.8 of the floor"), ratio.median >= 0.8, ratio.show(2)));
        anstream::println!("{what}, {status}: processor time of the floor to ours {}", spent.show(2));
    }
    anstream::println!("\n## {what}, {} connections, {} worker", args.connections, args.workers);
    table(&["", "requests/s", "processor us/request"], &rows);
    for (target, holds, found) in verdicts {
        verdict(&target, holds, &found);
    }
    anstream::println!();
    Ok(())
}

/// Reads that nobody asked before, one after the other, beside the query on a connection of its own.
async fn cold(args: &Args, gateway: &Gateway, sql: &Client) -> Outcome {
    let one = sql.prepare("select to_jsonb(item)::text from item where id = $1").await?;
    let many = sql.prepare("select to_jsonb(item)::text from item where league = $1 order by id limit 1001").await?;
    let mut rows = Vec::new();
    let block = args.cold.div_ceil(args.rounds);
    for kind in ["one row", "a list of 20"] {
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        let mut next = 0;
        for _ in 0..args.rounds {
            let from = next;
            next += block;
            for n in from..next {
                let began = Instant::now();
                let found = match kind {
                    "one row" => sql.query(&one, &[&i64::try_from(n)?]).await?,
                    _ => sql.query(&many, &[&i32::try_from(n)?]).await?,
                };
                bare.push(began.elapsed().as_secs_f64() * 1000.0);
                if found.is_empty() {
                    return Err("the table is too small for so many reads".into());
                }
            }
            // a new one: it would have been idle for as long as the bare queries took
            let mut connection = Connection::open(gateway.address).await?;
            for n in from..next {
                let path = match kind {
                    "one row" => format!("/v1/tables/item/{n}"),
                    _ => format!("/v1/tables/item?league=eq.{n}"),
                };
                let began = Instant::now();
                let answer = connection.get(&request(gateway.address, &path, "")).await?;
                ours.push(began.elapsed().as_secs_f64() * 1000.0);
                if answer.status != 200 || cached(&answer).is_ok() {
                    return Err(format!("no cold read: {answer:?}").into());
                }
            }
        }
        for (name, times) in [("the query", &mut bare), ("rowcast", &mut ours)] {
            times.sort_by(f64::total_cmp);
            let shares = [0.5, 0.9, 0.99].map(|share| format!("{:.2}", percentile(times, share)));
            rows.push(std::iter::once(format!("{kind}, {name}")).chain(shares).collect());
        }
        let ratio = percentile(&ours, 0.5) / percentile(&bare, 0.5);
        anstream::println!("{kind}: a cold read takes {ratio:.1} times the bare query (p50)");
    }
    anstream::println!("\n## cold reads, one at a time, milliseconds");
    table(&["", "p50", "p90", "p99"], &rows);
    Ok(())
}

async fn measure(args: &Args) -> Outcome {
    let server = Server::start(Flush::Free).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute(TABLE).await?;
    // as many leagues as cold lists, and those of the hot part before them
    let leagues = args.cold.div_ceil(args.rounds) * args.rounds + 1;
    sql.batch_execute(&format!(
        "insert into item (id, league) select i, i / {LEAGUE} from generate_series(0, {}) i",
        leagues * LEAGUE
    ))
    .await?;
    sql.batch_execute("vacuum analyze item").await?;
    sql.batch_execute(WATCH).await?;
    let workers = args.workers.to_string();
    let settings = [("ROWCAST_WORKERS", workers.as_str()), ("ROWCAST_LOG", "info")];
    let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), &settings)?;
    gateway.ready().await?;
    // one that the cold part does not ask for
    let last = leagues;
    hot(args, &gateway, "one row", &format!("/v1/tables/item/{}", last * LEAGUE)).await?;
    hot(args, &gateway, "a list of 20", &format!("/v1/tables/item?league=eq.{}", last - 1)).await?;
    cold(args, &gateway, &sql).await
}

fn main() -> Outcome {
    let args = Args::parse();
    if let Some(workers) = args.be_the_floor {
        return floor::serve(workers);
    }
    // one thread: the clients must not take the servers' core
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&args))
}
