//! A private Postgres server for `rowcast demo` and for the test suite.
//!
//! Finds server binaries, makes a data directory, runs `postgres` as a direct child and takes everything away again. Must
//! not know: SQL, `tokio_postgres`, the gateway, the process environment (the caller hands in an [`Environment`]).
//! Invariant: whatever ends this process, even `kill -9`, ends the server and removes what was temporary; nothing is
//! downloaded without the caller's explicit consent ([`fetch`]).
//!
//! Reading order: `environment`, `binaries`, `account` (who runs the server when we are root), `cluster` (the data
//! directory), `child` (the process), `watchdog` (when we die first), `server` (all of it together).

mod account;
mod binaries;
mod child;
mod cluster;
mod environment;
mod error;
pub mod fetch;
mod server;
mod watchdog;

pub use binaries::{Binaries, MINIMUM_VERSION};
pub use environment::Environment;
pub use error::LocalPgError;
pub use server::{LocalPg, LocalPgOptions};

/// An I/O error with what was being tried, for `map_err`.
fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> LocalPgError {
    let what = what.into();
    move |source| LocalPgError::Io { what, source }
}
