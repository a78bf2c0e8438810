//! Why a write was not carried out, as a problem.
//!
//! Must not know: SQL. Invariant: what is told of a row is what the caller may also read.

use super::Problem;
use super::etag::EntityTag;
use crate::pg::write::{Failure, Fault, Written};
use crate::pg::{PgError, Refusal};

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        problem(failure.fault)
    }
}

fn problem(fault: Fault) -> Problem {
    match fault {
        Fault::Forbidden => {
            Problem::new(403, "forbidden", "the row would not be one of those you may write; nothing was written")
        }
        Fault::NotFound => Problem::new(404, "not-found", "there is no row with this key"),
        Fault::Stale(now) => {
            let detail = "the row was changed since that version was read: decide anew on `current`, or on the row as you read it again";
            let problem = Problem::new(412, "version-conflict", detail);
            match now {
                Some(now) => with_row(problem, &now),
                None => problem,
            }
        }
        Fault::Exists(now) => {
            with_row(Problem::new(412, "version-conflict", "the row is there already, see `current`"), &now)
        }
        Fault::Raced => {
            let detail =
                "somebody created the row at the same moment; nothing was written, repeat it after `Retry-After`";
            Problem::new(409, "retry", detail).retry()
        }
        Fault::OtherKey => Problem::new(
            422,
            "read-only-column",
            "the key in the body is not the one in the address; a key is changed by a delete and an insert",
        ),
        Fault::Unmergeable(column) => Problem::new(
            422,
            "invalid-value",
            format!("the value of `{column}` cannot be merged with: replace it whole, with `PUT`"),
        ),
        Fault::Swallowed => Problem::new(409, "conflict", "the database did not take the row, and did not say why"),
        Fault::TooLarge => Problem::new(
            413,
            "payload-too-large",
            "the rows of the answer have more than 8 MiB; nothing was written: ask for `Prefer: return=minimal`, or send fewer operations",
        ),
        Fault::Changed => Problem::unavailable("unavailable", Refusal::CHANGING.detail),
        // not logged: whoever sends many writes would fill the log
        Fault::Busy => Problem::unavailable("unavailable", Refusal::BUSY.detail),
        Fault::InProgress => {
            let detail = "a request with this `Idempotency-Key` is being carried out: repeat it after `Retry-After`";
            Problem::new(409, "in-progress", detail).retry()
        }
        Fault::KeyReused => Problem::new(
            422,
            "idempotency-key-reused",
            "this `Idempotency-Key` was used for another request: take a new one for a new write",
        ),
        Fault::Refused(error) => refused(&error),
        Fault::Unknown => Problem::new(
            503,
            "outcome-unknown",
            "the connection broke during the commit: the write may have taken effect. Read the row, or repeat the request with the same \
             `Idempotency-Key` if it had one",
        ),
    }
}

/// `{"key", "version", "row"}`.
pub(super) fn row_json(written: &Written) -> String {
    let row = String::from_utf8_lossy(&written.row);
    format!("{{\"key\":\"{}\",\"version\":{},\"row\":{row}}}", written.key, written.version)
}

fn with_row(problem: Problem, now: &Written) -> Problem {
    problem.current(row_json(now), EntityTag::of_row(now.version, now.columns).to_string())
}

fn refused(error: &PgError) -> Problem {
    let refusal = Refusal::of(error);
    let mut problem = match refusal.status {
        500 => Problem::internal(refusal.detail, error.to_string()),
        status => Problem::new(status, refusal.code, refusal.detail),
    };
    match refusal.status {
        403 => tracing::warn!(%error, "a write was refused: the gateway lacks a right, call `rowcast.allow` again"),
        503 => tracing::warn!(%error, "a write was refused"),
        // the message may hold a value of the row
        _ => {}
    }
    if refusal.retry {
        problem = problem.retry();
    }
    match error.sqlstate().filter(|_| refusal.tell) {
        Some(state) => problem.sqlstate(state),
        None => problem,
    }
}
