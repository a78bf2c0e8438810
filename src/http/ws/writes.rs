//! Writes over a connection: what `POST /v1/batch` does, answered by the client's name for it.
//!
//! Must not know: sockets. Invariant: a write that is taken is answered once: `ack`, `conflict` or `problem`.

use super::super::{App, Problem, batch, stream, wishes};
use super::input::Write;
use crate::pg::write::{Claim, Outcome};
use crate::session::Access;
use crate::wire::strict::quoted;
use actix_web::web;

/// Carries it out; returns the message that answers it.
pub(super) async fn write(app: web::Data<App>, access: Access, write: Write) -> String {
    match perform(&app, &access, &write).await {
        Ok(outcome) => ack(&write.id, outcome),
        Err(problem) => refused(&write.id, &problem),
    }
}

async fn perform(app: &App, access: &Access, write: &Write) -> Result<Outcome, Problem> {
    if !stream::ready(app).await {
        return Err(Problem::unavailable("not-ready", "the gateway has not reached its database yet, see `/readyz`"));
    }
    let plan = batch::plan(&write.ops, &app.hub.tables(), access, None)?;
    let texts = write.ops.iter().map(|op| op.get());
    let claim: Option<Claim> =
        write.idempotency_key.as_deref().map(|key| wishes::claim_of_message(access, key, texts)).transpose()?;
    batch::perform(app, access, plan, claim).await
}

/// `{"type": "ack", "id", "rows", "position"}`.
fn ack(id: &str, outcome: Outcome) -> String {
    // the answer of a batch is `{"rows":[..]}`; repeated after a column went, it has none
    let body = outcome.answer.body.unwrap_or_else(|| "{\"rows\":[]}".to_owned());
    let rows = body.strip_prefix('{').and_then(|b| b.strip_suffix('}')).unwrap_or("\"rows\":[]");
    let position = serde_json::json!(outcome.position.map(|p| p.to_string()));
    let replayed = if outcome.replayed { ",\"replayed\":true" } else { "" };
    format!("{{\"type\":\"ack\",\"id\":{},{rows},\"position\":{position}{replayed}}}", quoted(id))
}

/// `{"type": "conflict", "id", "op", "current"}` when the row has another version, else `{"type": "problem", "id", "problem"}`.
pub(super) fn refused(id: &str, problem: &Problem) -> String {
    let id = quoted(id);
    if problem.code() == "version-conflict" {
        problem.log();
        let (op, current) = (problem.operation().unwrap_or_default(), problem.row().unwrap_or("null"));
        return format!("{{\"type\":\"conflict\",\"id\":{id},\"op\":{op},\"current\":{current}}}");
    }
    let document = problem.document(&problem.log());
    format!("{{\"type\":\"problem\",\"id\":{id},\"problem\":{document}}}")
}
