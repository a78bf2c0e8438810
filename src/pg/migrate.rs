//! The migrations, kept in the program, applied in order, each in a transaction of its own.
//!
//! Invariant: safe when any number start at once: an advisory lock queues them, and each file first inserts its own
//! id, so that even by hand it cannot be applied twice.

use super::{PgError, connect, parse, queries};
use crate::tasks::Tasks;
use tokio_postgres::Client;

/// One file of `sql/`.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number.
    pub id: i32,
    /// Its file name.
    pub name: &'static str,
    /// Its text.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($($id:literal $name:literal),* $(,)?) => {
        &[$(Migration { id: $id, name: $name, sql: include_str!(concat!("../../sql/", $name)) }),*]
    };
}

/// All of them, in order.
pub const MIGRATIONS: &[Migration] = migrations![
    1 "0001_roles_and_schema.sql",
    2 "0002_log_and_ticks.sql",
    3 "0003_reading_and_rotation.sql",
    4 "0004_capture.sql",
    5 "0005_watch.sql",
    6 "0006_writes.sql",
    7 "0007_rule_filters.sql",
    8 "0008_rules.sql",
    9 "0009_sources_and_status.sql",
    10 "0010_tickets.sql",
];

/// Removes everything again.
pub const UNINSTALL: &str = include_str!("../../sql/uninstall.sql");

/// Key of the lock that queues migrating programs.
const MIGRATE_LOCK: i64 = 0x0072_6f77_6361_736d;

/// What `rowcast migrate --print` prints: for people to read and for other tools to apply.
#[must_use]
pub fn printed() -> String {
    let mut out =
        String::from("-- rowcast: all migrations in order; apply with any tool, each part in one transaction\n");
    for migration in MIGRATIONS {
        out.push_str(&format!("\n-- {}\nbegin;\n{}\ncommit;\n", migration.name, migration.sql.trim_end()));
    }
    out
}

/// Applies what is missing; returns the names of what was applied.
///
/// # Errors
/// The database cannot be reached, was migrated by a newer program, or refuses a statement.
pub async fn apply(url: &str) -> Result<Vec<&'static str>, PgError> {
    let tasks = Tasks::here();
    let mut client = connect(&parse(url)?, &tasks, "migration connection").await?;
    check_server(&client).await?;
    let mut applied = Vec::new();
    loop {
        let transaction = client.transaction().await?;
        // a role may be created here and by another database of the cluster at once
        transaction.execute("select pg_catalog.pg_advisory_xact_lock($1)", &[&MIGRATE_LOCK]).await?;
        let installed = installed(transaction.client()).await?.unwrap_or_default();
        refuse_newer(&installed)?;
        let Some(next) = MIGRATIONS.iter().find(|m| !installed.iter().any(|i| i.id == m.id)) else { break };
        transaction.batch_execute(next.sql).await?;
        transaction.commit().await?;
        applied.push(next.name);
    }
    Ok(applied)
}

/// A row of `rowcast.migration`.
struct Installed {
    id: i32,
    name: String,
    breaking: bool,
}

/// None when nothing is installed.
async fn installed(client: &Client) -> Result<Option<Vec<Installed>>, PgError> {
    let there = client.query_typed("select pg_catalog.to_regclass('rowcast.migration') is not null", &[]).await?;
    if !there.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let rows = client.query_typed(queries::SCHEMA, &[]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Installed { id: row.try_get("id")?, name: row.try_get("name")?, breaking: row.try_get("breaking")? })
    };
    rows.iter().map(read).collect::<Result<Vec<_>, PgError>>().map(Some)
}

fn refuse_newer(installed: &[Installed]) -> Result<(), PgError> {
    let unknown: Vec<&Installed> = installed.iter().filter(|i| !MIGRATIONS.iter().any(|m| m.id == i.id)).collect();
    let names = |list: &[&Installed]| list.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", ");
    let breaking: Vec<&Installed> = unknown.iter().copied().filter(|i| i.breaking).collect();
    if !breaking.is_empty() {
        return Err(PgError::Newer(names(&breaking)));
    }
    if !unknown.is_empty() {
        tracing::warn!(
            migrations = names(&unknown),
            "the database was migrated by a newer rowcast; it says this program still works"
        );
    }
    Ok(())
}

/// Refuses servers on which the guarantees would not hold.
async fn check_server(client: &Client) -> Result<(), PgError> {
    let sql =
        "select pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_encoding')";
    let rows = client.query_typed(sql, &[]).await?;
    let row = rows.first().ok_or_else(|| PgError::Unexpected("no server version".to_owned()))?;
    let (version, encoding): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if version < 140_000 {
        return Err(PgError::Unsupported(format!("PostgreSQL {}: at least 14 is needed", version / 10_000)));
    }
    if encoding != "UTF8" {
        // text is compared in the stream by its UTF-8 bytes, in the database by its own
        return Err(PgError::Unsupported(format!(
            "the database's encoding is `{encoding}`: filters are exact only in `UTF8`; create one with `encoding 'UTF8'`"
        )));
    }
    Ok(())
}

/// Are server and schema ones that this program serves?
///
/// # Errors
/// It is missing, behind or newer.
pub async fn check(client: &Client) -> Result<(), PgError> {
    check_server(client).await?;
    let Some(installed) = installed(client).await? else {
        let database = client.query_typed("select pg_catalog.current_database()::text", &[]).await?;
        return Err(PgError::NotInstalled(database.first().map(|row| row.get(0)).unwrap_or_default()));
    };
    let missing: Vec<&str> =
        MIGRATIONS.iter().filter(|m| !installed.iter().any(|i| i.id == m.id)).map(|m| m.name).collect();
    if !missing.is_empty() {
        return Err(PgError::Behind(missing.join(", ")));
    }
    refuse_newer(&installed)
}

/// Is this the primary, and the database the log was written in? A restored or copied one begins its history anew.
///
/// # Errors
/// It is a standby.
pub async fn check_origin(client: &Client) -> Result<(), PgError> {
    let rows = client.query_typed(queries::ORIGIN, &[]).await?;
    let row = rows
        .first()
        .ok_or_else(|| PgError::Unexpected("no origin: the migrations did not run to their end".to_owned()))?;
    if row.try_get("in_recovery")? {
        return Err(PgError::Standby);
    }
    if !row.try_get::<_, bool>("ok")? {
        tracing::warn!(
            "this database is a restored or copied one: its change log begins anew, every position is refused"
        );
        client.batch_execute("select rowcast.begin_again()").await?;
    }
    Ok(())
}
