//! What is asked of the cache, and what the cache asks of a database without knowing one.
//!
//! Must not know: SQL. Invariant: rows come with the position at which they are true.

use crate::change::Position;
use crate::hub::{SourceError, Spec};
use crate::wire::{Order, Projection, WireRow};
use futures_util::future::BoxFuture;

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
    /// Of the table, see [`Tables::incarnation`](crate::hub::Tables::incarnation).
    pub incarnation: u64,
    /// Which rows of them.
    pub window: Window,
}

/// Two reads with one key have one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct QueryKey {
    relid: u32,
    incarnation: u64,
    fingerprint: String,
    filter: String,
    projection: Projection,
    window: Window,
}

impl Query {
    pub(super) fn key(&self) -> QueryKey {
        QueryKey {
            relid: self.spec.table.relid,
            incarnation: self.incarnation,
            fingerprint: self.spec.table.fingerprint.clone(),
            filter: self.spec.filter.canonical().to_owned(),
            projection: self.spec.projection.clone(),
            window: self.window.clone(),
        }
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
        let window = match &self.window {
            Window::Row => 0,
            Window::List { order, .. } => {
                order.terms().iter().map(|term| size_of_val(term) + term.column.len()).sum::<usize>()
            }
        };
        self.filter.len() + self.fingerprint.len() + self.projection.weight() + window + 256
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
