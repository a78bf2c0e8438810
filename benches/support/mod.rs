//! What the bench programs share: a private server, a gateway process, clocks of the processor, tables of numbers.
//!
//! Must not know: what is measured. Invariant: everything started here ends with the program.

#![allow(dead_code, reason = "each program uses its part")]

pub(crate) mod control;
pub(crate) mod cpu;
pub(crate) mod crowd;
pub(crate) mod floor;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod members;
pub(crate) mod part;
pub(crate) mod pgbench;
pub(crate) mod report;
pub(crate) mod sender;
pub(crate) mod server;
pub(crate) mod side;
pub(crate) mod sse;
pub(crate) mod transport;
pub(crate) mod writer;
pub(crate) mod ws;

/// A bench that cannot be run says why and ends.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
