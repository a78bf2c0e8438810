//! The demo's command line.
//!
//! Must not know: what is done with it. Invariant: plain values, no environment.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// The port of the page when it is free.
const USUAL_PORT: u16 = 8080;

/// How long `--once` runs when `--seconds` does not say.
const ONCE_SECONDS: u64 = 5;

/// Play live games in a private Postgres and watch them in the browser; Ctrl-C removes everything.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DemoArgs {
    /// Run unattended for a few seconds, check what a subscriber receives, say so, and end
    #[arg(long)]
    pub once: bool,
    /// End after this many seconds (with `--once`: play that long, default 5)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// Serve on this address instead of 127.0.0.1:8080 (or a free port, when 8080 is taken)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Serve on this port of 127.0.0.1
    #[arg(long, conflicts_with = "listen")]
    pub port: Option<u16>,
    /// The directory of `postgres` and `initdb`, instead of a search
    #[arg(long, value_name = "DIR", conflicts_with = "database_url")]
    pub pg_bin: Option<PathBuf>,
    /// Use this database instead of a private one; the example's tables are made in it and removed at the end
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Agree to fetch a server with npm when there is none
    #[arg(long, conflicts_with = "database_url")]
    pub fetch: bool,
    /// Do not open the page in a browser
    #[arg(long)]
    pub no_open: bool,
}

impl DemoArgs {
    /// Where to serve: what was asked for, else the usual port, else any free one.
    pub(super) fn address(&self) -> SocketAddr {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match (self.listen, self.port) {
            (Some(address), _) => address,
            (None, Some(port)) => local(port),
            // Unattended runs must not depend on what else the machine does.
            (None, None) if self.once || TcpListener::bind(local(USUAL_PORT)).is_err() => local(0),
            (None, None) => local(USUAL_PORT),
        }
    }

    /// When to end by itself.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.seconds.or(self.once.then_some(ONCE_SECONDS)).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_on_loopback_and_an_unattended_run_takes_any() {
        let args = DemoArgs { port: Some(9), ..DemoArgs::default() };
        assert_eq!(args.address(), "127.0.0.1:9".parse().unwrap());
        let once = DemoArgs { once: true, ..DemoArgs::default() };
        assert_eq!((once.address().port(), once.duration()), (0, Some(Duration::from_secs(5))));
        assert_eq!(DemoArgs::default().duration(), None);
    }
}
