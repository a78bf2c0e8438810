//! One of those that are compared: a server, its subscribers, and what makes it send.
//!
//! Invariants: a side's subscribers follow nothing that another side is told; a block is over when every subscriber has every
//! change, once.

use super::gateway::Gateway;
use super::part::{Part, micros};
use super::server::Server;
use super::transport::Transport;
use super::writer::{FIRST, Writer};
use super::{Outcome, control, cpu, crowd, sender, ws};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What makes it send.
enum Source {
    /// A bare server that is told what to send: so many changes in one write.
    Itself { together: i64 },
    /// Changes of a table.
    Table(Writer),
}

/// A server, for as long as it is to run.
enum Sender {
    /// Shared by all its sides.
    Gateway,
    Bare(Part),
    Control(control::Control),
}

/// See the module.
pub(crate) struct Side {
    pub(crate) name: String,
    crowd: Part,
    size: u32,
    pids: Vec<u32>,
    sender: Sender,
    source: Source,
}

/// What a block of a side took.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// Processor time of the sending processes, in seconds.
    pub(crate) cpu: f64,
    /// Of the sessions of the database, the writer, and the subscribers.
    pub(crate) others: [f64; 3],
    /// From the first change to the last delivery.
    pub(crate) seconds: f64,
    pub(crate) deliveries: f64,
    pub(crate) bytes: f64,
    /// Milliseconds from commit to subscriber: half, 90 and 99 in 100, and all are faster.
    pub(crate) late: [f64; 4],
    /// Commits a second that the writer made.
    pub(crate) rate: f64,
}

impl Block {
    /// Microseconds of processor time of the sender for one delivery.
    pub(crate) fn each(&self) -> f64 {
        self.cpu * 1e6 / self.deliveries
    }

    /// Millions of deliveries a second.
    pub(crate) fn million(&self) -> f64 {
        self.deliveries / self.seconds / 1e6
    }
}

fn crowd_of(count: u32, at: &str, transport: Transport, table: Option<&str>) -> Outcome<Part> {
    let mut part = Part::start(crowd::ROLE)?;
    part.ask(&json!({ "do": "open", "at": at, "transport": transport, "table": table, "count": count }))?;
    Ok(part)
}

/// The JSON of one change (for SSE: its event) as the gateway tells it, with `@` where its number stands. The first changes of
/// a table may be told as a snapshot: it is changed until one is told as such.
pub(crate) async fn wording(at: SocketAddr, transport: Transport, table: &str, writer: &Writer) -> Outcome<String> {
    let mut socket = TcpStream::connect(at).await?;
    transport.subscribe(&mut socket, table, Some("now")).await?;
    let (mut n, mut held) = (writer.n, Vec::new());
    for _ in 0..1000 {
        match tokio::time::timeout(Duration::from_secs(1), socket.read_buf(&mut held)).await {
            Ok(read) => _ = read?,
            Err(_) => {
                n -= 1;
                writer.probe(n).await?;
            }
        }
        let found = match transport {
            Transport::Sse => {
                let text = std::str::from_utf8(&held)?;
                text.split_inclusive("\n\n").find(|event| event.contains("\"type\":\"changes\"")).map(str::to_owned)
            }
            Transport::Ws => {
                let mut found = None;
                while let Some((frame, length)) = ws::next(&held)? {
                    if let ws::Frame::Text(text) = frame {
                        let text = std::str::from_utf8(text)?;
                        found = found.or(text.contains("\"type\":\"changes\"").then(|| text.to_owned()));
                    }
                    held.drain(..length);
                }
                found
            }
        };
        if let Some(event) = found.filter(|event| transport == Transport::Ws || event.ends_with("\n\n")) {
            let marked = event.replace(&format!("\"n\":{n},"), "\"n\":@,");
            return if marked == event { Err(format!("no number {n} in {event}").into()) } else { Ok(marked) };
        }
    }
    Err("no change came".into())
}

impl Side {
    /// The gateway, with the subscribers of one table.
    pub(crate) fn gateway(
        gateway: &Gateway,
        transport: Transport,
        writer: Writer,
        table: &str,
        count: u32,
    ) -> Outcome<Side> {
        Ok(Side {
            name: format!("rowcast, {transport}"),
            crowd: crowd_of(count, &gateway.address.to_string(), transport, Some(table))?,
            size: count,
            pids: vec![gateway.pid()],
            sender: Sender::Gateway,
            source: Source::Table(writer),
        })
    }

    /// A bare server that sends so many changes in one write, at a pace of its own.
    pub(crate) fn bare(transport: Transport, frame: &str, together: i64, count: u32) -> Outcome<Side> {
        let name = format!("floor, {transport}, {together} a write");
        Side::floor(name, transport, frame, None, Source::Itself { together }, count)
    }

    /// A bare server that hears of a table's changes in a session that listens.
    pub(crate) fn listening(transport: Transport, frame: &str, url: &str, writer: Writer, count: u32) -> Outcome<Side> {
        let name = format!("floor, {transport}, listening");
        Side::floor(name, transport, frame, Some(url), Source::Table(writer), count)
    }

