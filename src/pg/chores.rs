//! What the leading gateway clears away now and then.
//!
//! Must not know: ticks, subscribers. Invariant: no try waits for a lock, and none goes on for ever: what is left is found again in
//! the next round.

use super::PgError;
use deadpool_postgres::Pool;
use std::time::Duration;
use tokio_postgres::types::Type;

/// How long to wait after each try to empty a log table that is held, until the next time. It is tried without waiting
/// for the lock, and readers hold that for a moment at a time: of several tries one meets none.
const ROTATE_TRIES: [Option<Duration>; 5] = [
    Some(Duration::from_millis(70)),
    Some(Duration::from_millis(130)),
    Some(Duration::from_millis(210)),
    Some(Duration::from_millis(340)),
    None,
];

/// Empties the log tables whose changes are older than `retention`.
pub(super) async fn rotate(pool: &Pool, retention: Duration) -> Result<(), PgError> {
    let client = pool.get().await?;
    let seconds = retention.as_secs_f64();
    for again in ROTATE_TRIES {
        let rows = client
            .query_typed("select rowcast.rotate(pg_catalog.make_interval(secs => $1))", &[(&seconds, Type::FLOAT8)])
            .await?;
        let did: Option<&str> = rows.first().map(|row| row.try_get(0)).transpose()?;
        if !did.is_some_and(|did| did.starts_with("held back")) {
            tracing::debug!(did, "log rotation");
            break;
        }
        match again {
            Some(wait) => tokio::time::sleep(wait).await,
            None => tracing::warn!(did, "the log cannot be emptied yet"),
        }
    }
    Ok(())
}

/// Answers kept for idempotency keys that are a day old, and tickets that were never shown.
pub(super) const FORGET: [&str; 2] =
    ["select rowcast.forget_answers(most => $1)", "select rowcast.forget_tickets(most => $1)"];

/// Removes what is old. In small transactions, and not for ever: what is left is found again in the ticker's next round.
pub(super) async fn forget(pool: &Pool, sql: &str) -> Result<(), PgError> {
    const MOST: i32 = 1000;
    let client = pool.get().await?;
    for _ in 0..100 {
        let rows = client.query_typed(sql, &[(&MOST, Type::INT4)]).await?;
        if rows.first().is_none_or(|row| row.get::<_, i32>(0) < MOST) {
            break;
        }
    }
    Ok(())
}
