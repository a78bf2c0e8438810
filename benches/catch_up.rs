//! After an outage: from the log to the hub, how fast, for how much processor time and memory; and the cost of idling.
//!
//! See README.md. Invariant: the log is written while no gateway runs, and read by one that just started.

#[path = "support/mod.rs"]
mod support;

use clap::Parser;
use futures_util::TryStreamExt;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};
use support::gateway::Gateway;
use support::report::{Spread, table, verdict};
use support::server::{Flush, Server};
use support::{Outcome, cpu};
use tokio_postgres::Client;

/// How fast a gateway that was away reads what it missed, what it needs for a huge transaction, what idling costs.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench catch_up --")]
struct Args {
    /// Log rows written while no gateway runs
    #[arg(long, default_value_t = 500_000)]
    rows: u32,
    /// Rows of the one huge transaction; 0 leaves it out
    #[arg(long, default_value_t = 2_000_000)]
    huge: u32,
    /// Rounds of catching up, floor and gateway in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of idling; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    idle: u64,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// More than the images of all rows: nothing is given up, every row reaches the hub.
const AMPLE: (&str, &str) = ("ROWCAST_BATCH_BYTES", "8000000000");

const TABLE: &str =
    "create table item (id bigint primary key, n int not null default 0, label text not null default 'short')";

/// What one gateway needed, start included.
#[derive(Clone, Copy, Debug)]
struct Caught {
    elapsed: f64,
    gateway: f64,
    server: f64,
    peak: f64,
}

async fn number(sql: &Client, query: &str) -> Outcome<i64> {
    Ok(sql.query_one(query, &[]).await?.try_get(0)?)
}

/// Starts a gateway and waits until its position is the newest tick and nothing lies after it.
async fn catch_up(
    args: &Args,
    server: &Server,
    sql: &Client,
    settings: &[(&str, &str)],
    pending: bool,
) -> Outcome<Caught> {
    let before = number(sql, "select max(id) from rowcast.tick").await?;
    sql.batch_execute("checkpoint").await?;
    let (server_before, began) = (cpu::server_seconds(server.pid)?, Instant::now());
    let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), settings)?;
    let reached = |answer: &serde_json::Value| {
        let tick = answer["position"].as_str().and_then(|p| p.split('-').next()?.parse::<i64>().ok());
        answer["ready"] == true && tick.is_some_and(|tick| if pending { tick > before } else { tick >= before })
    };
    gateway.until("current", reached).await?;
    let caught = Caught {
        elapsed: began.elapsed().as_secs_f64(),
        gateway: cpu::seconds(gateway.pid()),
        server: cpu::server_seconds(server.pid)? - server_before,
        peak: cpu::peak_megabytes(gateway.pid()),
    };
    Ok(caught)
}

/// Changes every row in statements of 1,000, each a transaction.
async fn write(sql: &Client, rows: u32) -> Outcome {
    for from in (1..=rows).step_by(1000) {
        let to = (from + 999).min(rows);
        sql.batch_execute(&format!("update item set n = n + 1 where id between {from} and {to}")).await?;
    }
    Ok(())
}

/// The floor: a bare client reads the same rows and drops them.
async fn bare_read(server: &Server, rows: u32) -> Outcome<(f64, f64)> {
    let sql = server.sql("bench").await?;
    let server_before = cpu::server_seconds(server.pid)?;
    let began = Instant::now();
    let query = "select relid, op::text, version, old_version, key, old, new, at from rowcast.log_0";
    let mut stream = pin!(sql.query_raw(query, Vec::<i32>::new()).await?);
    let mut count = 0;
    while stream.try_next().await?.is_some() {
        count += 1;
    }
    if count < rows {
        return Err(format!("the log holds {count} of {rows} rows").into());
    }
    Ok((began.elapsed().as_secs_f64(), cpu::server_seconds(server.pid)? - server_before))
}

