//! Rowcast.
pub mod change;
pub mod localpg;
