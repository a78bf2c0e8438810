//! How many connections there are, and what becomes of those above the limit.
//!
//! Must not know: what is asked. Invariant: every connection is counted from its first moment to its last; one above the
//! limit is told so and closed, and takes nothing but that answer.

use super::{App, Problem, sse};
use crate::wire::CloseReason;
use actix_web::dev::ServiceRequest;
use actix_web::http::header::{ACCEPT, HeaderMap};
use actix_web::{HttpResponse, ResponseError, web};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whoever watches the process is answered also when it is full: it is not ill.
const WATCHERS: [&str; 2] = ["/healthz", "/readyz"];

/// Of one process.
#[derive(Debug)]
pub(super) struct Connections {
    open: AtomicUsize,
    most: usize,
}

/// One connection; stands in its data.
pub(super) struct Connection {
    all: Arc<Connections>,
    excess: bool,
}

impl Connections {
    /// At most so many.
    pub(super) fn new(most: usize) -> Arc<Connections> {
        Arc::new(Connections { open: AtomicUsize::new(0), most })
    }

    /// One more.
    pub(super) fn opened(self: &Arc<Connections>) -> Connection {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        Connection { all: self.clone(), excess: before >= self.most }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer to a request on a connection above the limit.
pub(super) fn refusal(request: &ServiceRequest) -> Option<HttpResponse> {
    let connection = request.conn_data::<Connection>().filter(|connection| connection.excess)?;
    if WATCHERS.contains(&request.path()) {
        return None;
    }
    let mut answer = if wants_events(request.headers()) {
        // as a status it would never come back
        sse::farewell(request.app_data::<web::Data<App>>()?, CloseReason::Overloaded)
    } else {
        let detail = format!(
            "all {} connections of this gateway are taken: come back after `Retry-After`, or raise `max_connections`",
            connection.all.most
        );
        Problem::unavailable("connection-limit", detail).error_response()
    };
    answer.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
    Some(answer)
}

/// Is the answer wanted as an event stream?
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("text/event-stream"))
}
