//! A database of the test's own and the gateways on it.

use super::{eventually, postgres};
use rowcast::config::Settings;
use rowcast::gateway::Gateway;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_postgres::{Client, NoTls};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// See the module. The database is left behind: the server goes with the run.
pub struct World {
    pub url: String,
    pub database: String,
}

impl World {
    /// A fresh, migrated database on the shared server.
    pub async fn new() -> World {
        let world = World::bare().await;
        rowcast::pg::migrate::apply(&world.url).await.unwrap();
        world
    }

    /// A fresh, empty database on the shared server.
    pub async fn bare() -> World {
        let pg = postgres::shared().await;
        World::on(&|database| pg.url(database)).await
    }

    /// A fresh, empty database on a server whose databases have these urls.
    pub async fn on(url: &dyn Fn(&str) -> String) -> World {
        // ROWCAST_LOG=rowcast=debug shows what the gateways log
        let filter = std::env::var("ROWCAST_LOG").unwrap_or_else(|_| "off".to_owned());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let database = format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&url("postgres")).await;
        admin.batch_execute(&format!("create database {database}")).await.unwrap();
        World { url: url(&database), database }
    }

    /// A connection as superuser, with everything SQL can do.
    pub async fn sql(&self) -> Client {
        connect(&self.url).await
    }

    /// Runs statements on a connection of their own.
    pub async fn run(&self, sql: &str) {
        self.sql().await.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// A gateway, ready.
    pub async fn gateway(&self) -> TestGateway {
        self.gateway_with(|_| {}).await
    }

    /// A gateway with other settings, ready.
    pub async fn gateway_with(&self, change: impl FnOnce(&mut Settings)) -> TestGateway {
        let gateway = self.starting_gateway(change);
        gateway.ready().await;
        gateway
    }

    /// A gateway whose pool reaches Postgres by the address of something in between; its doorbell and ticks go straight.
    pub async fn gateway_through(&self, between: String, change: impl FnOnce(&mut Settings)) -> TestGateway {
        let settings = |settings: &mut Settings| {
            settings.database_url = between;
            settings.notify_url = Some(self.url.clone());
            change(settings);
        };
        self.gateway_with(settings).await
    }

    /// A gateway that may not be ready yet, or never will be.
    pub fn starting_gateway(&self, change: impl FnOnce(&mut Settings)) -> TestGateway {
        let mut settings = Settings::new(self.url.clone());
        settings.listen = "127.0.0.1:0".to_owned();
        settings.workers = 1;
        settings.drain = std::time::Duration::from_secs(5);
        change(&mut settings);
        let gateway = Gateway::start(&settings, Vec::new()).unwrap();
        TestGateway { address: gateway.local_addr(), gateway: Some(gateway) }
    }
}

/// A connection, driven in the background.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    tokio::spawn(connection);
    client
}

/// A gateway in this process, on a port of its own.
pub struct TestGateway {
    pub address: SocketAddr,
    gateway: Option<Gateway>,
}

impl TestGateway {
    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn ready(&self) {
        eventually("the gateway is ready", || async {
            reqwest::get(self.url("/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// `/readyz` as JSON.
    pub async fn readyz(&self) -> serde_json::Value {
        reqwest::get(self.url("/readyz")).await.unwrap().json().await.unwrap()
    }

    /// Stops it as SIGTERM would.
    pub async fn stop(mut self) {
        self.gateway.take().unwrap().shutdown().await;
    }
}
