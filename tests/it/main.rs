//! The integration tests, one binary.

mod demo;
mod filter_oracle;
mod localpg;
