//! Idempotency keys: one write for any number of equal requests.
//!
//! Invariant: the answer is kept by the transaction of its write, so one is there exactly when the other is.

use super::order::{Answer, Claim, Fault};
use crate::pg::PgError;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

/// Nobody else carries this key out while the transaction runs. Not waited for: the other one may take long, and the
/// client is better told. A collision of hashes is told as `in-progress` too, and passes.
const LOCK: &str =
    "select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1 || E'\\n' || $2, 6002271949))";

/// A statement after the lock, hence with a snapshot after it: whoever held the lock before is seen.
const FIND: &str = "select i.request = $3 as same, i.xid::pg_catalog.text as xid, i.status, i.headers::pg_catalog.text as headers, i.body \
     from rowcast.idempotency as i where i.subject = $1 and i.key = $2";

const KEEP: &str = "insert into rowcast.idempotency (subject, key, request, status, headers, body) \
     values ($1, $2, $3, $4, $5::pg_catalog.text::pg_catalog.json, $6)";

/// Takes the key. The answer and the transaction of an earlier request, if there was one.
pub(super) async fn take(client: &Client, claim: &Claim) -> Result<Option<(Answer, u64)>, Fault> {
    let rows = client.query_typed(LOCK, &[(&claim.subject, Type::TEXT), (&claim.key, Type::TEXT)]).await?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Err(Fault::InProgress);
    }
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
        [(&claim.subject, Type::TEXT), (&claim.key, Type::TEXT), (&claim.request, Type::BYTEA)];
    let rows = client.query_typed(FIND, &params).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if !row.try_get::<_, bool>("same")? {
        return Err(Fault::KeyReused);
    }
    let unreadable = || PgError::Unexpected("a kept answer cannot be read".to_owned());
    let headers: String = row.try_get("headers")?;
    let status: i32 = row.try_get("status")?;
    let xid: String = row.try_get("xid")?;
    let answer = Answer {
        status: u16::try_from(status).map_err(|_| unreadable())?,
        headers: serde_json::from_str(&headers).map_err(|_| unreadable())?,
        body: row.try_get("body")?,
    };
    Ok(Some((answer, xid.parse().map_err(|_| unreadable())?)))
}

/// Keeps the answer.
pub(super) async fn keep(client: &Client, claim: &Claim, answer: &Answer) -> Result<(), Fault> {
    let headers = serde_json::json!(answer.headers).to_string();
    let status = i32::from(answer.status);
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 6] = [
        (&claim.subject, Type::TEXT),
        (&claim.key, Type::TEXT),
        (&claim.request, Type::BYTEA),
        (&status, Type::INT4),
        (&headers, Type::TEXT),
        (&answer.body, Type::TEXT),
    ];
    client.query_typed(KEEP, &params).await?;
    Ok(())
}
