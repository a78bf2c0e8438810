//! What a client holds: applies messages and panics the moment the stream breaks a promise.
//!
//! It does what a careful client must: a snapshot in parts counts when its last part is there, and what came after the
//! last resume point is taken back before the stream is resumed. (Kept instead, it would be held for ever when the
//! resumed stream, which folds what was missed, has nothing more to say about it.)

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The rows of one subscription.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub rows: BTreeMap<String, (i64, Value)>,
    /// Highest version ever seen per key, tombstones too: versions strictly rise for ever.
    seen: HashMap<String, i64>,
    /// The parts of a snapshot that is not complete.
    parts: Option<BTreeMap<String, (i64, Value)>>,
    /// Nothing may be told but a snapshot.
    awaiting_snapshot: bool,
    tick: i64,
}

/// What a message replaced, to be taken back.
#[derive(Clone, Debug)]
enum Before {
    Row { sub: String, key: String, row: Option<(i64, Value)>, seen: Option<i64>, tick: i64 },
    All { sub: String, rows: Rows },
}

/// Everything a client holds and has been through.
#[derive(Clone, Debug, Default)]
pub struct Replica {
    pub subs: BTreeMap<String, Rows>,
    /// The resume point.
    pub position: Option<String>,
    pub resets: Vec<String>,
    pub snapshots: usize,
    pub changes: usize,
    pub problems: Vec<Value>,
    /// Applied after the resume point, newest last.
    unsettled: Vec<Before>,
}

pub fn tick_of(position: &str) -> i64 {
    position.split('-').next().unwrap().parse().unwrap()
}

impl Replica {
    /// Applies one message (the `data:` of any event).
    pub fn apply(&mut self, message: &Value) {
        let kind = message["type"].as_str().unwrap_or_else(|| panic!("a message without a type: {message}"));
        let sub = message["sub"].as_str().unwrap_or_default().to_owned();
        match kind {
            "snapshot" => self.snapshot(&sub, message),
            "changes" => self.changes(&sub, message),
            "reset" => {
                let reason = message["reason"].as_str().unwrap();
                let rows = self.subs.entry(sub).or_default();
                // what is held stays until the snapshot is there: cut before it, the client goes on from its resume point
                rows.parts = None;
                rows.awaiting_snapshot = true;
                if reason == "bulk" {
                    // The one thing behind which a row may have a lower version: its new stamp (after an insert that
                    // waited for a delete of its key) was undone by the application's own triggers, so it keeps one
                    // below the tombstone's, and is told by a snapshot because of that.
                    rows.seen.clear();
                }
                self.resets.push(reason.to_owned());
            }
            "problem" => self.problems.push(message.clone()),
            "cursor" | "bye" | "ready" | "subscribed" => {}
            other => panic!("unknown message type {other}"),
        }
    }

    fn snapshot(&mut self, sub: &str, message: &Value) {
        self.snapshots += 1;
        let rows = self.subs.entry(sub.to_owned()).or_default();
        if rows.parts.is_none() {
            self.unsettled.push(Before::All { sub: sub.to_owned(), rows: rows.clone() });
        }
        rows.advance(message);
        let parts = rows.parts.get_or_insert_default();
        for row in message["rows"].as_array().unwrap() {
            let (key, version) = key_version(row);
            // a repair snapshot repeats versions, never goes back
            let seen = rows.seen.get(&key).copied().unwrap_or(i64::MIN);
            assert!(version >= seen, "a snapshot takes key {key} back from {seen} to {version}");
            rows.seen.insert(key.clone(), version);
            assert!(
                parts.insert(key.clone(), (version, row["row"].clone())).is_none(),
                "key {key} twice in a snapshot"
            );
        }
        if message["more"] != true {
            rows.rows = rows.parts.take().unwrap();
            rows.awaiting_snapshot = false;
        }
    }

    fn changes(&mut self, sub: &str, message: &Value) {
        self.changes += 1;
        let rows = self.subs.get_mut(sub).unwrap_or_else(|| panic!("changes before anything else: {message}"));
        assert!(!rows.awaiting_snapshot && rows.parts.is_none(), "changes where only a snapshot may come: {message}");
        let tick = rows.tick;
        rows.advance(message);
        for change in message["changes"].as_array().unwrap() {
            let (key, version) = key_version(change);
            let seen = rows.seen.insert(key.clone(), version);
            assert!(seen.is_none_or(|seen| version > seen), "key {key}: version {version} after {seen:?}");
            let op = change["op"].as_str().unwrap();
            let row = match op {
                "delete" => rows.rows.remove(&key),
                _ => rows.rows.insert(key.clone(), (version, change["row"].clone())),
            };
            assert_eq!(row.is_some(), op != "insert", "{op} of key {key}, held: {}: {message}", row.is_some());
            self.unsettled.push(Before::Row { sub: sub.to_owned(), key, row, seen, tick });
        }
    }

    /// Everything up to `position` was told: from here it may be resumed.
    pub fn settle(&mut self, position: String) {
        self.position = Some(position);
        self.unsettled.clear();
    }

    /// Came nothing after the resume point?
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_empty()
    }

    /// Takes back what came after the resume point: the connection is lost, and the next one continues from there.
    pub fn roll_back(&mut self) {
        while let Some(before) = self.unsettled.pop() {
            match before {
                Before::All { sub, rows } => {
                    self.subs.insert(sub, rows);
                }
                Before::Row { sub, key, row, seen, tick } => {
                    let rows = self.subs.get_mut(&sub).unwrap();
                    rows.tick = tick;
                    match seen {
                        Some(seen) => rows.seen.insert(key.clone(), seen),
                        None => rows.seen.remove(&key),
                    };
                    match row {
                        Some(row) => rows.rows.insert(key, row),
                        None => rows.rows.remove(&key),
                    };
                }
            }
        }
        for rows in self.subs.values_mut() {
            rows.parts = None;
            rows.awaiting_snapshot = false;
        }
    }

    /// Begins a subscription that continues from a state held elsewhere.
    pub fn adopt(&mut self, sub: &str) {
        self.subs.entry(sub.to_owned()).or_default();
    }

    /// The rows of a subscription, without versions.
    pub fn rows(&self, sub: &str) -> Vec<Value> {
        self.subs.get(sub).map(|s| s.rows.values().map(|(_, row)| row.clone()).collect()).unwrap_or_default()
    }

    /// One row of the subscription "1".
    pub fn row(&self, key: &str) -> Option<&Value> {
        self.subs.get("1")?.rows.get(key).map(|(_, row)| row)
    }

    /// Versions by key of a subscription.
    pub fn versions(&self, sub: &str) -> BTreeMap<String, i64> {
        self.subs.get(sub).map(|s| s.rows.iter().map(|(k, (v, _))| (k.clone(), *v)).collect()).unwrap_or_default()
    }

    pub fn tick(&self) -> Option<i64> {
        self.position.as_deref().map(tick_of)
    }
}

impl Rows {
    /// Holds a whole state: no reset without its snapshot, no snapshot in parts.
    pub fn is_whole(&self) -> bool {
        !self.awaiting_snapshot && self.parts.is_none()
    }

    fn advance(&mut self, message: &Value) {
        let tick = tick_of(message["position"].as_str().unwrap());
        assert!(tick >= self.tick, "ticks go back from {} to {tick}", self.tick);
        self.tick = tick;
    }
}

fn key_version(row: &Value) -> (String, i64) {
    (row["key"].as_str().unwrap().to_owned(), row["version"].as_i64().unwrap())
}
