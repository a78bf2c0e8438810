//! What a client asks to be told, from names and texts to a shape.
//!
//! Must not know: HTTP, SQL. Invariant: a table that may not be reached and one that does not exist are told apart
//! by nobody outside.

use crate::auth::Caller;
use crate::change::Table;
use crate::filter::{Filter, FilterError};
use crate::hub::{Spec, Tables};
use crate::wire::Projection;
use std::sync::{Arc, LazyLock};

/// One subscription as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's label; stands in every message.
    pub sub: Arc<str>,
    /// `scores` or `schema.table`.
    pub table: String,
    /// Filter terms, decoded.
    pub filter: Vec<(String, String)>,
    /// Columns wanted.
    pub select: Option<String>,
    /// Send int8 and numeric as strings.
    pub wide_as_strings: bool,
}

/// In whose name something is done.
#[derive(Clone, Debug)]
pub enum Access {
    /// A caller's: tables watched with `public => true`, whatever the role.
    Caller(Arc<Caller>),
    /// The operator's at the terminal, who has the database's password anyway: all watched tables.
    Operator,
}

static ANONYMOUS: LazyLock<Access> = LazyLock::new(|| Access::Caller(Caller::anonymous().clone()));

impl Access {
    /// Of whoever shows no token. Always the same one: most requests are of this kind, and cost nothing for it.
    #[must_use]
    pub fn anonymous() -> &'static Access {
        &ANONYMOUS
    }

    /// May this table be reached?
    #[must_use]
    pub fn reaches(&self, table: &Table) -> bool {
        match self {
            Access::Caller(_) => table.public,
            Access::Operator => true,
        }
    }
}

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such table, or not for this caller.
    #[error(
        "no such table: it must be watched (`select rowcast.watch('schema.table', public => true)`) and spelt as in the database"
    )]
    NotFound,
    /// The table is watched and cannot be served.
    #[error("the table cannot be served now: {0}")]
    Broken(String),
    /// A column in `select` is not there.
    #[error("unknown column `{0}` in `select`")]
    UnknownColumn(String),
    /// The filter is wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl Request {
    /// Resolves the request against the tables as they are now.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn resolve(&self, tables: &Tables, access: &Access) -> Result<Spec, Refusal> {
        let table: &Arc<Table> =
            tables.by_name(&self.table).filter(|table| access.reaches(table)).ok_or(Refusal::NotFound)?;
        if let Some(why) = &table.broken {
            return Err(Refusal::Broken(why.clone()));
        }
        let pairs = self.filter.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Spec {
            filter: Filter::parse(pairs, table)?,
            projection: Projection::parse(self.select.as_deref(), self.wide_as_strings, table)
                .map_err(Refusal::UnknownColumn)?,
            table: table.clone(),
        })
    }
}

impl Refusal {
    /// Slug of the problem.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NotFound => "not-found",
            Refusal::Broken(_) => "table-unavailable",
            Refusal::UnknownColumn(_) => "unknown-column",
            Refusal::Filter(error) => error.code(),
        }
    }

    /// HTTP status of the problem.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Refusal::NotFound => 404,
            Refusal::Broken(_) => 503,
            Refusal::UnknownColumn(_) | Refusal::Filter(_) => 400,
        }
    }
}
