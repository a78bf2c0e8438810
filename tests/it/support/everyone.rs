//! The same story told to a client of every transport, and what the database says for comparison.

use super::client::{Client, TRANSPORTS, subscribe};
use super::{Replica, World};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A client of every transport with the same subscription.
pub struct Everyone(pub Vec<Box<dyn Client>>);

impl Everyone {
    /// Subscribes, and waits for the first snapshot.
    pub async fn on(at: SocketAddr, query: &str) -> Everyone {
        let mut clients = Vec::new();
        for transport in TRANSPORTS {
            clients.push(subscribe(transport, at, query).await);
        }
        let mut everyone = Everyone(clients);
        everyone.until("the first snapshot", |r| r.snapshots > 0 && r.position.is_some()).await;
        everyone
    }

    pub async fn until(&mut self, what: &str, holds: impl Fn(&Replica) -> bool) {
        for client in &mut self.0 {
            client.until(what, &holds).await;
        }
    }

    pub async fn reconnect(&mut self, to: SocketAddr) {
        for client in &mut self.0 {
            client.reconnect(to).await;
        }
    }

    /// Does something hold for all of them now, without reading on?
    pub fn all(&self, holds: impl Fn(&Replica) -> bool) -> bool {
        self.0.iter().all(|client| holds(client.replica()))
    }

    /// Nobody was ever reset.
    pub fn assert_no_reset(&self) {
        for client in &self.0 {
            assert!(client.replica().resets.is_empty(), "{:?}", client.replica().resets);
        }
    }

    /// Waits until everybody holds exactly what the table holds.
    pub async fn until_equal(&mut self, world: &World, table: &str) {
        let truth = versions(world, table).await;
        self.until(&format!("the rows of {table}"), |r| r.versions("1") == truth).await;
    }
}

/// Versions by key of a table with the key `id`.
pub async fn versions(world: &World, table: &str) -> BTreeMap<String, i64> {
    let rows = world.sql().await.query(&format!("select id::text, row_version from {table}"), &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
