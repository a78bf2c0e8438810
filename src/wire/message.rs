//! Data messages, encoded once for every subscriber of a shape.
//!
//! Must not know: sockets, subscribers. Invariant: an encoded message never changes; what differs between
//! subscribers (the `sub` label, whether the tick ends here) is spliced around shared bytes.

use crate::change::{Key, Marks, Resume, Tick};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// The label of the only subscription of a connection that names none. Messages are kept ready for it.
pub const FIRST_SUB: &str = "1";

/// Target size of one part of a long message. Small enough that a slow reader's buffer holds a few, large enough
/// that the JSON around the rows is noise.
pub const PART_BYTES: usize = 128 * 1024;

/// What a data message says. The name is its `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Replaces everything held for the subscription.
    Snapshot,
    /// One tick's changes.
    Changes,
    /// What is held is worthless; a snapshot follows.
    Reset,
    /// The subscription failed; the others go on.
    Problem,
}

impl Kind {
    /// The message's `type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Changes => "changes",
            Kind::Reset => "reset",
            Kind::Problem => "problem",
        }
    }
}

/// One encoded message: a JSON object, kept inside a ready SSE event for the label [`FIRST_SUB`].
#[derive(Clone, Debug)]
pub struct Message {
    kind: Kind,
    /// Last part of its tick's message; only such a message may carry an `id`.
    last: bool,
    /// `data: {"type":"..","sub":"1"<tail>\n\n`, for named events with the `event:` line before.
    event: Bytes,
    /// Where the event goes on after an `id:` line of its own.
    body_at: usize,
    tail_at: usize,
}

/// Ends an `id` that is no resume point: whoever comes back with it begins with a snapshot, not older than its tick.
pub const ANEW: char = '~';

/// What follows the message's JSON in its SSE event.
const EVENT_END: &[u8] = b"\n\n";

impl Message {
    /// `tail` is the object's text after the `sub` member, from the comma to the closing brace; `at` the tick it is
    /// told at.
    fn new(kind: Kind, last: bool, at: Option<Resume>, tail: &[u8]) -> Message {
        // After a reset, and between the parts of a snapshot, the client holds nothing that the position it has could
        // be continued from: it is given one that says "a snapshot first, not older than this".
        let anew = at.filter(|_| kind == Kind::Reset || (kind == Kind::Snapshot && !last));
        let mut event = BytesMut::with_capacity(tail.len() + 96);
        if let Some(at) = anew {
            event.put_slice(format!("id: {at}{ANEW}\n").as_bytes());
        }
        let body_at = event.len();
        put_event_head(&mut event, kind, FIRST_SUB);
        let tail_at = event.len();
        event.put_slice(tail);
        event.put_slice(EVENT_END);
        Message { kind, last, event: event.freeze(), body_at, tail_at }
    }

    /// What it says.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Does its tick's message end here?
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.last
    }

    /// Size in memory and, nearly, on the wire.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.event.len()
    }

    /// Appends the SSE event without the `id:` line of a resume point (a reset, and a snapshot's part that is not its last,
    /// have one of their own).
    pub fn write_sse(&self, sub: &str, out: &mut BytesMut) {
        if sub == FIRST_SUB {
            out.put_slice(&self.event);
            return;
        }
        out.reserve(self.event.len() + sub.len());
        out.put_slice(&self.event[..self.body_at]);
        put_event_head(out, self.kind, sub);
        out.put_slice(&self.event[self.tail_at..]);
    }

    /// The SSE event of [`Message::write_sse`] without a copy, which only the label [`FIRST_SUB`] has.
    #[must_use]
    pub fn shared_sse(&self, sub: &str) -> Option<Bytes> {
        (sub == FIRST_SUB).then(|| self.event.clone())
    }

    /// Appends the JSON object.
    pub fn write_json(&self, sub: &str, out: &mut BytesMut) {
        put_json_head(out, self.kind, sub);
        out.put_slice(&self.event[self.tail_at..self.event.len() - EVENT_END.len()]);
    }
}

