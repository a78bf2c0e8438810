//! A WebSocket by hand: for frames that no client library sends.

use super::PATIENCE;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection after its handshake.
pub struct RawSocket {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame.
    pub fn code(&self) -> u16 {
        assert_eq!(self.opcode, 8, "{self:?}");
        self.payload.get(..2).map_or(0, |code| u16::from_be_bytes(code.try_into().unwrap()))
    }
}

/// A request for a WebSocket, with these headers beside those it needs.
pub fn request(more: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// A client's frame, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=0xffff => frame.extend([&[0xfe][..], &u16::try_from(length).unwrap().to_be_bytes()].concat()),
        length => frame.extend([&[0xff][..], &(length as u64).to_be_bytes()].concat()),
    }
    let mask = [7, 11, 13, 17];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A text message.
pub fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

impl RawSocket {
    /// Connects; returns the head of the answer too.
    pub async fn connect(at: SocketAddr, request: &str) -> (RawSocket, String) {
        let mut socket = RawSocket { stream: TcpStream::connect(at).await.unwrap(), buffer: Vec::new() };
        socket.stream.write_all(request.as_bytes()).await.unwrap();
        loop {
            if let Some(end) = socket.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head: Vec<u8> = socket.buffer.drain(..end + 4).collect();
                return (socket, String::from_utf8(head).unwrap());
            }
            assert!(socket.read().await, "no answer: {}", String::from_utf8_lossy(&socket.buffer));
        }
    }

    /// Connected, and `ready`.
    pub async fn ready(at: SocketAddr) -> RawSocket {
        let (mut socket, head) = RawSocket::connect(at, &request("")).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket.send(&text("{\"type\":\"init\"}")).await;
        let ready = socket.frame().await.unwrap();
        assert!(String::from_utf8_lossy(&ready.payload).contains("\"ready\""), "{ready:?}");
        socket
    }

    /// The peer may close before it read everything.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    async fn read(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("bytes or an end"), Ok(n) if n > 0)
    }

    /// The next frame; none at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Some(frame);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The close frame; what comes before is passed over.
    pub async fn close(&mut self) -> Frame {
        loop {
            let frame = self.frame().await.expect("a close frame before the end");
            if frame.opcode == 8 {
                return frame;
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!((first & 0xf0, second & 0x80), (0x80, 0), "servers send whole frames without masks: {bytes:?}");
    let (length, at) = match second {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap())), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())).unwrap(), 10),
        length => (usize::from(length), 2),
    };
    let payload = bytes.get(at..at + length)?.to_vec();
    Some((Frame { opcode: first & 0x0f, payload }, at + length))
}
