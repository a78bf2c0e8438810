//! Idempotency keys: one write for any number of equal requests.
//!
//! Invariants: the answer is kept by the transaction of its write, so one is there exactly when the other is; no kept
//! answer tells of a column that is not published any more, or of a row that the caller would not be shown by the same rule.

use super::order::{Answer, Claim, Fault};
use crate::change::Table;
use crate::permit::Permit;
use crate::pg::PgError;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use xxhash_rust::xxh3::Xxh3;

/// Nobody else carries this key out while the transaction runs. Not waited for: the other one may take long, and the
/// client is better told. A collision of hashes is told as `in-progress` too, and passes.
const LOCK: &str =
    "select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended($1 || E'\\n' || $2, 6002271949))";

/// A statement after the lock, hence with a snapshot after it: whoever held the lock before is seen.
const FIND: &str = "select i.request = $3 as same, i.xid::pg_catalog.text as xid, i.status, i.headers::pg_catalog.text as headers, i.body, \
     i.published <@ $4 as readable, not exists (select from pg_catalog.unnest(i.published) as p(said) \
       where p.said ~ '^[0-9]+:' and p.said <> all ($4)) as rows_hold from rowcast.idempotency as i where i.subject = $1 and i.key = $2";

const KEEP: &str = "insert into rowcast.idempotency (subject, key, request, status, headers, body, published) \
     values ($1, $2, $3, $4, $5::pg_catalog.text::pg_catalog.json, $6, $7)";

/// The columns that an answer may tell of, and by which rule of rows.
fn published(tables: &[(&Table, &Permit)]) -> Vec<String> {
    // by number: a name may come to mean another table
    let columns = |(table, permit): &(&Table, &Permit)| {
        let relid = table.relid;
        let shown = permit.seen(table).columns().map(|(_, column)| format!("{relid}.{}", column.name));
        // of all rows too: when it was kept under such a rule, the rule of now may be a narrower one
        let rows = format!("{relid}:{:016x}", permit.rows_digest(table));
        shown.chain(std::iter::once(rows)).collect::<Vec<_>>()
    };
    tables.iter().flat_map(columns).collect()
}

/// Whose key it is. Where several are one subject, each who is shown other rows is another: what one did is not repeated to the next.
fn owner(claim: &Claim, tables: &[(&Table, &Permit)]) -> String {
    if !claim.several {
        return claim.subject.clone();
    }
    let mut hash = Xxh3::new();
    tables.iter().for_each(|(table, permit)| hash.update(&permit.rows_digest(table).to_le_bytes()));
    format!("{}\n{:016x}", claim.subject, hash.digest())
}

/// Takes the key. The answer and the transaction of an earlier request, if there was one.
///
/// When a column is not shown any more that was when it was kept, or the rule selects other rows, the answer is one without a row.
pub(super) async fn take(
    client: &Client,
    claim: &Claim,
    tables: &[(&Table, &Permit)],
) -> Result<Option<(Answer, u64)>, Fault> {
    let owner = owner(claim, tables);
    let rows = client.query_typed(LOCK, &[(&owner, Type::TEXT), (&claim.key, Type::TEXT)]).await?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Err(Fault::InProgress);
    }
    let published = published(tables);
    let params: [(&(dyn ToSql + Sync), Type); 4] =
        [(&owner, Type::TEXT), (&claim.key, Type::TEXT), (&claim.request, Type::BYTEA), (&published, Type::TEXT_ARRAY)];
    let rows = client.query_typed(FIND, &params).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    if !row.try_get::<_, bool>("same")? {
        return Err(Fault::KeyReused);
    }
    let unreadable = || PgError::Unexpected("a kept answer cannot be read".to_owned());
    let headers: String = row.try_get("headers")?;
    let status: i32 = row.try_get("status")?;
    let xid: String = row.try_get("xid")?;
    let mut answer = Answer {
        status: u16::try_from(status).map_err(|_| unreadable())?,
        headers: serde_json::from_str(&headers).map_err(|_| unreadable())?,
        body: row.try_get("body")?,
    };
    if !row.try_get::<_, bool>("readable")? {
        // of other rows not the version either
        let rows_hold: bool = row.try_get("rows_hold")?;
        answer.headers.retain(|(name, _)| rows_hold && name == "ETag");
        if answer.body.take().is_some() && answer.status == 200 {
            answer.status = 204;
        }
    }
    Ok(Some((answer, xid.parse().map_err(|_| unreadable())?)))
}

/// Keeps the answer.
pub(super) async fn keep(
    client: &Client,
    claim: &Claim,
    tables: &[(&Table, &Permit)],
    answer: &Answer,
) -> Result<(), Fault> {
    let headers = serde_json::json!(answer.headers).to_string();
    let status = i32::from(answer.status);
    let (owner, published) = (owner(claim, tables), published(tables));
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&owner, Type::TEXT),
        (&claim.key, Type::TEXT),
        (&claim.request, Type::BYTEA),
        (&status, Type::INT4),
        (&headers, Type::TEXT),
        (&answer.body, Type::TEXT),
        (&published, Type::TEXT_ARRAY),
    ];
    client.query_typed(KEEP, &params).await?;
    Ok(())
}
