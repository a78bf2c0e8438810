//! One change to many subscribers: what a delivery costs, how many a second there can be, how late they are.
//!
//! See README.md. Invariant: floor, control and gateway send to as many subscribers in the same run, in turn, and every
//! subscriber's changes are counted and summed.

#[path = "support/mod.rs"]
mod support;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use support::gateway::Gateway;
use support::members::raise_files;
use support::report::{Spread, table, verdict};
use support::server::{Flush, Server};
use support::side::{Block, Side, wording};
use support::transport::Transport;
use support::writer::{self, Writer};
use support::{Outcome, crowd, sender};

/// Fan-out of one shape, beside a bare tokio server that writes the same frames to as many sockets.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench fan_out --")]
struct Args {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "cost,saturation,latency")]
    parts: Vec<Measured>,
    /// Ways to be told
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sse,ws")]
    transport: Vec<Transport>,
    /// Beside a Node server with a LISTEN session, `ws` and a buffer of 5 ms; needs Node and npm
    #[arg(long)]
    control: bool,
    /// Processes of the control that share its subscribers; one control for each number
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    control_processes: Vec<u32>,
    /// Subscribers of one shape for the cost
    #[arg(long, value_delimiter = ',', default_value = "100,1000,5000")]
    subscribers: Vec<u32>,
    /// Updates a second for the cost of a delivery
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds of a block
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Blocks of each side, in turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Subscribers for the control, for saturation and for latency under load
    #[arg(long, default_value_t = 1000)]
    crowd: u32,
    /// Changes of a saturation block
    #[arg(long, default_value_t = 20_000)]
    burst: i64,
    /// Changes of a commit in it
    #[arg(long, default_value_t = 100)]
    together: i64,
    /// Changes that the subscribers may be behind in it
    #[arg(long, default_value_t = 2000)]
    window: i64,
    /// Commits a second for the latency
    #[arg(long, default_value_t = 500)]
    load: u32,
    /// The gateway to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_rowcast"))]
    gateway: PathBuf,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measured {
    /// Processor time per delivery
    Cost,
    /// Deliveries a second
    Saturation,
    /// From commit to subscriber under load
    Latency,
}

/// What all parts use.
struct Bench {
    args: Args,
    /// Ended before the database is.
    gateway: Gateway,
    server: Server,
    /// How a change is told, by transport.
    wordings: Vec<(Transport, String)>,
    /// Databases of those that listen, so that none wakes another.
    databases: std::cell::Cell<u32>,
}

/// How many times as good as the control a lead is, in each of as many rounds: the same program moved by up to that from run to run.
const LEAD: f64 = 1.5;
const LEAD_ROUNDS: usize = 3;

/// The blocks of a side.
type Blocks = Vec<Block>;

fn table_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Sse => "item_s",
        Transport::Ws => "item_w",
    }
}

impl Bench {
    async fn new(args: Args) -> Outcome<Bench> {
        let server = Server::start(Flush::Free).await?;
        let sql = server.database("bench", true).await?;
        for transport in [Transport::Sse, Transport::Ws] {
            let name = table_of(transport);
            writer::create(&sql, name).await?;
            sql.execute(&format!("select rowcast.watch('{name}', public => true, snapshot_every => '0')"), &[]).await?;
        }
        let gateway = Gateway::start(&args.gateway, &server.pg.url("bench"), &[("ROWCAST_WORKERS", "2")])?;
        gateway.ready().await?;
        let mut wordings = Vec::new();
        for &transport in &args.transport {
            let writer = Writer::new(&server, "bench", table_of(transport)).await?;
            let frame = wording(gateway.address, transport, table_of(transport), &writer).await?;
            anstream::println!("one change, {transport}: {} bytes", frame.len() + 8);
            wordings.push((transport, frame));
        }
        Ok(Bench { args, gateway, server, wordings, databases: 0.into() })
    }

    async fn ours(&self, transport: Transport, count: u32) -> Outcome<Side> {
        let table = table_of(transport);
        let mut writer = Writer::new(&self.server, "bench", table).await?;
        // beyond whatever an earlier part counted
        writer.n += 10_000_000 * i64::from(self.databases.replace(self.databases.get() + 1) + 1);
        Side::gateway(&self.gateway, transport, writer, table, count)
    }

    /// A writer of a database of its own, and its address.
    async fn classic(&self) -> Outcome<(Writer, String)> {
        let number = self.databases.replace(self.databases.get() + 1);
        let name = format!("classic_{number}");
        writer::classic(&self.server, &name).await?;
        Ok((Writer::new(&self.server, &name, "item").await?, self.server.pg.url(&name)))
    }

    async fn listening(&self, transport: Transport, frame: &str) -> Outcome<Side> {
        let (writer, url) = self.classic().await?;
        Side::listening(transport, frame, &url, writer, self.args.crowd)
    }

