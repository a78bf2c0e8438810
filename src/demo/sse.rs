//! A subscriber without a library: one HTTP request on a socket, and the events that come back.
//!
//! Must not know: what events mean. Invariant: the decoders are pure and give the same events however the bytes are cut.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::DemoError;
use super::error::io;

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// `event:`, empty for the default.
    pub(super) name: String,
    /// `id:` of this event; empty when it had none.
    pub(super) id: String,
    /// The lines of `data:`, joined.
    pub(super) data: String,
}

/// The status of the answer to `GET path`; whatever else it says is not read.
pub(super) async fn status(address: SocketAddr, path: &str) -> Result<u16, DemoError> {
    let mut socket = TcpStream::connect(address).await.map_err(io("connect to the gateway"))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.map_err(io("ask the gateway"))?;
    let mut answer = Vec::new();
    while answer.len() < "HTTP/1.1 200".len() && read_more(&mut socket, &mut answer).await? > 0 {}
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).ok().and_then(|code| code.parse().ok());
    status.ok_or_else(|| DemoError::Check(format!("`GET {path}` was not answered in HTTP")))
}

/// An answer that goes on.
pub(super) struct EventStream {
    socket: TcpStream,
    chunks: Option<Chunks>,
    lines: Lines,
    ready: std::collections::VecDeque<Event>,
}

/// The longest answer head that is read; ours are under 1 kB.
const HEAD_MAX: usize = 16 * 1024;

impl EventStream {
    /// Asks for `path` and reads the head; anything but 200 is an error that says what came instead.
    pub(super) async fn open(address: SocketAddr, path: &str) -> Result<Self, DemoError> {
        let mut socket = TcpStream::connect(address).await.map_err(io("connect to the gateway"))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).await.map_err(io("ask the gateway"))?;
        let mut head = Vec::new();
        let end = loop {
            if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if head.len() > HEAD_MAX || read_more(&mut socket, &mut head).await? == 0 {
                return Err(DemoError::Check("the gateway's answer has no end of head".into()));
            }
        };
        let rest = head.split_off(end);
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") || !head.contains("content-type: text/event-stream") {
            let body = String::from_utf8_lossy(&rest);
            return Err(DemoError::Check(format!("`GET {path}` was answered with `{status}`: {}", body.trim())));
        }
        let chunks = head.contains("transfer-encoding: chunked").then(Chunks::default);
        let mut stream = Self { socket, chunks, lines: Lines::default(), ready: std::collections::VecDeque::new() };
        stream.take(&rest);
        Ok(stream)
    }

    /// The next event; `None` when the server closed the stream.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, DemoError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let mut bytes = Vec::new();
            if read_more(&mut self.socket, &mut bytes).await? == 0 {
                return Ok(None);
            }
            self.take(&bytes);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let body = self.chunks.as_mut().map(|chunks| chunks.push(bytes));
        self.ready.extend(self.lines.push(body.as_deref().unwrap_or(bytes)));
    }
}

async fn read_more(socket: &mut TcpStream, into: &mut Vec<u8>) -> Result<usize, DemoError> {
    into.reserve(16 * 1024);
    socket.read_buf(into).await.map_err(io("read from the gateway"))
}

/// Takes chunked transfer coding off.
#[derive(Debug, Default)]
struct Chunks {
    /// Bytes of the current chunk still to come; the line end after a chunk is read as an empty size line.
    left: usize,
    size_line: Vec<u8>,
}

impl Chunks {
    fn push(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left > 0 {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                body.extend_from_slice(now);
                self.left -= now.len();
                bytes = later;
            } else if bytes[0] == b'\n' {
                let line = String::from_utf8_lossy(&self.size_line);
                let digits = line.trim().split(';').next().unwrap_or_default();
                self.left = usize::from_str_radix(digits, 16).unwrap_or(0);
                self.size_line.clear();
                bytes = &bytes[1..];
            } else {
                self.size_line.push(bytes[0]);
                bytes = &bytes[1..];
            }
        }
        body
    }
}

/// Turns a body into events.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                events.extend(self.end_line());
            } else {
                self.line.push(*byte);
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        let line = line.strip_suffix('\r').unwrap_or(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.into(),
            "id" => self.event.id = value.into(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            _ => {} // comments (an empty field name) and `retry`
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_do_not_depend_on_how_the_bytes_are_cut() {
        let body = "retry: 2000\n\n: hello\nid: 4-a\ndata: {\"a\":1}\n\nevent: cursor\r\ndata: x\r\ndata:  y\r\n\r\nid: 5-b\n\n";
        let chunked = format!("{:x}\r\n{}\r\n{:X};n=v\r\n{}\r\n", 20, &body[..20], body.len() - 20, &body[20..]);
        let expected = [
            Event { name: String::new(), id: "4-a".into(), data: "{\"a\":1}".into() },
            Event { name: "cursor".into(), id: String::new(), data: "x\n y".into() },
        ];
        for cut in 0..chunked.len() {
            let (mut chunks, mut lines) = (Chunks::default(), Lines::default());
            let parts = [&chunked.as_bytes()[..cut], &chunked.as_bytes()[cut..]];
            let events: Vec<Event> = parts.iter().flat_map(|part| lines.push(&chunks.push(part))).collect();
            assert_eq!(events, expected, "cut at {cut}");
        }
    }
}
