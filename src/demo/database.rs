//! Where the demo's data is: a private server, or a database somebody named.
//!
//! Must not know: what is stored. Invariant: nothing is downloaded without `--fetch` or a typed yes, and what was there
//! before the demo is there after it.

use std::io::{BufRead, IsTerminal, Write};

use super::error::io;
use super::{DemoArgs, DemoError};
use crate::localpg::{Binaries, Environment, LocalPg, LocalPgError, LocalPgOptions, fetch};

/// The name of the demo's database on a private server.
const DATABASE: &str = "postgres";

/// The demo's database. Dropping it ends a private server.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) url: String,
    /// The private server, if it is one.
    pub(super) private: Option<LocalPg>,
}

impl Database {
    /// The database named, or a private server, fetched first if need be and agreed to.
    pub(super) async fn open(args: &DemoArgs, env: &Environment) -> Result<Self, DemoError> {
        if let Some(url) = &args.database_url {
            return Ok(Self { url: url.clone(), private: None });
        }
        let binaries = match Binaries::find(env, args.pg_bin.as_deref()) {
            Ok(binaries) => binaries,
            Err(error @ LocalPgError::NotFound { .. }) => {
                if !consent(args, env)? {
                    return Err(error.into());
                }
                fetch::fetch(env).await?
            }
            Err(error) => return Err(error.into()),
        };
        let options = LocalPgOptions {
            environment: env.clone(),
            bin_dir: Some(binaries.bin),
            // The doorbell's cost and the latency shown are those of a server that flushes.
            fsync: true,
            ..LocalPgOptions::default()
        };
        let server = LocalPg::start(options).await?;
        Ok(Self { url: server.url(DATABASE), private: Some(server) })
    }
}

/// Whether a server may be fetched: `--fetch`, or a yes typed at a terminal after reading what it means.
fn consent(args: &DemoArgs, env: &Environment) -> Result<bool, DemoError> {
    let Some(offer) = fetch::offer(env) else { return Ok(false) };
    if args.fetch {
        anstream::println!("No PostgreSQL server found; --fetch {offer}.");
        return Ok(true);
    }
    if args.once || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Ok(false);
    }
    anstream::print!("No PostgreSQL server found. Fetch one? It {offer}. [y/N] ");
    std::io::stdout().flush().map_err(io("ask"))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(io("read the answer"))?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("Y\n") && is_yes(" yes "));
        assert!(!is_yes("\n") && !is_yes("yeah, later") && !is_yes("n"));
    }
}