fn put_event_head(out: &mut BytesMut, kind: Kind, sub: &str) {
    // data comes unnamed, so that `onmessage` alone receives it; the rest is for who asks by name
    if matches!(kind, Kind::Reset | Kind::Problem) {
        out.put_slice(b"event: ");
        out.put_slice(kind.name().as_bytes());
        out.put_slice(b"\n");
    }
    out.put_slice(b"data: ");
    put_json_head(out, kind, sub);
}

fn put_json_head(out: &mut BytesMut, kind: Kind, sub: &str) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.name().as_bytes());
    out.put_slice(b"\",\"sub\":");
    put_string(out, sub);
}

/// Appends a JSON string.
fn put_string(out: &mut BytesMut, text: &str) {
    // serialising a str into memory cannot fail
    out.put_slice(serde_json::to_string(text).unwrap_or_default().as_bytes());
}

/// The `op` of one change: what happened to the row *inside the subscription*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireOp {
    /// The row came into the subscription.
    Insert,
    /// It was in and is in.
    Update,
    /// It went, or left the filter.
    Delete,
}

/// One row of a snapshot, or one change.
#[derive(Clone, Debug)]
pub struct WireRow {
    /// The row's key.
    pub key: Key,
    /// Its version; of a delete, the tombstone's or the version with which it left the filter.
    pub version: i64,
    /// The row as JSON; none for a delete.
    pub row: Option<Bytes>,
}

/// Encodes one tick's changes, in parts. `marks`: what is shown.
#[must_use]
pub fn changes(table: &str, tick: &Tick, marks: Marks, rows: &[(WireOp, WireRow)]) -> Arc<[Message]> {
    let at = jiff::Timestamp::from_microsecond(tick.at_micros).map(|t| t.to_string()).unwrap_or_default();
    let point = Resume { position: tick.position, marks };
    let mut parts = Parts::new(Kind::Changes, table, point, &format!(",\"at\":\"{at}\",\"changes\":["));
    for (op, row) in rows {
        let op = match op {
            WireOp::Insert => "insert",
            WireOp::Update => "update",
            WireOp::Delete => "delete",
        };
        parts.row(Some(op), row);
    }
    parts.finish()
}

/// Encodes a snapshot, in parts.
#[must_use]
pub fn snapshot<'a>(table: &str, at: Resume, rows: impl Iterator<Item = &'a WireRow>) -> Arc<[Message]> {
    let mut parts = Parts::new(Kind::Snapshot, table, at, ",\"rows\":[");
    rows.for_each(|row| parts.row(None, row));
    parts.finish()
}

/// Encodes a `reset` at a tick; `reason` is one of the closed set documented in `docs/`.
#[must_use]
pub fn reset(table: &str, reason: &str, at: Option<Resume>) -> Arc<[Message]> {
    control(Kind::Reset, at, serde_json::json!({ "table": table, "reason": reason }))
}

/// Encodes a `problem` (RFC 9457 members beside `sub`).
#[must_use]
pub fn problem(members: serde_json::Value) -> Arc<[Message]> {
    control(Kind::Problem, None, members)
}

fn control(kind: Kind, at: Option<Resume>, members: serde_json::Value) -> Arc<[Message]> {
    let text = members.to_string();
    let tail = text.strip_prefix('{').map(|rest| format!(",{rest}")).unwrap_or_else(|| "}".to_owned());
    [Message::new(kind, false, at, tail.as_bytes())].into()
}

/// Collects rows into messages of about [`PART_BYTES`].
struct Parts {
    kind: Kind,
    at: Resume,
    head: Vec<u8>,
    tail: BytesMut,
    rows: usize,
    done: Vec<Message>,
}

impl Parts {
    fn new(kind: Kind, table: &str, at: Resume, then: &str) -> Parts {
        let mut head = BytesMut::new();
        head.put_slice(b",\"table\":");
        put_string(&mut head, table);
        head.put_slice(format!(",\"position\":\"{at}\"{then}").as_bytes());
        let head = head.to_vec();
        Parts { kind, at, tail: BytesMut::from(&head[..]), head, rows: 0, done: Vec::new() }
    }

