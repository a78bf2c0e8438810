//! `rowcast demo`: a private Postgres, games that are played in it, the gateway, and one live page.
//!
//! Must not know: the gateway's insides; the demo uses it as everybody does, over HTTP and through plain SQL. It is an
//! application, so it has its own connections (`tokio_postgres`), which otherwise only `pg` may have.
//! Invariant: whatever the demo made, servers, files, tables, is gone when it ends.
//!
//! Reading order: `args`, `database` (where the data is), `example` (the tables), `writer` (who plays), `sse` and `replica`
//! (a subscriber in two small files), `check` (`--once`), `page` and `open`, `run` (all of it together).

mod args;
mod check;
mod database;
mod error;
mod example;
mod open;
mod page;
mod replica;
mod run;
mod sse;
mod writer;

pub use args::DemoArgs;
pub use error::DemoError;
pub use run::demo;