    fn floor(
        name: String,
        transport: Transport,
        frame: &str,
        listen: Option<&str>,
        source: Source,
        size: u32,
    ) -> Outcome<Side> {
        let mut part = Part::start(sender::ROLE)?;
        let told = part.ask(&json!({ "do": "be", "transport": transport, "frame": frame, "listen": listen }))?;
        let crowd = crowd_of(size, told["at"].as_str().unwrap_or_default(), transport, None)?;
        Ok(Side { name, crowd, size, pids: vec![part.pid()], sender: Sender::Bare(part), source })
    }

    /// Node with `pg` and `ws`, in so many processes.
    pub(crate) fn control(processes: u32, url: &str, writer: Writer, count: u32) -> Outcome<Side> {
        let control = control::Control::start(url, processes)?;
        Ok(Side {
            name: format!("control, ws in {processes} process{}", if processes == 1 { "" } else { "es" }),
            crowd: crowd_of(count, &control.address.to_string(), Transport::Ws, None)?,
            size: count,
            pids: control.pids.clone(),
            sender: Sender::Control(control),
            source: Source::Table(writer),
        })
    }

    /// Is it the gateway?
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.sender, Sender::Gateway)
    }

    /// Is it the control?
    pub(crate) fn is_control(&self) -> bool {
        matches!(self.sender, Sender::Control(_))
    }

    fn spent(&self) -> u64 {
        self.pids.iter().map(|pid| cpu::nanos(*pid)).sum()
    }

    /// Commits, or writes of the bare server, at a pace.
    pub(crate) async fn paced(&mut self, server: &Server, changes: i64, rate: u32) -> Outcome<Block> {
        let clock = self.begin(server, matches!(self.source, Source::Table(_)))?;
        let commits = match &mut self.source {
            Source::Itself { together } => {
                let order = json!({ "do": "send", "base": FIRST, "changes": changes, "together": together,
                    "pause_us": 1_000_000 / i64::from(rate) });
                let Sender::Bare(part) = &mut self.sender else {
                    return Err("only the bare server sends by itself".into());
                };
                part.ask(&order)?;
                Vec::new()
            }
            Source::Table(writer) => writer.paced(changes, rate).await?,
        };
        let mut block = self.end(server, &clock, changes)?;
        if let (Some((_, first)), Some((_, last))) = (commits.first(), commits.last()) {
            #[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
            let seconds = (last - first).max(1) as f64 / 1e6;
            block.rate = (commits.len() - 1) as f64 / seconds;
            let times = self.crowd.ask(&json!({ "do": "times", "commits": commits }))?;
            block.late = ["p50", "p90", "p99", "max"].map(|name| float(&times[name]));
        }
        Ok(block)
    }

    /// As fast as it goes, with at most so many changes that the subscribers have not got yet. The bare server waits for each
    /// write by itself, and leaves 5 ms between those of many changes.
    pub(crate) async fn flat_out(
        &mut self,
        server: &Server,
        changes: i64,
        together: i64,
        window: i64,
    ) -> Outcome<Block> {
        let clock = self.begin(server, false)?;
        match &mut self.source {
            Source::Itself { together } => {
                let pause = if *together > 1 { 5000 } else { 0 };
                let order =
                    json!({ "do": "send", "base": FIRST, "changes": changes, "together": together, "pause_us": pause });
                let Sender::Bare(part) = &mut self.sender else {
                    return Err("only the bare server sends by itself".into());
                };
                part.ask(&order)?;
            }
            Source::Table(writer) => {
                let crowd = &mut self.crowd;
                let reached = |told| crowd.ask(&json!({ "do": "reach", "changes": told })).map(drop);
                writer.flat_out(changes, together, window, reached).await?;
            }
        }
        self.end(server, &clock, changes)
    }

    fn begin(&mut self, server: &Server, timed: bool) -> Outcome<Clock> {
        let base = match &self.source {
            Source::Itself { .. } => FIRST,
            Source::Table(writer) => writer.n,
        };
        self.crowd.ask(&json!({ "do": "begin", "base": base, "timed": timed }))?;
        Ok(Clock { began: micros(), sender: self.spent(), others: self.others(server)? })
    }

    /// Of the sessions of the database, the writer, and the subscribers, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run")]
    fn others(&self, server: &Server) -> Outcome<[f64; 3]> {
        let of = |pid| cpu::nanos(pid) as f64 / 1e9;
        Ok([cpu::server_seconds(server.pid)?, of(std::process::id()), of(self.crowd.pid())])
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds and microseconds of a run")]
    fn end(&mut self, server: &Server, clock: &Clock, changes: i64) -> Outcome<Block> {
        let waited = self.crowd.ask(&json!({ "do": "wait", "changes": changes }));
        let answer = waited.map_err(|error| format!("{}: {error}", self.name))?;
        let mut others = self.others(server)?;
        for (now, before) in others.iter_mut().zip(clock.others) {
            *now -= before;
        }
        let deliveries = float(&answer["deliveries"]);
        let wanted = changes as f64 * f64::from(self.size);
        if deliveries != wanted {
            return Err(format!("{}: {deliveries} deliveries instead of {wanted}", self.name).into());
        }
        Ok(Block {
            cpu: self.spent().saturating_sub(clock.sender) as f64 / 1e9,
            others,
            seconds: (answer["at"].as_i64().unwrap_or_default() - clock.began) as f64 / 1e6,
            deliveries,
            bytes: float(&answer["bytes"]),
            late: [f64::NAN; 4],
            rate: f64::NAN,
        })
    }
}

struct Clock {
    began: i64,
    sender: u64,
    others: [f64; 3],
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
