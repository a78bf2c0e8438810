//! What a subscriber holds: rows by key, each with the version it came with.
//!
//! Must not know: sockets, clocks. Invariant: a version never goes back; a message that breaks a promise of the stream is an
//! error with the facts in it, because on one connection nothing may arrive late or twice.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::sse::Event;

/// What the default event carries. One struct for both types: a tagged enum cannot hold raw JSON.
#[derive(Deserialize)]
struct Message<'a> {
    r#type: &'a str,
    sub: String,
    at: Option<String>,
    #[serde(borrow, default)]
    rows: Vec<Entry<'a>>,
    #[serde(borrow, default)]
    changes: Vec<Entry<'a>>,
    more: bool,
}

/// A row of a snapshot, or a change; a delete has no row.
#[derive(Deserialize)]
struct Entry<'a> {
    key: String,
    version: i64,
    #[serde(borrow)]
    row: Option<&'a RawValue>,
}

/// One subscription's rows.
#[derive(Debug, Default)]
pub(super) struct Held {
    rows: HashMap<String, i64>,
    /// The highest version seen per key, kept after a delete.
    seen: HashMap<String, i64>,
    /// A snapshot that is still arriving in parts.
    parts: Vec<(String, i64)>,
    pub(super) snapshots: u64,
    pub(super) changes: u64,
}

impl Held {
    /// The versions of all rows held, sorted: they are unique in the whole database, so they name its state.
    pub(super) fn versions(&self) -> Vec<i64> {
        let mut versions: Vec<i64> = self.rows.values().copied().collect();
        versions.sort_unstable();
        versions
    }
}

/// Everything one connection's subscriptions hold.
#[derive(Debug, Default)]
pub(super) struct Replica {
    pub(super) subs: BTreeMap<String, Held>,
    /// `changes` messages, one a tick and subscription.
    pub(super) ticks: u64,
}

impl Replica {
    /// Applies an event. Returns the `at` of a whole tick, for measuring how fresh it was.
    pub(super) fn apply(&mut self, event: &Event) -> Result<Option<String>, String> {
        match event.name.as_str() {
            "" => self.message(&event.data),
            // `reset` is followed by a snapshot, which replaces everything.
            "cursor" | "reset" => Ok(None),
            name => Err(format!("the gateway sent `{name}`: {}", event.data)),
        }
    }

    fn message(&mut self, data: &str) -> Result<Option<String>, String> {
        let message: Message<'_> = serde_json::from_str(data).map_err(|error| format!("{error} in `{data}`"))?;
        let Message { r#type, sub, at, rows, changes, more } = message;
        let held = self.subs.entry(sub.clone()).or_default();
        match r#type {
            "snapshot" => held.snapshot(rows, more)?,
            "changes" if held.snapshots == 0 => return Err(format!("changes of `{sub}` came before its snapshot")),
            "changes" => {
                for entry in changes {
                    held.change(&sub, entry)?;
                }
                self.ticks += u64::from(!more);
            }
            other => return Err(format!("a message of unknown type `{other}`")),
        }
        Ok(at.filter(|_| !more))
    }
}

impl Held {
    fn snapshot(&mut self, rows: Vec<Entry<'_>>, more: bool) -> Result<(), String> {
        for entry in rows {
            if entry.row.is_none() {
                return Err(format!("key `{}` of a snapshot has no row", entry.key));
            }
            self.parts.push((entry.key, entry.version));
        }
        if !more {
            self.rows = std::mem::take(&mut self.parts).into_iter().collect();
            self.seen = self.rows.clone();
            self.snapshots += 1;
        }
        Ok(())
    }

    fn change(&mut self, sub: &str, entry: Entry<'_>) -> Result<(), String> {
        let Entry { key, version, row } = entry;
        if let Some(before) = self.seen.get(&key).filter(|before| **before >= version) {
            return Err(format!("version {version} of `{key}` in `{sub}` came after version {before}"));
        }
        if let Some(row) = row.filter(|row| has_negative_score(row.get())) {
            return Err(format!("a score below zero in `{sub}`: {row}"));
        }
        self.seen.insert(key.clone(), version);
        if row.is_some() {
            self.rows.insert(key, version)
        } else {
            self.rows.remove(&key)
        };
        self.changes += 1;
        Ok(())
    }
}

fn has_negative_score(row: &str) -> bool {
    ["points", "home_score", "away_score"].iter().any(|name| row.contains(&format!("\"{name}\":-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(replica: &mut Replica, data: &str) -> Result<Option<String>, String> {
        replica.apply(&Event { data: data.into(), ..Event::default() })
    }

    #[test]
    fn snapshots_replace_and_changes_move_forward_only() {
        let mut replica = Replica::default();
        let r = &mut replica;
        assert!(apply(r, r#"{"type":"changes","sub":"g","changes":[],"more":false}"#).is_err(), "before the snapshot");
        apply(r, r#"{"type":"snapshot","sub":"g","rows":[{"key":"1","version":4,"row":{}}],"more":true}"#).unwrap();
        assert_eq!(r.subs["g"].versions(), [0; 0], "half a snapshot is none");
        apply(r, r#"{"type":"snapshot","sub":"g","rows":[{"key":"2","version":6,"row":{}}],"more":false}"#).unwrap();
        assert_eq!(r.subs["g"].versions(), [4, 6]);

        let change = |key: u8, version: i64, row: &str| {
            format!(
                r#"{{"type":"changes","sub":"g","at":"t","changes":[{{"key":"{key}","version":{version}{row}}}],"more":false}}"#
            )
        };
        assert_eq!(apply(r, &change(1, 9, "")), Ok(Some("t".into())), "a delete");
        assert_eq!(r.subs["g"].versions(), [6]);
        assert!(
            apply(r, &change(1, 8, r#","row":{}"#)).unwrap_err().contains("after version 9"),
            "tombstones are kept"
        );
        apply(r, &change(1, 10, r#","row":{"points":0}"#)).unwrap();
        assert!(apply(r, &change(2, 12, r#","row":{"points":-1}"#)).unwrap_err().contains("below zero"));
        assert_eq!(r.subs["g"].versions(), [6, 10]);
    }

    #[test]
    fn a_problem_ends_the_check_with_its_text() {
        let event = Event { name: "problem".into(), data: "{\"detail\":\"no such table\"}".into(), id: String::new() };
        assert!(Replica::default().apply(&event).unwrap_err().contains("no such table"));
    }
}
