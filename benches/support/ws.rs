//! As much of WebSockets (RFC 6455) as a bench needs: the handshake, frames of a client, frames of a server.
//!
//! Must not know: sockets, what messages say. Invariant: bytes of a frame's head are never taken for data.

use super::Outcome;

/// The example of RFC 6455, section 1.3. Nothing here depends on the answer to it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A client must mask what it sends; with what does not matter here.
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x6e];

/// What a client sends first.
pub(crate) fn handshake() -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nhost: bench\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\nsec-websocket-protocol: rowcast.v1\r\n\r\n"
    )
}

/// What a server answers.
pub(crate) fn accepted() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {ACCEPT}\r\n\
         sec-websocket-protocol: rowcast.v1\r\n\r\n"
    )
}

/// What a client of the gateway says first, and then: one subscription.
pub(crate) fn subscription(table: &str, since: Option<&str>) -> Vec<u8> {
    let subscribe = serde_json::json!({ "type": "subscribe", "sub": "1", "table": table, "since": since }).to_string();
    [masked(TEXT, br#"{"type":"init"}"#), masked(TEXT, subscribe.as_bytes())].concat()
}

fn head(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut head = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ 0..=125), _) => head.push(mask | length),
        (_, Ok(length)) => {
            head.push(mask | 126);
            head.extend(length.to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// A frame of a client.
pub(crate) fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(opcode, payload.len(), 0x80);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A text frame of a server.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    let mut frame = head(TEXT, payload.len(), 0);
    frame.extend(payload.as_bytes());
    frame
}

/// One frame of a server, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Text(&'a [u8]),
    /// To be answered with these bytes.
    Ping(Vec<u8>),
    /// The end, with its code and reason.
    Close(String),
}

/// The first frame of what came, and how long it is; `None` when it is not whole yet.
///
/// # Errors
/// It is none that a server of this bench may send.
pub(crate) fn next(bytes: &[u8]) -> Outcome<Option<(Frame<'_>, usize)>> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let (from, length) = match second {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|part| <[u8; 8]>::try_from(part).ok()) {
            Some(length) => (10, u64::from_be_bytes(length)),
            None => return Ok(None),
        },
        length @ 0..=125 => (2, u64::from(length)),
        _ => return Err(format!("a frame of the server with the head {first:02x} {second:02x} is masked").into()),
    };
    let end = from + usize::try_from(length)?;
    let Some(payload) = bytes.get(from..end) else { return Ok(None) };
    let frame = match first ^ 0x80 {
        TEXT => Frame::Text(payload),
        PING => Frame::Ping(masked(PONG, payload)),
        CLOSE => {
            let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes([code[0], code[1]]));
            Frame::Close(format!("{code} {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default())))
        }
        _ => return Err(format!("a frame of the server begins with {first:02x}: one is not understood here").into()),
    };
    Ok(Some((frame, end)))
}

/// Reads the head of the answer to a handshake, and nothing behind it.
pub(crate) async fn accept(socket: &mut tokio::net::TcpStream) -> Outcome {
    use tokio::io::AsyncReadExt;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if socket.read(&mut byte).await? == 0 {
            break;
        }
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n") {
        return Ok(());
    }
    Err(format!("no WebSocket: {}", String::from_utf8_lossy(&head)).into())
}
