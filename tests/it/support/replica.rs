//! What a client holds: applies messages and panics the moment the stream breaks a promise.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// The rows of one subscription.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub rows: BTreeMap<String, (i64, Value)>,
    /// Highest version ever seen per key, tombstones too: versions strictly rise for ever.
    seen: HashMap<String, i64>,
    /// A snapshot is coming in parts.
    partial: bool,
    /// Nothing may be told but a snapshot.
    awaiting_snapshot: bool,
    tick: i64,
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
                self.resets.push(message["reason"].as_str().unwrap().to_owned());
                let rows = self.subs.entry(sub).or_default();
                rows.rows.clear();
                rows.partial = false;
                rows.awaiting_snapshot = true;
            }
            "problem" => self.problems.push(message.clone()),
            "cursor" | "bye" => {}
            other => panic!("unknown message type {other}"),
        }
    }

    fn snapshot(&mut self, sub: &str, message: &Value) {
        self.snapshots += 1;
        let rows = self.subs.entry(sub.to_owned()).or_default();
        rows.advance(message);
        if !rows.partial {
            rows.rows.clear();
        }
        for row in message["rows"].as_array().unwrap() {
            let (key, version) = key_version(row);
            // a repair snapshot repeats versions, never goes back
            let seen = rows.seen.get(&key).copied().unwrap_or(i64::MIN);
            assert!(version >= seen, "a snapshot takes key {key} back from {seen} to {version}");
            rows.seen.insert(key.clone(), version);
            assert!(
                rows.rows.insert(key.clone(), (version, row["row"].clone())).is_none(),
                "key {key} twice in a snapshot"
            );
        }
        rows.partial = message["more"] == true;
        rows.awaiting_snapshot &= rows.partial;
    }

    fn changes(&mut self, sub: &str, message: &Value) {
        self.changes += 1;
        let rows = self.subs.get_mut(sub).unwrap_or_else(|| panic!("changes before anything else: {message}"));
        assert!(!rows.awaiting_snapshot && !rows.partial, "changes where only a snapshot may come: {message}");
        rows.advance(message);
        for change in message["changes"].as_array().unwrap() {
            let (key, version) = key_version(change);
            if let Some(seen) = rows.seen.insert(key.clone(), version) {
                assert!(version > seen, "key {key}: version {version} after {seen}");
            }
            let held = rows.rows.contains_key(&key);
            let op = change["op"].as_str().unwrap();
            assert_eq!(held, op != "insert", "{op} of key {key}, held: {held}: {message}");
            if op == "delete" {
                rows.rows.remove(&key);
            } else {
                rows.rows.insert(key, (version, change["row"].clone()));
            }
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
        !self.awaiting_snapshot && !self.partial
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
