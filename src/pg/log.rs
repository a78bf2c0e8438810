//! The range read: every log row between two ticks, folded.
//!
//! Invariant: what is returned is complete or marked as a reload; memory is bounded however much happened.

use super::heard::Heard;
use super::statements::Statements;
use super::{PgError, queries};
use crate::change::{Batch, Key, Net, Op, Position, Reload, RowChange, Snapshot, TableBatch, Tick, fold, one_line};
use crate::hub::Tables;
use bytes::Bytes;
use futures_util::{TryStreamExt, future};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, NoTls, Row, RowStream, Transaction};

/// Begins a transaction that reads the log: rotation cannot empty a table under it, so a tick that exists inside it
/// has its whole range. `enable_seqscan`: the log is never analyzed, and without statistics a large range looks as
/// if a sequential scan were right. `jit`: without statistics the costs make Postgres compile the plan, 350 ms a read.
const BEGIN_READING: &str = "lock table rowcast.log_0, rowcast.log_1, rowcast.log_2 in access share mode; \
     set local enable_seqscan = off; set local enable_bitmapscan = off; set local enable_sort = off; \
     set local jit = off";

/// The raw text of a `json` value, on one line.
pub(super) struct Json(pub(super) Bytes);

impl<'a> FromSql<'a> for Json {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Json(one_line(raw)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSON
    }
}

/// Answer to a range read.
pub enum Range {
    /// The changes.
    Batch(Batch),
    /// `from` is not known or no longer covered by the log.
    Unknown,
}

/// What to read.
#[derive(Clone, Copy)]
pub(super) struct Read<'a> {
    /// For the tables' key columns.
    pub(super) tables: &'a Tables,
    /// After this position.
    pub(super) from: Position,
    /// The snapshot there, if the caller has it: then everything is asked at once, one round trip instead of three.
    pub(super) known: Option<&'a Snapshot>,
    /// Up to this tick.
    pub(super) to: &'a Tick,
    /// Bytes of images kept.
    pub(super) budget: usize,
}

/// Reads a range. A table whose changes exceed the budget becomes a reload, and the rest is read again without it.
/// Every so many rows count as heard.
///
/// # Errors
/// The connection broke; the caller opens another.
pub(super) async fn read_range(
    client: &mut Client,
    prepared: Option<&Statements>,
    read: &Read<'_>,
    heard: &Heard,
) -> Result<Range, PgError> {
    let Read { tables, from, known, to, budget } = *read;
    let mut overflowed: Vec<u32> = Vec::new();
    loop {
        let cancel = client.cancel_token();
        let transaction = client.transaction().await?;
        let rows = if let Some(snap) = known {
            let snap = snap.to_string();
            // polled, and so sent, in this order; the database runs them one after the other
            let begin = async { transaction.batch_execute(BEGIN_READING).await.map_err(PgError::from) };
            let there = snapshot_of(&transaction, prepared, from);
            let ((), there, rows) =
                future::try_join3(begin, there, stream(&transaction, prepared, &snap, to, &overflowed)).await?;
            if there.is_none() {
                let _ = cancel.cancel_query(NoTls).await;
                return Ok(Range::Unknown);
            }
            rows
        } else {
            transaction.batch_execute(BEGIN_READING).await?;
            let Some(snap) = snapshot_of(&transaction, prepared, from).await? else { return Ok(Range::Unknown) };
            stream(&transaction, prepared, &snap, to, &overflowed).await?
        };
        match collect(rows, tables, budget, heard).await? {
            Collected::All { tables, bad_rows } => {
                // it wrote nothing: its end is sent and not waited for
                drop(transaction);
                let mut tables = tables;
                tables.extend(overflowed.into_iter().map(|relid| (relid, TableBatch::Reload(Reload::Overflow))));
                return Ok(Range::Batch(Batch { from, to: to.clone(), tables, bad_rows }));
            }
            Collected::Overflow(relid) => {
                // the rest of the result would be sent to the end otherwise
                let _ = cancel.cancel_query(NoTls).await;
                let _ = transaction.rollback().await;
                tracing::warn!(relid, "more changes of one table than are kept in memory: its subscribers are reset");
                overflowed.push(relid);
            }
        }
    }
}

async fn snapshot_of(
    transaction: &Transaction<'_>,
    prepared: Option<&Statements>,
    position: Position,
) -> Result<Option<String>, PgError> {
    #[expect(clippy::cast_possible_wrap, reason = "24 bits")]
    let nonce = position.nonce as i32;
    let rows = match prepared {
        Some(statements) => transaction.query(&statements.tick_by_id, &[&position.tick, &nonce]).await?,
        None => {
            transaction.query_typed(queries::TICK_BY_ID, &[(&position.tick, Type::INT8), (&nonce, Type::INT4)]).await?
        }
    };
    rows.first().map(|row| row.try_get("snap").map_err(PgError::from)).transpose()
}

enum Collected {
    All { tables: HashMap<u32, TableBatch>, bad_rows: Vec<String> },
    Overflow(u32),
}

/// One table's rows while they come in.
#[derive(Default)]
struct Incoming {
    changes: Vec<RowChange>,
    bytes: usize,
    reload: Option<Reload>,
}

async fn stream(
    transaction: &Transaction<'_>,
    prepared: Option<&Statements>,
    from: &str,
    to: &Tick,
    leave_out: &[u32],
) -> Result<RowStream, PgError> {
    let to = to.snap.to_string();
    let (low, high) = gaps(leave_out);
    let params: [&(dyn ToSql + Sync); 4] = [&from, &to, &low, &high];
    Ok(match prepared {
        Some(statements) => transaction.query_raw(&statements.range, params).await?,
        None => {
            let types = [Type::TEXT, Type::TEXT, Type::OID_ARRAY, Type::OID_ARRAY];
            transaction.query_typed_raw(queries::RANGE, params.into_iter().zip(types)).await?
        }
    })
}