async fn catching_up(args: &Args, server: &Server, sql: &Client) -> Outcome {
    sql.batch_execute(&format!("insert into item (id) select generate_series(1, {})", args.rows)).await?;
    sql.batch_execute("select rowcast.watch('item', public => true)").await?;
    let (mut floor, mut ours, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        sql.batch_execute("select rowcast.begin_again()").await?;
        sql.batch_execute("vacuum item").await?;
        starts.push(catch_up(args, server, sql, &[AMPLE], false).await?);
        write(sql, args.rows).await?;
        floor.push(bare_read(server, args.rows).await?);
        ours.push(catch_up(args, server, sql, &[AMPLE], true).await?);
    }
    let of = |list: &[Caught], value: &dyn Fn(&Caught) -> f64| Spread::of(list.iter().map(value));
    let row = |name: &str, list: &[Caught]| {
        vec![
            name.to_owned(),
            of(list, &|c| c.elapsed).show(2),
            of(list, &|c| c.gateway).show(2),
            of(list, &|c| c.server).show(2),
            of(list, &|c| c.peak).show(0),
        ]
    };
    anstream::println!("## {} log rows written while no gateway ran, {} rounds", args.rows, args.rounds);
    let bare = vec![
        "floor: a bare client reads them".to_owned(),
        Spread::of(floor.iter().map(|f| f.0)).show(2),
        "-".to_owned(),
        Spread::of(floor.iter().map(|f| f.1)).show(2),
        "-".to_owned(),
    ];
    table(
        &["", "seconds", "gateway cpu s", "server cpu s", "gateway peak MB"],
        &[bare, row("a start with nothing missed", &starts), row("a start and catching up", &ours)],
    );
    // the start itself is no catching up
    let start = of(&starts, &|c| c.gateway + c.server).median;
    let rows = f64::from(args.rows);
    let both = Spread::of(ours.iter().map(|c| rows / (c.gateway + c.server - start).max(0.001)));
    let alone = Spread::of(ours.iter().map(|c| rows / c.gateway));
    anstream::println!("rows per second of the gateway's processor time: {}", alone.show(0));
    verdict("P8 >= 50000 rows per core and second, server included", both.median >= 50_000.0, &both.show(0));
    anstream::println!();
    Ok(())
}

async fn huge(args: &Args, server: &Server, sql: &Client) -> Outcome {
    sql.batch_execute("truncate item; select rowcast.unwatch('item')").await?;
    sql.batch_execute("select rowcast.watch('item', public => true, bulk_limit => 2000000000)").await?;
    sql.batch_execute("select rowcast.begin_again()").await?;
    sql.batch_execute(&format!("insert into item (id) select generate_series(1, {})", args.huge)).await?;
    let caught = catch_up(args, server, sql, &[], true).await?;
    anstream::println!(
        "## one transaction of {} rows, default settings: current {:.1} s after the start, gateway {:.2} s and server {:.2} s of processor time",
        args.huge,
        caught.elapsed,
        caught.gateway,
        caught.server
    );
    verdict("P8 within 256 MB resident", caught.peak <= 256.0, &format!("peak {:.0} MB", caught.peak));
    anstream::println!();
    Ok(())
}

/// Nobody writes: what gateway and its sessions use.
async fn idle(args: &Args, server: &Server, sql: &Client) -> Outcome {
    let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), &[])?;
    gateway.ready().await?;
    // what a start leaves behind: polling until the bell is trusted
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sessions: Vec<i32> = sql
        .query("select pid from pg_stat_activity where application_name = 'rowcast'", &[])
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let sessions: Vec<u32> = sessions.into_iter().map(u32::try_from).collect::<Result<_, _>>()?;
    let used = || (cpu::nanos(gateway.pid()), sessions.iter().map(|pid| cpu::nanos(*pid)).sum::<u64>());
    let (before, began) = (used(), Instant::now());
    tokio::time::sleep(Duration::from_secs(args.idle)).await;
    let (after, elapsed) = (used(), began.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let percent = |before: u64, after: u64| (after.saturating_sub(before)) as f64 / 1e7 / elapsed;
    let (own, theirs) = (percent(before.0, after.0), percent(before.1, after.1));
    anstream::println!("## idle for {} s, {} sessions", args.idle, sessions.len());
    let found = format!("gateway {own:.2} % + sessions {theirs:.2} % of a core");
    verdict("P10 <= 0.5 % of a core", own + theirs <= 0.5, &found);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let args = Args::parse();
    let server = Server::start(Flush::Free).await?;
    let sql = server.database("bench", true).await?;
    sql.batch_execute(TABLE).await?;
    catching_up(&args, &server, &sql).await?;
    if args.huge > 0 {
        huge(&args, &server, &sql).await?;
    }
    if args.idle > 0 {
        idle(&args, &server, &sql).await?;
    }
    Ok(())
}
