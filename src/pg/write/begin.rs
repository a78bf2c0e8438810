//! The beginning of a transaction that writes.
//!
//! Must not know: rows. Invariant: nothing is written by what a table was: what it allows whom and publishes is compared
//! with the catalog inside the transaction, because a gateway that has lost its feed hears of no change.

use super::LIMITS;
use super::order::{Fault, Order};
use crate::change::Table;
use crate::permit::Permit;
use crate::pg::{NOTATION, PgError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// Is every table one that the caller may still write by the same rule, under the same name and key, without more conditions, and are
/// its rows told in the same way? By the expression and not by the columns we know: that of a whole row tells new ones too.
const HOLDS: &str = "select not exists (select from pg_catalog.json_to_recordset($1::pg_catalog.text::pg_catalog.json) \
       as w(relid pg_catalog.int8, schema pg_catalog.text, name pg_catalog.text, versions pg_catalog.bool, key pg_catalog.text[], row_sql pg_catalog.text, \
         role pg_catalog.text, filter pg_catalog.text, columns pg_catalog.text[]) \
     where not exists (select from rowcast.source as s \
       join pg_catalog.pg_class as c on c.oid = s.relid join pg_catalog.pg_namespace as n on n.oid = c.relnamespace \
       cross join lateral (select r.* from rowcast.rules(c.oid) as r where r.role = any (array[w.role, 'anon']) order by (r.role = w.role) desc limit 1) as r \
       where s.relid = w.relid::pg_catalog.oid and r.write and (w.versions or not r.version_required) \
         and r.filter is not distinct from w.filter and r.columns is not distinct from w.columns \
         and n.nspname = w.schema and c.relname = w.name \
         and s.key = w.key and rowcast.row_sql(c.oid, 't') = w.row_sql)) as holds";

/// The tables of an order, each once, and what the caller may do there.
pub(super) fn tables(order: &Order) -> Vec<(&Table, &Permit)> {
    let mut tables: Vec<_> = order.operations.iter().map(|operation| (&*operation.table, &operation.permit)).collect();
    tables.sort_unstable_by_key(|(table, _)| table.relid);
    tables.dedup_by_key(|(table, _)| table.relid);
    tables
}

fn wanted(tables: &[(&Table, &Permit)]) -> String {
    let table = |(table, permit): &(&Table, &Permit)| {
        let (role, rule) = permit.said().unzip();
        serde_json::json!({ "relid": table.relid, "schema": table.schema, "name": table.name,
            "versions": permit.version_required, "key": table.key, "row_sql": table.row_sql,
            "role": role, "filter": rule.and_then(|rule| rule.filter.as_deref()), "columns": rule.and_then(|rule| rule.columns.as_deref()) })
    };
    serde_json::Value::from(tables.iter().map(table).collect::<Vec<_>>()).to_string()
}

/// Begins, and compares the tables.
pub(super) async fn begin(client: &Client, order: &Order) -> Result<(), Fault> {
    // and a key is one row at any moment, not only at the end
    let begin =
        format!("begin isolation level read committed read write; set constraints all immediate; {LIMITS}; {NOTATION}");
    let wanted = wanted(&tables(order));
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] = [(&wanted, Type::TEXT)];
    // polled, hence sent, in this order: one round trip
    let (begun, holds) =
        futures_util::future::join(client.batch_execute(&begin), client.query_typed(HOLDS, &params)).await;
    begun.map_err(|error| not_begun(error.into()))?;
    match holds?.first() {
        Some(row) if row.try_get("holds")? => Ok(()),
        _ => Err(Fault::Changed),
    }
}

/// `read write` is not supported by a standby, which says so as of any other thing it cannot do.
fn not_begun(error: PgError) -> PgError {
    match error.sqlstate() {
        Some(state) if state == SqlState::FEATURE_NOT_SUPPORTED.code() => PgError::Standby,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Refusal;

    #[test]
    fn a_standby_is_no_riddle() {
        let begun = |state| not_begun(PgError::Server("cannot".to_owned(), state));
        let refusal = Refusal::of(&begun(SqlState::FEATURE_NOT_SUPPORTED));
        assert_eq!((refusal.status, refusal.code, refusal.retry), (503, "unavailable", true));
        assert!(matches!(begun(SqlState::ADMIN_SHUTDOWN), PgError::Server(..)));
    }
}
