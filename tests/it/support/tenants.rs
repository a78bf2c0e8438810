//! Callers of several roles and tenants, who keep everything they were ever told.

use super::client::{Client, Transport, subscribe_as};
use super::keys;
use super::{PATIENCE, Replica, TestGateway, World, with_secret};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// A token with these claims.
pub fn token(claims: Value) -> String {
    let mut all = json!({ "exp": keys::now() + 600 });
    all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
    keys::shared(keys::SECRET.as_bytes(), Algorithm::HS256, &all)
}

/// A token of a member of a tenant.
pub fn member(tenant: &str) -> String {
    token(json!({ "role": "member", "sub": tenant, "tenant": tenant }))
}

/// A gateway that takes these tokens.
pub async fn gateway(world: &World) -> TestGateway {
    world.gateway_with(with_secret).await
}

/// A subscriber and all it was told.
pub struct Listener {
    pub client: Box<dyn Client>,
    pub transport: Transport,
    pub said: String,
    /// Why its stream is over.
    pub over: Option<String>,
}

impl Listener {
    pub async fn open(transport: Transport, at: SocketAddr, query: &str, token: Option<&str>) -> Listener {
        let client = subscribe_as(transport, at, query, token).await;
        Listener { client, transport, said: String::new(), over: None }
    }

    pub fn replica(&self) -> &Replica {
        self.client.replica()
    }

    /// Hears on until it holds, or until the stream is over.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Replica) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self.client.replica()) && self.over.is_none() {
            let heard = tokio::time::timeout_at(deadline, self.client.advance()).await;
            match heard.unwrap_or_else(|_| panic!("{what}: waited in vain: {:#?}", self.client.replica())) {
                Ok(messages) => messages.iter().for_each(|message| self.said += &message.to_string()),
                Err(over) => self.over = Some(over),
            }
        }
    }

    /// Hears on until the subscription is over, and how: the code of the problem.
    pub async fn ends(&mut self) -> String {
        self.until("the end", |r| !r.problems.is_empty()).await;
        match (self.client.replica().problems.first(), &self.over) {
            (Some(problem), _) => problem["problem"]["code"].as_str().unwrap().to_owned(),
            (None, Some(over)) => {
                let problem: Value = serde_json::from_str(over).unwrap_or_else(|_| panic!("{over}"));
                problem["code"].as_str().unwrap().to_owned()
            }
            (None, None) => unreachable!(),
        }
    }

    /// The keys of the rows it holds.
    pub fn keys(&self) -> Vec<String> {
        self.client.replica().versions("1").into_keys().collect()
    }
}
