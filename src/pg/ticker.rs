//! Makes ticks (one leader) or follows them (everybody else), and feeds the hub.
//!
//! Must not know: subscribers. Invariants: only the ticker moves the live position; a tick is published only after
//! it is durable; everybody, the leader too, reads a batch through the same range read.
//!
//! Leadership is a session advisory lock: it ends with the session, however the session ends. That two leaders at
//! once do no harm rests on `prev_id` being unique, not on the lock.

use super::chores::{FORGET, forget, rotate};
use super::heard::Heard;
use super::log::{Range, Read, read_range, tick_from};
use super::statements::Statements;
use super::{Backoff, PgError, Role, Status, catalog, connect, migrate, queries};
use crate::cache::History;
use crate::change::{Reload, TableBatch, Tick};
use crate::hub::Hub;
use crate::pg::doorbell::{Bell, TICK};
use crate::tasks::Tasks;
use deadpool_postgres::Pool;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config};

/// How long writers stay mute after a tick without another. Three times [`LINGER`], so that the lease does not lapse
/// between; short, because a killed leader leaves them mute for so long.
const LEASE: Duration = Duration::from_millis(300);

/// Polling goes on for so long after changes came thick before the bell is armed again: arming costs a transaction id.
const LINGER: Duration = Duration::from_millis(100);

/// Commits come thick when so much of the time would go by with the lock held that a NOTIFY holds through its flush, one for
/// the whole cluster. Below, every commit rings: that wakes us sooner than a poll every few milliseconds finds it (p50 0.9 ms
/// against 3.5 ms at 25 commits/s) and costs less. With a flush of 5 ms that is up to 50 commits/s.
const HELD: f64 = 0.25;

/// However short the flush: so many commits within [`LINGER`] are thick. At 200/s a poll finds one each time.
///
/// Commits and not ticks: with slow flushes the ticks of a busy database are few (measured: with ticks counted, 8
/// writers and a 5 ms flush stayed at 0.11 of the unwatched rate, because they rang for ever).
const THICK: u64 = 20;

/// A transaction that read "quiet" may stay open for hours: then it is waited for at this pace.
const ARMING_MAX: Duration = Duration::from_millis(250);

/// A follower that sees changes pending and no tick for so long ends the leader's session.
const LEADER_STUCK: Duration = Duration::from_secs(2);

/// A session that got no answer for so long is given up: a peer that acknowledges bytes and never answers (a stopped
/// server, a proxy gone wrong) looks alive to TCP. Every row counts as an answer, so a long batch is none of these.
const SILENT: Duration = Duration::from_secs(30);

/// How often the catalog is compared, for changes of tables that fire no trigger.
const CATALOG_EVERY: Duration = Duration::from_secs(3);

/// How often the leader tries to rotate the log.
const ROTATE_EVERY: Duration = Duration::from_secs(10);

/// Settings of the ticker.
#[derive(Clone, Debug)]
pub struct TickerOptions {
    /// Between two ticks under load.
    pub tick_interval: Duration,
    /// A look at the log although nothing rang: the staleness when every bell is lost.
    pub safety_poll: Duration,
    /// How long the log is kept.
    pub retention: Duration,
    /// Bytes of images one batch keeps in memory.
    pub batch_bytes: usize,
}

/// See the module.
pub struct Ticker {
    /// The direct connection: leadership belongs to a session.
    pub config: Config,
    /// For what may take long: rotation.
    pub pool: Pool,
    /// Wake-ups.
    pub bell: Arc<Bell>,
    /// Who is fed.
    pub hub: Arc<Hub>,
    /// Who is fed first: whoever looks at the head finds in it everything up to there.
    pub history: Arc<History>,
    /// Where readiness is told.
    pub status: Arc<Status>,
    /// Where connections are driven.
    pub tasks: Tasks,
    /// Settings.
    pub options: TickerOptions,
}