    fn row(&mut self, op: Option<&str>, row: &WireRow) {
        let size = row.row.as_ref().map_or(0, Bytes::len);
        if self.rows > 0 && self.tail.len() + size > PART_BYTES {
            self.close(true);
        }
        let out = &mut self.tail;
        out.put_slice(if self.rows == 0 { b"{" } else { b",{" });
        if let Some(op) = op {
            out.put_slice(format!("\"op\":\"{op}\",").as_bytes());
        }
        // a key is percent-encoded: nothing in it needs escaping
        out.put_slice(format!("\"key\":\"{}\",\"version\":{}", row.key, row.version).as_bytes());
        if let Some(json) = &row.row {
            out.put_slice(b",\"row\":");
            out.put_slice(json);
        }
        out.put_slice(b"}");
        self.rows += 1;
    }

    fn close(&mut self, more: bool) {
        self.tail.put_slice(if more { b"],\"more\":true}" } else { b"],\"more\":false}" });
        self.done.push(Message::new(self.kind, !more, Some(self.at), &self.tail));
        self.tail.clear();
        self.tail.put_slice(&self.head);
        self.rows = 0;
    }

    fn finish(mut self) -> Arc<[Message]> {
        self.close(false);
        self.done.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn row(key: &str, version: i64, json: Option<&str>) -> WireRow {
        WireRow { key: Key::from_log(key, false), version, row: json.map(|j| Bytes::copy_from_slice(j.as_bytes())) }
    }

    fn json(message: &Message, sub: &str) -> Value {
        let mut out = BytesMut::new();
        message.write_json(sub, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    fn sse(message: &Message, sub: &str) -> String {
        let mut out = BytesMut::new();
        message.write_sse(sub, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn changes_are_the_documented_object() {
        let tick = Tick {
            position: "4712-77b01e".parse().unwrap(),
            snap: Arc::new("1:1:".parse().unwrap()),
            at_micros: 1_795_291_937_265_000,
        };
        let rows = [(WireOp::Update, row("7", 44, Some(r#"{"id":7}"#))), (WireOp::Delete, row("a b", 37, None))];
        let parts = changes("scores", &tick, Marks::default(), &rows);
        assert_eq!(
            json(&parts[0], "x\"y"),
            serde_json::json!({"type":"changes","sub":"x\"y","table":"scores","position":"4712-77b01e",
                "at":"2026-11-21T20:12:17.265Z","changes":[{"op":"update","key":"7","version":44,"row":{"id":7}},
                {"op":"delete","key":"a%20b","version":37}],"more":false})
        );
        let text = sse(&parts[0], "1");
        assert!(text.starts_with("data: {\"type\":\"changes\",\"sub\":\"1\",") && text.ends_with("}\n\n"), "{text}");
    }

    #[test]
    fn long_snapshots_come_in_parts_and_only_the_last_ends_the_tick() {
        let big = format!("{{\"t\":\"{}\"}}", "x".repeat(PART_BYTES / 3));
        let rows: Vec<_> = (0..7).map(|i| row(&i.to_string(), i, Some(&big))).collect();
        let parts = snapshot("t", "1-000000".parse().unwrap(), rows.iter());
        let seen: usize = parts.iter().map(|p| json(p, "1")["rows"].as_array().unwrap().len()).sum();
        assert!(parts.len() >= 3 && seen == 7);
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            assert_eq!((part.is_last(), json(part, "1")["more"] == Value::Bool(false)), (last, last));
        }
    }

    #[test]
    fn resets_are_named_events_that_ask_for_a_snapshot() {
        let at = "7-9f3a2c".parse().ok();
        let text = sse(&reset("t", "truncated", at)[0], "2");
        assert_eq!(
            text,
            "id: 7-9f3a2c~\nevent: reset\ndata: {\"type\":\"reset\",\"sub\":\"2\",\"reason\":\"truncated\",\"table\":\"t\"}\n\n"
        );
    }
}
