//! Pure values: positions, snapshots, keys, changes and how a batch folds.
//!
//! Must not know: tokio, clocks, I/O, logging. Invariant: everything here can be computed twice with one result.

mod batch;
mod fold;
mod key;
mod log_row;
mod position;
mod resume;
mod snapshot;
mod table;

pub use batch::{Batch, Reload, TableBatch, Tick};
pub use fold::{Net, fold};
pub use key::Key;
pub use log_row::{Op, RowChange, one_line};
pub use position::{MalformedPosition, Position};
pub use resume::{Mark, Marks, Resume};
pub use snapshot::{MalformedSnapshot, Snapshot};
pub use table::{Collation, Column, Rule, Seen, Table};
