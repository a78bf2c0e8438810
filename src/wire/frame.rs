//! Messages as the frames of a transport that stays open.
//!
//! Must not know: sockets, sessions. Invariant: what a frame says depends on the message, the label and the position alone, so
//! that it can be made once and sent to many.
//!
//! Sources: <https://html.spec.whatwg.org/multipage/server-sent-events.html>, RFC 6455 section 5.2.

use super::{CloseReason, Message};
use crate::change::Resume;
use bytes::{BufMut, Bytes, BytesMut};

/// A transport's way to frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Events; the resume point is an `id:` line.
    Sse,
    /// Text frames as a server sends them, unmasked; the resume point is the `position` in the JSON.
    WebSocket,
}

/// Messages of this size and more are sent from where they lie instead of being copied beside others.
const LARGE: usize = 16 * 1024;

impl Format {
    /// Appends a data message; `id` is the resume point it completes, if it completes one.
    pub fn message(self, message: &Message, sub: &str, id: Option<Resume>, out: &mut BytesMut) {
        match self {
            Format::Sse => {
                if let Some(id) = id {
                    out.put_slice(format!("id: {id}\n").as_bytes());
                }
                message.write_sse(sub, out);
            }
            Format::WebSocket => text(out, |out| message.write_json(sub, out)),
        }
    }

    /// The bytes of a large message that need no copy, after those appended to `out`.
    #[must_use]
    pub fn shared(self, message: &Message, sub: &str, id: Option<Resume>, out: &mut BytesMut) -> Option<Bytes> {
        if self != Format::Sse || message.bytes() < LARGE {
            return None;
        }
        let bytes = message.shared_sse(sub)?;
        if let Some(id) = id {
            out.put_slice(format!("id: {id}\n").as_bytes());
        }
        Some(bytes)
    }

    /// Appends what is said when nothing happened that matters to the client: the resume point, if there is one, and how
    /// old the state at it may be.
    pub fn cursor(self, position: Option<Resume>, lag_ms: u64, out: &mut BytesMut) {
        let shown = position.map(|p| p.to_string());
        let json = serde_json::json!({ "type": "cursor", "position": shown, "lag_ms": lag_ms });
        match self {
            Format::Sse => {
                let id = shown.map(|p| format!("id: {p}\n")).unwrap_or_default();
                out.put_slice(format!("{id}event: cursor\ndata: {json}\n\n").as_bytes());
            }
            Format::WebSocket => text(out, |out| out.put_slice(json.to_string().as_bytes())),
        }
    }

    /// Appends the announcement of a planned end; the client should come back after `retry_ms`.
    pub fn bye(self, reason: CloseReason, retry_ms: u32, out: &mut BytesMut) {
        let json = format!("{{\"type\":\"bye\",\"reason\":\"{}\",\"retry_ms\":{retry_ms}}}", reason.label());
        match self {
            Format::Sse => out.put_slice(format!("event: bye\ndata: {json}\n\n").as_bytes()),
            Format::WebSocket => text(out, |out| out.put_slice(json.as_bytes())),
        }
    }
}

/// Appends one text frame of a WebSocket.
pub fn text_frame(json: &str, out: &mut BytesMut) {
    text(out, |out| out.put_slice(json.as_bytes()));
}

/// What a control frame of a WebSocket does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Ends the connection.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping with its payload.
    Pong = 10,
}

/// Appends a control frame; what is above 125 bytes of its payload is left out (RFC 6455, 5.5).
pub fn control_frame(control: Control, payload: &[u8], out: &mut BytesMut) {
    let payload = &payload[..payload.len().min(125)];
    out.put_u8(0x80 | control as u8);
    out.put_u8(u8::try_from(payload.len()).unwrap_or_default());
    out.put_slice(payload);
}

/// Appends one text frame around what `payload` appends. The head comes before a length that is known only after: the longest
/// kind would be legal nowhere but for long frames, so the payload is written aside first.
fn text(out: &mut BytesMut, payload: impl FnOnce(&mut BytesMut)) {
    const FINAL_TEXT: u8 = 0x81;
    let mut body = BytesMut::new();
    payload(&mut body);
    out.reserve(body.len() + 10);
    out.put_u8(FINAL_TEXT);
    match body.len() {
        len @ 0..=125 => out.put_u8(u8::try_from(len).unwrap_or_default()),
        len @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(u16::try_from(len).unwrap_or_default());
        }
        len => {
            out.put_u8(127);
            out.put_u64(len as u64);
        }
    }
    out.put_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message;

    fn reset() -> Message {
        message::reset("t", "bulk", None)[0].clone()
    }

    #[test]
    fn text_frames_have_the_shortest_head() {
        for (len, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xffff, vec![0x81, 126, 0xff, 0xff]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = BytesMut::new();
            text(&mut out, |out| out.put_bytes(b'x', len));
            assert_eq!((out[..head.len()].to_vec(), out.len()), (head.clone(), head.len() + len));
        }
    }

    #[test]
    fn both_say_the_same_json() {
        let (mut sse, mut socket) = (BytesMut::new(), BytesMut::new());
        let at = Some("7-9f3a2c".parse().unwrap());
        for format in [Format::Sse, Format::WebSocket] {
            let out = if format == Format::Sse { &mut sse } else { &mut socket };
            format.message(&reset(), "x\"y", at, out);
            format.cursor(at, 3, out);
            format.bye(CloseReason::ShuttingDown, 700, out);
        }
        let events = String::from_utf8(sse.to_vec()).unwrap();
        let told: Vec<&str> = events.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        assert_eq!(events.lines().filter(|l| *l == "id: 7-9f3a2c").count(), 2, "{events}");
        let mut rest = &socket[..];
        for json in told {
            assert_eq!((rest[0], usize::from(rest[1])), (0x81, json.len()), "{json}");
            assert_eq!(&rest[2..2 + json.len()], json.as_bytes());
            rest = &rest[2 + json.len()..];
        }
        assert!(rest.is_empty());
    }
}
