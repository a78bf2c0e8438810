//! The test world: a private Postgres, a fresh database per test, gateways, a breakable proxy, clients.

pub mod client;
pub mod cutter;
pub mod everyone;
pub mod gate;
pub mod issuer;
pub mod journal;
pub mod keys;
pub mod mirror;
pub mod oracle;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod raw_socket;
pub mod reading;
pub mod replica;
pub mod socket;
pub mod stalled;
pub mod tenants;
pub mod witness;
pub mod world;
pub mod writing;

pub use client::{Client, LongPoll, Sse};
pub use everyone::Everyone;
pub use gate::{Ear, Gate, Gated};
pub use mirror::Mirror;
pub use oracle::{Oracle, View};
pub use process::GatewayProcess;
pub use proxy::Proxy;
pub use reading::{ReadClient, Reading};
pub use replica::Replica;
pub use witness::{Manner, Watched};
pub use world::{TestGateway, World};
pub use writing::Writing;

use rowcast::config::Settings;
use std::future::Future;
use std::time::Duration;

/// How long a test waits for something that must happen. Generous: the machine may be busy, and waiting longer never
/// makes a wrong program right.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Takes tokens signed with the secret of the tests.
pub fn with_secret(settings: &mut Settings) {
    settings.auth.secret = Some(keys::SECRET.to_owned().into());
}

/// Waits for a condition; panics with `what` when it does not come.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The seed of a random test: `ROWCAST_SEED`, or a new one. Printed, so that a failure can be played again.
pub fn seed() -> u64 {
    let seed = std::env::var("ROWCAST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("seed: ROWCAST_SEED={seed}");
    seed
}
