//! Why the demo ended, other than because it was asked to.
//!
//! Must not know: how it is shown. Invariant: `Display` never repeats the source; walk the sources to see the cause.

use crate::localpg::LocalPgError;
use crate::pg::PgError;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no private server.
    #[error(transparent)]
    LocalPg(#[from] LocalPgError),
    /// The database given has tables of the example's names that are not the example's.
    #[error("the database has its own table `{0}`; name an empty database, or leave `--database-url` out")]
    Occupied(String),
    /// Rowcast's schema could not be installed.
    #[error("cannot install the schema `rowcast`")]
    Migrate(#[from] PgError),
    /// Postgres refused something.
    #[error("cannot {what}")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Its answer.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The gateway did not start.
    #[error("cannot start the gateway")]
    Gateway(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// `--once` found that a subscriber did not get what it must get.
    #[error("the check failed: {0}")]
    Check(String),
    /// An operating system error.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl DemoError {
    /// The message and what caused it, down to the first cause, each said once.
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            // Some libraries repeat their sources, some do not.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text
    }
}

/// For `map_err` on answers of Postgres.
pub(super) fn database(what: &'static str) -> impl FnOnce(tokio_postgres::Error) -> DemoError {
    move |source| DemoError::Database { what, source }
}

/// For `map_err` on answers of the operating system.
pub(super) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}
