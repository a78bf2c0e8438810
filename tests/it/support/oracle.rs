//! Postgres says what the tables held at a tick.
//!
//! All ticks are one chain, and the leader takes one that somebody else inserted for the next. So the oracle makes a
//! tick at a moment of its choosing and reads the tables in the very snapshot of that tick. What a client held there
//! must be the same, row by row.

use super::eventually;
use super::journal::Rows;
use super::replica::tick_of;
use super::world::connect;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A subscription's rows, said in SQL: `select (key)::text, row_version, (row as json)::text ...`.
#[derive(Clone, Debug)]
pub struct View {
    /// As in a query string: `table=scores&league=eq.nfl`.
    pub query: String,
    sql: String,
}

impl View {
    /// All columns of the rows of `table` with one key column that fulfil `condition`.
    pub fn new(query: &str, table: &str, key: &str, condition: &str) -> View {
        View::of_columns(query, table, key, condition, "t.*")
    }

    /// Some columns.
    pub fn of_columns(query: &str, table: &str, key: &str, condition: &str, columns: &str) -> View {
        let sql = format!(
            "select t.{key}::text, t.row_version, (select row_to_json(s.*) from (select {columns}) as s)::text \
             from {table} as t where {condition}"
        );
        View { query: query.to_owned(), sql }
    }
}

/// What the views hold at a tick.
#[derive(Debug)]
pub struct Truth {
    pub tick: i64,
    pub position: String,
    /// In the order of the oracle's views; none for one that was left out.
    pub views: Vec<Option<Rows>>,
}

/// In one message, as the leader makes a tick every few milliseconds; once the row is there, the leader waits for it.
const CUT: &str = "begin isolation level repeatable read;
    with s as (select pg_export_snapshot() as name)
    insert into rowcast.tick (prev_id, snap)
    select id, pg_current_snapshot() from rowcast.tick order by id desc limit 1
    returning id || '-' || lpad(to_hex(nonce), 6, '0') as position, (select name from s) as snapshot";

/// See the module.
pub struct Oracle {
    cutter: Client,
    reader: Client,
    tables: String,
    views: Vec<View>,
    /// Ticks for which the leader was faster.
    pub late: usize,
    /// The leader's address and the oracle's last tick: two of its ticks in a row the leader would take as one.
    leader: Option<SocketAddr>,
    last: i64,
}

impl Oracle {
    /// An oracle for views on these tables.
    pub async fn new(url: &str, tables: &[&str], views: Vec<View>) -> Oracle {
        let (cutter, reader) = (connect(url).await, connect(url).await);
        let settings = "set timezone = 'UTC'; set datestyle = 'ISO, MDY'; set intervalstyle = 'iso_8601'; set extra_float_digits = 1";
        reader.batch_execute(settings).await.unwrap();
        Oracle { cutter, reader, tables: tables.join(", "), views, late: 0, leader: None, last: 0 }
    }

    /// Lets the leader at this address, while there is one, publish every tick by itself.
    pub fn at_pace_of(mut self, leader: SocketAddr) -> Oracle {
        self.leader = Some(leader);
        self
    }

    async fn wait_for_leader(&self) {
        let Some(leader) = self.leader else { return };
        eventually("the leader publishes the oracle's tick", || async {
            let Ok(answer) = reqwest::get(format!("http://{leader}/readyz")).await else { return true };
            let Ok(ready) = answer.json::<Value>().await else { return true };
            ready["position"].as_str().is_some_and(|position| tick_of(position) >= self.last)
        })
        .await;
    }

    /// Makes a tick now and says what the views hold there.
    pub async fn tick(&mut self) -> Arc<Truth> {
        self.tick_without(&[]).await
    }

    /// The same without views that are large.
    pub async fn tick_without(&mut self, left_out: &[usize]) -> Arc<Truth> {
        self.wait_for_leader().await;
        let position = loop {
            if let Some(position) = self.cut().await {
                break position;
            }
            self.late += 1;
            // the leader's next tick is an interval away
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        };
        let mut views = Vec::new();
        for (i, view) in self.views.iter().enumerate() {
            views.push(if left_out.contains(&i) { None } else { Some(rows(&self.reader, &view.sql).await) });
        }
        self.reader.batch_execute("commit").await.unwrap();
        // the leader may be asleep, as nothing was written
        self.cutter.batch_execute("notify rowcast").await.unwrap();
        self.last = tick_of(&position);
        Arc::new(Truth { tick: self.last, position, views })
    }

    /// Makes the tick and leaves the reader in its snapshot; none when the leader was faster.
    async fn cut(&self) -> Option<String> {
        // Locks first, snapshot second: TRUNCATE empties a table for older snapshots too. The reader holds them, and
        // the cutter none, so that a waiting TRUNCATE stands behind the reader alone.
        let lock = format!("begin isolation level repeatable read; lock table {} in access share mode", self.tables);
        self.reader.batch_execute(&lock).await.unwrap();
        let made = self.cutter.simple_query(CUT).await;
        match made {
            Ok(messages) => {
                let row =
                    messages.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
                let row = row.expect("there is a tick");
                let import = format!("set transaction snapshot '{}'", row.get("snapshot").unwrap());
                self.reader.batch_execute(&import).await.unwrap();
                self.cutter.batch_execute("commit").await.unwrap();
                row.get("position").map(str::to_owned)
            }
            Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                self.cutter.batch_execute("rollback").await.unwrap();
                self.reader.batch_execute("rollback").await.unwrap();
                None
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

async fn rows(reader: &Client, sql: &str) -> Rows {
    let mut rows = Rows::new();
    for message in reader.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")) {
        let SimpleQueryMessage::Row(row) = message else { continue };
        let (key, version, json) = (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        let json: Value = serde_json::from_str(json).unwrap();
        // a deferrable key may not be shared any more at commit
        assert!(rows.insert(key.to_owned(), (version.parse().unwrap(), json)).is_none(), "{sql}: key {key} twice");
    }
    rows
}