    async fn controls(&self) -> Outcome<Vec<Side>> {
        let mut sides = Vec::new();
        for &processes in self.args.control_processes.iter().filter(|_| self.args.control) {
            let (writer, url) = self.classic().await?;
            sides.push(Side::control(processes, &url, writer, self.args.crowd)?);
        }
        Ok(sides)
    }

    /// Rounds of paced blocks.
    async fn paced(&self, sides: &mut [Side], rate: u32) -> Outcome<Vec<Blocks>> {
        let changes = i64::from(rate * self.args.seconds);
        let mut found = vec![Blocks::new(); sides.len()];
        for _ in 0..self.args.rounds {
            for (side, blocks) in sides.iter_mut().zip(&mut found) {
                blocks.push(side.paced(&self.server, changes, rate).await?);
            }
        }
        Ok(found)
    }

    /// Floor and gateway, and beside them the control.
    async fn cost(&self) -> Outcome {
        let args = &self.args;
        let mut rows = Vec::new();
        for &count in &args.subscribers {
            // one transport after the other: the gateway has two open files for each stream
            for (transport, frame) in &self.wordings {
                let mut sides = [Side::bare(*transport, frame, 1, count)?, self.ours(*transport, count).await?];
                let found = self.paced(&mut sides, args.rate).await?;
                let [floor, ours] = &found[..] else { continue };
                let ratio = ratio(ours, floor, Block::each);
                let mut row = vec![count.to_string(), transport.to_string(), us(ours, 2), us(floor, 2), ratio.show(2)];
                row.extend([bytes(ours), bytes(floor), Spread::of(ours.iter().map(|block| block.late[2])).show(1)]);
                rows.push(row);
                let target = format!("P3 {transport}, {count} subscribers: CPU per delivery <= 1.5x the floor");
                verdict(&target, ratio.median <= 1.5, &ratio.show(2));
            }
        }
        anstream::println!("\n## {} updates/s, us of processor time per delivery", args.rate);
        let heads =
            ["subscribers", "transport", "rowcast", "floor", "ratio", "bytes each", "floor's", "p99 ms from commit"];
        table(&heads, &rows);
        if args.control {
            let mut sides = Vec::new();
            for (transport, _) in &self.wordings {
                sides.push(self.ours(*transport, args.crowd).await?);
            }
            sides.extend(self.controls().await?);
            let found = self.paced(&mut sides, args.rate).await?;
            anstream::println!("## {} updates/s to {} subscribers, ms from commit", args.rate, args.crowd);
            lateness(&sides, &found);
            beside(&sides, &found, "us per delivery", |block| 1.0 / block.each());
            beside(&sides, &found, "p50", |block| 1.0 / block.late[0]);
            beside(&sides, &found, "p99", |block| 1.0 / block.late[2]);
        }
        Ok(())
    }

    async fn saturation(&self) -> Outcome {
        let args = &self.args;
        let mut sides = Vec::new();
        for (transport, frame) in &self.wordings {
            sides.push(self.ours(*transport, args.crowd).await?);
            sides.push(Side::bare(*transport, frame, args.together.max(2), args.crowd)?);
            sides.push(Side::bare(*transport, frame, 1, args.crowd)?);
        }
        sides.extend(self.controls().await?);
        let mut found = vec![Blocks::new(); sides.len()];
        for _ in 0..args.rounds {
            for (side, blocks) in sides.iter_mut().zip(&mut found) {
                let single = side.name.ends_with(", 1 a write");
                let changes = if single { args.burst / 10 } else { args.burst };
                blocks.push(side.flat_out(&self.server, changes.max(1), args.together, args.window).await?);
            }
        }
        anstream::println!(
            "## saturation, {} subscribers, {} changes a block, {} a commit, all counted",
            args.crowd,
            args.burst,
            args.together
        );
        let rows: Vec<Vec<String>> = sides
            .iter()
            .zip(&found)
            .map(|(side, blocks)| {
                let [server, writer, crowd] = [0, 1, 2].map(|i| share(blocks, |block| block.others[i]));
                let rate = Spread::of(blocks.iter().map(Block::million)).show(2);
                let own = share(blocks, |block| block.cpu);
                vec![side.name.clone(), rate, us(blocks, 3), bytes(blocks), own, server, writer, crowd]
            })
            .collect();
        table(
            &[
                "",
                "million deliveries/s",
                "us per delivery",
                "bytes each",
                "cores: sender",
                "database",
                "writer",
                "crowd",
            ],
            &rows,
        );
        for (side, blocks) in sides.iter().zip(&found).filter(|(side, _)| side.is_ours()) {
            let rate = Spread::of(blocks.iter().map(Block::million));
            verdict(&format!("P3 {}: >= 1.6 million deliveries/s", side.name), rate.median >= 1.6, &rate.show(2));
        }
        beside(&sides, &found, "deliveries/s", Block::million);
        beside(&sides, &found, "us per delivery", |block| 1.0 / block.each());
        Ok(())
    }

