//! Puts the parts together: one gateway in this process.
//!
//! Invariant: what is started here is stopped here, in the opposite order.

use crate::auth::{AuthError, Verifier};
use crate::cache::{History, ReadOptions, Reads};
use crate::config::Settings;
use crate::http::{self, Closes, StaticPage, StreamLimits, Streams};
use crate::hub::{Hub, HubOptions};
use crate::pg::doorbell::{self, Bell};
use crate::pg::write::Writer;
use crate::pg::{self, PgError, Status, Store, Ticker, TickerOptions, Tickets};
use crate::tasks::Tasks;
use actix_web::dev::ServerHandle;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Part of the drain time over which the streams' ends are spread. The rest is for those that are slow to leave.
const SPREAD: f64 = 0.7;

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database settings are wrong.
    #[error(transparent)]
    Database(#[from] PgError),
    /// Tokens cannot be verified as it is set.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`: {reason}; choose another with `--listen` or `ROWCAST_LISTEN`")]
    Listen {
        /// The address asked for.
        address: String,
        /// The system's reason.
        reason: std::io::Error,
    },
}

/// The parts that need no HTTP: feed and hub. What `rowcast tail` runs on, and what a [`Gateway`] serves from.
#[derive(Clone)]
pub struct Core {
    /// Shapes and positions.
    pub hub: Arc<Hub>,
    /// Answers to reads.
    pub reads: Arc<Reads>,
    /// Writes of clients.
    pub writer: Writer,
    /// Who may come without a header of its own.
    pub tickets: Tickets,
    /// Tickets that are shown.
    pub taken_tickets: Tickets,
    /// The database side's state.
    pub status: Arc<Status>,
    /// Wake-ups.
    pub bell: Arc<Bell>,
    /// Everything that runs.
    pub tasks: Tasks,
}

impl Core {
    /// Starts feeding a hub. Returns at once; a database that cannot be reached is tried for ever.
    ///
    /// # Errors
    /// The settings are wrong.
    pub fn start(settings: &Settings) -> Result<Core, StartError> {
        let tasks = Tasks::here();
        let direct = pg::parse(settings.notify_url.as_deref().unwrap_or(&settings.database_url))?;
        let pool = pg::pool(&pg::parse(&settings.database_url)?, settings.pool_size)?;
        // of what snapshots leave, one connection is for missed changes, rotation and whoever else comes, and the rest is
        // halved between reads and writes: either may wait for somebody's lock. Of 10: 4 snapshots, 2 reads, 3 writes, 1
        let rest = settings.pool_size.saturating_sub(settings.snapshot_reads + 1);
        let loads = (rest / 2).max(1);
        let writes = rest.saturating_sub(loads).max(1);
        // seldom all are busy at once: a crowd that comes back borrows one more
        let past = if rest > 2 { 2 } else { 1 };
        let store = Store::new(pool.clone(), loads, past, settings.batch_bytes);
        let options = HubOptions {
            ring_bytes: settings.ring_bytes,
            snapshot_reads: settings.snapshot_reads,
            snapshot_queue: settings.snapshot_queue,
            snapshot_bytes: settings.snapshot_max_bytes,
            gather_bytes: settings.batch_bytes,
        };
        let hub = Hub::new(Arc::new(store.clone()), options, tasks.clone());
        store.serve(&hub);
        let history = Arc::new(History::default());
        // asleep, the leader confirms once a safety poll; two that are missed and a second mean something is wrong
        let trust = settings.safety_poll * 2 + Duration::from_secs(1);
        let reads = ReadOptions { bytes: settings.cache_bytes, trust };
        let reads = Arc::new(Reads::new(hub.clone(), history.clone(), Arc::new(store.clone()), tasks.clone(), reads));
        let tidied = reads.clone();
        tasks.spawn("cache housekeeping", async move {
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                store.tidy().await;
                tidied.tidy().await;
            }
        });
        let writer = Writer::new(pool.clone(), writes, hub.clone(), tasks.clone());
        let tickets = Tickets::new(pool.clone(), settings.auth.clock.clone());
        let taken_tickets = Tickets::new(pool.clone(), settings.auth.clock.clone());
        let (status, bell) = (Arc::new(Status::default()), Arc::new(Bell::default()));
        tasks.spawn("doorbell", doorbell::listen(direct.clone(), pool.clone(), bell.clone(), tasks.clone()));
        let ticker = Ticker {
            config: direct,
            pool,
            bell: bell.clone(),
            hub: hub.clone(),
            history,
            status: status.clone(),
            tasks: tasks.clone(),
            options: TickerOptions {
                tick_interval: settings.tick_interval,
                safety_poll: settings.safety_poll,
                retention: settings.retention,
                batch_bytes: settings.batch_bytes,
            },
        };
        tasks.spawn_critical("ticker", ticker.run());
        Ok(Core { hub, reads, writer, tickets, taken_tickets, status, bell, tasks })
    }
}

