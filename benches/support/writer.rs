//! The writer of a fan-out: one session that changes one row after the other, at a pace or as fast as it may.
//!
//! Must not know: who is told. Invariants: changes are numbered without a gap; a row comes again long after its last change
//! was told, so that no two changes are folded; the same statements for everybody.

use super::Outcome;
use super::part::micros;
use super::server::Server;
use std::time::Duration;
use tokio_postgres::{Client, Statement};

/// Numbers begin here, so that all that count have as many digits, whoever sends them.
pub(crate) const FIRST: i64 = 100_000_000;

/// Rows of a table.
const ROWS: i64 = 20_000;

/// See the module.
pub(crate) struct Writer {
    sql: Client,
    one: Statement,
    many: Statement,
    /// Of the last change.
    pub(crate) n: i64,
}

/// Makes a table of changes.
pub(crate) async fn create(sql: &Client, table: &str) -> Outcome {
    sql.batch_execute(&format!(
        "create table {table} (id bigint primary key, n bigint not null default 0, pad text not null);
         insert into {table} select i, 0, repeat('x', 40) from generate_series(0, {}) as i",
        ROWS - 1
    ))
    .await?;
    Ok(sql.batch_execute(&format!("vacuum analyze {table}")).await?)
}

/// A database whose only table tells its changes by the classic row trigger.
pub(crate) async fn classic(server: &Server, database: &str) -> Outcome {
    let sql = server.database(database, false).await?;
    create(&sql, "item").await?;
    sql.batch_execute(
        "create function tell() returns trigger language plpgsql as $$
         begin perform pg_notify('classic', row_to_json(new)::text); return null; end $$;
         create trigger tell after update on item for each row execute function tell()",
    )
    .await?;
    Ok(())
}

impl Writer {
    pub(crate) async fn new(server: &Server, database: &str, table: &str) -> Outcome<Writer> {
        let sql = server.sql(database).await?;
        let one = format!("update {table} set n = $1::bigint where id = $1::bigint % {ROWS}");
        let many = format!(
            "update {table} set n = s.n from generate_series($1::bigint, $2::bigint) as s(n) where id = s.n % {ROWS}"
        );
        let (one, many) = (sql.prepare(&one).await?, sql.prepare(&many).await?);
        Ok(Writer { sql, one, many, n: FIRST })
    }

    /// Changes one row, with a number that does not count.
    pub(crate) async fn probe(&self, n: i64) -> Outcome {
        self.sql.execute(&self.one, &[&n]).await?;
        Ok(())
    }

    /// So many commits at a pace; returns when each was known to be committed.
    pub(crate) async fn paced(&mut self, changes: i64, rate: u32) -> Outcome<Vec<(i64, i64)>> {
        let began = tokio::time::Instant::now();
        let mut commits = Vec::new();
        for i in 1..=changes {
            tokio::time::sleep_until(began + Duration::from_secs(1) * u32::try_from(i)? / rate).await;
            self.n += 1;
            let done = self.sql.execute(&self.one, &[&self.n]).await?;
            commits.push((self.n, micros()));
            if done != 1 {
                return Err(format!("{done} rows were changed with {}", self.n).into());
            }
        }
        Ok(commits)
    }

    /// As fast as it may: `together` changes a commit; `reached` returns when so many were told to everybody.
    pub(crate) async fn flat_out(
        &mut self,
        changes: i64,
        together: i64,
        window: i64,
        mut reached: impl FnMut(i64) -> Outcome,
    ) -> Outcome {
        let base = self.n;
        while self.n < base + changes {
            let to = (self.n + together).min(base + changes);
            if to - base > window {
                reached(to - base - window)?;
            }
            let done = self.sql.execute(&self.many, &[&(self.n + 1), &to]).await?;
            if i64::try_from(done)? != to - self.n {
                return Err(format!("{done} rows were changed up to {to}").into());
            }
            self.n = to;
        }
        Ok(())
    }
}
