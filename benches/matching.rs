//! Many different subscriptions: does a change that concerns one of them take longer because of the others?
//!
//! See README.md. Invariant: the change that is timed concerns one subscriber, and the others are of the same table.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::Outcome;
use support::cpu;
use support::gateway::Gateway;
use support::report::{percentile, table, verdict};
use support::server::{Flush, Server};
use support::sse::Subscriber;
use tokio_postgres::{Client, Statement};

/// From a commit to the one subscriber it concerns, beside few and beside many others with a key of their own each.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench matching --")]
struct Args {
    /// Subscriptions with distinct equality filters; the first is what the others are compared with
    #[arg(long, value_delimiter = ',', default_value = "10,1000,100000")]
    subscriptions: Vec<u32>,
    /// Changes timed in a block
    #[arg(long, default_value_t = 200)]
    changes: i64,
    /// Blocks, the sizes in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Subscriptions of one connection: the most there can be.
const EACH: u32 = 128;

/// Opens subscriptions for the rows of these keys, none of which changes.
fn others(at: SocketAddr, count: u32) -> Outcome<Vec<TcpStream>> {
    let mut sockets = Vec::new();
    let mut key = 1_000_000;
    let mut left = count;
    while left > 0 {
        let mut path = "/v1/stream?since=now".to_owned();
        for n in 0..left.min(EACH) {
            key += 1;
            write!(path, "&sub={n}~item%3Fid%3Deq.{key}")?;
        }
        left -= left.min(EACH);
        let mut socket = TcpStream::connect(at)?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n")?;
        let (mut held, mut buffer) = (Vec::new(), [0; 4096]);
        while !held.windows(13).any(|part| part == b"event: cursor") {
            match socket.read(&mut buffer)? {
                0 => return Err(format!("ended with {}", String::from_utf8_lossy(&held)).into()),
                read => held.extend_from_slice(&buffer[..read]),
            }
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

struct Size {
    count: u32,
    sql: Client,
    write: Statement,
    gateway: Gateway,
    probe: Subscriber,
    _others: Vec<TcpStream>,
    late: Vec<f64>,
    cpu: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    let server = Server::start(Flush::Free).await?;
    let mut sizes = Vec::new();
    for &count in &args.subscriptions {
        // a database each: every gateway makes its own ticks
        let database = format!("bench{count}");
        let sql = server.database(&database, true).await?;
        sql.batch_execute("create table item (id bigint primary key, n bigint not null default 0, pad text not null)")
            .await?;
        sql.batch_execute("insert into item select i, 0, repeat('x', 40) from generate_series(1, 1000) as i").await?;
        sql.batch_execute("select rowcast.watch('item', public => true, snapshot_every => '0')").await?;
        let write = sql.prepare("update item set n = $1 where id = 7").await?;
        let gateway = Gateway::start(&args.gateway, &server.pg.url(&database), &[])?;
        gateway.ready().await?;
        let probe = tokio::task::block_in_place(|| {
            Subscriber::open(gateway.address, "/v1/stream?table=item&id=eq.7", "\"more\":false")
        })?;
        let others = tokio::task::block_in_place(|| others(gateway.address, count.saturating_sub(1)))?;
        sizes.push(Size { count, sql, write, gateway, probe, _others: others, late: Vec::new(), cpu: 0.0 });
    }
    let mut n = 0;
    for _ in 0..args.rounds {
        for size in &mut sizes {
            let before = cpu::nanos(size.gateway.pid());
            for _ in 0..args.changes {
                tokio::time::sleep(Duration::from_millis(rand::random_range(10..=20))).await;
                n += 1;
                size.sql.execute(&size.write, &[&n]).await?;
                let committed = Instant::now();
                let came = tokio::task::block_in_place(|| size.probe.came(n)).ok_or("a change did not come")?;
                size.late.push(came.saturating_duration_since(committed).as_secs_f64() * 1000.0);
            }
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run")]
            let used = cpu::nanos(size.gateway.pid()).saturating_sub(before) as f64 / 1000.0;
            size.cpu += used;
        }
    }
    let mut medians = Vec::new();
    let mut rows = Vec::new();
    for size in &mut sizes {
        size.late.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&size.late, share));
        medians.push(p50);
        #[expect(clippy::cast_precision_loss, reason = "a count of samples")]
        let each = size.cpu / size.late.len() as f64;
        rows.push(vec![
            size.count.to_string(),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{:.2}", p50 / medians[0]),
            format!("{each:.0}"),
        ]);
    }
    anstream::println!("## one change for one of so many subscriptions, ms from commit");
    table(&["subscriptions", "p50", "p99", "ratio of p50", "us of the gateway per change"], &rows);
    let ratio = medians.last().copied().unwrap_or(f64::NAN) / medians[0];
    verdict("P5 <= 1.3x", ratio <= 1.3, &format!("{ratio:.2}"));
    Ok(())
}
