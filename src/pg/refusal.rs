//! What an SQLSTATE of a write means to the client: the one table.
//!
//! Must not know: HTTP types. Invariant: the sentences name no constraint, column or value: who caused the error may
//! not be allowed to know them.

use super::PgError;

/// The answer to a write that the database refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Slug of the problem.
    pub code: &'static str,
    /// What happened and the remedy.
    pub detail: &'static str,
    /// May the same write succeed a moment later?
    pub retry: bool,
    /// May the SQLSTATE be told?
    pub tell: bool,
}

const fn row(status: u16, code: &'static str, tell: bool, retry: bool, detail: &'static str) -> Refusal {
    Refusal { status, code, detail, retry, tell }
}

const BUSY: &str = "the database cannot take the write now; nothing was written, repeat it after `Retry-After`";
const REPEAT: &str = "another transaction got in the way; nothing was written, repeat it after `Retry-After`";
const VALUE: &str = "a value does not fit its column";
const GENERATED: &str = "a value was given for a column that the database generates";
const RIGHT: &str = "the gateway may not do this; the right that is missing is in its log";
const OWN: &str = "a rule of the database refused the write";
const CHANGING: &str = "the table is being changed; nothing was written, repeat it after `Retry-After`";

/// By SQLSTATE or the beginning of one; the first that fits. Codes:
/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
const TABLE: &[(&str, Refusal)] = &[
    ("23505", row(409, "conflict", true, false, "another row has the same value where values must be unique")),
    (
        "23503",
        row(409, "conflict", true, false, "a row that is referred to does not exist, or this one is still referred to"),
    ),
    ("23P01", row(409, "conflict", true, false, "another row excludes this one")),
    ("23502", row(422, "constraint-violation", true, false, "a column that must have a value has none")),
    ("23514", row(422, "constraint-violation", true, false, "the row breaks a rule of the table")),
    ("23", row(422, "constraint-violation", true, false, "the row breaks a rule of the table")),
    // a view's check option; a generated column
    ("44000", row(422, "constraint-violation", true, false, "the row breaks a rule of the table")),
    ("428C9", row(422, "invalid-value", true, false, GENERATED)),
    ("42804", row(422, "invalid-value", true, false, VALUE)),
    ("22", row(422, "invalid-value", true, false, VALUE)),
    // larger than an index entry may be
    ("54000", row(422, "invalid-value", true, false, VALUE)),
    ("RC409", row(412, "version-conflict", true, false, "the row was changed since it was read: read it again")),
    ("42501", row(403, "forbidden", true, false, RIGHT)),
    ("40001", row(409, "retry", true, true, REPEAT)),
    ("40P01", row(409, "retry", true, true, REPEAT)),
    ("55P03", row(503, "unavailable", true, true, BUSY)),
    ("57014", row(503, "unavailable", true, true, BUSY)),
    ("25006", row(503, "unavailable", true, true, BUSY)),
    // our own limit on a transaction that is left alone
    ("25P03", row(503, "unavailable", true, true, BUSY)),
    ("53", row(503, "unavailable", true, true, BUSY)),
    ("57P0", row(503, "unavailable", true, true, BUSY)),
    ("08", row(503, "unavailable", true, true, BUSY)),
    // the catalog is read again within seconds
    ("42703", row(503, "unavailable", true, true, CHANGING)),
    ("42P01", row(503, "unavailable", true, true, CHANGING)),
    ("P0", row(422, "refused-by-database", false, false, OWN)),
];

const INTERNAL: Refusal = row(
    500,
    "internal",
    false,
    false,
    "the write failed for a reason that this gateway does not know; it is in its log under the request id",
);

/// Classes that Postgres itself uses. Whatever else is a code that somebody's function raised.
const POSTGRES: &[&str] = &[
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54", "55", "57",
    "58", "72", "F0", "HV", "P0", "XX",
];

/// What an SQLSTATE means.
fn of_sqlstate(state: &str) -> Refusal {
    if let Some((_, refusal)) = TABLE.iter().find(|(begin, _)| state.starts_with(begin)) {
        return *refusal;
    }
    if POSTGRES.iter().any(|class| state.starts_with(class)) {
        return INTERNAL;
    }
    row(422, "refused-by-database", false, false, OWN)
}

impl Refusal {
    /// Nothing is wrong with the write.
    pub const BUSY: Refusal = row(503, "unavailable", false, true, BUSY);

    /// What the gateway knows of the table is old.
    pub const CHANGING: Refusal = row(503, "unavailable", false, true, CHANGING);

    /// What an error of a write means.
    #[must_use]
    pub fn of(error: &PgError) -> Refusal {
        match error {
            PgError::Unreachable(_) | PgError::Standby => Refusal::BUSY,
            _ => error.sqlstate().map_or(INTERNAL, of_sqlstate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row() {
        for (states, status, code, retry) in [
            (&["23505", "23503", "23P01"][..], 409, "conflict", false),
            (&["23502", "23514", "23000", "23001", "44000"], 422, "constraint-violation", false),
            (
                &["22001", "22003", "22007", "22008", "22021", "22P02", "22P03", "428C9", "42804", "54000"],
                422,
                "invalid-value",
                false,
            ),
            (&["RC409"], 412, "version-conflict", false),
            (&["42501"], 403, "forbidden", false),
            (&["40001", "40P01"], 409, "retry", true),
            (
                &[
                    "55P03", "57014", "53100", "53200", "53300", "57P01", "57P02", "57P03", "08000", "08006", "25006",
                    "25P03",
                ],
                503,
                "unavailable",
                true,
            ),
            (&["42703", "42P01"], 503, "unavailable", true),
            (
                &["P0001", "P0002", "P0004", "P0000", "UE001", "77777", "ZZ000", "AB123"],
                422,
                "refused-by-database",
                false,
            ),
            (
                &["XX000", "XX001", "42601", "0A000", "21000", "54001", "42883", "25P02", "40002", "57000"],
                500,
                "internal",
                false,
            ),
        ] {
            for state in states {
                let refusal = of_sqlstate(state);
                assert_eq!((refusal.status, refusal.code, refusal.retry), (status, code, retry), "{state}");
                // what a function raises, and what is unknown, is not told on
                assert_eq!(refusal.tell, !matches!(code, "refused-by-database" | "internal"), "{state}");
            }
        }
    }

    #[test]
    fn no_row_hides_another() {
        for (i, (state, refusal)) in TABLE.iter().enumerate() {
            let first = TABLE.iter().position(|(begin, _)| state.starts_with(begin));
            assert_eq!(first, Some(i), "{state} {refusal:?}");
        }
    }

    #[test]
    fn errors_without_a_code() {
        assert_eq!(Refusal::of(&PgError::Unreachable("gone".to_owned())).code, "unavailable");
        assert_eq!(Refusal::of(&PgError::Unexpected("what".to_owned())).status, 500);
    }
}
