//! The demo from start to end: database, tables, gateway, games, page, and the way back.
//!
//! Must not know: how any of them works. Invariant: what was started is ended in the opposite order, whatever went wrong in
//! between.

use std::net::SocketAddr;
use std::time::Duration;

use owo_colors::OwoColorize;
use tokio_util::sync::CancellationToken;

use super::check::{self, Report};
use super::database::Database;
use super::writer::Writer;
use super::{DemoArgs, DemoError, example, open, page};
use crate::config::Settings;
use crate::gateway::Gateway;
use crate::http::StaticPage;
use crate::localpg::Environment;
use crate::pg::migrate;

/// How long streams get to say good-bye. Nobody waits for a demo.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs the demo until `told` (Ctrl-C, SIGTERM), its time is up, or something fails.
///
/// # Errors
/// There is no server, the database refuses, or with `--once`: a subscriber did not get what it must get.
pub async fn demo(args: DemoArgs, env: Environment, told: impl Future<Output = ()>) -> Result<(), DemoError> {
    let stop = CancellationToken::new();
    let mut stages = std::pin::pin!(stages(&args, &env, &stop));
    tokio::select! {
        result = &mut stages => return result,
        () = told => stop.cancel(),
    }
    stages.await
}

async fn stages(args: &DemoArgs, env: &Environment, stop: &CancellationToken) -> Result<(), DemoError> {
    // What is started in here and dropped half-way takes itself away.
    let Some(database) = stop.run_until_cancelled(Database::open(args, env)).await else { return Ok(()) };
    let database = database?;
    migrate::apply(&database.url).await?;
    example::load(&database.url).await?;
    let result = serve(args, env, &database, stop).await;
    if database.private.is_none() {
        example::unload(&database.url).await?;
    }
    result
}

async fn serve(
    args: &DemoArgs,
    env: &Environment,
    database: &Database,
    stop: &CancellationToken,
) -> Result<(), DemoError> {
    let mut settings = Settings::new(&database.url);
    settings.listen = args.address().to_string();
    settings.drain = DRAIN;
    // nobody needs more, and more files than a shell may open would be warned of
    settings.max_connections = 400;
    let pages = vec![StaticPage { path: "/", content_type: "text/html; charset=utf-8", body: page::INDEX }];
    let gateway = Gateway::start(&settings, pages).map_err(|error| DemoError::Gateway(error.into()))?;
    let result = tokio::select! {
        result = play(args, env, database, gateway.local_addr()) => result,
        why = gateway.failed() => Err(DemoError::Gateway(why.into())),
        () = stop.cancelled() => Ok(()),
    };
    gateway.shutdown().await;
    result
}

/// Plays until the time is up, or for ever. Dropping it ends the writers between two statements.
async fn play(args: &DemoArgs, env: &Environment, database: &Database, address: SocketAddr) -> Result<(), DemoError> {
    check::wait_ready(address).await?;
    let mut writer = Writer::start(&database.url).await?;
    if args.once {
        let report = check::run(address, &database.url, &mut writer, args.duration().unwrap_or_default()).await?;
        print_report(&report, &writer);
        return Ok(());
    }
    let url = format!("http://{address}/");
    print_lines(&url, &database.url);
    if !args.no_open {
        open::page(env, &url);
    }
    let time_is_up = async {
        match args.duration() {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        error = writer.failed() => Err(error),
        () = time_is_up => writer.stop().await,
    }
}

fn print_lines(url: &str, database: &str) {
    let line = |name: &str, value: &str| anstream::println!("  {:<9} {value}", name.dimmed());
    anstream::println!("\n{}\n", "Games are being played in Postgres, and watched through Rowcast.".bold());
    line("page", &url.green().bold().to_string());
    line("stream", &format!("curl -N '{url}v1/stream?table=games&status=eq.live'"));
    line("database", &format!("psql '{database}'"));
    line("try", "update games set home_score = home_score + 3 where status = 'live';");
    anstream::println!("\nCtrl-C ends it and removes everything.\n");
}

fn print_report(report: &Report, writer: &Writer) {
    let tally = writer.tally();
    anstream::println!("{}", "A subscriber held, to the row, what the database has.".green().bold());
    for (id, rows, snapshots, changes) in &report.subs {
        anstream::println!("  {id:<10} {rows:>3} rows, {snapshots} snapshot, {changes} changes, versions rising");
    }
    let (commits, finals, refused) = (tally.commits(), tally.finals(), tally.refused());
    anstream::println!("  {commits} commits, {finals} games ended, {refused} late picks refused with RC409");
    let (median, p99) = report.fresh_ms;
    anstream::println!("  {} messages, from tick to subscriber {median} ms median, {p99} ms p99", report.ticks);
}
