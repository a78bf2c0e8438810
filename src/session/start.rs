//! How a subscription begins, and what is told when it cannot.
//!
//! Must not know: the session's other subscriptions. Invariant: a request is resolved against the tables as they are when the
//! subscription begins.

use super::{Access, Refusal, Request};
use crate::hub::{Hub, SourceError, Spec, Start, Subscription};
use crate::wire::{Message, message};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A subscription, or why there is none.
pub(super) type Begun = Result<Result<Subscription, Refusal>, SourceError>;

/// Resolves and subscribes; once more when the table, or what may be seen of it, changes in between.
pub(super) async fn begin(hub: Arc<Hub>, access: Access, waker: Arc<Notify>, request: Request, start: Start) -> Begun {
    loop {
        let spec = match request.resolve(&hub.tables(), &access) {
            Ok(spec) => spec,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let start = fitting(start, &spec);
        if let Some(running) = hub.subscribe(spec, start, waker.clone()).await? {
            return Ok(Ok(running));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whoever comes back and is shown something else holds rows that nothing will be said of, or lacks some: it begins anew.
fn fitting(start: Start, spec: &Spec) -> Start {
    match start {
        Start::After(point) if !point.marks.have(spec.mark) => Start::Anew(point.position),
        other => other,
    }
}

/// The end of one subscription.
pub(super) fn problem(code: &str, status: u16, detail: &str) -> Arc<[Message]> {
    let members = serde_json::json!({ "type": format!("/problems/{code}"), "title": "the subscription ended",
        "status": status, "code": code, "detail": detail });
    message::problem(serde_json::json!({ "problem": members }))
}
