//! A client under observation: every state it held at a tick the oracle knows is compared with the oracle's.

use super::client::{LongPoll, Transport, subscribe};
use super::journal::{Journal, Rows};
use super::oracle::Truth;
use super::replica::tick_of;
use super::{Client, PATIENCE, Replica};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a stream's client looks up from it.
const LOOK: Duration = Duration::from_millis(250);

/// Between the end of the run and the moment a client that heard nothing asks anew where it stands.
const NUDGE: Duration = Duration::from_secs(1);

/// Holds for the client's rows at every resume point.
pub type Invariant = fn(&Replica);

/// How a client behaves.
#[derive(Clone)]
pub struct Manner {
    pub transport: Transport,
    /// Label of the subscription and number of the oracle's view.
    pub views: Vec<(&'static str, usize)>,
    pub query: String,
    /// Leaves and comes back about this often, maybe to another gateway.
    pub roams: Option<Duration>,
    /// Stays with the first gateway, which leads, so that its state is known at every tick.
    pub at_leader: bool,
    pub invariant: Option<Invariant>,
    pub seed: u64,
}

impl Manner {
    fn name(&self) -> String {
        let place = if self.at_leader { "at the leader" } else { "anywhere" };
        let roams = if self.roams.is_some() { "roaming" } else { "staying" };
        format!(
            "{:?} {place}, {roams}: {}",
            self.transport,
            percent_encoding::percent_decode_str(&self.query).decode_utf8_lossy()
        )
    }
}

/// What a client saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub name: String,
    /// States equal to the oracle's.
    pub checked: usize,
    /// Oracle ticks between two states of the client: it never held them.
    pub between: usize,
    pub rows_checked: usize,
    pub reconnects: usize,
    pub changes: usize,
    pub snapshots: usize,
    pub resets: Vec<String>,
}

/// A client in a task of its own.
pub struct Watched {
    truths: mpsc::UnboundedSender<Arc<Truth>>,
    task: JoinHandle<Report>,
}

impl Watched {
    /// Subscribes at one of the gateways, which may move meanwhile, and follows until [`finish`].
    pub fn start(manner: Manner, gateways: watch::Receiver<Vec<SocketAddr>>) -> Watched {
        let (truths, receiver) = mpsc::unbounded_channel();
        Watched { truths, task: tokio::spawn(Witness::run(manner, gateways, receiver)) }
    }

    /// Tells it what the oracle read. False when the client failed: see [`finish`].
    pub fn tell(&self, truth: &Arc<Truth>) -> bool {
        self.truths.send(truth.clone()).is_ok()
    }
}

/// Waits until everything told is compared.
pub async fn finish(clients: Vec<Watched>) -> Vec<Report> {
    // all are told that it ends before the first is waited for
    let tasks: Vec<_> = clients.into_iter().map(|client| client.task).collect();
    let mut reports = Vec::new();
    for task in tasks {
        match task.await {
            Ok(report) => reports.push(report),
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        }
    }
    reports
}

struct Witness {
    manner: Manner,
    gateways: watch::Receiver<Vec<SocketAddr>>,
    client: Box<dyn Client>,
    journal: Journal,
    pending: VecDeque<Arc<Truth>>,
    report: Report,
    rng: StdRng,
    /// The last things told, for the message of a failure.
    trail: VecDeque<String>,
    moves_at: Option<Instant>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: the last it was told:\n{}", self.report.name, self.trail.make_contiguous().join("\n"));
        }
    }
}

impl Witness {
    async fn run(
        manner: Manner,
        gateways: watch::Receiver<Vec<SocketAddr>>,
        mut truths: mpsc::UnboundedReceiver<Arc<Truth>>,
    ) -> Report {
        let mut rng = StdRng::seed_from_u64(manner.seed);
        let at = if manner.at_leader { gateways.borrow()[0] } else { pick(&gateways, &mut rng) };
        let client: Box<dyn Client> = match manner.transport {
            Transport::LongPoll => {
                let mut client = LongPoll::new(at, &manner.query);
                client.wait = 1;
                Box::new(client)
            }
            Transport::Sse | Transport::WebSocket => subscribe(manner.transport, at, &manner.query).await,
        };
        let report = Report { name: manner.name(), ..Report::default() };
        let (journal, pending) = (Journal::new(manner.at_leader), VecDeque::new());
        let mut witness =
            Witness { manner, gateways, client, journal, pending, report, rng, trail: VecDeque::new(), moves_at: None };
        let (mut ended, mut nudge_at): (Option<Instant>, Option<Instant>) = (None, None);
        witness.plan_move();
        while ended.is_none() || !witness.pending.is_empty() {
            loop {
                match truths.try_recv() {
                    Ok(truth) => witness.pending.push_back(truth),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => {
                        if ended.is_none() {
                            ended = Some(Instant::now());
                            // a poll answers by itself
                            nudge_at =
                                (witness.manner.transport != Transport::LongPoll).then(|| Instant::now() + NUDGE);
                            (witness.manner.roams, witness.moves_at) = (None, None);
                        }
                        break;
                    }
                }
            }
            // a poll answers by itself, and is cut only to move; a stream may be silent for long
            let look = (witness.manner.transport != Transport::LongPoll).then(|| Instant::now() + LOOK);
            let soonest = [witness.moves_at, nudge_at, look].into_iter().flatten().min();
            match timeout(soonest, witness.step()).await {
                // a snapshot in parts must not be cut again and again
                Some(Ok(())) => nudge_at = nudge_at.map(|_| Instant::now() + NUDGE),
                // a gateway that goes down says so first; one that is gone takes a moment to come back
                Some(Err(_)) => {
                    tokio::time::sleep(LOOK / 10).await;
                    witness.reconnect().await;
                }
                None if soonest != look => {
                    nudge_at = nudge_at.map(|_| Instant::now() + NUDGE);
                    // whoever waits for the first rows waits
                    if witness.journal.settled.is_some() {
                        witness.reconnect().await;
                    } else {
                        witness.plan_move();
                    }
                }
                None => {}
            }
            witness.compare();
            if ended.is_some_and(|at| at.elapsed() > PATIENCE) {
                panic!(
                    "{}: stands at {:?}, never came to {}",
                    witness.report.name, witness.journal.settled, witness.pending[0].tick
                );
            }
        }
        let replica = witness.client.replica();
        let (changes, snapshots, resets) = (replica.changes, replica.snapshots, replica.resets.clone());
        Report { changes, snapshots, resets, ..std::mem::take(&mut witness.report) }
    }

