//! Rowcast.
pub mod change;
