//! From the names in a write to a table that may be written, a row and its columns.
//!
//! Must not know: the database. Invariant: a column that is not shown and one that does not exist are refused in the same
//! words, before any row is looked at; so is a table that the caller may not reach and one that does not exist.

use super::{Problem, credentials};
use crate::change::{Seen, Table};
use crate::hub::Tables;
use crate::permit::{ANON, Permit};
use crate::pg::write::{Expected, RowKey, Verb};
use crate::session::Access;
use crate::wire::strict::{BodyError, Members};
use actix_web::HttpRequest;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        match error {
            BodyError::Malformed(_) => Problem::new(400, "malformed-request", error.to_string()),
            BodyError::Nul => Problem::new(422, "invalid-value", error.to_string()),
        }
    }
}

/// `{table}` and `{key}` of `/v1/tables/{table}/{key}`, still encoded; none where the path ends before.
pub(super) fn segments(path: &str) -> (Option<&str>, Option<&str>) {
    let mut segments = path.splitn(5, '/').skip(3);
    (segments.next().filter(|table| !table.is_empty()), segments.next())
}

/// The table's name, and the key as it stands in the address, still encoded: a decoded `%2C` would be taken for the comma
/// between two key columns.
pub(super) fn address(request: &HttpRequest) -> (String, Option<&str>) {
    let (table, key) = segments(request.uri().path());
    (percent_decode_str(table.unwrap_or_default()).decode_utf8_lossy().into_owned(), key)
}

/// Refuses a query string where none has a meaning: writes, bodies that say everything.
///
/// # Errors
/// 400.
pub(super) fn no_query(request: &HttpRequest) -> Result<(), Problem> {
    if request.query_string().is_empty() {
        return Ok(());
    }
    credentials::refuse_in(&serde_urlencoded::from_str::<Vec<_>>(request.query_string()).unwrap_or_default())?;
    Err(Problem::new(400, "malformed-request", "no parameters are taken in the address here"))
}

/// The table of this name, if the caller may write it, and what of it.
///
/// # Errors
/// 404, 503, or 403.
pub(super) fn table(tables: &Tables, name: &str, access: &Access) -> Result<(Arc<Table>, Permit), Problem> {
    let (table, permit) = access.reach(tables, name)?;
    if !permit.write {
        // the role is the caller's own to know; its rule is not
        let role = permit.said().map_or(ANON, |(role, _)| role);
        let detail = format!(
            "writing is off for this table; its owner turns it on: `select rowcast.allow('{}.{}', '{}', write => true)`",
            table.schema,
            table.name,
            role.escape_debug()
        );
        return Err(Problem::new(403, "writing-not-allowed", detail));
    }
    Ok((table, permit))
}

/// The row of this key.
///
/// # Errors
/// 400: the text is no key of this table.
pub(super) fn row_key(text: &str, table: &Table) -> Result<RowKey, Problem> {
    RowKey::parse(text, table).map_err(|e| Problem::new(400, "invalid-value", format!("the key: {e}")))
}

/// The version that a change of a row is based on.
///
/// # Errors
/// 428 when there is none and the table wants one.
pub(super) fn based_on(given: Option<Expected>, permit: &Permit, how: &str) -> Result<Expected, Problem> {
    match given {
        Some(expected) => Ok(expected),
        None if !permit.version_required => Ok(Expected::Any),
        None => Err(Problem::new(428, "precondition-required", format!("name the version you have read: {how}"))),
    }
}

/// The columns of a body, without `row_version`. That one may be there when it says what the condition says: then
/// somebody sends the row back that was read.
///
/// # Errors
/// 422.
pub(super) fn columns(members: Members, seen: Seen<'_>, verb: Verb, expected: &Expected) -> Result<Members, Problem> {
    let mut columns = Members::with_capacity(members.len());
    for (name, raw) in members {
        if name == "row_version" {
            let same = |version: &i64| raw.get() == version.to_string();
            let said = matches!(verb, Verb::Update | Verb::Replace | Verb::Put)
                && matches!(expected, Expected::OneOf(versions) if matches!(&versions[..], [version] if same(version)));
            if !said {
                return Err(Problem::new(
                    422,
                    "read-only-column",
                    "`row_version` is drawn by the database; in a changed row it may stand only as the version the change is based on",
                ));
            }
            continue;
        }
        if seen.column(&name).is_none() {
            return Err(Problem::new(422, "unknown-column", format!("unknown column `{}`", name.escape_debug())));
        }
        columns.push((name, raw));
    }
    Ok(columns)
}