/// All oids but these, as closed ranges: bounds are what an index can pass rows by with.
fn gaps(leave_out: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut sorted = leave_out.to_vec();
    sorted.sort_unstable();
    let (mut low, mut high, mut next) = (Vec::new(), Vec::new(), Some(0));
    for relid in sorted {
        if let (Some(from), Some(to)) = (next, relid.checked_sub(1))
            && from <= to
        {
            low.push(from);
            high.push(to);
        }
        next = relid.checked_add(1);
    }
    if let Some(from) = next {
        low.push(from);
        high.push(u32::MAX);
    }
    (low, high)
}

/// Rows after which the connection counts as heard: often against the limit, seldom against the price of a clock.
const HEARD_EVERY: usize = 256;

async fn collect(rows: RowStream, known: &Tables, budget: usize, heard: &Heard) -> Result<Collected, PgError> {
    let mut rows = pin!(rows);
    let mut count: usize = 0;
    let mut incoming: HashMap<u32, Incoming> = HashMap::new();
    let (mut bytes, mut bad_rows) = (0, Vec::new());
    while let Some(row) = rows.try_next().await? {
        count += 1;
        if count.is_multiple_of(HEARD_EVERY) {
            heard.note();
        }
        let relid: u32 = row.try_get("relid")?;
        let table = incoming.entry(relid).or_default();
        if table.reload.is_some() {
            continue;
        }
        let composite = known.get(relid).is_some_and(|t| t.key.len() > 1);
        match decode(&row, composite) {
            Ok(Decoded::Change(change)) => {
                let size = 160 + [&change.old, &change.new].into_iter().flatten().map(Bytes::len).sum::<usize>();
                table.bytes += size;
                bytes += size;
                table.changes.push(change);
            }
            Ok(Decoded::Reload(reason)) => {
                bytes -= table.bytes;
                *table = Incoming { reload: Some(reason), ..Incoming::default() };
            }
            Err(why) => {
                bad_rows.push(format!("table oid {relid}: {why}"));
                bytes -= table.bytes;
                *table = Incoming { reload: Some(Reload::Requested), ..Incoming::default() };
            }
        }
        if bytes > budget {
            let largest = incoming.iter().max_by_key(|(_, t)| t.bytes).map_or(relid, |(&relid, _)| relid);
            return Ok(Collected::Overflow(largest));
        }
    }
    let tables = incoming.into_iter().map(|(relid, table)| (relid, table.finish())).collect();
    Ok(Collected::All { tables, bad_rows })
}

impl Incoming {
    fn finish(self) -> TableBatch {
        match self.reload {
            Some(reason) => TableBatch::Reload(reason),
            None => {
                let nets: Vec<Net> = fold(self.changes);
                TableBatch::Changes(nets)
            }
        }
    }
}

enum Decoded {
    Change(RowChange),
    Reload(Reload),
}

fn decode(row: &Row, composite: bool) -> Result<Decoded, String> {
    let read = |e: tokio_postgres::Error| e.to_string();
    let code: &str = row.try_get("op").map_err(read)?;
    let op = code.bytes().next().and_then(Op::from_code).ok_or_else(|| format!("unknown operation `{code}`"))?;
    match op {
        Op::Truncate => return Ok(Decoded::Reload(Reload::Truncated)),
        Op::Reload => return Ok(Decoded::Reload(Reload::Requested)),
        Op::Insert | Op::Update | Op::Delete => {}
    }
    let key: Option<&str> = row.try_get("key").map_err(read)?;
    let image =
        |column: &str| row.try_get::<_, Option<Json>>(column).map(|json| json.map(|Json(bytes)| bytes)).map_err(read);
    let change = RowChange {
        key: Key::from_log(key.ok_or("a change without a key")?, composite),
        version: row.try_get("version").map_err(read)?,
        old_version: row.try_get("old_version").map_err(read)?,
        old: image("old")?,
        new: image("new")?,
    };
    let complete = match op {
        Op::Insert => change.new.is_some() && change.old.is_none(),
        Op::Update => change.new.is_some() && change.old.is_some() && change.old_version.is_some(),
        _ => change.new.is_none() && change.old.is_some() && change.old_version.is_some(),
    };
    if complete { Ok(Decoded::Change(change)) } else { Err(format!("a change `{code}` with the wrong images")) }
}

/// Reads a tick from a row of `tick.sql`, `last_tick.sql`.
///
/// # Errors
/// The row is not one of theirs.
pub fn tick_from(row: &Row) -> Result<Tick, PgError> {
    let nonce: i32 = row.try_get("nonce")?;
    let snap: &str = row.try_get("snap")?;
    let snap: Snapshot = snap.parse().map_err(|e| PgError::Unexpected(format!("{e}")))?;
    let at: std::time::SystemTime = row.try_get("at")?;
    let at = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Tick {
        position: Position {
            tick: row.try_get("id")?,
            nonce: u32::try_from(nonce).map_err(|e| PgError::Unexpected(e.to_string()))?,
        },
        snap: Arc::new(snap),
        at_micros: i64::try_from(at.as_micros()).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn gaps_leave_out_what_they_should() {
        assert_eq!(gaps(&[]), (vec![0], vec![u32::MAX]));
        assert_eq!(gaps(&[7, 3, 4]), (vec![0, 5, 8], vec![2, 6, u32::MAX]));
        assert_eq!(gaps(&[0, u32::MAX]), (vec![1], vec![u32::MAX - 1]));
    }
}
