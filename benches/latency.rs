//! Commit to client: how long after a commit its change is at a subscriber, beside the barest road there is.
//!
//! See README.md. Invariant: both ends read one clock, that of this process.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::Outcome;
use support::gateway::Gateway;
use support::report::{percentile, table, verdict};
use support::server::{Flush, Server, spawn};
use support::sse::Subscriber;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_postgres::{Client, Statement};

/// How long a committed change takes to one subscriber.
///
/// The floor, in the same run: the writer notifies with the change itself, a session listens and writes it to one raw
/// socket. Three paces: `often` (20 to 60 ms between commits) and `seldom` (250 to 350 ms), where the bell wakes the
/// gateway, and a steady rate, at which it keeps the writers mute and polls.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench latency --")]
struct Args {
    /// Milliseconds a flush takes; 0 is no flush at all
    #[arg(long, value_delimiter = ',', default_value = "0,5")]
    flush: Vec<u64>,
    /// Commits of the pace `often`
    #[arg(long, default_value_t = 300)]
    often: usize,
    /// Commits of the pace `seldom`
    #[arg(long, default_value_t = 100)]
    seldom: usize,
    /// Commits a second of the steady pace, for 4 s
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// The commits of a pace are split into so many blocks, floor and gateway in turn
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const ROWS: i64 = 1000;

const TABLE: &str = "(id bigint primary key, n bigint not null default 0, pad text not null default repeat('x', 100))";

/// The floor's way of writing.
const NOTIFYING: &str = "with done as (update bare set n = $1 where id = $2 returning id, n, pad) \
     select pg_notify('bare', row_to_json(done.*)::text) from done";

const PLAIN: &str = "update item set n = $1 where id = $2";

/// When the commits come.
#[derive(Clone, Copy)]
enum Pace {
    /// Each after the last was answered and a random pause, in milliseconds.
    Pauses(u64, u64),
    /// By the clock, so many a second.
    Steady(u32),
}

/// One road from the table to the client.
struct Road {
    sql: Client,
    write: Statement,
    subscriber: Subscriber,
    /// Milliseconds from the commit being known to the writer, and from the statement being sent.
    from_commit: Vec<f64>,
    from_send: Vec<f64>,
}

impl Road {
    async fn new(sql: Client, write: &str, subscriber: Subscriber) -> Outcome<Road> {
        let write = sql.prepare(write).await?;
        Ok(Road { sql, write, subscriber, from_commit: Vec::new(), from_send: Vec::new() })
    }

    async fn block(&mut self, pace: Pace, commits: usize, next: &mut i64) -> Outcome {
        let mut sent = Vec::new();
        let began = Instant::now();
        for i in 0..commits {
            match pace {
                Pace::Pauses(low, high) => {
                    tokio::time::sleep(Duration::from_millis(rand::random_range(low..=high))).await;
                }
                Pace::Steady(rate) => {
                    let at = began + Duration::from_secs(1) * u32::try_from(i)? / rate;
                    tokio::time::sleep_until(at.into()).await;
                }
            }
            let n = *next;
            *next += 1;
            let before = Instant::now();
            self.sql.query(&self.write, &[&n, &(n % ROWS + 1)]).await?;
            sent.push((n, before, Instant::now()));
        }
        for (n, before, committed) in sent {
            let came = tokio::task::block_in_place(|| self.subscriber.came(n));
            let came = came.ok_or_else(|| format!("change {n} did not come"))?;
            // the notification may be there before the writer's answer
            let since = |from: Instant| {
                let late = came.saturating_duration_since(from).as_secs_f64();
                (late - from.saturating_duration_since(came).as_secs_f64()) * 1000.0
            };
            self.from_commit.push(since(committed));
            self.from_send.push(since(before));
        }
        Ok(())
    }
}

/// The barest road: a listening session whose payloads go to one socket as events.
async fn bare(server: &Server) -> Outcome<Road> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (tell, mut told) = tokio::sync::mpsc::channel::<String>(10_000);
    let listening = server
        .listen("bench", "bare", move |payload| {
            let _ = tell.try_send(format!("data: {payload}\n\n"));
        })
        .await?;
    spawn(async move {
        let Ok((mut socket, _)) = listener.accept().await else { return };
        let _ = socket.set_nodelay(true);
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hello\n\n").await;
        while let Some(event) = told.recv().await {
            if socket.write_all(event.as_bytes()).await.is_err() {
                break;
            }
        }
        drop(listening);
    });
    let subscriber = tokio::task::block_in_place(|| Subscriber::open(address, "/", ": hello"))?;
    Road::new(server.sql("bench").await?, NOTIFYING, subscriber).await
}