    fn plan_move(&mut self) {
        self.moves_at = self.manner.roams.map(|every| Instant::now() + every.mul_f64(self.rng.random_range(0.2..1.8)));
    }

    async fn reconnect(&mut self) {
        let to = if self.manner.at_leader { self.gateways.borrow()[0] } else { pick(&self.gateways, &mut self.rng) };
        self.report.reconnects += 1;
        note(&mut self.trail, format!("goes to {to}"));
        self.journal.resume();
        self.client.reconnect(to).await;
        self.plan_move();
    }

    /// May be dropped while it waits: nothing is taken from the connection before it returns.
    async fn step(&mut self) -> Result<(), String> {
        if self.manner.transport == Transport::LongPoll {
            // every poll is a resume
            self.journal.resume();
        }
        let messages = self.client.advance().await?;
        messages.iter().for_each(|message| self.journal.message(message));
        let replica = self.client.replica();
        let told: Vec<String> = messages.iter().map(summary).collect();
        note(
            &mut self.trail,
            format!("{}; stands at {}", told.join(", "), replica.position.as_deref().unwrap_or("nothing")),
        );
        assert!(replica.problems.is_empty(), "{}: {:?}", self.report.name, replica.problems);
        let Some(position) = &replica.position else { return Ok(()) };
        let data = messages.iter().any(|m| matches!(m["type"].as_str(), Some("snapshot" | "changes")));
        let moved = self.journal.settled != Some(tick_of(position));
        if moved || data && replica.is_settled() {
            self.journal.settle(tick_of(position));
            if let Some(invariant) = self.manner.invariant {
                invariant(replica);
            }
        }
        Ok(())
    }

    fn compare(&mut self) {
        while let Some(truth) =
            self.pending.front().filter(|t| self.journal.settled.is_some_and(|settled| settled >= t.tick)).cloned()
        {
            self.pending.pop_front();
            for (sub, view) in &self.manner.views {
                let Some(wanted) = &truth.views[*view] else { continue };
                let Some(held) = self.journal.state_at(sub, truth.tick) else {
                    self.report.between += 1;
                    continue;
                };
                assert!(
                    held == wanted,
                    "{}, `{sub}` at tick {}: {}",
                    self.report.name,
                    truth.position,
                    difference(held, wanted)
                );
                self.report.checked += 1;
                self.report.rows_checked += held.len();
            }
        }
    }
}

async fn timeout<T>(at: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match at {
        Some(at) => tokio::time::timeout_at(at, work).await.ok(),
        None => Some(work.await),
    }
}

fn pick(gateways: &watch::Receiver<Vec<SocketAddr>>, rng: &mut StdRng) -> SocketAddr {
    let gateways = gateways.borrow();
    gateways[rng.random_range(0..gateways.len())]
}

/// How many steps a failure shows.
const TRAIL: usize = 30;

fn note(trail: &mut VecDeque<String>, line: String) {
    trail.push_back(line);
    if trail.len() > TRAIL {
        trail.pop_front();
    }
}

/// `h changes 4711: -3 v7, +8 v12`.
fn summary(message: &Value) -> String {
    let rows = message["changes"].as_array().into_iter().flatten().take(6);
    let rows: Vec<String> =
        rows.map(|r| format!("{} {} v{}", r["op"].as_str().unwrap_or("?"), r["key"], r["version"])).collect();
    let text = |name: &str| message[name].as_str().unwrap_or_default();
    let more = if message["more"] == true { "more " } else { "" };
    format!("{} {} {more}{}{}: {}", text("sub"), text("type"), text("position"), text("reason"), rows.join(" "))
}

/// The first few keys that differ.
fn difference(held: &Rows, wanted: &Rows) -> String {
    let keys: std::collections::BTreeSet<&String> = held.keys().chain(wanted.keys()).collect();
    let wrong: Vec<String> = keys
        .into_iter()
        .filter(|key| held.get(*key) != wanted.get(*key))
        .map(|key| format!("key {key}: holds {:?}, the table has {:?}", held.get(key), wanted.get(key)))
        .collect();
    format!("{} of {} keys wrong:\n{}", wrong.len(), wanted.len(), wrong[..wrong.len().min(5)].join("\n"))
}
