//! The listening connection: turns NOTIFY into wake-ups.
//!
//! Invariant: the connection is drained by a task that never waits for anything else. A session that LISTENs and does
//! not read fills the cluster's notification queue, and then *other applications'* commits fail.

use super::PgError;
use crate::tasks::Tasks;
use deadpool_postgres::Pool;
use futures_util::{FutureExt, StreamExt, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// Rung by writers.
pub const DATA: &str = "rowcast";
/// Rung by the leader, once a tick.
pub const TICK: &str = "rowcast_tick";
/// Rung by ourselves, to hear whether the bell works.
const PROBE: &str = "rowcast_probe";

/// How often the bell is tried. With the wait below it bounds how long a half-open connection goes unnoticed.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long the ring may take to be heard.
const PROBE_WAIT: Duration = Duration::from_secs(3);

/// Set on the server's side of the connection. A backend that cannot send its notifications waits inside a
/// transaction, and its snapshot holds back vacuum in the whole cluster: a gateway that is stopped, or cut off without
/// a word, must not do so for longer than this.
const STALLED: &str = "15 s";

/// Where wake-ups arrive: one-slot flags, so that a flood of notifications is one wake-up.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Notify,
    data: AtomicBool,
    tick: AtomicBool,
    working: AtomicBool,
    /// How often writers rang.
    rings: AtomicU64,
}

/// What was rung since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// A writer committed.
    pub data: bool,
    /// The leader made a tick.
    pub tick: bool,
}

impl Bell {
    /// Waits until something is rung.
    pub async fn rung(&self) -> Rung {
        loop {
            let rung = self.take();
            if rung.data || rung.tick {
                return rung;
            }
            self.rung.notified().await;
        }
    }

    /// What was rung; forgets it.
    pub fn take(&self) -> Rung {
        Rung { data: self.data.swap(false, Ordering::AcqRel), tick: self.tick.swap(false, Ordering::AcqRel) }
    }

    /// How often writers rang so far: once a commit, as long as they are not mute.
    #[must_use]
    pub fn rings(&self) -> u64 {
        self.rings.load(Ordering::Relaxed)
    }

    /// Is LISTEN known to work?
    #[must_use]
    pub fn working(&self) -> bool {
        self.working.load(Ordering::Relaxed)
    }

    /// Rings as if by Postgres.
    pub fn ring(&self) {
        self.data.store(true, Ordering::Release);
        self.tick.store(true, Ordering::Release);
        self.rung.notify_one();
    }

    fn heard(&self, channel: &str) {
        match channel {
            DATA => {
                self.rings.fetch_add(1, Ordering::Relaxed);
                self.data.store(true, Ordering::Release);
            }
            TICK => self.tick.store(true, Ordering::Release),
            _ => return,
        }
        self.rung.notify_one();
    }
}

/// Listens for ever, reconnecting.
pub async fn listen(config: Config, pool: Pool, bell: Arc<Bell>, tasks: Tasks) {
    let mut backoff = super::Backoff::default();
    loop {
        let why = match session(&config, &pool, &bell, &tasks, &mut backoff).await {
            Ok(why) => why,
            Err(error) => error.to_string(),
        };
        if tasks.stopping().is_cancelled() {
            return;
        }
        bell.working.store(false, Ordering::Relaxed);
        tracing::warn!(why, "the doorbell is out of order, polling meanwhile");
        backoff.wait().await;
    }
}

/// One connection's life; returns why it was given up.
async fn session(
    config: &Config,
    pool: &Pool,
    bell: &Arc<Bell>,
    tasks: &Tasks,
    backoff: &mut super::Backoff,
) -> Result<String, PgError> {
    let opening = config.connect(NoTls);
    let (client, mut connection) = tokio::time::timeout(PROBE_EVERY * 2, opening)
        .await
        .map_err(|_| PgError::Unreachable("no answer to the connection attempt".to_owned()))??;
    let probe_heard = Arc::new(Notify::new());
    let over = Arc::new(Notify::new());
    let drain = {
        let (bell, probe_heard, over) = (bell.clone(), probe_heard.clone(), over.clone());
        async move {
            let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(n) = message {
                    if n.channel() == PROBE {
                        probe_heard.notify_one();
                    } else {
                        bell.heard(n.channel());
                    }
                }
            }
            over.notify_one();
        }
    };
    tasks.spawn("doorbell drain", drain);
    client
        .batch_execute(&format!("set tcp_user_timeout = '{STALLED}'; listen {DATA}; listen {TICK}; listen {PROBE}"))
        .await?;
    // what was committed between the last connection's end and this LISTEN rang for nobody
    bell.ring();
    loop {
        if !probe(&client, pool, &probe_heard).await {
            let hint = "rang and did not hear it: is a transaction pooler between? Set ROWCAST_NOTIFY_URL to a direct connection";
            return Ok(hint.to_owned());
        }
        bell.working.store(true, Ordering::Relaxed);
        backoff.reset();
        tokio::select! {
            () = over.notified() => return Ok("the connection was lost".to_owned()),
            () = tokio::time::sleep(PROBE_EVERY) => {}
        }
    }
}

/// Rings over another connection and waits to hear it. A pool that has no connection to give proves nothing about
/// the bell, so then the listening connection itself must answer.
async fn probe(client: &Client, pool: &Pool, heard: &Notify) -> bool {
    // forget an echo of an earlier probe
    let _ = heard.notified().now_or_never();
    let ring = async {
        let ringer = pool.get().await.ok()?;
        ringer.batch_execute(&format!("notify {PROBE}")).await.ok()
    };
    match tokio::time::timeout(PROBE_WAIT, ring).await {
        Ok(Some(())) => tokio::time::timeout(PROBE_WAIT, heard.notified()).await.is_ok(),
        _ => tokio::time::timeout(PROBE_WAIT, client.batch_execute("")).await.is_ok_and(|r| r.is_ok()),
    }
}
