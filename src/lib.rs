//! Rowcast.
pub mod change;
pub mod demo;
pub mod localpg;