impl Ticker {
    /// Runs until the schema is found to be one this program cannot serve; returns why.
    pub async fn run(self) -> String {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.session(&mut backoff).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            if self.tasks.stopping().is_cancelled() {
                // our own shutdown closed the connection; this task is about to be ended too
                std::future::pending::<()>().await;
            }
            self.status.lost(&error.to_string());
            if matches!(
                error,
                PgError::Unsupported(_) | PgError::NotInstalled(_) | PgError::Behind(_) | PgError::Newer(_)
            ) {
                return error.to_string();
            }
            tracing::warn!(%error, "lost the database, trying again");
            backoff.wait().await;
        }
    }

    async fn session(&self, backoff: &mut Backoff) -> Result<std::convert::Infallible, PgError> {
        let client = connect(&self.config, &self.tasks, "ticker connection").await?;
        let heard = Heard::default();
        let limit = SILENT.max(self.options.safety_poll * 2);
        tokio::select! {
            ended = self.live(client, &heard, backoff) => ended,
            () = heard.silence(limit) => Err(PgError::Unreachable(format!("no answer for {} s", limit.as_secs()))),
        }
    }

    /// One connection's life.
    async fn live(
        &self,
        client: Client,
        heard: &Heard,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, PgError> {
        migrate::check(&client).await?;
        migrate::check_origin(&client).await?;
        let statements = Statements::prepare(&client).await?;
        let mut session = Session {
            ticker: self,
            client,
            statements,
            heard,
            catalog_at: None,
            rotated_at: Instant::now(),
            flush: Duration::ZERO,
        };
        session.catalog(true).await?;
        session.take_position().await?;
        self.hub.confirm();
        backoff.reset();
        session.serve().await
    }
}

/// One connection's life.
struct Session<'a> {
    ticker: &'a Ticker,
    client: Client,
    statements: Statements,
    heard: &'a Heard,
    catalog_at: Option<Instant>,
    rotated_at: Instant,
    /// How long the last tick took to be durable.
    flush: Duration,
}

