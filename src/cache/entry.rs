//! An answer that is kept.
//!
//! Must not know: SQL, headers. Invariant: the content is true at `proven`, and `proven` only rises.

use super::source::{Found, Window};
use crate::change::Position;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_64;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One row.
    Row {
        /// The row as JSON.
        body: Bytes,
        /// Its version.
        version: i64,
    },
    /// No row of this key.
    Absent {
        /// The tombstone's version, if the removal was seen.
        version: Option<i64>,
    },
    /// A list.
    List {
        /// The rows as a JSON array.
        body: Bytes,
        /// Of the body: the same on every gateway.
        hash: u64,
        /// More rows follow.
        more: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Entry {
    /// What was found.
    pub content: Content,
    /// The history it was read in.
    pub(super) generation: u64,
    /// Where it was made: of two answers the one made later is kept.
    pub(super) made: i64,
    /// Up to here the history was looked through and nothing touched the content. Held for a copy.
    proven: Mutex<Position>,
    /// When it was read, or written through.
    pub(super) born: Instant,
    /// How long it is kept: fresh, and then for when the database is away.
    pub(super) keep: Duration,
}

impl Entry {
    pub(super) fn new(content: Content, generation: u64, at: Position, keep: Duration) -> Entry {
        Entry { content, generation, made: at.tick, proven: Mutex::new(at), born: Instant::now(), keep }
    }

    pub(super) fn of(found: Found, window: &Window, generation: u64, keep: Duration) -> Entry {
        let Found { rows, position } = found;
        let content = match window {
            Window::Row => rows.into_iter().next().map_or(Content::Absent { version: None }, |row| Content::Row {
                body: row.row.unwrap_or_default(),
                version: row.version,
            }),
            Window::List { limit, .. } => {
                let more = rows.len() > *limit;
                let mut body = BytesMut::new();
                body.put_u8(b'[');
                for (i, row) in rows.iter().take(*limit).filter_map(|row| row.row.as_ref()).enumerate() {
                    body.put_slice(if i == 0 { b"" } else { b"," });
                    body.put_slice(row);
                }
                body.put_u8(b']');
                let body = body.freeze();
                Content::List { hash: xxh3_64(&body), body, more }
            }
        };
        Entry::new(content, generation, position, keep)
    }

    fn lock(&self) -> MutexGuard<'_, Position> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content is true here.
    #[must_use]
    pub fn proven(&self) -> Position {
        *self.lock()
    }

    pub(super) fn prove(&self, at: Position) {
        let mut proven = self.lock();
        if at.tick > proven.tick {
            *proven = at;
        }
    }

    pub(super) fn weight(&self) -> usize {
        let body = match &self.content {
            Content::Row { body, .. } | Content::List { body, .. } => body.len(),
            Content::Absent { .. } => 0,
        };
        body + std::mem::size_of::<Entry>()
    }
}