async fn served(server: &Server, gateway: &Gateway) -> Outcome<Road> {
    let path = "/v1/stream?table=item";
    let subscriber = tokio::task::block_in_place(|| Subscriber::open(gateway.address, path, "\"more\":false"))?;
    Road::new(server.sql("bench").await?, PLAIN, subscriber).await
}

fn line(name: &str, times: &[f64]) -> Vec<String> {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let shares = [0.5, 0.9, 0.99, 1.0];
    std::iter::once(name.to_owned()).chain(shares.iter().map(|s| format!("{:.2}", percentile(&times, *s)))).collect()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    for &flush_ms in &args.flush {
        let flush = if flush_ms == 0 { Flush::Free } else { Flush::Takes(Duration::from_millis(flush_ms)) };
        let server = Server::start(flush).await?;
        let sql = server.database("bench", true).await?;
        for name in ["bare", "item"] {
            sql.batch_execute(&format!("create table {name} {TABLE}")).await?;
            sql.batch_execute(&format!("insert into {name} (id) select generate_series(1, {ROWS})")).await?;
        }
        sql.batch_execute("select rowcast.watch('item', public => true)").await?;
        let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), &[])?;
        gateway.ready().await?;
        let steady = usize::try_from(args.rate)? * 4;
        let paces = [
            ("often", Pace::Pauses(20, 60), args.often),
            ("seldom", Pace::Pauses(250, 350), args.seldom),
            ("steady", Pace::Steady(args.rate), steady),
        ];
        let mut next = 1;
        for (name, pace, commits) in paces {
            if commits == 0 {
                continue;
            }
            let (mut floor, mut ours) = (bare(&server).await?, served(&server, &gateway).await?);
            for _ in 0..args.rounds {
                for road in [&mut floor, &mut ours] {
                    road.block(pace, commits.div_ceil(args.rounds), &mut next).await?;
                }
            }
            anstream::println!("## {name}, {flush}, {} commits each, milliseconds", ours.from_commit.len());
            let rows = [
                line("floor, from commit", &floor.from_commit),
                line("rowcast, from commit", &ours.from_commit),
                line("floor, from send", &floor.from_send),
                line("rowcast, from send", &ours.from_send),
            ];
            table(&["", "p50", "p90", "p99", "max"], &rows);
            let mut times = ours.from_commit;
            times.sort_by(f64::total_cmp);
            let (p50, p99) = (percentile(&times, 0.5), percentile(&times, 0.99));
            // what a flush really takes here: a bare commit, as the floor's writer saw it
            let mut commits: Vec<f64> = floor.from_send.iter().zip(&floor.from_commit).map(|(s, c)| s - c).collect();
            commits.sort_by(f64::total_cmp);
            let wanted = 2.0 + if flush == Flush::Free { 0.0 } else { percentile(&commits, 0.5) };
            let found = format!("p50 {p50:.2}, p99 {p99:.2} ms");
            if name == "steady" {
                verdict("P2 p99 <= 25 ms", p99 <= 25.0, &found);
            } else {
                verdict(&format!("P2 p50 <= {wanted:.1} ms, p99 <= 10 ms"), p50 <= wanted && p99 <= 10.0, &found);
            }
        }
    }
    Ok(())
}