impl Session<'_> {
    /// Leads or follows for ever.
    async fn serve(&mut self) -> Result<std::convert::Infallible, PgError> {
        loop {
            if self.try_lead().await? {
                tracing::info!("leading: this gateway makes the ticks");
                self.ticker.status.connected(Role::Leader);
                self.lead().await?;
            } else {
                tracing::info!("following: another gateway makes the ticks");
                self.ticker.status.connected(Role::Follower);
                self.follow().await?;
            }
        }
    }

    /// Continues from the hub's position if the database still knows it, otherwise begins at the newest tick.
    async fn take_position(&mut self) -> Result<(), PgError> {
        let last = self.last_tick().await?;
        if self.ticker.hub.position().is_none() {
            self.begin(last);
            return Ok(());
        }
        // behind: catches up; another history: begins again. Both are found out by the range read.
        self.advance(last).await
    }

    fn begin(&self, tick: Tick) {
        self.ticker.history.begin(&tick);
        self.ticker.hub.begin(tick);
    }

    async fn last_tick(&self) -> Result<Tick, PgError> {
        let rows = self.client.query(&self.statements.last_tick, &[]).await?;
        self.heard.note();
        let row = rows
            .first()
            .ok_or_else(|| PgError::Unexpected("no tick: the migrations did not run to their end".to_owned()))?;
        tick_from(row)
    }

    /// Reads and publishes everything from the hub's position to `tick`.
    async fn advance(&mut self, tick: Tick) -> Result<(), PgError> {
        let hub = &self.ticker.hub;
        let head = hub.head().borrow().clone();
        let Some(Tick { position: from, snap, .. }) = head else {
            self.begin(tick);
            return Ok(());
        };
        if from == tick.position {
            return Ok(());
        }
        if tick.position.tick <= from.tick {
            tracing::warn!(ours = %from, theirs = %tick.position, "the database has another history, every subscriber is reset");
            self.begin(tick);
            return Ok(());
        }
        let budget = self.ticker.options.batch_bytes;
        let prepared = Some(&self.statements);
        let range = {
            let read = Read { tables: &hub.tables(), from, known: Some(&snap), to: &tick, budget };
            read_range(&mut self.client, prepared, &read, self.heard).await?
        };
        let batch = match range {
            Range::Batch(batch) => Arc::new(batch),
            Range::Unknown => {
                tracing::warn!(ours = %from, "our position is not in the log any more, every subscriber is reset");
                self.begin(tick);
                return Ok(());
            }
        };
        for bad in &batch.bad_rows {
            tracing::error!(row = bad, "a log row could not be read, its table's subscribers are reset");
        }
        let known = hub.tables();
        let asks = |(relid, part): (&u32, &TableBatch)| {
            known.get(*relid).is_none() || *part == TableBatch::Reload(Reload::Requested)
        };
        if batch.tables.iter().any(asks) {
            // a table was watched, unwatched or changed: the hub must know before it is told what follows
            self.catalog(true).await?;
        }
        self.ticker.history.feed(&batch);
        let fits = hub.apply(&batch);
        hub.confirm();
        if !fits {
            self.catalog(true).await?;
        }
        Ok(())
    }

    async fn catalog(&mut self, now: bool) -> Result<(), PgError> {
        if now || self.catalog_at.is_none_or(|at| at.elapsed() >= CATALOG_EVERY) {
            let mut tables = catalog::load(&self.client).await?;
            if tables.changed_from(&self.ticker.hub.tables()) {
                // a column of another type may need other settings pinned while its table is captured
                self.client.batch_execute(queries::REFRESH).await?;
                tables = catalog::load(&self.client).await?;
            }
            self.ticker.hub.set_tables(tables);
            self.catalog_at = Some(Instant::now());
        }
        Ok(())
    }

    async fn try_lead(&self) -> Result<bool, PgError> {
        let rows =
            self.client.query_typed("select pg_catalog.pg_try_advisory_lock(rowcast.leader_lock())", &[]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Makes a tick if anything is pending; publishes it. True when there was one. Writers are mute for `lease` after
    /// it; zero: they ring, whatever lease somebody left.
    async fn step(&mut self, lease: Duration) -> Result<bool, PgError> {
        let position = self.ticker.hub.position().map_or(0, |p| p.tick);
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        let began = Instant::now();
        let made = self.client.query(&self.statements.tick, &[&position, &lease]).await;
        let took = began.elapsed();
        let rows = match made {
            // another leader was faster: its tick is the newest now
            Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                self.client.query(&self.statements.last_tick, &[]).await?
            }
            other => other?,
        };
        self.heard.note();
        let row = rows.first().ok_or_else(|| PgError::Unexpected("no tick: the log was emptied".to_owned()))?;
        let tick = tick_from(row)?;
        let news = self.ticker.hub.position() != Some(tick.position);
        if news {
            // one that made a tick was flushed; a writer's commit takes no longer
            self.flush = took;
        }
        self.advance(tick).await?;
        // it was the newest tick, and nothing lay after it or it is there for what did
        self.ticker.hub.confirm();
        if news {
            // After the commit and by itself: with a NOTIFY inside, the tick's flush would hold the cluster-wide lock.
            // Its own transaction has nothing worth a flush (the tick is durable), which would hold that lock too.
            self.client.batch_execute(&format!("set local synchronous_commit = off; notify {TICK}")).await?;
        }
        Ok(news)
    }

    async fn chores(&mut self) -> Result<(), PgError> {
        self.catalog(false).await?;
        if self.ticker.status.role() == Role::Leader && self.rotated_at.elapsed() >= ROTATE_EVERY {
            self.rotated_at = Instant::now();
            let (pool, retention) = (self.ticker.pool.clone(), self.ticker.options.retention);
            self.ticker.tasks.spawn("log rotation", async move {
                if let Err(error) = rotate(&pool, retention).await {
                    tracing::warn!(%error, "the log could not be rotated, it will be tried again");
                }
                for what in FORGET {
                    if let Err(error) = forget(&pool, what).await {
                        tracing::warn!(%error, what, "what is old could not be forgotten, it will be tried again");
                    }
                }
            });
        }
        Ok(())
    }

    /// Leads for ever.
    async fn lead(&mut self) -> Result<(), PgError> {
        let bell = self.ticker.bell.clone();
        let options = &self.ticker.options;
        let (interval, safety) = (options.tick_interval, options.safety_poll);
        let mut pulse = Pulse::default();
        loop {
            // Polling: changes keep coming and the writers are mute.
            let mut thick = Instant::now();
            while thick.elapsed() < LINGER {
                let began = Instant::now();
                let xids = self.next_xid();
                // transactions of anybody since the last tick, but our own two
                if self.step(LEASE).await? && pulse.beat(self.next_xid().saturating_sub(xids + 2), self.flush) {
                    thick = Instant::now();
                }
                self.chores().await?;
                tokio::time::sleep_until(began + interval).await;
            }
            // Arming: from the disarming on writers ring, but those who looked before do not; they have an older
            // transaction id, and the bell can be trusted when none of them runs any more.
            bell.take();
            let rows = self.client.query(&self.statements.disarm, &[]).await?;
            let horizon: i64 =
                rows.first().ok_or_else(|| PgError::Unexpected("no transaction id".to_owned()))?.try_get(0)?;
            let mut pace = interval;
            let mut asleep = false;
            let mut rings = bell.rings();
            loop {
                let armed = asleep || self.armed(horizon).await?;
                if self.step(Duration::ZERO).await? {
                    let heard = std::mem::replace(&mut rings, bell.rings());
                    if pulse.beat(rings - heard, self.flush) {
                        break;
                    }
                    // nobody was muted by this tick: the bell stays as good as it was
                    pace = interval;
                } else {
                    asleep = armed;
                }
                self.chores().await?;
                let wait = if asleep { safety } else { pace.min(safety) };
                pace = (pace * 2).min(ARMING_MAX);
                let _ = tokio::time::timeout(wait, bell.rung()).await;
            }
        }
    }

    /// The transaction id from which on nothing is in the newest tick.
    fn next_xid(&self) -> u64 {
        self.ticker.hub.head().borrow().as_ref().map_or(0, |tick| tick.snap.xmax())
    }

    async fn armed(&self, horizon: i64) -> Result<bool, PgError> {
        let rows = self.client.query(&self.statements.armed, &[&horizon]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Follows until the leader is gone.
    async fn follow(&mut self) -> Result<(), PgError> {
        let bell = self.ticker.bell.clone();
        let safety = self.ticker.options.safety_poll;
        // pending since when, at which tick
        let mut waiting: Option<(Instant, i64)> = None;
        let mut look_at = Instant::now() + safety;
        loop {
            let rung = tokio::time::timeout_at(look_at, bell.rung()).await;
            let last = self.last_tick().await?;
            let newest = last.position.tick;
            self.advance(last).await?;
            // a writer rang: a live leader answers with a tick at once
            if rung.is_ok_and(|rung| rung.data && !rung.tick) {
                look_at = look_at.min(Instant::now() + LINGER);
            }
            // by the clock and not by the silence of the bell, which may never come
            if Instant::now() < look_at {
                continue;
            }
            look_at = Instant::now() + safety;
            if self.try_lead().await? {
                return Ok(());
            }
            self.chores().await?;
            waiting = match (self.pending().await?, waiting) {
                (false, _) => {
                    self.ticker.hub.confirm();
                    None
                }
                (true, Some((since, tick))) if tick == newest => Some((since, tick)),
                (true, _) => Some((Instant::now(), newest)),
            };
            if waiting.is_some_and(|(since, _)| since.elapsed() >= LEADER_STUCK) {
                tracing::warn!("the leader makes no ticks although changes are pending, ending its session");
                self.end_leader().await?;
                waiting = None;
                look_at = Instant::now() + LINGER;
            }
        }
    }

    async fn pending(&self) -> Result<bool, PgError> {
        // the snapshot of a tick that was published here: what comes after it is pending
        let snap = self.ticker.hub.head().borrow().as_ref().map(|head| head.snap.to_string());
        let Some(snap) = snap else { return Ok(false) };
        let rows = self.client.query(&self.statements.pending, &[&snap]).await?;
        Ok(rows.first().is_some_and(|row| row.get("pending")))
    }

    async fn end_leader(&self) -> Result<(), PgError> {
        for leader in self.client.query_typed(queries::LEADER, &[]).await? {
            let pid: i32 = leader.try_get("pid")?;
            self.client.query_typed("select pg_catalog.pg_terminate_backend($1)", &[(&pid, Type::INT4)]).await?;
        }
        Ok(())
    }
}

/// When the last commits were, as far as ticks tell.
#[derive(Debug, Default)]
struct Pulse {
    /// When, and how many.
    beats: VecDeque<(Instant, u64)>,
}

impl Pulse {
    /// Notes a tick with about so many commits in it, each of which was flushed for so long. Do they come thick?
    fn beat(&mut self, commits: u64, flush: Duration) -> bool {
        let now = Instant::now();
        self.beats.push_back((now, commits.max(1)));
        while self.beats.front().is_some_and(|(at, _)| now - *at > LINGER) {
            self.beats.pop_front();
        }
        let commits: u64 = self.beats.iter().map(|(_, commits)| commits).sum();
        commits >= THICK || flush.saturating_mul(u32::try_from(commits).unwrap_or(u32::MAX)) >= LINGER.mul_f64(HELD)
    }
}
