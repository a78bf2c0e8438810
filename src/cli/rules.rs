//! `rowcast allow` and `deny`, and how rules are listed.

use super::CliError;
use crate::change::Rule;
use crate::config::DatabaseArgs;
use crate::pg::watch::{self, AllowOptions};
use clap::Args;
use std::io::Write;

/// Arguments of `rowcast allow`.
#[derive(Args, Debug)]
pub struct AllowArgs {
    /// Table, as in SQL: `scores`, `app.scores`, `app."Odd Name"`
    table: String,
    /// Role of tokens, or `anon`: whoever has none
    role: String,
    /// Only these rows: a filter as in an address, with claims of the token as `{name}`
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Only these columns; the key and the version always come along
    #[arg(long, value_delimiter = ',', value_name = "COLUMNS")]
    columns: Vec<String>,
    /// Insert, update and delete these rows, too
    #[arg(long)]
    write: bool,
    /// With --write: also without naming the version a change is based on
    #[arg(long, requires = "write")]
    without_version: bool,
    /// The table has row level security: do not ask it, this rule decides
    #[arg(long)]
    ignore_row_security: bool,
    /// Which database.
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn allow(args: AllowArgs) -> Result<(), CliError> {
    let options = AllowOptions {
        filter: args.filter,
        columns: args.columns,
        write: args.write,
        without_version: args.without_version,
        ignore_row_security: args.ignore_row_security,
    };
    watch::allow(&args.database.url()?, &args.table, &args.role, &options).await?;
    let does = if args.write { "reads and writes" } else { "reads" };
    let rows = options.filter.as_deref().unwrap_or("all rows");
    writeln!(anstream::stdout(), "`{}` {does} {} ({rows})", args.role, args.table)?;
    Ok(())
}

pub(super) async fn deny(database: DatabaseArgs, table: &str, role: &str) -> Result<(), CliError> {
    watch::deny(&database.url()?, table, role).await?;
    writeln!(anstream::stdout(), "`{role}` has no rule for {table} any more")?;
    Ok(())
}

/// A rule for people.
pub(super) fn line(rule: &Rule) -> String {
    let rows = rule.filter.as_deref().unwrap_or("all rows");
    let columns = rule.columns.as_ref().map(|names| format!("; only {}", names.join(", "))).unwrap_or_default();
    let writes = match (rule.write, rule.version_required) {
        (false, _) => "",
        (true, true) => "; writes",
        (true, false) => "; writes, also without a version",
    };
    format!("{}: {rows}{columns}{writes}", rule.role)
}

/// A rule for programs.
pub(super) fn json(rule: &Rule) -> serde_json::Value {
    serde_json::json!({ "role": rule.role, "filter": rule.filter, "columns": rule.columns, "write": rule.write,
        "version_required": rule.version_required })
}
