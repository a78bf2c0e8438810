//! `/healthz` and `/readyz`.

use super::App;
use crate::pg::Condition;
use actix_web::{HttpResponse, web};
use std::time::Duration;

/// Above this age of the last confirmation the gateway does not promise freshness.
const STALE: Duration = Duration::from_secs(10);

/// Fails slowly: a restart cures a process that is stuck, not a database that is away, so only a long time without
/// any sign of life fails.
const DEAD: Duration = Duration::from_secs(300);

/// `GET /healthz`.
pub(super) async fn healthz(app: web::Data<App>) -> HttpResponse {
    let age = app.hub.lag().unwrap_or_else(|| app.started.elapsed());
    let alive = age < DEAD;
    let mut answer = if alive { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header(("Cache-Control", "no-store")).json(serde_json::json!({ "alive": alive }))
}

/// `GET /readyz`: every condition by name, so that the reason is read where the question is asked.
pub(super) async fn readyz(app: web::Data<App>) -> HttpResponse {
    let position = app.hub.position();
    let lag = app.hub.lag();
    let conditions = [
        app.status.feed(),
        Condition { name: "position", problem: position.is_none().then(|| "no tick read yet".to_owned()) },
        Condition {
            name: "freshness",
            problem: lag
                .filter(|lag| *lag > STALE)
                .map(|lag| format!("nothing heard from the database for {} s", lag.as_secs())),
        },
        Condition { name: "serving", problem: app.stopping.is_cancelled().then(|| "shutting down".to_owned()) },
    ];
    let ready = conditions.iter().all(|c| c.problem.is_none());
    // not a condition: without the bell the safety poll finds everything, only later
    let doorbell = if app.bell.working() { "ok" } else { "not heard, polling instead" };
    let listed: Vec<_> = conditions
        .iter()
        .map(|c| serde_json::json!({ "name": c.name, "ok": c.problem.is_none(), "reason": c.problem }))
        .collect();
    let (shapes, subscriptions) = app.hub.size();
    let body = serde_json::json!({
        "ready": ready, "conditions": listed, "role": app.status.role().name(), "doorbell": doorbell,
        "position": position.map(|p| p.to_string()), "lag_ms": lag.map(|l| l.as_millis()),
        "tables": app.hub.tables().iter().count(), "shapes": shapes, "subscriptions": subscriptions,
    });
    let mut answer = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header(("Cache-Control", "no-store")).json(body)
}
