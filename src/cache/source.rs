//! What is asked of the cache, and what the cache asks of a database without knowing one.
//!
//! Must not know: SQL. Invariant: rows come with the position at which they are true.

use crate::change::Position;
use crate::hub::{SourceError, Spec};
use crate::wire::{Order, Projection, WireRow};
use futures_util::future::BoxFuture;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// Which of the rows of a spec.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The one row: the filter is that of a key.
    Row,
    /// Some of many.
    List {
        /// Sorted so, then by key.
        order: Order,
        /// At most so many.
        limit: usize,
        /// After so many.
        offset: u64,
    },
}

/// A read.
#[derive(Clone, Debug)]
pub struct Query {
    /// Table, filter and columns.
    pub spec: Spec,
    /// Which rows of them.
    pub window: Window,
    key: QueryKey,
}

/// Two reads with one key have one answer. Made once for a query that is asked again and again: to copy its texts and to
/// hash them was a twelfth of a cached answer.
#[derive(Clone, Debug)]
pub(super) struct QueryKey {
    hash: u64,
    parts: Arc<Parts>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parts {
    relid: u32,
    incarnation: u64,
    fingerprint: String,
    filter: String,
    projection: Projection,
    window: Window,
}

impl PartialEq for QueryKey {
    fn eq(&self, other: &QueryKey) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts) || (self.hash == other.hash && self.parts == other.parts)
    }
}

impl Eq for QueryKey {}

impl Hash for QueryKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Of this process: nobody outside can choose texts that share a hash.
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Query {
    /// Some of the rows of `spec`; `incarnation`: of its table, see
    /// [`Tables::incarnation`](crate::hub::Tables::incarnation).
    #[must_use]
    pub fn new(spec: Spec, incarnation: u64, window: Window) -> Query {
        let parts = Parts {
            relid: spec.table.relid,
            incarnation,
            fingerprint: spec.table.fingerprint.clone(),
            filter: spec.filter.canonical().to_owned(),
            projection: spec.projection.clone(),
            window: window.clone(),
        };
        let key = QueryKey { hash: SECRET.hash_one(&parts), parts: Arc::new(parts) };
        Query { spec, window, key }
    }

    pub(super) fn key(&self) -> &QueryKey {
        &self.key
    }

    /// Rows to ask the database for: one more than wanted tells whether there is a next page.
    #[must_use]
    pub fn fetch(&self) -> usize {
        match &self.window {
            Window::Row => 1,
            Window::List { limit, .. } => limit + 1,
        }
    }
}

impl QueryKey {
    /// Bytes it takes, about.
    pub(super) fn weight(&self) -> usize {
        let parts = &self.parts;
        let window = match &parts.window {
            Window::Row => 0,
            Window::List { order, .. } => {
                order.terms().iter().map(|term| size_of_val(term) + term.column.len()).sum::<usize>()
            }
        };
        parts.filter.len() + parts.fingerprint.len() + parts.projection.weight() + window + 256
    }
}

/// Rows as one transaction saw them.
#[derive(Debug)]
pub struct Found {
    /// Filtered, projected, sorted; at most [`Query::fetch`] of them.
    pub rows: Vec<WireRow>,
    /// A stream from here misses nothing of them. It repeats nothing either, unless the table changed faster than it
    /// could be read between two ticks.
    pub position: Position,
}

/// Reads rows.
pub trait Reader: Send + Sync + 'static {
    /// Reads a window of rows in one snapshot, not older than any position given out before.
    fn read(&self, query: Query) -> BoxFuture<'static, Result<Found, SourceError>>;

    /// Is this a position of the database's history?
    fn knows(&self, position: Position) -> BoxFuture<'static, Result<bool, SourceError>>;
}
