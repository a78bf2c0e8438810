//! One run of pgbench, the load generator that comes with Postgres.

use super::server::Server;
use super::{Outcome, cpu};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What to run.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) script: &'a str,
    pub(crate) clients: u32,
    pub(crate) seconds: u32,
    /// `simple`, `extended`, `prepared`.
    pub(crate) protocol: &'a str,
}

/// What came out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) per_second: f64,
    pub(crate) transactions: f64,
    /// Processor seconds of the whole server during the run.
    pub(crate) server: f64,
}

/// Beside the server; where its directory holds links to the programs, beside the real one.
fn program(server: &Server) -> PathBuf {
    let binaries = server.pg.binaries();
    let real = binaries.program("postgres").canonicalize().ok().and_then(|p| Some(p.parent()?.join("pgbench")));
    let beside = binaries.program("pgbench");
    [Some(beside), real].into_iter().flatten().find(|p| p.is_file()).unwrap_or_else(|| "pgbench".into())
}

/// Runs it; the runtime goes on meanwhile, so that listeners are drained.
pub(crate) async fn run(server: &Server, database: &str, load: Load<'_>) -> Outcome<Run> {
    let mut script = tempfile::NamedTempFile::new()?;
    script.write_all(load.script.as_bytes())?;
    let program = program(server);
    let sessions = cpu::children(server.pid)?;
    let before = cpu::server_seconds(server.pid)?;
    let mut command = tokio::process::Command::new(&program);
    command.args(["--no-vacuum", "--host=127.0.0.1", "--username=postgres", "--jobs=2"]);
    command.arg(format!("--port={}", server.pg.port())).env("PGPASSWORD", server.pg.password());
    command.arg(format!("--protocol={}", load.protocol)).arg(format!("--client={}", load.clients));
    command.arg(format!("--time={}", load.seconds)).arg("--file").arg(script.path()).arg(database);
    // pgbench refuses more threads than clients
    if load.clients == 1 {
        command.arg("--jobs=1");
    }
    let output = command.output().await.map_err(|e| {
        format!("cannot run `{}`: {e}; install the package with pgbench (postgresql-contrib)", program.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    // a session that ends while times are read would be counted neither as living nor as waited for
    for _ in 0..200 {
        if cpu::children(server.pid)?.iter().all(|pid| sessions.contains(pid)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let server_seconds = cpu::server_seconds(server.pid)? - before;
    let number = |start: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
        rest.trim().split(|c: char| c != '.' && !c.is_ascii_digit()).next()?.parse::<f64>().ok()
    };
    let wanted = || format!("pgbench says nothing of its rate:\n{text}");
    Ok(Run {
        per_second: number("tps = ").ok_or_else(wanted)?,
        transactions: number("number of transactions actually processed: ").ok_or_else(wanted)?,
        server: server_seconds,
    })
}
