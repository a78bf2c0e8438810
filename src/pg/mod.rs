//! The database side: the only modules that know `tokio_postgres`.
//!
//! Invariant: nothing here ever waits for a subscriber, and no connection is left undrained.

pub mod catalog;
mod chores;
mod connect;
pub mod doorbell;
mod error;
mod heard;
pub mod log;
pub mod migrate;
pub mod queries;
mod reads;
mod refusal;
mod select;
mod statements;
mod status;
mod store;
mod ticker;
mod tickets;
mod turns;
pub mod watch;
pub mod write;

pub use connect::{NOTATION, connect, parse, pool};
pub use error::PgError;
pub use refusal::Refusal;
pub use statements::SESSION;
pub use status::{Condition, Role, Status};
pub use store::Store;
pub use ticker::{Ticker, TickerOptions};
pub use tickets::Tickets;

use std::time::Duration;

/// Waits that grow from 0.1 s to 5 s, with jitter so that many gateways do not return at one moment.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait.
    pub async fn wait(&mut self) {
        let base = Duration::from_millis(100).saturating_mul(1 << self.tries.min(6)).min(Duration::from_secs(5));
        self.tries += 1;
        tokio::time::sleep(base.mul_f64(rand::random_range(0.5..1.0))).await;
    }

    /// Begins small again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}
