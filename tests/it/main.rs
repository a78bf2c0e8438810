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
mod demo;
mod filter_oracle;
mod flow;
mod localpg;
mod support;
mod traps_capture_order;
mod traps_capture_statements;
mod traps_capture_values;
mod traps_capture_safety;
mod watch;
mod watch_conflict;
mod watch_refused;
mod install;
mod bad_input;
