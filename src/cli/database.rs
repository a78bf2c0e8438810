//! `rowcast migrate`, `watch`, `unwatch`, `tables`.

use super::{CliError, rules};
use crate::config::DatabaseArgs;
use crate::pg::watch::{self, WatchOptions};
use crate::pg::{catalog, connect, migrate, parse};
use crate::tasks::Tasks;
use clap::Args;
use std::io::Write;

/// Arguments of `rowcast watch`.
#[derive(Args, Debug)]
pub struct WatchArgs {
    /// Table, as in SQL: `scores`, `app.scores`, `app."Odd Name"`
    table: String,
    /// Anybody may read it, without a token
    #[arg(long)]
    public: bool,
    /// A cached answer is fresh for so long [default: 5 s]
    #[arg(long, value_name = "INTERVAL")]
    ttl: Option<String>,
    /// A cached answer may be served for so long after, while it is refreshed [default: 30 s]
    #[arg(long, value_name = "INTERVAL")]
    stale: Option<String>,
    /// Publish only these columns
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS", conflicts_with = "exclude")]
    columns: Vec<String>,
    /// Publish all columns but these
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    exclude: Vec<String>,
    /// Key columns, for a table without a primary key; they need a unique index and NOT NULL
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    key: Vec<String>,
    /// Subscribers get all rows again this often; `0` turns it off [default: 60 s]
    #[arg(long, value_name = "INTERVAL")]
    snapshot_every: Option<String>,
    /// A statement that touches more rows is told as `reset` [default: 100000]
    #[arg(long, value_name = "ROWS")]
    bulk_limit: Option<i32>,
    /// Which database.
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn migrate(database: DatabaseArgs, print: bool, uninstall: bool) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    if print {
        let text = if uninstall { migrate::UNINSTALL.to_owned() } else { migrate::printed() };
        out.write_all(text.as_bytes())?;
        return Ok(());
    }
    let applied = migrate::apply(&database.url()?).await?;
    if applied.is_empty() {
        writeln!(out, "nothing to do: all {} migrations are applied", migrate::MIGRATIONS.len())?;
    }
    for name in applied {
        writeln!(out, "applied {name}")?;
    }
    Ok(())
}

pub(super) async fn watch(args: WatchArgs) -> Result<(), CliError> {
    let options = WatchOptions {
        ttl: args.ttl,
        stale: args.stale,
        columns: args.columns,
        exclude: args.exclude,
        key: args.key,
        snapshot_every: args.snapshot_every,
        bulk_limit: args.bulk_limit,
        public: args.public,
    };
    watch::watch(&args.database.url()?, &args.table, &options).await?;
    let reach = if args.public { "anybody may read it" } else { "not public: `rowcast allow` says who may read it" };
    writeln!(anstream::stdout(), "watching {} ({reach})", args.table)?;
    Ok(())
}

pub(super) async fn unwatch(database: DatabaseArgs, table: &str, drop_version: bool) -> Result<(), CliError> {
    watch::unwatch(&database.url()?, table, drop_version).await?;
    writeln!(anstream::stdout(), "{table} is not watched any more")?;
    Ok(())
}

pub(super) async fn tables(database: DatabaseArgs, json: bool) -> Result<(), CliError> {
    let client = connect(&parse(&database.url()?)?, &Tasks::here(), "command connection").await?;
    migrate::check(&client).await?;
    let loaded = catalog::load(&client).await?;
    let mut tables: Vec<_> = loaded.iter().collect();
    tables.sort_by_key(|t| t.wire_name());
    let mut out = anstream::stdout().lock();
    if tables.is_empty() && !json {
        writeln!(out, "no table is watched: `rowcast watch <table> --public`")?;
    }
    for table in tables {
        if json {
            let line = serde_json::json!({
                "table": table.wire_name(), "public": table.public, "key": table.key,
                "columns": table.columns.iter().map(|c| &c.name).collect::<Vec<_>>(),
                "ttl_ms": table.ttl.as_millis(), "stale_ms": table.stale.as_millis(),
                "snapshot_every_ms": table.snapshot_every.as_millis(), "problem": table.broken,
                "rules": table.rules.iter().map(rules::json).collect::<Vec<_>>(),
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let reach = if table.public { "public" } else { "private" };
        writeln!(
            out,
            "{:<32} {reach:<8} key {}  ttl {:?}  snapshot every {:?}",
            table.wire_name(),
            table.key.join(","),
            table.ttl,
            table.snapshot_every
        )?;
        for rule in &table.rules {
            writeln!(out, "    {}", rules::line(rule))?;
        }
        if let Some(problem) = &table.broken {
            writeln!(out, "    cannot be served: {problem}")?;
        }
    }
    Ok(())
}
