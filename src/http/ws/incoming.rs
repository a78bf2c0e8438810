//! What a client sends, frame by frame to whole messages.
//!
//! Of the framework this uses the codec and no more: its stream of messages comes with a queue, a body and an answer of
//! some kB that are never used, and keeps the buffer of what came last.
//!
//! Must not know: what messages say. Invariants: after the first fault nothing is read any more, and why is known; nothing
//! of a message is held once it was handed out.

use super::guard::{Guard, MAX_MESSAGE};
use crate::wire::CloseReason;
use actix_http::ws::{CloseReason as Said, Codec, Frame, Item};
use actix_web::dev::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use std::convert::Infallible;
use tokio_util::codec::Decoder;

/// Bytes that are read and thrown away after the end, so that a client that is still sending comes to read why.
const MAX_DRAINED: usize = 8 * 1024 * 1024;

/// A client's message.
#[derive(Debug)]
pub(super) enum Heard {
    /// Text, from one frame or several.
    Text(String),
    /// To be answered with the same payload.
    Ping(Bytes),
    /// Needs no answer.
    Pong,
    /// The end, and what is said about it.
    Close(Option<Said>),
}

/// See the module.
pub(super) struct Incoming {
    payload: Payload,
    guard: Guard,
    codec: Codec,
    /// Came, and is not looked at yet.
    buffer: BytesMut,
    /// The message at hand, as far as it came.
    parts: BytesMut,
    fault: Option<CloseReason>,
}

impl Incoming {
    /// The messages of a connection.
    pub(super) fn new(payload: Payload) -> Incoming {
        Incoming {
            payload,
            guard: Guard::default(),
            codec: Codec::new().max_size(MAX_MESSAGE),
            buffer: BytesMut::new(),
            parts: BytesMut::new(),
            fault: None,
        }
    }

    /// The next message. Safe to drop while it waits.
    ///
    /// # Errors
    /// Why there is none any more.
    pub(super) async fn next(&mut self) -> Result<Heard, CloseReason> {
        loop {
            // what the guard leaves to find out is the inside of a close frame
            let frame = self.codec.decode(&mut self.buffer).map_err(|_| CloseReason::ProtocolError);
            match frame.and_then(|frame| frame.map_or(Ok(None), |frame| self.take(frame).map(Some))) {
                Ok(Some(Some(heard))) => return Ok(heard),
                Ok(Some(None)) => continue,
                Ok(None) => {}
                Err(fault) => {
                    self.buffer.clear();
                    self.fault = Some(fault);
                }
            }
            if let Some(fault) = self.fault {
                return Err(fault);
            }
            if self.buffer.is_empty() {
                // it may be the last view of a buffer of the framework, which would then make another
                self.buffer = BytesMut::new();
            }
            match self.payload.next().await {
                Some(Ok(bytes)) => self.look(&bytes),
                Some(Err(_)) | None => self.fault = Some(CloseReason::Lost),
            }
        }
    }

    /// Takes what the guard lets through.
    fn look(&mut self, bytes: &[u8]) {
        let good = match self.guard.look(bytes) {
            Ok(()) => bytes.len(),
            Err((good, reason)) => {
                self.fault = Some(reason);
                good
            }
        };
        self.buffer.extend_from_slice(&bytes[..good]);
    }

    /// What a frame completes.
    fn take(&mut self, frame: Frame) -> Result<Option<Heard>, CloseReason> {
        let text = match frame {
            Frame::Text(bytes) => bytes,
            Frame::Continuation(Item::FirstText(part) | Item::Continue(part)) => {
                self.parts.extend_from_slice(&part);
                return Ok(None);
            }
            Frame::Continuation(Item::Last(part)) => {
                self.parts.extend_from_slice(&part);
                std::mem::take(&mut self.parts).freeze()
            }
            Frame::Ping(payload) => return Ok(Some(Heard::Ping(payload))),
            Frame::Pong(_) => return Ok(Some(Heard::Pong)),
            Frame::Close(said) => return Ok(Some(Heard::Close(said))),
            Frame::Binary(_) | Frame::Continuation(Item::FirstBinary(_)) => return Err(CloseReason::NotText),
        };
        String::from_utf8(text.into()).map(|text| Some(Heard::Text(text))).map_err(|_| CloseReason::NotUtf8)
    }

    /// Reads what still comes and throws it away, for as long as anybody waits for it.
    pub(super) async fn drain(&mut self) -> Infallible {
        let mut drained = 0;
        while drained < MAX_DRAINED {
            let Some(Ok(bytes)) = self.payload.next().await else { break };
            drained += bytes.len();
        }
        std::future::pending().await
    }
}
