//! What a client sends, frame by frame to whole messages.
//!
//! Must not know: what messages say. Invariant: after the first fault nothing is read any more, and why is known.

use super::guard::{Guard, MAX_MESSAGE};
use crate::wire::CloseReason;
use actix_web::dev;
use actix_web::error::PayloadError;
use actix_web::http::header::HeaderMap;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, ProtocolError};
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

/// See the module.
pub(super) struct Incoming {
    messages: AggregatedMessageStream,
    shared: Rc<Shared>,
    /// The framework's own answer, which is not sent. Dropped, it would end `messages`.
    _answer: HttpResponse,
}

struct Shared {
    payload: RefCell<web::Payload>,
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
            Ok(()) => bytes,
            Err((good, reason)) => {
                this.shared.fault.set(Some(reason));
                bytes.slice(..good)
            }
        };
        Poll::Ready(Some(Ok(good)))
    }
}

impl Incoming {
    /// The messages of a connection, and the headers that accept it with one of `protocols`.
    ///
    /// # Errors
    /// It is not a handshake.
    pub(super) fn open(
        request: &HttpRequest,
        payload: web::Payload,
        protocols: &[&str],
    ) -> Result<(Incoming, HeaderMap), actix_web::Error> {
        let shared = Rc::new(Shared { payload: RefCell::new(payload), fault: Cell::new(None) });
        let guarded: Pin<Box<dyn Stream<Item = _>>> =
            Box::pin(Guarded { shared: shared.clone(), guard: Guard::default() });
        // its only way from a stream; ready at once
        let payload = web::Payload::from_request(request, &mut dev::Payload::from(guarded)).into_inner()?;
        let (answer, _, messages) = actix_ws::handle_with_protocols(request, payload, protocols)?;
        let messages =
            messages.max_frame_size(MAX_MESSAGE).aggregate_continuations().max_continuation_size(MAX_MESSAGE);
        let headers = answer.headers().clone();
        Ok((Incoming { messages, shared, _answer: answer }, headers))
    }

    /// The next message. Safe to drop while it waits.
    ///
    /// # Errors
    /// Why there is none any more.
    pub(super) async fn next(&mut self) -> Result<AggregatedMessage, CloseReason> {
        match self.messages.next().await {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(self.shared.fault.get().unwrap_or_else(|| reason(&error))),
            None => Err(self.shared.fault.get().unwrap_or(CloseReason::Lost)),
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
