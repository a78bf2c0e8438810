//! Rowcast.
pub mod change;
pub mod filter;
