//! A gateway with thousands of subscribers is killed; all of them come to another one at once, with their positions.
//!
//! See README.md. Invariants: a subscriber counts as live when it has read a change committed after the kill; it then has every
//! change since its first, once.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};
use support::Outcome;
use support::gateway::Gateway;
use support::members::{Member, ask, raise_files, readers, until};
use support::report::{Spread, percentile, table, verdict};
use support::server::{Flush, Server, spawn};
use support::transport::Transport;

/// How long until all are live again, what it costs the database, and whether writers notice.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench storm --")]
struct Args {
    /// Subscribers of the gateway that is killed
    #[arg(long, default_value_t = 5000)]
    subscribers: usize,
    /// Commits a second all the while
    #[arg(long, default_value_t = 10)]
    rate: u32,
    #[arg(long, default_value_t = 3)]
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

const TABLE: &str =
    "create table item (id int primary key, n bigint not null, pad text not null default repeat('x', 100));
    insert into item select i, 0 from generate_series(0, 99) as i;
    select rowcast.watch('item', public => true, snapshot_every => '0')";

/// Reads of ranges of the log since the counters were reset, and ticks there are.
const READS: &str =
    "select (select coalesce(sum(calls), 0)::bigint from pg_stat_statements where query like '%rowcast.spans(%'),
    (select count(*) from rowcast.tick)";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    raise_files(args.subscribers as u64 * 3 + 1000);
    let preload = [("shared_preload_libraries", "pg_stat_statements")];
    let server = Server::start_with(Flush::Free, &preload).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute(&format!("create extension pg_stat_statements; {TABLE}")).await?;
    let url = server.pg.url("bench");

    let (n, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let times = Arc::new(std::sync::Mutex::new(Vec::<(Instant, f64)>::new()));
    let writer = server.sql("bench").await?;
    let (counter, stopped, noted, pause) = (n.clone(), stop.clone(), times.clone(), Duration::from_secs(1) / args.rate);
    spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            let next = counter.load(Ordering::Relaxed) + 1;
            let began = Instant::now();
            if writer.execute("update item set n = $1::bigint where id = $1::bigint % 100", &[&next]).await.is_err() {
                return;
            }
            counter.store(next, Ordering::Relaxed);
            let took = began.elapsed().as_secs_f64() * 1000.0;
            noted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((began, took));
            tokio::time::sleep(pause).await;
        }
    });

    let (mut rows, mut alive, mut extra) = (Vec::new(), Vec::new(), Vec::<(Transport, i64, usize)>::new());
    let (mut calm, mut stormy) = (Vec::new(), Vec::new());
    let turns = (0..args.rounds).flat_map(|round| args.transport.iter().map(move |transport| (round, *transport)));
    for (round, transport) in turns {
        let old = Gateway::start(&args.gateway, &url, &[])?;
        old.ready().await?;
        let new = Gateway::start(&args.gateway, &url, &[])?;
        new.ready().await?;
        let members = readers(transport, old.address, "item", (0..args.subscribers).map(|_| Member::default())).await?;
        let quiet = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;

        let mut tokens: Vec<String> = members.iter().map(|member| member.position()).collect();
        tokens.sort();
        tokens.dedup();
        sql.batch_execute("select pg_stat_statements_reset()").await?;
        let before = sql.query_one(READS, &[]).await?;
        let cpu = support::cpu::seconds(new.pid());
        let pid = i32::try_from(old.pid()).ok().and_then(Pid::from_raw).ok_or("no process")?;
        kill_process(pid, Signal::KILL)?;
        let killed = Instant::now();
        let after = n.load(Ordering::Relaxed) + 1;
        for (i, member) in members.iter().enumerate() {
            let (member, to) = (member.clone(), new.address);
            spawn(async move {
                loop {
                    let position = member.position();
                    match ask(transport, i, to, "item", Some(&position), true).await {
                        Ok(socket) => member.follow(transport, socket).await,
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        }
        let live = |member: &Arc<Member>| member.newest() > after;
        until("half of them are live", || members.iter().filter(|m| live(m)).count() * 2 >= members.len()).await?;
        let half = killed.elapsed().as_secs_f64();
        until("all are live", || members.iter().all(live)).await?;
        let all = killed.elapsed().as_secs_f64();
        for member in &members {
            member.gapless()?;
        }
        let cpu = support::cpu::seconds(new.pid()) - cpu;
        let reads = sql.query_one(READS, &[]).await?;
        let ticks: i64 = reads.get::<_, i64>(1) - before.get::<_, i64>(1);
        let beyond = (reads.get::<_, i64>(0) - ticks).max(0);
        {
            let times = times.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            calm.extend(times.iter().filter(|(at, _)| *at >= quiet && *at < killed).map(|(_, took)| *took));
            stormy.extend(times.iter().filter(|(at, _)| *at >= killed).map(|(_, took)| *took));
        }
        rows.push(vec![
            format!("{}", round + 1),
            transport.to_string(),
            tokens.len().to_string(),
            format!("{half:.2}"),
            format!("{all:.2}"),
            format!("{beyond}"),
            format!("{:.0}", cpu * 1e6 / args.subscribers as f64),
        ]);
        alive.push((transport, all));
        extra.push((transport, beyond, tokens.len()));
        drop(new);
        drop(old);
    }
    stop.store(true, Ordering::Relaxed);
    table(&["round", "transport", "tokens", "half live s", "all live s", "reads of the log", "gateway us each"], &rows);
    for transport in &args.transport {
        let of = Spread::of(alive.iter().filter(|(of, _)| of == transport).map(|(_, seconds)| *seconds));
        verdict(&format!("P6 {transport}: all live within 2 s"), of.median <= 2.0, &of.show(2));
    }
    let within = extra.iter().all(|(_, reads, tokens)| *reads <= *tokens as i64 + 20);
    verdict("P6: reads <= distinct tokens + 20", within, &format!("{extra:?} (reads, tokens)"));
    calm.sort_by(f64::total_cmp);
    stormy.sort_by(f64::total_cmp);
    let (c, s) = (percentile(&calm, 0.99), percentile(&stormy, 0.99));
    verdict("writers' p99 <= 1.5x", s <= 1.5 * c, &format!("{c:.2} ms before, {s:.2} ms during the storm"));
    Ok(())
}
