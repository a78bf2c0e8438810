//! What can go wrong with Postgres, and whether trying again helps.
//!
//! Invariant: messages carry the remedy and never the statement, the row or the password.

use std::fmt::Write as _;
use tokio_postgres::error::SqlState;

/// An error of the database side.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// The connection string is wrong.
    #[error("the database url is not usable: {0}")]
    Url(String),
    /// The server cannot be reached, or the connection broke.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// The server answered with an error.
    #[error("{0}")]
    Server(String, SqlState),
    /// `rowcast migrate` was not run.
    #[error(
        "the schema `rowcast` is missing in database `{0}`: run `rowcast migrate` (or `rowcast serve --migrate`), or apply what `rowcast migrate --print` prints"
    )]
    NotInstalled(String),
    /// Migrations are missing.
    #[error("migrations are missing: {0}: run `rowcast migrate` (or `rowcast serve --migrate`)")]
    Behind(String),
    /// The database has migrations that this program does not know and that are marked breaking.
    #[error("the database was migrated by a newer rowcast ({0}): upgrade this program")]
    Newer(String),
    /// The server cannot do what is needed.
    #[error("{0}")]
    Unsupported(String),
    /// The server is a standby.
    #[error(
        "the database is a standby (`pg_is_in_recovery()` is true), where snapshots of its own are wrong: point the gateway at the primary"
    )]
    Standby,
    /// The database answered with something this program does not understand.
    #[error("unexpected answer from the database: {0}")]
    Unexpected(String),
}

impl PgError {
    /// May the same succeed later without anybody changing the configuration?
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            PgError::Unreachable(_) | PgError::Standby | PgError::Unexpected(_) => true,
            PgError::Server(_, state) => {
                // class 28 is a wrong password or pg_hba, 3D000 a missing database, 42 a missing object or right:
                // someone must act, but may do so while we wait
                !matches!(state.code().get(..2), Some("42"))
            }
            PgError::Url(_)
            | PgError::Unsupported(_)
            | PgError::NotInstalled(_)
            | PgError::Behind(_)
            | PgError::Newer(_) => false,
        }
    }

    /// Does the statement name what is not there any more, or is of another type now? The catalog will tell.
    #[must_use]
    pub fn stale_catalog(&self) -> bool {
        // undefined column, table, function, operator; a type that does not fit
        self.sqlstate().is_some_and(|state| matches!(state, "42703" | "42P01" | "42883" | "42804" | "42846"))
    }

    /// The SQLSTATE, if the server gave one.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            PgError::Server(_, state) => Some(state.code()),
            _ => None,
        }
    }
}

impl From<tokio_postgres::Error> for PgError {
    fn from(error: tokio_postgres::Error) -> PgError {
        if let Some(db) = error.as_db_error() {
            let mut text = format!("{} (SQLSTATE {})", db.message(), db.code().code());
            if let Some(hint) = db.hint() {
                let _ = write!(text, "; {hint}");
            }
            return PgError::Server(text, db.code().clone());
        }
        // the outer text ("error connecting to server") says less than its cause
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text = inner.to_string();
            if inner.is::<tokio_postgres::types::WrongType>() || inner.is::<tokio_postgres::types::WasNull>() {
                return PgError::Unexpected(text);
            }
            cause = inner.source();
        }
        PgError::Unreachable(text)
    }
}

impl From<deadpool_postgres::PoolError> for PgError {
    fn from(error: deadpool_postgres::PoolError) -> PgError {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            deadpool_postgres::PoolError::Timeout(_) => PgError::Unreachable(
                "no free connection in the pool in time: the database is slow or the pool too small".to_owned(),
            ),
            other => PgError::Unreachable(other.to_string()),
        }
    }
}
