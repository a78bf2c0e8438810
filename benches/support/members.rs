//! Many subscribers: a socket and a task each, reading as fast as they can, or not at all.
//!
//! Must not know: what is measured. Invariant: a change counts as come when its bytes were read, and not before.

use super::Outcome;
use super::server::spawn;
use super::transport::Transport;
use super::ws::{self, Frame};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What stands before the number by which a change is known.
const MARK: &[u8] = b"\"n\":";

/// Bytes that the kernel keeps for one that does not read.
const SMALL: u32 = 4096;

/// Raises what this process, and those it starts, may open, as far as it can.
pub(crate) fn raise_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let whole = Rlimit { current: Some(wanted), maximum: Some(limit.maximum.unwrap_or(wanted).max(wanted)) };
        if setrlimit(Resource::Nofile, whole).is_err() {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Numbers above zero, of changes. A whole message is added at once.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    least: i64,
    most: i64,
    count: i64,
    sum: i64,
}

/// One of a crowd.
#[derive(Default)]
pub(crate) struct Member {
    /// The numbers of the changes that came.
    seen: Mutex<Seen>,
    /// Has the first snapshot come?
    pub(crate) ready: AtomicBool,
    /// When each number came, if that is kept.
    pub(crate) times: Option<Mutex<Vec<(i64, Instant)>>>,
    /// The last position.
    position: Mutex<String>,
    /// Bytes of the end of the last read that may belong to something longer.
    held: Mutex<Vec<u8>>,
}

impl Member {
    /// One that notes when each change came.
    pub(crate) fn noting() -> Member {
        Member { times: Some(Mutex::default()), ..Member::default() }
    }

    /// The newest number that came.
    pub(crate) fn newest(&self) -> i64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).most
    }

    /// Did every change come from the first to the newest, and each once?
    pub(crate) fn gapless(&self) -> Outcome {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, sum) = (seen.most - seen.least + 1, (seen.least + seen.most) * (seen.most - seen.least + 1) / 2);
        if seen.count > 0 && (seen.count, seen.sum) != (count, sum) {
            return Err(format!("changes are missing or came twice: {seen:?}").into());
        }
        Ok(())
    }

    /// How many changes came, from which number on.
    pub(crate) fn changes(&self) -> (i64, i64) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.count, seen.least)
    }

    pub(crate) fn position(&self) -> String {
        self.position.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what came; returns what is to be sent back.
    fn take(&self, transport: Transport, bytes: &[u8]) -> Outcome<Vec<u8>> {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        let mut back = Vec::new();
        match transport {
            Transport::Sse => {
                // an `id` counts when its event is whole
                let Some(end) = held.windows(2).rposition(|part| part == b"\n\n") else { return Ok(back) };
                for line in held[..end].split(|b| *b == b'\n') {
                    if let Some(id) = line.strip_prefix(b"id: ") {
                        self.stands_at(id);
                    } else if let Some(data) = line.strip_prefix(b"data: ") {
                        self.message(data, now);
                    }
                }
                held.drain(..end + 2);
            }
            Transport::Ws => {
                let mut done = 0;
                while let Some((frame, length)) = ws::next(&held[done..])? {
                    match frame {
                        Frame::Text(data) => {
                            self.message(data, now);
                            if let Some(position) = position(data) {
                                self.stands_at(position);
                            }
                        }
                        Frame::Ping(pong) => back.extend(pong),
                        Frame::Close(why) => return Err(format!("closed with {why}").into()),
                    }
                    done += length;
                }
                held.drain(..done);
            }
        }
        Ok(back)
    }

    fn message(&self, data: &[u8], now: Instant) {
        if data.starts_with(b"{\"type\":\"snapshot\"") {
            return self.ready.store(true, Ordering::Relaxed);
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for n in numbers(data) {
            seen.least = if seen.count == 0 { n } else { seen.least.min(n) };
            seen.most = seen.most.max(n);
            seen.count += 1;
            seen.sum += n;
            if let Some(times) = &self.times {
                times.lock().unwrap_or_else(PoisonError::into_inner).push((n, now));
            }
        }
    }

    /// An `id` that ends with `~` belongs to a reset or to a part of a snapshot: whoever comes back with it begins anew.
    fn stands_at(&self, position: &[u8]) {
        if let Some(position) = std::str::from_utf8(position).ok().filter(|position| !position.ends_with('~')) {
            position.clone_into(&mut self.position.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn follow(&self, transport: Transport, mut socket: TcpStream) {
        let mut buffer = vec![0; 4096];
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        while let Ok(read @ 1..) = socket.read(&mut buffer).await {
            match self.take(transport, &buffer[..read]) {
                Ok(back) if back.is_empty() => {}
                Ok(back) => _ = socket.write_all(&back).await,
                Err(_) => return,
            }
        }
    }
}

/// The position of a message that completes one: as `id:` of an event.
fn position(data: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"\"position\":\"";
    let cursor =
        data.windows(NAME.len()).position(|part| part == NAME).filter(|_| !data.ends_with(b"\"more\":true}"))?;
    data[cursor + NAME.len()..].split(|b| *b == b'"').next()
}

/// The marked numbers above zero in a message.
fn numbers(data: &[u8]) -> impl Iterator<Item = i64> + '_ {
    memchr::memmem::find_iter(data, MARK).filter_map(|at| {
        let digits = &data[at + MARK.len()..];
        let len = digits.iter().position(|b| !b.is_ascii_digit())?;
        std::str::from_utf8(&digits[..len]).ok()?.parse().ok().filter(|n| *n > 0)
    })
}

/// Connects from the `i`-th address of the loopback network, so that ports do not run out.
pub(crate) async fn connect(i: usize, to: SocketAddr, reads: bool) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + i / 5000).unwrap_or(u8::MAX);
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0))?;
    if !reads {
        socket.set_recv_buffer_size(SMALL)?;
    }
    socket.connect(to).await
}

/// Connects likewise, and asks for a table.
pub(crate) async fn ask(
    transport: Transport,
    i: usize,
    to: SocketAddr,
    table: &str,
    from: Option<&str>,
    reads: bool,
) -> Outcome<TcpStream> {
    let mut socket = connect(i, to, reads).await?;
    transport.subscribe(&mut socket, table, from).await?;
    Ok(socket)
}

/// So many subscribers that read, each ready.
pub(crate) async fn readers(
    transport: Transport,
    to: SocketAddr,
    table: &str,
    members: impl IntoIterator<Item = Member>,
) -> Outcome<Vec<Arc<Member>>> {
    let mut all = Vec::new();
    for (i, member) in members.into_iter().enumerate() {
        let socket = ask(transport, i, to, table, None, true).await?;
        let member = Arc::new(member);
        let reading = member.clone();
        spawn(async move { reading.follow(transport, socket).await });
        all.push(member);
    }
    until("every subscriber is ready", || all.iter().all(|member| member.ready.load(Ordering::Relaxed))).await?;
    Ok(all)
}

/// Waits for it for a minute.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) -> Outcome {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(format!("not within a minute: {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
