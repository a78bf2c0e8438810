//! What happened between two positions: the unit that is applied, published and sent as a whole.
//!
//! Must not know: who asks. Invariant: a batch ends at a real tick, so its end is a state the database was in.

use super::{Net, Position, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// A tick as read from `rowcast.tick`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its name.
    pub position: Position,
    /// Which transactions it contains.
    pub snap: Arc<Snapshot>,
    /// When it was made, microseconds since the Unix epoch by the database's clock. For people; it orders nothing.
    pub at_micros: i64,
}

/// Why a table must be read anew instead of being told change by change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// TRUNCATE.
    Truncated,
    /// A statement above the table's `bulk_limit`, or settings or columns that changed.
    Requested,
    /// More changes between two positions than the gateway keeps in memory.
    Overflow,
}

/// One table's part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableBatch {
    /// The net changes, one a key.
    Changes(Vec<Net>),
    /// Read the table anew.
    Reload(Reload),
}

/// All changes after `from` up to `to`.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The position the batch continues.
    pub from: Position,
    /// The tick it ends at.
    pub to: Tick,
    /// Parts by table (`pg_class.oid`).
    pub tables: HashMap<u32, TableBatch>,
    /// Log rows that could not be decoded, with the reason; their tables are in `tables` as reloads.
    pub bad_rows: Vec<String>,
}
