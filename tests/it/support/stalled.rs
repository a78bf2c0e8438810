//! Subscribers that do not read, or hardly, or vanish: raw sockets with small buffers of their own.

use rustix::net::sockopt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Bytes the kernel keeps for such a client. It doubles them, and never goes below 2,304.
const BUFFER: u32 = 4096;

/// See the module.
pub struct Stalled {
    pub socket: TcpStream,
    /// Read and not looked at yet.
    kept: Vec<u8>,
}

impl Stalled {
    /// Asks for a stream and reads nothing of it.
    pub async fn open(at: SocketAddr, query: &str) -> Stalled {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(BUFFER).unwrap();
        Stalled::ask(socket, at, query, None).await
    }

    /// The same, from a position, with room for what comes.
    pub async fn resume(at: SocketAddr, query: &str, from: Option<&str>) -> Stalled {
        Stalled::ask(TcpSocket::new_v4().unwrap(), at, query, from).await
    }

    async fn ask(socket: TcpSocket, at: SocketAddr, query: &str, from: Option<&str>) -> Stalled {
        let mut socket = socket.connect(at).await.unwrap();
        let last = from.map(|from| format!("last-event-id: {from}\r\n")).unwrap_or_default();
        let request =
            format!("GET /v1/stream?{query} HTTP/1.1\r\nhost: {at}\r\naccept: text/event-stream\r\n{last}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        Stalled { socket, kept: Vec::new() }
    }

    /// Reads until `text` was there, or the end. True when it was there; the next call begins behind it.
    pub async fn reads_until(&mut self, text: &str) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // std's search is fast also in a test build
            let found = String::from_utf8_lossy(&self.kept).find(text);
            let done = found.map_or(self.kept.len().saturating_sub(text.len()), |at| at + text.len());
            self.kept.drain(..done);
            if found.is_some() {
                return true;
            }
            match self.socket.read(&mut buffer).await {
                Ok(0) | Err(_) => return false,
                Ok(n) => self.kept.extend_from_slice(&buffer[..n]),
            }
        }
    }

    /// Reads a byte a second until the connection is over.
    pub async fn trickles(mut self) {
        let mut byte = [0];
        while self.socket.read(&mut byte).await.is_ok_and(|n| n > 0) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Is gone with a RST.
    pub fn vanishes(self) {
        sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO)).unwrap();
    }
}

/// What the kernel holds to be sent on each open connection of this port, from `/proc/net/tcp`.
pub fn send_queues(port: u16) -> Vec<usize> {
    let local = format!(":{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queue = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // 01: established
        let ours = fields.get(1)?.ends_with(&local) && *fields.get(3)? == "01";
        let queued = usize::from_str_radix(fields.get(4)?.split(':').next()?, 16).ok()?;
        ours.then_some(queued)
    };
    text.lines().skip(1).filter_map(queue).collect()
}
