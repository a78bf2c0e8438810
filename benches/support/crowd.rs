//! Many subscribers in one process: each change each of them got, when, and whether none is missing and none came twice.
//!
//! Must not know: who sends. Invariant: a change is counted for a subscriber when its number was read in what that subscriber
//! got; the sum of the numbers tells a missing one beside a repeated one.

use super::Outcome;
use super::part::{micros, obey};
use super::report::percentile;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Tells the program to be this part.
pub(crate) const ROLE: &str = "--be-the-crowd";

/// How a transport is opened. The frames that follow need no more: changes are known by what stands in their JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Sse,
}

impl Transport {
    /// What is sent, and what is in the answer once the subscription stands.
    fn opening(self, path: &str) -> (String, &'static [u8]) {
        match self {
            Transport::Sse => {
                (format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: text/event-stream\r\n\r\n"), b"event: cursor\n")
            }
        }
    }
}

/// What stands before the number of a change.
const MARK: &[u8] = b"\"n\":";

#[derive(Default)]
struct Crowd {
    /// Numbers from here on count.
    base: Cell<i64>,
    /// Sum of the numbers above the base, and how many, of all subscribers.
    got: Cell<(i64, i64)>,
    wanted: Cell<i64>,
    bytes: Cell<u64>,
    ended: Cell<u64>,
    enough: Notify,
    /// When each number came to each subscriber, if that is asked for.
    when: RefCell<Option<Vec<(i64, i64)>>>,
}

impl Crowd {
    fn take(&self, bytes: &[u8], at: i64) -> usize {
        let (mut count, mut sum) = self.got.get();
        let base = self.base.get();
        let mut when = self.when.borrow_mut();
        let mut done = 0;
        while let Some(mark) = bytes[done..].windows(MARK.len()).position(|part| part == MARK) {
            let digits = &bytes[done + mark + MARK.len()..];
            let Some(len) = digits.iter().position(|b| !b.is_ascii_digit()) else {
                self.count(count, sum);
                return done + mark;
            };
            let n = digits[..len].iter().fold(0_i64, |n, digit| n * 10 + i64::from(digit - b'0'));
            if n > base {
                count += 1;
                sum += n - base;
                if let Some(when) = &mut *when {
                    when.push((n, at));
                }
            }
            done += mark + MARK.len() + len;
        }
        self.count(count, sum);
        done.max(bytes.len().saturating_sub(MARK.len() - 1))
    }

    fn count(&self, count: i64, sum: i64) {
        self.got.set((count, sum));
        if count >= self.wanted.get() {
            self.enough.notify_one();
        }
    }
}

async fn subscribe(
    crowd: Rc<Crowd>,
    at: SocketAddr,
    opening: String,
    ready: &'static [u8],
    stands: Rc<Notify>,
) -> Outcome {
    let mut socket = TcpStream::connect(at).await?;
    socket.set_nodelay(true)?;
    socket.write_all(opening.as_bytes()).await?;
    let mut held = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while !held.windows(ready.len()).any(|part| part == ready) {
        match socket.read(&mut buffer).await? {
            0 => return Err(format!("ended with {}", String::from_utf8_lossy(&held)).into()),
            read => held.extend_from_slice(&buffer[..read]),
        }
    }
    stands.notify_one();
    held.clear();
    // one buffer for all: between two waits it is used by one
    thread_local!(static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]));
    drop(buffer);
    loop {
        socket.readable().await?;
        let read = BUFFER.with_borrow_mut(|buffer| {
            let kept = held.len();
            buffer[..kept].copy_from_slice(&held);
            let read = match socket.try_read(&mut buffer[kept..]) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(usize::MAX),
                read => read?,
            };
            crowd.bytes.set(crowd.bytes.get() + read as u64);
            let all = &buffer[..kept + read];
            let done = crowd.take(all, micros());
            held.clear();
            held.extend_from_slice(&all[done..]);
            Ok::<usize, std::io::Error>(read)
        })?;
        if read == 0 {
            crowd.ended.set(crowd.ended.get() + 1);
            return Ok(());
        }
    }
}

/// Is the crowd.
pub(crate) async fn run() -> Outcome {
    let local = tokio::task::LocalSet::new();
    local.run_until(async { serve().await }).await
}

async fn serve() -> Outcome {
    let crowd = Rc::new(Crowd::default());
    let mut size = 0_i64;
    obey(async |order: Value| {
        let number = |name: &str| order[name].as_i64().unwrap_or_default();
        match order["do"].as_str() {
            Some("open") => {
                let at: SocketAddr = order["at"].as_str().unwrap_or_default().parse()?;
                let (opening, ready) = Transport::Sse.opening(order["path"].as_str().unwrap_or_default());
                let stands = Rc::new(Notify::new());
                for _ in 0..number("count") {
                    let (crowd, opening) = (crowd.clone(), opening.clone());
                    let stood = stands.clone();
                    let open = subscribe(crowd.clone(), at, opening, ready, stood);
                    tokio::task::spawn_local(async move {
                        if let Err(error) = open.await {
                            anstream::eprintln!("a subscriber: {error}");
                            crowd.ended.set(crowd.ended.get() + 1);
                        }
                    });
                    tokio::time::timeout(Duration::from_secs(30), stands.notified()).await?;
                }
                size = number("count");
                Ok(json!({ "open": size }))
            }
            Some("begin") => {
                crowd.base.set(number("base"));
                crowd.got.set((0, 0));
                crowd.bytes.set(0);
                crowd.wanted.set(number("changes") * size);
                *crowd.when.borrow_mut() = (order["timed"] == true).then(Vec::new);
                Ok(json!({}))
            }
            Some("wait") => {
                while crowd.got.get().0 < crowd.wanted.get() {
                    if crowd.ended.get() > 0 {
                        return Err(format!("{} subscribers ended", crowd.ended.get()).into());
                    }
                    let enough = crowd.enough.notified();
                    if tokio::time::timeout(Duration::from_secs(20), enough).await.is_err() {
                        return Err(format!("{:?} of {} came", crowd.got.get().0, crowd.wanted.get()).into());
                    }
                }
                let at = micros();
                // what comes twice comes soon
                tokio::time::sleep(Duration::from_millis(100)).await;
                let (count, sum) = crowd.got.get();
                let changes = crowd.wanted.get() / size;
                let right = count == crowd.wanted.get() && sum == size * changes * (changes + 1) / 2;
                if !right {
                    return Err(format!("{count} changes with sum {sum} came, {} were sent", crowd.wanted.get()).into());
                }
                Ok(json!({ "at": at, "deliveries": count, "bytes": crowd.bytes.get() }))
            }
            Some("times") => {
                let sent: Vec<(i64, i64)> = serde_json::from_value(order["commits"].clone())?;
                let sent: HashMap<i64, i64> = sent.into_iter().collect();
                let when = crowd.when.take().unwrap_or_default();
                #[expect(clippy::cast_precision_loss, reason = "microseconds of a run")]
                let mut late: Vec<f64> =
                    when.iter().filter_map(|(n, at)| sent.get(n).map(|sent| (at - sent) as f64 / 1000.0)).collect();
                late.sort_by(f64::total_cmp);
                let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| percentile(&late, share));
                Ok(json!({ "samples": late.len(), "p50": p50, "p99": p99, "max": most }))
            }
            _ => Err(format!("unknown order {order}").into()),
        }
    })
    .await
}
