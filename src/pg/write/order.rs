//! What is to be written, what came of it, and why it did not.
//!
//! Must not know: HTTP, connections. Invariant: values are the texts the client sent; nothing here reads a number.

use crate::change::{Key, Position, Table};
use crate::filter::{Filter, FilterError};
use crate::permit::Permit;
use crate::pg::PgError;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;
use std::sync::Arc;

/// What to do with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A new row; its key is among the values, or generated.
    Insert,
    /// A new row with this key; it must not be there.
    Create,
    /// Some columns of a row that is there.
    Update,
    /// All columns of a row that is there: those not given get their default.
    Replace,
    /// [`Verb::Replace`] if the row is there, otherwise [`Verb::Create`].
    Put,
    /// Remove a row that is there.
    Delete,
}

/// Which version the row must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any.
    Any,
    /// One of these.
    OneOf(Vec<i64>),
}

/// The key of a row as a client names it.
#[derive(Clone, Debug)]
pub struct RowKey {
    /// Selects the row.
    pub filter: Filter,
    /// Column and text.
    pub parts: Vec<(String, String)>,
}

impl RowKey {
    /// Reads the wire's text.
    ///
    /// # Errors
    /// It is no key of this table.
    pub fn parse(text: &str, table: &Table) -> Result<RowKey, FilterError> {
        let filter = Filter::of_key(text, table)?;
        let texts: Vec<&str> = if table.key.len() > 1 { text.split(',').collect() } else { vec![text] };
        let decoded = texts.iter().map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
        Ok(RowKey { filter, parts: table.key.iter().cloned().zip(decoded).collect() })
    }
}

/// One write.
#[derive(Clone, Debug)]
pub struct Operation {
    /// What to do.
    pub verb: Verb,
    /// Where.
    pub table: Arc<Table>,
    /// What the caller may see and write there.
    pub permit: Permit,
    /// Which row; none for [`Verb::Insert`] alone.
    pub key: Option<RowKey>,
    /// Its version.
    pub expected: Expected,
    /// Columns that the caller is shown and their values, without `row_version`.
    pub values: Vec<(String, Box<RawValue>)>,
    /// Is its row part of the answer? Otherwise its text is not kept.
    pub answered: bool,
}

/// A row as it is after a write, or of a delete as it was.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its key.
    pub key: Key,
    /// Its version; of a deleted row that of the tombstone.
    pub version: i64,
    /// The columns that its writer is shown, as the stream has them.
    pub row: Bytes,
    /// Which these are, if not all: see [`Permit::columns_tag`].
    pub columns: Option<u32>,
    /// Was it not there before?
    pub created: bool,
}

/// A claim on an `Idempotency-Key`.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose key.
    pub subject: String,
    /// May several be that subject, whom the claims of their tokens tell apart?
    pub several: bool,
    /// The key.
    pub key: String,
    /// SHA-256 of the request.
    pub request: Vec<u8>,
}

/// The part of an answer that follows from the write alone, and is kept for a repeated request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<String>,
}

/// Makes the answer from what was written, in the order of the operations.
pub type Render = Box<dyn Fn(&[Written]) -> Answer + Send + Sync>;

/// Writes that happen all or not at all.
pub struct Order {
    /// In this order.
    pub operations: Vec<Operation>,
    /// For a request that may be repeated.
    pub claim: Option<Claim>,
    /// The answer: made inside the transaction, to be kept by it.
    pub render: Render,
}

/// What came of an order.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer.
    pub answer: Answer,
    /// Was this order carried out by an earlier request?
    pub replayed: bool,
    /// A state that contains the write; none when the stream did not reach it in time.
    pub position: Option<Position>,
}

/// An order that was not carried out, or may not have been.
#[derive(Debug)]
pub struct Failure {
    /// The operation that failed, if it was one.
    pub operation: Option<usize>,
    /// Why.
    pub fault: Fault,
}

/// Why an order was not carried out.
#[derive(Debug)]
pub enum Fault {
    /// There is no such row, or none that the caller is shown.
    NotFound,
    /// The row would be, or would have become, one that the caller is not shown.
    Forbidden,
    /// The row has another version: this row, if it could be looked at.
    Stale(Option<Written>),
    /// The row is there already: this row.
    Exists(Written),
    /// The row was not there, and then it was: somebody created it in between.
    Raced,
    /// The values name another key than the address.
    OtherKey,
    /// A column's value cannot be merged with.
    Unmergeable(String),
    /// The database took the statement and wrote nothing: a trigger of the application.
    Swallowed,
    /// The rows of the answer are too many bytes.
    TooLarge,
    /// A table is not what it was when it was loaded.
    Changed,
    /// As many writes as may run are running.
    Busy,
    /// A request with the same `Idempotency-Key` is being carried out.
    InProgress,
    /// The `Idempotency-Key` belongs to another request.
    KeyReused,
    /// The database refused, or was away before the commit.
    Refused(PgError),
    /// The commit was sent and no answer came.
    Unknown,
}

impl Operation {
    /// The row of this key, if the caller is shown it.
    pub(super) fn shown(&self, key: &RowKey) -> Filter {
        key.filter.and(&self.permit.filter)
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure { operation: None, fault }
    }
}

impl From<PgError> for Fault {
    fn from(error: PgError) -> Fault {
        Fault::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Refused(hushed(error))
    }
}

impl Failure {
    /// Without the row, which may be one that was undone.
    pub(super) fn without_look(self) -> Failure {
        match self {
            Failure { operation: operation @ Some(1..), fault: Fault::Stale(_) } => {
                Failure { operation, fault: Fault::Stale(None) }
            }
            other => other,
        }
    }
}

/// The error as it may be logged: what a function of the application raises is its own text, with whatever values it
/// likes in it, and stays away.
pub(super) fn hushed(error: tokio_postgres::Error) -> PgError {
    match error.as_db_error() {
        Some(db) if db.routine() == Some("exec_stmt_raise") => {
            let code = db.code().clone();
            PgError::Server(format!("raised by a function (SQLSTATE {})", code.code()), code)
        }
        _ => error.into(),
    }
}
