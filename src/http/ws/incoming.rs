//! What a client sends, frame by frame to whole messages.
//!
//! Must not know: what messages say. Invariants: after the first fault nothing is read any more, and why is known; nothing
//! of a message is held once it was handed out.

use super::guard::{Guard, MAX_MESSAGE};
use crate::wire::CloseReason;
use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseReason as Said, ProtocolError};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

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
    messages: AggregatedMessageStream,
    shared: Rc<Shared>,
    /// Of the framework's own answer, which is not sent. Dropped, it would end `messages`.
    _body: BoxBody,
}

struct Shared {
    payload: RefCell<Payload>,
    fault: Cell<Option<CloseReason>>,
}

/// The payload, as far as the guard lets it through.
struct Guarded {
    shared: Rc<Shared>,
    guard: Guard,
}

impl Stream for Guarded {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.shared.fault.get().is_some() {
            return Poll::Ready(None);
        }
        let next = this.shared.payload.borrow_mut().poll_next_unpin(cx);
        let Poll::Ready(Some(Ok(bytes))) = next else { return next };
        let good = match this.guard.look(&bytes) {
            Ok(()) => bytes.len(),
            Err((good, reason)) => {
                this.shared.fault.set(Some(reason));
                good
            }
        };
        // a copy: what is left of it stays until the next frame, and would hold a whole buffer of the framework
        Poll::Ready(Some(Ok(Bytes::copy_from_slice(&bytes[..good]))))
    }
}

impl Incoming {
    /// The messages of a connection, and the headers that accept it with one of `protocols`.
    ///
    /// # Errors
    /// It is not a handshake.
    pub(super) fn open(
        request: &HttpRequest,
        payload: Payload,
        protocols: &[&str],
    ) -> Result<(Incoming, HeaderMap), actix_web::Error> {
        let shared = Rc::new(Shared { payload: RefCell::new(payload), fault: Cell::new(None) });
        let guarded: Pin<Box<dyn Stream<Item = _>>> =
            Box::pin(Guarded { shared: shared.clone(), guard: Guard::default() });
        // its only way from a stream; ready at once
        let payload = web::Payload::from_request(request, &mut Payload::from(guarded)).into_inner()?;
        let (mut answer, _, messages) = actix_ws::handle_with_protocols(request, payload, protocols)?;
        let messages =
            messages.max_frame_size(MAX_MESSAGE).aggregate_continuations().max_continuation_size(MAX_MESSAGE);
        let headers = std::mem::replace(answer.headers_mut(), HeaderMap::new());
        Ok((Incoming { messages, shared, _body: answer.into_body() }, headers))
    }

    /// The next message. Safe to drop while it waits.
    ///
    /// # Errors
    /// Why there is none any more.
    pub(super) async fn next(&mut self) -> Result<Heard, CloseReason> {
        let fault = || self.shared.fault.get();
        match self.messages.next().await {
            Some(Ok(AggregatedMessage::Text(text))) => Ok(Heard::Text(text.into())),
            Some(Ok(AggregatedMessage::Ping(payload))) => Ok(Heard::Ping(payload)),
            Some(Ok(AggregatedMessage::Pong(_))) => Ok(Heard::Pong),
            Some(Ok(AggregatedMessage::Close(said))) => Ok(Heard::Close(said)),
            Some(Ok(AggregatedMessage::Binary(_))) => Err(CloseReason::NotText),
            Some(Err(error)) => Err(fault().unwrap_or_else(|| reason(&error))),
            None => Err(fault().unwrap_or(CloseReason::Lost)),
        }
    }

    /// Reads what still comes and throws it away, for as long as anybody waits for it.
    pub(super) async fn drain(&mut self) -> Infallible {
        let mut drained = 0;
        while drained < MAX_DRAINED {
            let next = std::future::poll_fn(|cx| self.shared.payload.borrow_mut().poll_next_unpin(cx)).await;
            let Some(Ok(bytes)) = next else { break };
            drained += bytes.len();
        }
        std::future::pending().await
    }
}

/// What the guard leaves to find out: text, and the inside of a close frame.
fn reason(error: &ProtocolError) -> CloseReason {
    match error {
        ProtocolError::Io(error) if error.kind() == ErrorKind::InvalidData => CloseReason::NotUtf8,
        ProtocolError::Io(_) => CloseReason::Lost,
        _ => CloseReason::ProtocolError,
    }
}