/// A running gateway.
pub struct Gateway {
    core: Core,
    address: SocketAddr,
    server: ServerHandle,
    streams: Arc<Streams>,
    draining: CancellationToken,
    closes: Arc<Closes>,
    drain: Duration,
}

impl Gateway {
    /// Starts a gateway; returns when it listens. `/readyz` tells when it is connected.
    ///
    /// # Errors
    /// The settings are wrong or the address is taken.
    pub fn start(settings: &Settings, pages: Vec<StaticPage>) -> Result<Gateway, StartError> {
        let listen = |reason| StartError::Listen { address: settings.listen.clone(), reason };
        crate::limits::files_for(settings.max_connections);
        let listener = http::listen(&settings.listen).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let core = Core::start(settings)?;
        let verifier = Verifier::start(&settings.auth, &core.tasks)?;
        let limits = StreamLimits { per_address: settings.max_streams_per_address, max_age: settings.max_stream_age };
        let draining = core.tasks.stopping().child_token();
        let streams =
            Streams::new(limits, settings.auth.clock.clone(), draining.clone(), core.tasks.stopping().clone());
        core.tasks.spawn("stream rotation", streams.clone().rotate());
        let closes = Arc::new(Closes::default());
        let app = http::App {
            hub: core.hub.clone(),
            reads: core.reads.clone(),
            read_max_rows: settings.read_max_rows,
            writer: core.writer.clone(),
            verifier,
            tickets: core.tickets.clone(),
            taken_tickets: core.taken_tickets.clone(),
            status: core.status.clone(),
            bell: core.bell.clone(),
            closes: closes.clone(),
            stopping: draining.clone(),
            streams: streams.clone(),
            started: Instant::now(),
            write_timeout: settings.write_timeout,
            ws: http::WsOptions {
                allowed_origins: settings.allowed_origins.clone(),
                ping: settings.ping,
                init: settings.init_wait,
            },
        };
        let server = http::serve(listener, app, pages, settings.max_connections, settings.workers, settings.drain)
            .map_err(listen)?;
        let handle = server.handle();
        // not cancelled with the rest: dropped, it would cut the answers that it is asked to let end
        core.tasks.spawn_to_end("http server", async move {
            let _ = server.await;
        });
        Ok(Gateway { core, address, server: handle, closes, streams, draining, drain: settings.drain })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The parts behind the HTTP side.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Why connections ended.
    #[must_use]
    pub fn closes(&self) -> &Closes {
        &self.closes
    }

    /// Waits until it cannot go on; returns why.
    pub async fn failed(&self) -> String {
        self.core.tasks.stopping().cancelled().await;
        self.core.tasks.failure().unwrap_or_else(|| "stopped".to_owned())
    }

    /// Takes no more connections, ends the streams one after the other, lets answers end, stops everything: within the drain
    /// time and a second.
    pub async fn shutdown(self) {
        // from here on `/readyz` says so, and who waits for changes is answered
        self.draining.cancel();
        // feed and hub go on: whoever is still connected is told what happens
        let leave = self.streams.drain(self.drain.mul_f64(SPREAD));
        let ended = tokio::time::timeout(self.drain, futures_util::future::join(self.server.stop(true), leave)).await;
        if ended.is_err() {
            tracing::warn!(streams = self.streams.count(), "not everybody had left at the end of the drain time");
        }
        let stragglers = self.core.tasks.shutdown(Duration::from_millis(900)).await;
        if !stragglers.is_empty() {
            tracing::warn!(tasks = ?stragglers, "still running at the deadline");
        }
    }
}
