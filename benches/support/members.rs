//! Many subscribers: a socket and a task each, reading as fast as they can, or not at all.
//!
//! Must not know: what is measured. Invariant: a change counts as come when its bytes were read, and not before.

use super::Outcome;
use super::server::spawn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// How subscribers ask. Another transport is another variant: its request, and how a position stands in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `GET /v1/stream`.
    Sse,
    /// `GET /v1/ws`.
    Ws,
}

/// A text message as a client sends it. A mask of zeros is one.
fn frame(json: &str) -> Vec<u8> {
    let length = u8::try_from(json.len()).ok().filter(|length| *length < 126);
    let head = match length {
        Some(length) => vec![0x81, 0x80 | length],
        None => [&[0x81, 0xfe][..], &u16::try_from(json.len()).unwrap_or(u16::MAX).to_be_bytes()].concat(),
    };
    [&head[..], &[0; 4], json.as_bytes()].concat()
}

/// What stands before the number by which a change is known.
const MARK: &[u8] = b"\"n\":";

/// What a snapshot begins with.
const SNAPSHOT: &[u8] = b"{\"type\":\"snapshot\"";

/// Bytes that the kernel keeps for one that does not read.
const SMALL: u32 = 4096;

impl Kind {
    fn request(self, to: SocketAddr, query: &str, from: Option<&str>) -> Vec<u8> {
        match self {
            Kind::Sse => {
                let last = from.map(|from| format!("last-event-id: {from}\r\n")).unwrap_or_default();
                format!("GET /v1/stream?{query} HTTP/1.1\r\nhost: {to}\r\naccept: text/event-stream\r\n{last}\r\n")
                    .into()
            }
            // all at once, which the answer to the handshake is not waited for
            Kind::Ws => {
                let handshake = format!(
                    "GET /v1/ws HTTP/1.1\r\nhost: {to}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                );
                let table = query.trim_start_matches("table=");
                let subscribe = serde_json::json!({ "type": "subscribe", "sub": "1", "table": table, "since": from });
                [handshake.into(), frame("{\"type\":\"init\"}"), frame(&subscribe.to_string())].concat()
            }
        }
    }

    /// What stands in the beginning of what a subscriber asked for.
    pub(crate) fn mark(self) -> &'static [u8] {
        match self {
            Kind::Sse => b"data: ",
            Kind::Ws => b"\"more\":false",
        }
    }

    /// The position that a line gives, if it gives one.
    fn position(self, line: &[u8]) -> Option<&str> {
        match self {
            Kind::Sse => std::str::from_utf8(line.strip_prefix(b"id: ")?).ok().filter(|id| !id.ends_with('~')),
            Kind::Ws => {
                let name = b"\"position\":\"";
                let rest = &line[line.windows(name.len()).position(|part| part == name)? + name.len()..];
                std::str::from_utf8(&rest[..rest.iter().position(|b| *b == b'"')?]).ok()
            }
        }
    }

    /// The whole lines, or frames, that these bytes begin with.
    fn whole(self, held: &[u8]) -> Vec<&[u8]> {
        match self {
            Kind::Sse => {
                let end = held.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
                held[..end].split_inclusive(|b| *b == b'\n').collect()
            }
            Kind::Ws => {
                let (mut frames, mut at) = (Vec::new(), 0);
                while let Some(frame) = framed(&held[at..]) {
                    at += frame.len();
                    frames.push(frame);
                }
                frames
            }
        }
    }
}

/// The frame, or the head of an answer, that these bytes begin with, if it is whole.
fn framed(bytes: &[u8]) -> Option<&[u8]> {
    if bytes.first()? == &b'H' {
        return bytes.windows(4).position(|part| part == b"\r\n\r\n").map(|end| &bytes[..end + 4]);
    }
    let (head, length) = match bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(*length)),
    };
    bytes.get(..head + length)
}

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

/// One of a crowd.
#[derive(Default)]
pub(crate) struct Member {
    /// The newest number that came.
    pub(crate) newest: AtomicI64,
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

    pub(crate) fn position(&self) -> String {
        self.position.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, kind: Kind, bytes: &[u8]) {
        let now = Instant::now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        let whole = kind.whole(&held);
        for line in &whole {
            if let Some(position) = kind.position(line.trim_ascii_end()) {
                position.clone_into(&mut self.position.lock().unwrap_or_else(PoisonError::into_inner));
            }
            if line.windows(SNAPSHOT.len()).any(|part| part == SNAPSHOT) {
                self.ready.store(true, Ordering::Relaxed);
            } else if let Some(n) = number(line) {
                self.newest.fetch_max(n, Ordering::Relaxed);
                if let Some(times) = &self.times {
                    times.lock().unwrap_or_else(PoisonError::into_inner).push((n, now));
                }
            }
        }
        let end: usize = whole.iter().map(|line| line.len()).sum();
        held.drain(..end);
    }

    /// Reads to the end of the connection.
    pub(crate) async fn follow(&self, kind: Kind, mut socket: TcpStream) {
        let mut buffer = vec![0; 4096];
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        while let Ok(read @ 1..) = socket.read(&mut buffer).await {
            self.take(kind, &buffer[..read]);
        }
    }
}

/// The last marked number of a line.
fn number(line: &[u8]) -> Option<i64> {
    let at = line.windows(MARK.len()).rposition(|part| part == MARK)?;
    let digits = &line[at + MARK.len()..];
    let len = digits.iter().position(|b| !b.is_ascii_digit())?;
    std::str::from_utf8(&digits[..len]).ok()?.parse().ok()
}

/// Connects from the `i`-th address of the loopback network, so that ports do not run out, and asks.
pub(crate) async fn ask(
    kind: Kind,
    i: usize,
    to: SocketAddr,
    query: &str,
    from: Option<&str>,
    reads: bool,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + i / 5000).unwrap_or(u8::MAX);
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), 0))?;
    if !reads {
        socket.set_recv_buffer_size(SMALL)?;
    }
    let mut socket = socket.connect(to).await?;
    socket.write_all(&kind.request(to, query, from)).await?;
    Ok(socket)
}

/// So many subscribers that read, each ready.
pub(crate) async fn readers(
    kind: Kind,
    to: SocketAddr,
    query: &str,
    members: impl IntoIterator<Item = Member>,
) -> Outcome<Vec<Arc<Member>>> {
    let mut all = Vec::new();
    for (i, member) in members.into_iter().enumerate() {
        let socket = ask(kind, i, to, query, None, true).await?;
        let member = Arc::new(member);
        let reading = member.clone();
        spawn(async move { reading.follow(kind, socket).await });
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
