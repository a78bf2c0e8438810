//! Keep-alive connections that ask the same thing again and again, as cheaply as a client can.
//!
//! Must not know: who answers. Invariant: one request at a time on a connection, and every answer is read to its end.

use super::Outcome;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A request as it goes over the wire. `extra` are whole header lines.
pub(crate) fn request(address: SocketAddr, path: &str, extra: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n{extra}\r\n").into_bytes()
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Connection> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, buffer: vec![0; 64 * 1024], filled: 0 })
    }

    /// Sends a request and reads the answer to its end; returns its status and where its head ends. The bytes stay in
    /// the buffer until the next.
    async fn exchange(&mut self, request: &[u8]) -> Outcome<(u16, usize)> {
        self.socket.write_all(request).await?;
        self.filled = 0;
        let (mut status, mut head, mut whole) = (0, 0, usize::MAX);
        while self.filled < whole {
            let read = self.socket.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err(
                    "the connection ended in the middle of an answer, or the answer is longer than 64 kB".into()
                );
            }
            self.filled += read;
            if head == 0
                && let Some(end) = find(&self.buffer[..self.filled], b"\r\n\r\n")
            {
                head = end + 4;
                let text = std::str::from_utf8(&self.buffer[..end])?;
                status = text.get(9..12).unwrap_or_default().parse()?;
                whole = head + if status == 304 { 0 } else { length(text).ok_or("an answer without a length")? };
            }
        }
        Ok((status, head))
    }

    /// One answer, taken apart.
    pub(crate) async fn get(&mut self, request: &[u8]) -> Outcome<Answer> {
        let (status, head) = self.exchange(request).await?;
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let pairs = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        let headers = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        Ok(Answer { status, headers, body: self.buffer[head..self.filled].to_vec() })
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

fn length(head: &str) -> Option<usize> {
    let line = head
        .lines()
        .find(|line| line.as_bytes().get(..15).is_some_and(|n| n.eq_ignore_ascii_case(b"content-length:")))?;
    line[15..].trim().parse().ok()
}

/// What a block of requests came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
}

/// Asks on all connections for so long; each answer must have this status.
pub(crate) async fn load(connections: &mut [Connection], request: &[u8], status: u16, time: Duration) -> Outcome<Load> {
    let began = Instant::now();
    let asking = connections.iter_mut().map(|connection| async move {
        let mut requests = 0;
        while began.elapsed() < time {
            let (got, _) = connection.exchange(request).await?;
            if got != status {
                return Err(format!(
                    "{got} instead of {status}: {}",
                    String::from_utf8_lossy(&connection.buffer[..connection.filled])
                )
                .into());
            }
            requests += 1;
        }
        Outcome::Ok(requests)
    });
    let requests: u64 = futures_util::future::try_join_all(asking).await?.into_iter().sum();
    Ok(Load { requests, seconds: began.elapsed().as_secs_f64() })
}
