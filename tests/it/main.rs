//! Everything that needs a database or a socket, in one binary, against one private Postgres that it starts itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs
)]

mod architecture;
mod browser;
mod commands;
mod demo;
mod filter_oracle;
mod flow;
mod localpg;
mod pgbench;
mod snapshots;
mod stress;
mod support;
