//! The command line.
//!
//! Invariant: exit codes mean something: 0 done, 1 failed, 2 wrong usage or settings, 3 the database's schema is not
//! one this program serves.

mod database;
mod rules;
mod serve;
mod tail;
mod token;

use crate::config::{self, ConfigError, DatabaseArgs, ServeArgs};
use crate::demo::{DemoArgs, DemoError, demo};
use crate::gateway::StartError;
use crate::pg::PgError;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A change-stream gateway for Postgres: every committed change, in order, to every browser.
///
/// Try `rowcast demo` first: it needs nothing. For your own database: `rowcast migrate`, `rowcast watch <table>
/// --public`, `rowcast serve`, then `curl -N 'localhost:8080/v1/stream?table=<table>'`.
#[derive(Parser, Debug)]
#[command(name = "rowcast", version, max_term_width = 100, propagate_version = true)]
pub struct Cli {
    /// What is logged: `error`, `warn`, `info`, `debug`, or per module as in `rowcast=debug,actix_web=warn`
    /// [default: `info`, for the demo `warn`]
    #[arg(long, env = "ROWCAST_LOG", global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log as JSON lines
    #[arg(long, env = "ROWCAST_LOG_JSON", global = true)]
    pub log_json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve: read committed changes and push them to subscribers
    Serve {
        /// Settings.
        #[command(flatten)]
        args: ServeArgs,
        /// Apply missing migrations first
        #[arg(long, env = "ROWCAST_MIGRATE")]
        migrate: bool,
    },
    /// Install or update the schema `rowcast` in the database; safe when many run at once
    Migrate {
        /// Which database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Print the SQL for review or for another migration tool, touch nothing
        #[arg(long)]
        print: bool,
        /// With --print: print the SQL that removes everything again
        #[arg(long, requires = "print")]
        uninstall: bool,
    },
    /// Watch a table: from now on its changes are recorded
    #[command(
        after_help = "Runs `select rowcast.watch(...)` as the user of the database url, who must own the table.\n\
        Watching a watched table again changes its settings.\n\nExample: rowcast watch public.scores --public --ttl '3 s'"
    )]
    Watch(database::WatchArgs),
    /// Stop watching a table
    Unwatch {
        /// Table, as in SQL: `scores`, `app.scores`, `app."Odd Name"`
        table: String,
        /// Drop the column `row_version` too
        #[arg(long)]
        drop_version: bool,
        /// Which database.
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// Allow a role to reach a table: which rows and columns, and whether it writes them
    #[command(
        after_help = "The role is the one in the caller's token, or `anon` for whoever has none. Runs `select rowcast.allow(...)`;\n\
        again for the same role it replaces what was allowed.\n\n\
        Example: rowcast allow notes member --filter 'tenant=eq.{tenant}' --columns title,body --write"
    )]
    Allow(rules::AllowArgs),
    /// Take back what a role was allowed
    Deny {
        /// Table, as in SQL
        table: String,
        /// Role of tokens, or `anon`
        role: String,
        /// Which database.
        #[command(flatten)]
        database: DatabaseArgs,
    },
    /// List the watched tables, their rules and what is wrong with them
    Tables {
        /// Which database.
        #[command(flatten)]
        database: DatabaseArgs,
        /// As JSON lines
        #[arg(long)]
        json: bool,
    },
    /// Show a table's rows and then every change, live
    #[command(
        after_help = "Reads the database itself, so no gateway needs to run. Readable in a terminal, JSON lines when piped.\n\n\
        Example: rowcast tail scores 'league=eq.nfl' | jq .changes"
    )]
    Tail(tail::TailArgs),
    /// Print a token, signed with the shared secret: for development
    #[command(
        after_help = "Signs with `ROWCAST_JWT_SECRET`, as `rowcast serve` verifies. Whoever has the secret can be anybody: give it to no client.\n\n\
        Example: curl -H \"Authorization: Bearer $(rowcast token --role player --claim team=7 --expires 1h)\" ..."
    )]
    Token(token::TokenArgs),
    /// Print the OpenAPI document: every address, what it takes, every answer
    ///
    /// The same as `GET /openapi.json` of a running gateway. Needs no database.
    Openapi,
    /// Play live games in a private Postgres and watch them in the browser: needs nothing, leaves nothing
    #[command(
        after_help = "Finds a PostgreSQL server on this machine, runs it privately, and removes everything at the end.\n\n\
        Example: rowcast demo --once   (a few seconds, unattended; the exit code says whether all was right)"
    )]
    Demo(DemoArgs),
}

impl Cli {
    /// What is logged. The demo's own lines say what matters, unless something is wrong.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        let usual = if matches!(self.command, Command::Demo(_)) { "warn" } else { "info" };
        self.log.as_deref().unwrap_or(usual)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Pg(#[from] PgError),
    /// The gateway did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway ended by itself.
    #[error("{0}")]
    Ended(String),
    /// Bad arguments.
    #[error("{0}")]
    Usage(String),
    /// Standard output is gone.
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
    /// The demo.
    #[error("{}", .0.with_causes())]
    Demo(DemoError),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_) | CliError::Usage(_) | CliError::Pg(PgError::Url(_)) => 2,
            CliError::Start(StartError::Database(PgError::Url(_)) | StartError::Auth(_)) => 2,
            CliError::Pg(
                PgError::Unsupported(_) | PgError::NotInstalled(_) | PgError::Behind(_) | PgError::Newer(_),
            )
            | CliError::Ended(_) => 3,
            _ => 1,
        }
    }
}

/// Runs the command.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve { args, migrate } => serve::serve(args, migrate).await,
        Command::Migrate { database, print, uninstall } => database::migrate(database, print, uninstall).await,
        Command::Watch(args) => database::watch(args).await,
        Command::Unwatch { table, drop_version, database } => database::unwatch(database, &table, drop_version).await,
        Command::Allow(args) => rules::allow(args).await,
        Command::Deny { table, role, database } => rules::deny(database, &table, &role).await,
        Command::Tables { database, json } => database::tables(database, json).await,
        Command::Tail(args) => tail::tail(args).await,
        Command::Token(args) => token::token(&args),
        Command::Openapi => write_line(crate::http::openapi()),
        Command::Demo(args) => demo(args, config::environment(), serve::stop_signal()).await.map_err(CliError::Demo),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // `rowcast tail | head`: whoever read has enough
        Err(CliError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("rowcast: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn write_line(text: &str) -> Result<(), CliError> {
    use std::io::Write as _;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
