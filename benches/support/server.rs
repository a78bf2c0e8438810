//! A private server set up for measuring.
//!
//! Invariant: what differs between two servers is the flush and nothing else.

use super::Outcome;
use rowcast::localpg::{Environment, LocalPg, LocalPgOptions};
use std::time::Duration;
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// What it costs to make a commit durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// `fsync = off`: the write-ahead log is written but not flushed.
    Free,
    /// `fsync = on`, `commit_delay` = this long, `commit_siblings = 0`: whoever flushes sleeps first, holding the lock
    /// that others who commit wait for, and then flushes for all of them, as with a disk of that latency. (Both other
    /// settings matter: the delay is skipped without fsync, and while fewer than `commit_siblings` others are in a
    /// transaction.)
    Takes(Duration),
}

impl std::fmt::Display for Flush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flush::Free => f.write_str("no flush"),
            Flush::Takes(time) => write!(f, "{} ms flush", time.as_millis()),
        }
    }
}

/// See the module.
pub(crate) struct Server {
    pub(crate) pg: LocalPg,
    /// Of the postmaster.
    pub(crate) pid: u32,
}

impl Server {
    pub(crate) async fn start(flush: Flush) -> Outcome<Server> {
        Server::start_with(flush, &[]).await
    }

    /// With more settings.
    pub(crate) async fn start_with(flush: Flush, more: &[(&'static str, &str)]) -> Outcome<Server> {
        let mut settings = vec![
            ("shared_buffers", "256MB".to_owned()),
            ("max_connections", "120".to_owned()),
            // the benches vacuum between runs; no checkpoint falls into one, and log segments are used again
            ("autovacuum", "off".to_owned()),
            ("checkpoint_timeout", "1h".to_owned()),
            ("max_wal_size", "4GB".to_owned()),
            ("min_wal_size", "2GB".to_owned()),
            // whole pages are logged once after a checkpoint, which in short runs would be all the time
            ("full_page_writes", "off".to_owned()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        if let Flush::Takes(time) = flush {
            settings.push(("commit_delay", time.as_micros().to_string()));
            settings.push(("commit_siblings", "0".to_owned()));
        }
        #[expect(clippy::disallowed_methods, reason = "a program of its own, with no configuration to read it")]
        let environment = Environment::read(|name| std::env::var_os(name));
        let pg = LocalPg::start(LocalPgOptions {
            environment,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            fsync: flush != Flush::Free,
            ..LocalPgOptions::default()
        })
        .await?;
        let pid = pg.pid().ok_or("the server ended")?;
        Ok(Server { pg, pid })
    }

    /// A new database; watched tables need rowcast in it.
    pub(crate) async fn database(&self, name: &str, rowcast: bool) -> Outcome<Client> {
        self.sql("postgres").await?.batch_execute(&format!("create database {name}")).await?;
        if rowcast {
            rowcast::pg::migrate::apply(&self.pg.url(name)).await?;
        }
        self.sql(name).await
    }

    pub(crate) async fn sql(&self, database: &str) -> Outcome<Client> {
        let (client, connection) = tokio_postgres::connect(&self.pg.url(database), NoTls).await?;
        spawn(connection);
        Ok(client)
    }

    /// A session that listens and passes what it hears to `heard`, for as long as the client is kept.
    pub(crate) async fn listen(
        &self,
        database: &str,
        channel: &str,
        mut heard: impl FnMut(&str) + Send + 'static,
    ) -> Outcome<Client> {
        let (client, mut connection) = tokio_postgres::connect(&self.pg.url(database), NoTls).await?;
        spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    heard(notification.payload());
                }
            }
        });
        client.batch_execute(&format!("listen {channel}")).await?;
        Ok(client)
    }
}

/// A task that ends with the program.
#[expect(clippy::disallowed_methods, reason = "nothing here outlives the program")]
pub(crate) fn spawn(task: impl Future<Output: Send> + Send + 'static) {
    tokio::spawn(async move {
        let _ = task.await;
    });
}
