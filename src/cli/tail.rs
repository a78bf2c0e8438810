//! `rowcast tail`: a session at the terminal.

use super::CliError;
use super::serve::stop_signal;
use crate::config::ServeArgs;
use crate::gateway::Core;
use crate::hub::Start;
use crate::session::{Access, Event, Request, Session};
use crate::wire::message::FIRST_SUB;
use bytes::BytesMut;
use clap::Args;
use owo_colors::OwoColorize;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::io::{IsTerminal, Write};

/// Arguments of `rowcast tail`.
#[derive(Args, Debug)]
pub struct TailArgs {
    /// Table: `scores` or `app.scores`
    table: String,
    /// Filters as in a query string: `league=eq.nfl` `score=gte.10`
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Columns to show
    #[arg(long, value_name = "COLUMNS")]
    select: Option<String>,
    /// Begin with what happens from now on, not with all rows
    #[arg(long)]
    now: bool,
    /// JSON lines, also in a terminal
    #[arg(long)]
    json: bool,
    /// Settings.
    #[command(flatten)]
    args: ServeArgs,
}

pub(super) async fn tail(args: TailArgs) -> Result<(), CliError> {
    let filter = args
        .filters
        .iter()
        .map(|f| f.split_once('=').map(|(c, v)| (c.to_owned(), v.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| CliError::Usage("a filter is `column=operator.value`, as in `league=eq.nfl`".to_owned()))?;
    let request =
        Request { sub: FIRST_SUB.into(), table: args.table, filter, select: args.select, wide_as_strings: false };
    let core = Core::start(&args.args.settings()?)?;
    let json = args.json || !std::io::stdout().is_terminal();
    let start = if args.now { Start::Now } else { Start::Snapshot };
    let done = tokio::select! {
        done = follow(&core, request, start, json) => done,
        () = core.tasks.stopping().cancelled() => Err(CliError::Ended(core.tasks.failure().unwrap_or_default())),
        () = stop_signal() => Ok(()),
    };
    core.tasks.shutdown(std::time::Duration::from_secs(1)).await;
    done
}

async fn follow(core: &Core, request: Request, start: Start, json: bool) -> Result<(), CliError> {
    let mut head = core.hub.head();
    let _ = head.wait_for(Option::is_some).await;
    request.resolve(&core.hub.tables(), &Access::Operator).map_err(|e| CliError::Usage(e.to_string()))?;
    let opened = Session::open(core.hub.clone(), Access::Operator, vec![(request, start)]).await;
    let mut session = opened.map_err(|e| CliError::Ended(e.to_string()))?;
    while let Some(events) = session.next().await {
        let mut out = anstream::stdout().lock();
        for event in events {
            let Event::Message { sub, message, .. } = event else { continue };
            let mut line = BytesMut::new();
            message.write_json(&sub, &mut line);
            if json {
                out.write_all(&line)?;
                out.write_all(b"\n")?;
            } else {
                readable(&line, &mut out)?;
            }
        }
        out.flush()?;
    }
    Err(CliError::Ended("the table is not watched any more".to_owned()))
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    rows: Vec<RowLine<'a>>,
    #[serde(borrow, default)]
    changes: Vec<RowLine<'a>>,
    #[serde(default)]
    at: Option<&'a str>,
    #[serde(default)]
    reason: Option<&'a str>,
    #[serde(default)]
    problem: Option<ProblemLine>,
}

#[derive(Deserialize)]
struct ProblemLine {
    detail: String,
}

#[derive(Deserialize)]
struct RowLine<'a> {
    #[serde(default)]
    op: Option<&'a str>,
    key: &'a str,
    version: i64,
    #[serde(borrow, default)]
    row: Option<&'a RawValue>,
}

fn readable(line: &[u8], out: &mut impl Write) -> Result<(), CliError> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|e| CliError::Ended(e.to_string()))?;
    if let Some(problem) = line.problem {
        return Err(CliError::Ended(problem.detail));
    }
    if let Some(reason) = line.reason {
        writeln!(out, "{}", format!("-- {}: {reason}, all rows follow", line.kind).yellow())?;
    }
    for row in line.rows.iter().chain(&line.changes) {
        let time = line.at.and_then(|at| at.get(11..23)).unwrap_or("");
        let json = row.row.map(RawValue::get).unwrap_or("");
        let head = format!("{time:<12} {:<6} {}", row.op.unwrap_or("row"), row.key);
        match row.op {
            Some("insert") => writeln!(out, "{} {} {json}", head.green(), format!("v{}", row.version).dimmed())?,
            Some("delete") => writeln!(out, "{} {}", head.red(), format!("v{}", row.version).dimmed())?,
            Some(_) => writeln!(out, "{} {} {json}", head.cyan(), format!("v{}", row.version).dimmed())?,
            None => writeln!(out, "{head} {} {json}", format!("v{}", row.version).dimmed())?,
        }
    }
    Ok(())
}
