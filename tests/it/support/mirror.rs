//! A subscriber whose rows are compared with the table itself, byte by byte, when nothing moves any more.

use super::{Client as _, PATIENCE, Sse, TestGateway, World, eventually};
use rowcast::pg::NOTATION;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Subscribes to tables, and to one of its own that tells when everything committed before has arrived.
pub struct Mirror {
    pub sse: Sse,
    sql: Client,
    /// Names as in SQL, in the order of the subscriptions "1", "2", ...
    tables: Vec<String>,
    marks: i64,
}

/// Where the marks are written.
const MARKS: &str = "create table if not exists settled (id int primary key, n bigint not null);
    insert into settled values (1, 0) on conflict do nothing";

impl Mirror {
    /// Subscribes to all rows of `tables`, named as in SQL; they must be watched, public and in the schema `public`.
    pub async fn of(world: &World, gateway: &TestGateway, tables: &[&str]) -> Mirror {
        let sql = world.sql().await;
        sql.batch_execute(&NOTATION.replace(" local", "")).await.unwrap();
        sql.batch_execute(MARKS).await.unwrap();
        let watched =
            sql.query_one("select exists (select from rowcast.source where relid = 'settled'::regclass)", &[]).await;
        if !watched.unwrap().get::<_, bool>(0) {
            sql.batch_execute("select rowcast.watch('settled', public => true)").await.unwrap();
        }
        let mut query = String::new();
        for (i, table) in tables.iter().enumerate() {
            let row = sql
                .query_one("select relname::text from pg_class where oid = $1::text::regclass", &[table])
                .await
                .unwrap();
            query.push_str(&format!("sub={}~{}&", i + 1, encoded(row.get(0))));
        }
        query.push_str("sub=settled~settled");
        eventually("the tables are known", || async {
            reqwest::get(gateway.url(&format!("/v1/changes?{query}"))).await.is_ok_and(|a| a.status() == 200)
        })
        .await;
        let sse = Sse::open(gateway.address, &query).await;
        let tables = tables.iter().map(|t| (*t).to_owned()).collect();
        let mut mirror = Mirror { sse, sql, tables, marks: 0 };
        mirror.caught_up().await;
        mirror
    }

