//! What a client asks to be told, from names and texts to a shape.
//!
//! Must not know: HTTP, SQL. Invariants: a table that may not be reached and one that does not exist are told apart
//! by nobody outside; nor are a column that is not shown and one that does not exist.

use crate::auth::Caller;
use crate::change::Table;
use crate::filter::{Filter, FilterError};
use crate::hub::{Spec, Tables};
use crate::permit::Permit;
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
    /// A caller's: what the rules of the tables give the role.
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

    /// The table of this name, and what may be seen and written of it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn reach(&self, tables: &Tables, name: &str) -> Result<(Arc<Table>, Permit), Refusal> {
        let table = tables.by_name(name).ok_or(Refusal::NotFound)?;
        let permit = match self {
            Access::Operator => Permit::operator(),
            Access::Caller(caller) => Permit::of(table, &caller.role, caller.claims.get()).map_err(|why| {
                tracing::debug!(table = name, role = &*caller.role, %why, "a table is not shown");
                Refusal::NotFound
            })?,
        };
        match &table.broken {
            Some(why) => Err(Refusal::Broken(why.clone())),
            None => Ok((table.clone(), permit)),
        }
    }
}

/// Why a request cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No such table, or not for this caller.
    #[error(
        "no such table: it must be watched and allowed (`select rowcast.watch('schema.table', public => true)`, or `rowcast.allow` for \
         a role) and spelt as in the database"
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
        let (table, permit) = access.reach(tables, &self.table)?;
        self.within(table, &permit)
    }

    /// Resolves the request against a table, and what may be seen of it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn within(&self, table: Arc<Table>, permit: &Permit) -> Result<Spec, Refusal> {
        let pairs = self.filter.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let seen = permit.seen(&table);
        Ok(Spec {
            filter: Filter::parse(pairs, seen)?.and(&permit.filter),
            projection: Projection::parse(self.select.as_deref(), self.wide_as_strings, seen)
                .map_err(Refusal::UnknownColumn)?,
            grant: permit.grant.clone(),
            mark: permit.mark(&table),
            table,
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
