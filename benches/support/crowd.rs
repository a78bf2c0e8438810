//! Many subscribers in one process: each change each of them got, when, and whether none is missing and none came twice.
//!
//! Must not know: who sends. Invariant: a change is counted for a subscriber when its number was read in the data that
//! subscriber got; count, sum and sum of squares of each subscriber's numbers tell a missing one beside a repeated one.

use super::Outcome;
use super::part::{micros, obey};
use super::report::percentile;
use super::transport::Transport;
use super::ws::{self, Frame};
use memchr::memmem::Finder;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Tells the program to be this part.
pub(crate) const ROLE: &str = "--be-the-crowd";

/// What stands before the number of a change.
const MARK: &[u8] = b"\"n\":";

/// Room for what is read at once, beside what was kept.
const ROOM: usize = 256 * 1024;

/// How long nothing may come while something is missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one subscriber got since the block began: numbers above the base.
#[derive(Default)]
struct Tally {
    count: Cell<i64>,
    sum: Cell<i64>,
    squares: Cell<i64>,
    /// Numbers that belong to no change of the block.
    strays: Cell<i64>,
}

struct Crowd {
    mark: Finder<'static>,
    tallies: RefCell<Vec<Rc<Tally>>>,
    /// Numbers from here on count.
    base: Cell<i64>,
    /// Changes of all subscribers.
    got: Cell<i64>,
    /// How many are waited for.
    goal: Cell<i64>,
    bytes: Cell<u64>,
    ended: Cell<u64>,
    enough: Notify,
    /// When each number came to each subscriber, if that is asked for.
    when: RefCell<Option<Vec<(i64, i64)>>>,
}

impl Crowd {
    fn new() -> Crowd {
        Crowd {
            mark: Finder::new(MARK),
            tallies: RefCell::default(),
            base: Cell::new(i64::MAX),
            got: Cell::default(),
            goal: Cell::new(i64::MAX),
            bytes: Cell::default(),
            ended: Cell::default(),
            enough: Notify::new(),
            when: RefCell::default(),
        }
    }

    /// Counts the numbers in data; returns how much of it need not be seen again.
    fn scan(&self, tally: &Tally, bytes: &[u8], at: i64) -> usize {
        let base = self.base.get();
        let mut when = self.when.borrow_mut();
        let mut done = 0;
        while let Some(mark) = self.mark.find(&bytes[done..]) {
            let digits = &bytes[done + mark + MARK.len()..];
            let Some(len) = digits.iter().position(|b| !b.is_ascii_digit()) else { return done + mark };
            let n = digits[..len].iter().fold(0_i64, |n, digit| n * 10 + i64::from(digit - b'0')) - base;
            done += mark + MARK.len() + len;
            if n <= 0 {
                tally.strays.set(tally.strays.get() + 1);
                continue;
            }
            tally.count.set(tally.count.get() + 1);
            tally.sum.set(tally.sum.get().wrapping_add(n));
            tally.squares.set(tally.squares.get().wrapping_add(n.wrapping_mul(n)));
            self.got.set(self.got.get() + 1);
            if let Some(when) = &mut *when {
                when.push((n + base, at));
            }
        }
        done.max(bytes.len().saturating_sub(MARK.len() - 1))
    }

    /// The same for what came over a WebSocket: only the payloads of its text frames are data. Adds what is to be sent back.
    fn frames(&self, tally: &Tally, bytes: &[u8], at: i64, back: &mut Vec<u8>) -> Outcome<usize> {
        let mut done = 0;
        while let Some((frame, length)) = ws::next(&bytes[done..])? {
            match frame {
                Frame::Text(data) => _ = self.scan(tally, data, at),
                Frame::Ping(pong) => back.extend(pong),
                Frame::Close(why) => return Err(format!("the server closed with {why}").into()),
            }
            done += length;
        }
        Ok(done)
    }

    /// Waits until so many came, to all together.
    async fn until(&self, goal: i64) -> Outcome {
        self.goal.set(goal);
        while self.got.get() < goal && self.ended.get() == 0 {
            let before = self.got.get();
            let enough = tokio::time::timeout(PATIENCE, self.enough.notified()).await;
            if enough.is_err() && self.got.get() == before {
                return Err(format!("{} changes of {goal} came", self.got.get()).into());
            }
        }
        match self.ended.get() {
            0 => Ok(()),
            ended => Err(format!("{ended} subscribers ended").into()),
        }
    }

    /// Did each subscriber get each of so many changes once?
    fn check(&self, changes: i64) -> Outcome {
        let sum = changes * (changes + 1) / 2;
        let squares = changes * (changes + 1) * (2 * changes + 1) / 6;
        for (i, tally) in self.tallies.borrow().iter().enumerate() {
            let found = (tally.count.get(), tally.sum.get(), tally.squares.get(), tally.strays.get());
            if found != (changes, sum, squares, 0) {
                return Err(format!(
                    "subscriber {i}: count, sum, sum of squares, strays are {found:?} and not {:?}: changes are missing or came twice",
                    (changes, sum, squares, 0)
                )
                .into());
            }
        }
        Ok(())
    }

    fn begin(&self, base: i64, timed: bool) {
        self.base.set(base);
        self.got.set(0);
        self.bytes.set(0);
        self.goal.set(i64::MAX);
        for tally in self.tallies.borrow().iter() {
            for cell in [&tally.count, &tally.sum, &tally.squares, &tally.strays] {
                cell.set(0);
            }
        }
        *self.when.borrow_mut() = timed.then(Vec::new);
    }
}

