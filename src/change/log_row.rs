//! One row of the change log, decoded.
//!
//! Must not know: how it was read. Invariant: images are JSON objects without raw line breaks.

use super::Key;
use bytes::Bytes;

/// What a log row says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// A row came into being: `new` is set.
    Insert,
    /// A row changed: `old` and `new` are set.
    Update,
    /// A row went: `old` is set, the version is the tombstone's.
    Delete,
    /// The table was emptied by TRUNCATE.
    Truncate,
    /// Too much or too unclear to list: the table must be read anew.
    Reload,
}

impl Op {
    /// From the log's one-letter code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Op> {
        Some(match code {
            b'i' => Op::Insert,
            b'u' => Op::Update,
            b'd' => Op::Delete,
            b't' => Op::Truncate,
            b'r' => Op::Reload,
            _ => return None,
        })
    }
}

/// One change of one row.
#[derive(Clone, Debug)]
pub struct RowChange {
    /// The row's key.
    pub key: Key,
    /// Version of the row after the change; of a delete the tombstone: odd, above every version the row had.
    pub version: i64,
    /// Version of `old`.
    pub old_version: Option<i64>,
    /// The row before, as JSON.
    pub old: Option<Bytes>,
    /// The row after, as JSON.
    pub new: Option<Bytes>,
}

/// Takes an image as Postgres wrote it. A `json` column keeps its own line breaks inside the row's JSON; outside of
/// strings they are white space and inside they cannot stand, so a space means the same and keeps every line-framed
/// transport (SSE, JSON lines) whole.
#[must_use]
pub fn one_line(json: &[u8]) -> Bytes {
    if json.iter().any(|b| matches!(b, b'\n' | b'\r')) {
        json.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }).collect::<Vec<u8>>().into()
    } else {
        Bytes::copy_from_slice(json)
    }
}