    /// Waits until everything committed up to now has arrived, snapshots after resets included.
    pub async fn caught_up(&mut self) {
        let row = self.sql.query_one("update settled set n = n + 1 returning n", &[]).await.unwrap();
        self.marks = row.get(0);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let replica = &self.sse.replica;
            let marked = replica.rows("settled").first().is_some_and(|r| r["n"].as_i64() == Some(self.marks));
            let whole = (1..=self.tables.len())
                .all(|i| replica.subs.get(&i.to_string()).is_some_and(super::replica::Rows::is_whole));
            if marked && whole {
                return;
            }
            match tokio::time::timeout_at(deadline, self.sse.advance()).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => panic!("the stream ended: {e}"),
                Err(_) => panic!("everything committed should have arrived: {:#?}", self.sse.replica),
            }
        }
    }

    /// What was committed has arrived, and what is held is what the tables hold, versions too.
    pub async fn settled(&mut self) {
        self.caught_up().await;
        let (held, there) = (self.held(), self.there().await);
        assert_eq!(held, there, "the client's rows, and the table's");
    }

    /// The same, where the gateway only finds out by looking at the catalog: as soon as it did.
    pub async fn settles(&mut self) {
        let there = self.there().await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.held() != there {
            match tokio::time::timeout_at(deadline, self.sse.advance()).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => panic!("the stream ended: {e}"),
                Err(_) => assert_eq!(self.held(), there, "the client's rows, and the table's"),
            }
        }
        self.settled().await;
    }

    /// By subscription: the rows held, as parsed JSON text, sorted.
    fn held(&self) -> Vec<Vec<String>> {
        (1..=self.tables.len())
            .map(|i| {
                let Some(sub) = self.sse.replica.subs.get(&i.to_string()) else { return Vec::new() };
                let mut rows: Vec<String> =
                    sub.rows.values().map(|(version, row)| format!("{version} {row}")).collect();
                rows.sort();
                rows
            })
            .collect()
    }

    async fn there(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for table in &self.tables {
            let sql = format!("select row_version, row_to_json(rowcast_t.*)::text from {table} as rowcast_t");
            let rows = self.sql.query(&sql, &[]).await.unwrap();
            let mut rows: Vec<String> = rows
                .iter()
                .map(|r| {
                    let row: serde_json::Value = serde_json::from_str(r.get(1)).unwrap();
                    format!("{} {row}", r.get::<_, i64>(0))
                })
                .collect();
            rows.sort();
            all.push(rows);
        }
        all
    }

    /// Every row ever told of a subscription, as the bytes on the wire: of snapshots, of changes.
    pub fn raw(&self, sub: &str) -> RawRows {
        let mut raw = RawRows::default();
        for event in &self.sse.events {
            let message: RawMessage<'_> = serde_json::from_str(&event.data).unwrap();
            if message.sub != Some(sub) {
                continue;
            }
            let rows = |rows: Vec<RawRow<'_>>| -> Vec<(String, String)> {
                rows.into_iter().filter_map(|r| Some((r.key.to_owned(), r.row?.get().to_owned()))).collect()
            };
            raw.snapshots.extend(rows(message.rows));
            raw.changes.extend(rows(message.changes));
        }
        raw
    }

    /// The log, oldest version first: operation, key, version.
    pub async fn log(&self, table: &str) -> Vec<(String, Option<String>, i64)> {
        let sql =
            "select op::text, key, version from (select * from rowcast.log_0 union all select * from rowcast.log_1
            union all select * from rowcast.log_2) as l where relid = $1::text::regclass order by version";
        let rows = self.sql.query(sql, &[&table]).await.unwrap();
        rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect()
    }
}

/// Key and row text.
#[derive(Debug, Default)]
pub struct RawRows {
    pub snapshots: Vec<(String, String)>,
    pub changes: Vec<(String, String)>,
}

impl RawRows {
    /// The rows of a key by where they came from, duplicates removed.
    pub fn of(&self, key: &str) -> (Vec<&str>, Vec<&str>) {
        let pick =
            |rows: &'_ [(String, String)]| -> Vec<usize> { (0..rows.len()).filter(|&i| rows[i].0 == key).collect() };
        let of = |rows| pick(rows).into_iter().map(|i| rows[i].1.as_str()).collect();
        (of(&self.snapshots), of(&self.changes))
    }
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    sub: Option<&'a str>,
    #[serde(borrow, default)]
    rows: Vec<RawRow<'a>>,
    #[serde(borrow, default)]
    changes: Vec<RawRow<'a>>,
}

#[derive(Deserialize)]
struct RawRow<'a> {
    key: &'a str,
    #[serde(borrow, default)]
    row: Option<&'a RawValue>,
}

/// Percent-encoded for a query string.
pub fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Counts rows by a text, for messages of assertions.
pub fn counted(rows: &[(String, Option<String>, i64)]) -> BTreeMap<&str, usize> {
    let mut count = BTreeMap::new();
    rows.iter().for_each(|(op, _, _)| *count.entry(op.as_str()).or_default() += 1);
    count
}

/// Waits until a session of the test waits for a lock.
pub async fn blocked(watcher: &Client, pid: i32) {
    eventually("the session waits for a lock", || async {
        let sql = "select coalesce((select wait_event_type = 'Lock' from pg_stat_activity where pid = $1), false)";
        watcher.query_one(sql, &[&pid]).await.unwrap().get(0)
    })
    .await;
}

/// A session's process id.
pub async fn pid(client: &Client) -> i32 {
    client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0)
}