    async fn latency(&self) -> Outcome {
        let args = &self.args;
        let mut sides = Vec::new();
        for (transport, frame) in &self.wordings {
            sides.push(self.ours(*transport, args.crowd).await?);
            sides.push(self.listening(*transport, frame).await?);
        }
        sides.extend(self.controls().await?);
        let found = self.paced(&mut sides, args.load).await?;
        anstream::println!("\n## {} commits/s to {} subscribers, ms from commit", args.load, args.crowd);
        lateness(&sides, &found);
        for (side, blocks) in sides.iter().zip(&found).filter(|(side, _)| side.is_ours()) {
            let p99 = Spread::of(blocks.iter().map(|block| block.late[2]));
            verdict(&format!("P2 {}: p99 <= 25 ms", side.name), p99.median <= 25.0, &p99.show(1));
        }
        for (what, i) in [("p50", 0), ("p99", 2), ("most", 3)] {
            beside(&sides, &found, what, |block| 1.0 / block.late[i]);
        }
        Ok(())
    }
}

fn us(blocks: &Blocks, digits: usize) -> String {
    Spread::of(blocks.iter().map(Block::each)).show(digits)
}

/// Of a delivery.
fn bytes(blocks: &Blocks) -> String {
    format!("{:.0}", Spread::of(blocks.iter().map(|block| block.bytes / block.deliveries)).median)
}

/// Of neighbouring blocks.
fn ratio(one: &Blocks, other: &Blocks, value: impl Fn(&Block) -> f64) -> Spread {
    Spread::of(one.iter().zip(other).map(|(one, other)| value(one) / value(other)))
}

/// Cores that were kept busy.
fn share(blocks: &Blocks, seconds: impl Fn(&Block) -> f64) -> String {
    format!("{:.2}", Spread::of(blocks.iter().map(|block| seconds(block) / block.seconds)).median)
}

/// How late, what it cost, and who kept the cores busy.
fn lateness(sides: &[Side], found: &[Blocks]) {
    let rows: Vec<Vec<String>> = sides
        .iter()
        .zip(found)
        .map(|(side, blocks)| {
            let mut row = vec![side.name.clone()];
            row.extend((0..4).map(|i| Spread::of(blocks.iter().map(|block| block.late[i])).show(1)));
            row.push(us(blocks, 2));
            row.push(bytes(blocks));
            row.push(format!("{:.0}", Spread::of(blocks.iter().map(|block| block.rate)).median));
            row.push(share(blocks, |block| block.cpu));
            row.extend((0..3).map(|i| share(blocks, |block| block.others[i])));
            row
        })
        .collect();
    let heads = [
        "",
        "p50",
        "p90",
        "p99",
        "max",
        "us per delivery",
        "bytes each",
        "commits/s",
        "cores: sender",
        "database",
        "writer",
        "crowd",
    ];
    table(&heads, &rows);
}

/// Ours beside the control that does best: how many times better, and no more said than that.
fn beside(sides: &[Side], found: &[Blocks], what: &str, value: impl Fn(&Block) -> f64) {
    for (ours, blocks) in sides.iter().zip(found).filter(|(side, _)| side.is_ours()) {
        let controls = sides.iter().zip(found).filter(|(side, _)| side.is_control());
        let times = controls.map(|(control, others)| (ratio(blocks, others, &value), &control.name));
        let Some((times, control)) = times.min_by(|a, b| a.0.median.total_cmp(&b.0.median)) else { return };
        let lead = if blocks.len() >= LEAD_ROUNDS && times.min >= LEAD { "a lead" } else { "no lead is claimed" };
        anstream::println!("       {what}: {} is {}x as good as {control}: {lead}", ours.name, times.show(2));
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn measure(args: Args) -> Outcome {
    let cost = args.subscribers.iter().copied().max().unwrap_or(0);
    let most = u64::from(cost.max(args.crowd * u32::try_from(args.transport.len())?)) * 2 + 1000;
    let files = raise_files(most);
    if files < most {
        return Err(format!("so many subscribers need {most} open files, more than {files}: `ulimit -n`").into());
    }
    let bench = Bench::new(args).await?;
    for part in &bench.args.parts {
        match part {
            Measured::Cost => bench.cost().await?,
            Measured::Saturation => bench.saturation().await?,
            Measured::Latency => bench.latency().await?,
        }
    }
    Ok(())
}

fn main() -> Outcome {
    match std::env::args().nth(1).as_deref() {
        Some(crowd::ROLE) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(crowd::run()),
        Some(sender::ROLE) => {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(sender::run())
        }
        _ => measure(Args::parse()),
    }
}
