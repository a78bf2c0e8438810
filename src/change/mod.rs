//! Pure values: positions, snapshots, versions, changes and how a batch folds.
//!
//! Must not know: tokio, clocks, I/O, logging.

mod table;

pub use table::{Collation, Column, Table};
