//! What a client held at which tick: its history, as far as the protocol lets the client itself know it.
//!
//! A gateway that follows may go over several ticks at once, and after a resume what was missed may be folded into one:
//! then a client knows its state at the ticks that it is told, and nothing of those between. The leader goes from tick
//! to tick, so on one connection to it the state at every tick is known.

use super::replica::tick_of;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Version and row by key.
pub type Rows = BTreeMap<String, (i64, Value)>;

enum Step {
    /// Changes of this tick: the row by key, or none.
    Changes(i64, Vec<(String, Option<(i64, Value)>)>),
    /// All rows at this tick.
    Snapshot(i64, Rows),
    /// Known at this tick and not after it.
    Unknown(i64),
    /// Known again: nothing was told up to here.
    Known(i64),
}

impl Step {
    fn tick(&self) -> i64 {
        match self {
            Step::Changes(tick, _) | Step::Snapshot(tick, _) | Step::Unknown(tick) | Step::Known(tick) => *tick,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Knowledge {
    /// Nothing was told yet.
    #[default]
    Never,
    /// The rows are those of every tick up to the next step.
    Exact,
    /// The rows are those of this tick.
    At(i64),
}

#[derive(Default)]
struct Sub {
    steps: VecDeque<Step>,
    /// How many of the steps lie before the resume point.
    settled: usize,
    parts: Option<Rows>,
    resetting: bool,
    base: Rows,
    base_tick: i64,
    knowledge: Knowledge,
}

/// The history of a client's subscriptions.
#[derive(Default)]
pub struct Journal {
    subs: BTreeMap<String, Sub>,
    /// The tick of the resume point.
    pub settled: Option<i64>,
    /// All that is told comes from the leader.
    exact: bool,
}

impl Journal {
    /// An empty one; `exact` for a client of the leader.
    pub fn new(exact: bool) -> Journal {
        Journal { exact, ..Journal::default() }
    }

    /// Notes a message.
    pub fn message(&mut self, message: &Value) {
        let sub = self.subs.entry(message["sub"].as_str().unwrap_or_default().to_owned()).or_default();
        let row = |row: &Value| (row["version"].as_i64().unwrap(), row["row"].clone());
        let key = |row: &Value| row["key"].as_str().unwrap().to_owned();
        match message["type"].as_str().unwrap() {
            "snapshot" => {
                let parts = sub.parts.get_or_insert_default();
                parts.extend(message["rows"].as_array().unwrap().iter().map(|r| (key(r), row(r))));
                if message["more"] != true {
                    let rows = sub.parts.take().unwrap();
                    sub.resetting = false;
                    sub.steps.push_back(Step::Snapshot(tick_of(message["position"].as_str().unwrap()), rows));
                }
            }
            "changes" => {
                let changes = message["changes"].as_array().unwrap().iter();
                let changes = changes.map(|c| (key(c), (c["op"] != "delete").then(|| row(c)))).collect();
                sub.steps.push_back(Step::Changes(tick_of(message["position"].as_str().unwrap()), changes));
            }
            "reset" => {
                sub.parts = None;
                sub.resetting = true;
                sub.unknown(self.settled);
            }
            _ => {}
        }
    }

    /// The resume point moved here.
    pub fn settle(&mut self, tick: i64) {
        self.settled = Some(tick);
        for (name, sub) in &mut self.subs {
            assert!(!sub.resetting && sub.parts.is_none(), "a resume point while `{name}` waits for its snapshot");
            sub.steps.push_back(Step::Known(tick));
            sub.settled = sub.steps.len();
        }
    }

    /// The connection is another one, or another poll: it goes on from the resume point.
    pub fn resume(&mut self) {
        for sub in self.subs.values_mut() {
            sub.steps.truncate(sub.settled);
            sub.parts = None;
            sub.resetting = false;
            sub.unknown(self.settled);
            sub.settled = sub.steps.len();
        }
    }

    /// What a subscription held at a tick, if the client could know. Ticks are asked for in their order.
    pub fn state_at(&mut self, sub: &str, tick: i64) -> Option<&Rows> {
        assert!(self.settled.is_some_and(|settled| settled >= tick), "asked for what is not told yet");
        let sub = self.subs.get_mut(sub)?;
        while sub.steps.front().is_some_and(|step| step.tick() <= tick) {
            sub.advance(self.exact);
        }
        let known = match sub.knowledge {
            Knowledge::Never => false,
            Knowledge::Exact => true,
            Knowledge::At(known) => known == tick,
        };
        known.then_some(&sub.base)
    }
}

impl Sub {
    fn unknown(&mut self, settled: Option<i64>) {
        let last = self.steps.back().map_or(self.base_tick, Step::tick);
        self.steps.push_back(Step::Unknown(settled.unwrap_or(last).max(last)));
    }

    fn advance(&mut self, exact: bool) {
        let Some(step) = self.steps.pop_front() else { return };
        self.settled = self.settled.saturating_sub(1);
        assert!(step.tick() >= self.base_tick, "ticks go back from {} to {}", self.base_tick, step.tick());
        self.base_tick = step.tick();
        let told = if exact { Knowledge::Exact } else { Knowledge::At(step.tick()) };
        self.knowledge = match (step, self.knowledge) {
            (Step::Snapshot(_, rows), _) => {
                self.base = rows;
                told
            }
            (_, Knowledge::Never) => Knowledge::Never,
            (Step::Changes(_, changes), _) => {
                for (key, row) in changes {
                    match row {
                        Some(row) => self.base.insert(key, row),
                        None => self.base.remove(&key),
                    };
                }
                told
            }
            // two resumes from one point: known there, wherever the first began
            (Step::Unknown(at), Knowledge::Exact) => Knowledge::At(at),
            (Step::Unknown(_), at) => at,
            (Step::Known(_), _) => told,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changes(tick: i64, key: &str, version: i64) -> Value {
        let change = json!({ "op": "update", "key": key, "version": version, "row": { "v": version } });
        json!({ "type": "changes", "sub": "1", "position": format!("{tick}-0"), "changes": [change] })
    }

    fn versions(journal: &mut Journal, tick: i64) -> Option<Vec<i64>> {
        journal.state_at("1", tick).map(|rows| rows.values().map(|(v, _)| *v).collect())
    }

    #[test]
    fn what_is_known_when() {
        let mut journal = Journal::new(true);
        let row = json!({ "key": "a", "version": 2, "row": { "v": 2 } });
        journal.message(&json!({ "type": "snapshot", "sub": "1", "position": "5-0", "rows": [row], "more": false }));
        journal.settle(5);
        journal.message(&changes(8, "a", 4));
        journal.settle(8);
        journal.message(&changes(9, "a", 6));
        // cut before the id of 9
        journal.resume();
        journal.message(&changes(12, "a", 8));
        journal.settle(12);
        journal.resume();
        journal.settle(20);
        assert_eq!(versions(&mut journal, 4), None);
        assert_eq!(versions(&mut journal, 5), Some(vec![2]));
        assert_eq!(versions(&mut journal, 7), Some(vec![2]));
        assert_eq!(versions(&mut journal, 8), Some(vec![4]));
        assert_eq!(versions(&mut journal, 9), None, "folded into 12, for all the client knows");
        assert_eq!(versions(&mut journal, 12), Some(vec![8]));
        assert_eq!(versions(&mut journal, 15), None);
        assert_eq!(versions(&mut journal, 20), Some(vec![8]));
    }

    #[test]
    fn of_a_follower_only_what_is_told() {
        let mut journal = Journal::new(false);
        let row = json!({ "key": "a", "version": 2, "row": { "v": 2 } });
        journal.message(&json!({ "type": "snapshot", "sub": "1", "position": "5-0", "rows": [row], "more": false }));
        journal.settle(5);
        journal.message(&changes(8, "a", 4));
        journal.settle(8);
        journal.settle(10);
        assert_eq!(versions(&mut journal, 6), None);
        assert_eq!(versions(&mut journal, 8), Some(vec![4]));
        assert_eq!(versions(&mut journal, 9), None);
        assert_eq!(versions(&mut journal, 10), Some(vec![4]));
    }
}
