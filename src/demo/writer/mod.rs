//! Who plays: several ordinary clients that write to Postgres with plain SQL.
//!
//! Must not know: Rowcast. No writer ever talks to the gateway, waits for it, or tells anybody what it changed.
//! Invariant: every task has its own connection and ends when told to, or with the reason why it cannot go on.

mod games;
mod picks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::error::database;
use super::example::with_client;

/// What the writers did, for the summary.
#[derive(Debug, Default)]
pub(super) struct Tally {
    commits: AtomicU64,
    refused: AtomicU64,
    finals: AtomicU64,
}

impl Tally {
    /// Transactions committed.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Writes refused because somebody was faster (`RC409`).
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Games played to the end.
    pub(super) fn finals(&self) -> u64 {
        self.finals.load(Ordering::Relaxed)
    }

    fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

/// The running writers.
#[derive(Debug)]
pub(super) struct Writer {
    tasks: JoinSet<Result<(), DemoError>>,
    stop: CancellationToken,
    tally: Arc<Tally>,
}

impl Writer {
    /// Pairs up the teams, kicks all games off and opens the picks.
    pub(super) async fn start(url: &str) -> Result<Self, DemoError> {
        let fixtures = with_client(url, async |client| games::fixtures(client).await).await?;
        let mut writer = Self { tasks: JoinSet::new(), stop: CancellationToken::new(), tally: Arc::default() };
        for fixture in fixtures {
            let (url, stop, tally) = writer.handles(url);
            let play = async move |client: &mut _| {
                games::play(client, fixture, &stop, &tally).await.map_err(database("play a game"))
            };
            writer.tasks.spawn(async move { with_client(&url, play).await });
        }
        let (url, stop, tally) = writer.handles(url);
        writer.tasks.spawn(async move { picks::race(&url, &stop, &tally).await });
        Ok(writer)
    }

    fn handles(&self, url: &str) -> (String, CancellationToken, Arc<Tally>) {
        (url.to_owned(), self.stop.clone(), Arc::clone(&self.tally))
    }

    /// What was done so far.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns when a writer gave up; the others are of little use then.
    pub(super) async fn failed(&mut self) -> DemoError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(Err(panic)) => return DemoError::Check(format!("a writer ended unexpectedly: {panic}")),
                Some(Ok(Ok(()))) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Lets every writer finish the transaction it is in, and none begin another.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|panic| DemoError::Check(format!("a writer ended unexpectedly: {panic}")))??;
        }
        Ok(())
    }
}

/// Waits; false when it is time to end instead.
async fn pause(stop: &CancellationToken, millis: u64) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(Duration::from_millis(millis)) => true,
    }
}