/// Opens a subscription and reads until it stands; returns what of it was read beyond that.
async fn stand(transport: Transport, table: Option<&str>, socket: &mut TcpStream) -> Outcome<Vec<u8>> {
    match table {
        Some(table) => transport.subscribe(socket, table, Some("now")).await?,
        None => transport.open(socket).await?,
    }
    let mut held = Vec::new();
    if transport == Transport::Ws && table.is_none() {
        return Ok(held);
    }
    loop {
        match transport {
            // the gateway says so when it stands, and so does the bare server
            Transport::Sse => {
                if let Some(at) = memchr::memmem::find(&held, b"event: cursor\n") {
                    held.drain(..at);
                    return Ok(held);
                }
            }
            Transport::Ws => {
                while let Some((frame, length)) = ws::next(&held)? {
                    let stands = match frame {
                        Frame::Text(text) => {
                            let said = |what| memchr::memmem::find(text, what).is_some();
                            said(b"\"type\":\"cursor\"") && !said(b"\"position\":null")
                        }
                        Frame::Ping(_) => false,
                        Frame::Close(why) => return Err(format!("the server closed with {why}").into()),
                    };
                    held.drain(..length);
                    if stands {
                        return Ok(held);
                    }
                }
            }
        }
        if socket.read_buf(&mut held).await? == 0 {
            return Err(format!("ended with {}", String::from_utf8_lossy(&held)).into());
        }
    }
}

/// Reads for one subscriber to the end, which should not come.
async fn follow(
    crowd: Rc<Crowd>,
    transport: Transport,
    socket: TcpStream,
    mut held: Vec<u8>,
    tally: Rc<Tally>,
) -> Outcome {
    // one buffer for all: between two waits it is used by one
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let mut back = Vec::new();
    loop {
        socket.readable().await?;
        let read = BUFFER.with_borrow_mut(|buffer| {
            let kept = held.len();
            if buffer.len() < kept + ROOM {
                buffer.resize(kept + ROOM, 0);
            }
            buffer[..kept].copy_from_slice(&held);
            let read = match socket.try_read(&mut buffer[kept..]) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(usize::MAX),
                read => read?,
            };
            crowd.bytes.set(crowd.bytes.get() + read as u64);
            let (all, at) = (&buffer[..kept + read], micros());
            let done = match transport {
                Transport::Sse => crowd.scan(&tally, all, at),
                Transport::Ws => crowd.frames(&tally, all, at, &mut back)?,
            };
            held.clear();
            held.extend_from_slice(&all[done..]);
            if crowd.got.get() >= crowd.goal.get() {
                crowd.enough.notify_one();
            }
            Outcome::Ok(read)
        })?;
        if read == 0 {
            return Err("the server ended".into());
        }
        if !back.is_empty() {
            if socket.try_write(&back)? < back.len() {
                return Err("the server takes no pong".into());
            }
            back.clear();
        }
    }
}

/// Is the crowd.
pub(crate) async fn run() -> Outcome {
    let local = tokio::task::LocalSet::new();
    local.run_until(async { serve().await }).await
}

async fn serve() -> Outcome {
    let crowd = Rc::new(Crowd::new());
    obey(async |order: Value| {
        let number = |name: &str| order[name].as_i64().unwrap_or_default();
        let size = i64::try_from(crowd.tallies.borrow().len())?;
        match order["do"].as_str() {
            Some("open") => {
                let at: SocketAddr = order["at"].as_str().unwrap_or_default().parse()?;
                let transport: Transport = serde_json::from_value(order["transport"].clone())?;
                for _ in 0..number("count") {
                    let mut socket = TcpStream::connect(at).await?;
                    socket.set_nodelay(true)?;
                    let standing = stand(transport, order["table"].as_str(), &mut socket);
                    let held = tokio::time::timeout(Duration::from_secs(30), standing).await??;
                    let tally = Rc::new(Tally::default());
                    crowd.tallies.borrow_mut().push(tally.clone());
                    let (followed, crowd) = (crowd.clone(), crowd.clone());
                    tokio::task::spawn_local(async move {
                        if let Err(error) = follow(followed, transport, socket, held, tally).await {
                            anstream::eprintln!("a subscriber: {error}");
                            crowd.ended.set(crowd.ended.get() + 1);
                            crowd.enough.notify_one();
                        }
                    });
                }
                Ok(json!({}))
            }
            Some("begin") => {
                crowd.begin(number("base"), order["timed"] == true);
                Ok(json!({}))
            }
            Some("reach") => {
                crowd.until(number("changes") * size).await?;
                Ok(json!({}))
            }
            Some("wait") => {
                crowd.until(number("changes") * size).await?;
                let at = micros();
                // what comes twice comes soon
                tokio::time::sleep(Duration::from_millis(100)).await;
                crowd.check(number("changes"))?;
                Ok(json!({ "at": at, "deliveries": crowd.got.get(), "bytes": crowd.bytes.get() }))
            }
            Some("times") => {
                let sent: Vec<(i64, i64)> = serde_json::from_value(order["commits"].clone())?;
                let sent: HashMap<i64, i64> = sent.into_iter().collect();
                let when = crowd.when.take().unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
                let mut late: Vec<f64> =
                    when.iter().filter_map(|(n, at)| sent.get(n).map(|sent| (at - sent) as f64 / 1000.0)).collect();
                late.sort_by(f64::total_cmp);
                let wanted = sent.len() * crowd.tallies.borrow().len();
                if late.len() != wanted {
                    return Err(format!("{} of {wanted} deliveries have a time", late.len()).into());
                }
                let [p50, p90, p99, most] = [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&late, share));
                Ok(json!({ "samples": late.len(), "p50": p50, "p90": p90, "p99": p99, "max": most }))
            }
            _ => Err(format!("unknown order {order}").into()),
        }
    })
    .await
}
