//! What the hub needs from a database, without knowing one.
//!
//! Must not know: SQL. Invariant: rows and changes come with enough of a position to be joined exactly.

use super::shape::Spec;
use crate::change::{Batch, Position, Snapshot, Tick};
use crate::wire::WireRow;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// From which tick on the changes continue rows that were read.
#[derive(Clone, Debug)]
pub enum Join {
    /// Nothing happened between this tick and the read.
    At(i64),
    /// Changes were waiting: the first tick that covers this snapshot.
    Covers(Snapshot),
}

impl Join {
    /// Does the state at `head` contain the rows that were read?
    #[must_use]
    pub fn reached(&self, head: &Tick) -> bool {
        match self {
            Join::At(tick) => head.position.tick >= *tick,
            Join::Covers(snap) => head.snap.covers(snap),
        }
    }
}

/// A shape's rows, as one transaction saw them.
#[derive(Debug)]
pub struct Loaded {
    /// The rows, filtered and projected.
    pub rows: Vec<WireRow>,
    /// Where the stream continues them.
    pub join: Join,
}

/// What happened since a position.
#[derive(Clone, Debug)]
pub enum Missed {
    /// Everything from the position to the batch's tick.
    Batch(Arc<Batch>),
    /// The position is unknown, of another history, or older than the retained log.
    Unknown,
}

/// A read failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// Slug of the problem, as in `/problems/<slug>`.
    pub code: &'static str,
    /// What happened and the remedy, fit for the subscriber.
    pub detail: String,
    /// May the same read succeed a moment later?
    pub retry: bool,
}

/// Code of the problem when a shape's rows are more than may be read.
pub const TOO_LARGE: &str = "snapshot-too-large";

impl SourceError {
    /// Too many wait already.
    #[must_use]
    pub fn overloaded() -> SourceError {
        let detail = "too many subscribers wait for rows: come back a little later".to_owned();
        SourceError { code: "overloaded", detail, retry: true }
    }
}

/// Reads rows and missed changes.
pub trait Source: Send + Sync + 'static {
    /// Reads all rows of a shape in one snapshot, at most `bytes` of them; `snapshot-too-large` when there are more.
    /// Ends, and the database stops working on it, when `unwanted` is cancelled.
    fn snapshot(
        &self,
        spec: Spec,
        bytes: usize,
        unwanted: CancellationToken,
    ) -> BoxFuture<'static, Result<Loaded, SourceError>>;

    /// Reads what happened after `from`, up to `to` or to an earlier tick not before `floor` (so that many who come
    /// back at once share one read).
    fn missed(&self, from: Position, floor: i64, to: Tick) -> BoxFuture<'static, Result<Missed, SourceError>>;
}
