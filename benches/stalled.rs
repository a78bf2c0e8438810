//! Half of the subscribers do not read: do the others notice?
//!
//! See README.md. Invariant: both runs have as many subscribers and as many commits; blocks of the two alternate.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use support::Outcome;
use support::gateway::Gateway;
use support::members::{Member, ask, raise_files, readers, until};
use support::report::{Spread, percentile, table, verdict};
use support::server::{Flush, Server};
use support::transport::Transport;
use tokio_postgres::Client;

/// Latency of subscribers that read, with and without others that do not.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench stalled --")]
struct Args {
    /// Subscribers in all
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Of them, those that do not read
    #[arg(long, default_value_t = 500)]
    stalled: usize,
    /// Commits of a block, 50 a second
    #[arg(long, default_value_t = 300)]
    commits: i64,
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Ways to be told, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sse,ws")]
    transport: Vec<Transport>,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Every so many-th of those that read notes when a change came.
const NOTING: usize = 10;

/// A block: sorted latencies in milliseconds, and processor time of the gateway per commit in microseconds.
async fn block(args: &Args, transport: Transport, url: &str, sql: &Client, stalled: usize) -> Outcome<(Vec<f64>, f64)> {
    let gateway = Gateway::start(&args.gateway, url, &[])?;
    gateway.ready().await?;
    let reading = args.subscribers - args.stalled;
    let noting = (0..reading).map(|i| if i % NOTING == 0 { Member::noting() } else { Member::default() });
    let members = readers(transport, gateway.address, "item", noting).await?;
    // the others: read or not
    let rest = args.stalled - stalled;
    let _rest = readers(transport, gateway.address, "item", (0..rest).map(|_| Member::default())).await?;
    let mut silent = Vec::new();
    for i in 0..stalled {
        silent.push(ask(transport, i, gateway.address, "item", None, false).await?);
    }
    gateway.until("followed by all", |ready| ready["subscriptions"] == args.subscribers).await?;
    // fills the buffers of those that do not read
    for n in 1..=60_i64 {
        sql.execute("update item set n = -$1::bigint", &[&n]).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let statement = sql.prepare("update item set n = $1::bigint where id = 1 + $1::bigint % 40").await?;
    let (mut committed, began) = (HashMap::new(), Instant::now());
    let cpu = support::cpu::seconds(gateway.pid());
    for n in 1..=args.commits {
        tokio::time::sleep_until((began + Duration::from_millis(20) * u32::try_from(n)?).into()).await;
        sql.execute(&statement, &[&n]).await?;
        committed.insert(n, Instant::now());
    }
    until("all have the last change", || members.iter().all(|member| member.newest() == args.commits)).await?;
    for member in &members {
        member.gapless()?;
        let found = member.changes();
        if found != (args.commits, 1) {
            return Err(format!("{found:?} (changes, the first) came, not {:?}", (args.commits, 1)).into());
        }
    }
    let cpu = (support::cpu::seconds(gateway.pid()) - cpu) * 1e6 / args.commits as f64;
    let mut late = Vec::new();
    for times in members.iter().filter_map(|member| member.times.as_ref()) {
        for (n, came) in times.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(at) = committed.get(n) {
                late.push(came.saturating_duration_since(*at).as_secs_f64() * 1000.0);
            }
        }
    }
    late.sort_by(f64::total_cmp);
    Ok((late, cpu))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    raise_files(args.subscribers as u64 * 3 + 1000);
    let server = Server::start(Flush::Free).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute(
        "create table item (id int primary key, n bigint not null, pad text not null default repeat('x', 150));
         insert into item select i, 0 from generate_series(1, 40) as i;
         select rowcast.watch('item', public => true, snapshot_every => '0')",
    )
    .await?;
    let url = server.pg.url("bench");
    let mut runs = vec![[Vec::new(), Vec::new()]; args.transport.len()];
    for _ in 0..args.rounds {
        for (transport, pair) in args.transport.iter().zip(&mut runs) {
            for (run, stalled) in pair.iter_mut().zip([0, args.stalled]) {
                let (late, cpu) = block(&args, *transport, &url, &sql, stalled).await?;
                run.push((percentile(&late, 0.5), percentile(&late, 0.99), cpu));
            }
        }
    }
    let mut rows = Vec::new();
    for (transport, pair) in args.transport.iter().zip(&runs) {
        for (run, stalled) in pair.iter().zip([0, args.stalled]) {
            rows.push(vec![
                transport.to_string(),
                format!("{stalled} of {}", args.subscribers),
                Spread::of(run.iter().map(|r| r.0)).show(1),
                Spread::of(run.iter().map(|r| r.1)).show(1),
                Spread::of(run.iter().map(|r| r.2)).show(0),
            ]);
        }
    }
    table(&["transport", "do not read", "p50 ms", "p99 ms", "gateway us a commit"], &rows);
    for (transport, [without, with]) in args.transport.iter().zip(&runs) {
        let ratio = Spread::of(without.iter().zip(with).map(|(without, with)| with.1 / without.1));
        verdict(&format!("{transport}: p99 of those that read <= 1.2x"), ratio.median <= 1.2, &ratio.show(2));
    }
    Ok(())
}
