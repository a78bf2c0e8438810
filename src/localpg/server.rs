//! A private server from start to end: directory, port, process, clean-up.
//!
//! Must not know: SQL. Invariant: port, password and directory stay the same over `kill` and `restart`; when the last owner
//! is gone no process and no temporary file is left.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::account::Account;
use super::child::{Postgres, Run};
use super::cluster::{Cluster, random_hex};
use super::watchdog::Watchdog;
use super::{Binaries, Environment, LocalPgError};

/// How often another port is tried when one was taken between finding it free and starting.
const PORT_TRIES: u32 = 8;

/// How many random ports are looked at to find a free one: with half of them taken, one in 2^32 searches fails.
const PORT_PROBES: u32 = 32;

/// Below the ephemeral ports of Linux (32768) and macOS (49152): while the server is down for a restart, no outgoing
/// connection can be given its port.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A server that gets SIGQUIT ends its children itself and gives up on them after 5 s.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A clean shutdown writes a checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Room for `/.s.PGSQL.12345` under the 107 bytes a socket address may have; BSD allows 103.
const SOCKET_DIR_MAX: usize = 103 - 16;

/// What kind of server is wanted.
#[derive(Clone, Debug, Default)]
pub struct LocalPgOptions {
    /// Where to look and where to put things.
    pub environment: Environment,
    /// A directory with `postgres` and `initdb`, instead of a search.
    pub bin_dir: Option<PathBuf>,
    /// Server settings (`-c name=value`); they win over the defaults, save for address, port and socket directory.
    pub settings: Vec<(String, String)>,
    /// Flush to disk as a real server does. Without it a crash of the machine, not of the server, loses data.
    pub fsync: bool,
    /// A directory to keep; a temporary one otherwise.
    pub data_dir: Option<PathBuf>,
    /// Keep a copy of the fresh cluster (40 MB) in the cache and start from it the next time.
    pub template: bool,
}

/// A running (or killed) private server. Dropping it ends it and removes what was temporary.
pub struct LocalPg {
    binaries: Binaries,
    port: u16,
    password: String,
    run_dir: PathBuf,
    data_dir: PathBuf,
    /// Blocking work happens in here, on the runtime's blocking threads; the lock is held for as long as it takes.
    server: Arc<Mutex<Server>>,
}

impl std::fmt::Debug for LocalPg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPg").field("port", &self.port).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl LocalPg {
    /// Finds the programs, makes a cluster, starts the server, and returns when it accepts connections.
    ///
    /// # Errors
    /// No programs, or the server does not start; the message says what to do.
    pub async fn start(options: LocalPgOptions) -> Result<Self, LocalPgError> {
        blocking(move || start(&options, free_port)).await
    }

    /// A connection string for one of its databases, over TCP, as the superuser `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The programs it runs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The server's log.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.run_dir.join("server.log")
    }

    /// The postmaster's process id, unless it was killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.lock().postgres.as_ref().map(Postgres::pid)
    }

    /// Kills the postmaster (SIGKILL) and returns when all its processes are gone; `restart` then recovers from a crash.
    ///
    /// # Errors
    /// A process of the server did not end.
    pub async fn kill(&mut self) -> Result<(), LocalPgError> {
        self.with(|server| server.end(Signal::KILL, END_WITHIN)).await
    }

    /// Stops the server if it runs (a clean, fast shutdown) and starts it again on the same port and data.
    ///
    /// # Errors
    /// It does not stop or does not start; its log is in the message.
    pub async fn restart(&mut self) -> Result<(), LocalPgError> {
        self.with(|server| {
            server.end(Signal::INT, STOP_WITHIN)?;
            server.run()
        })
        .await
    }

    /// A clean, fast shutdown. A temporary data directory is removed.
    ///
    /// # Errors
    /// The server did not end.
    pub async fn stop(self) -> Result<(), LocalPgError> {
        self.with(|server| server.end(Signal::INT, STOP_WITHIN)).await
    }

    async fn with(
        &self,
        work: impl FnOnce(&mut Server) -> Result<(), LocalPgError> + Send + 'static,
    ) -> Result<(), LocalPgError> {
        let server = Arc::clone(&self.server);
        blocking(move || work(&mut server.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part that runs programs and waits for them.
struct Server {
    binaries: Binaries,
    account: Account,
    env: Environment,
    settings: Vec<(String, String)>,
    data_dir: PathBuf,
    run_dir: PathBuf,
    postgres: Option<Postgres>,
    watchdog: Watchdog,
}

impl Server {
    fn run(&mut self) -> Result<(), LocalPgError> {
        let log = self.run_dir.join("server.log");
        let run = Run {
            binaries: &self.binaries,
            account: self.account,
            env: &self.env,
            data: &self.data_dir,
            log: &log,
            settings: &self.settings,
        };
        let mut postgres = Postgres::spawn(&run)?;
        self.watchdog.watch(postgres.pid());
        if let Err(why) = postgres.wait_ready(&self.data_dir) {
            drop(postgres);
            self.watchdog.release();
            return Err(LocalPgError::Start { why, log: tail(&log) });
        }
        self.postgres = Some(postgres);
        Ok(())
    }

    fn end(&mut self, signal: Signal, within: Duration) -> Result<(), LocalPgError> {
        let Some(postgres) = &mut self.postgres else { return Ok(()) };
        postgres.end(signal, within)?;
        self.postgres = None;
        self.watchdog.release();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A kept data directory deserves a checkpoint; a temporary one only a quick end.
        let kept = !self.data_dir.starts_with(&self.run_dir);
        let (signal, within) = if kept { (Signal::INT, STOP_WITHIN) } else { (Signal::QUIT, END_WITHIN) };
        let _ = self.end(signal, within);
        self.postgres = None;
        let _ = std::fs::remove_dir_all(&self.run_dir);
    }
}

fn start(
    options: &LocalPgOptions,
    mut next_port: impl FnMut() -> Result<u16, LocalPgError>,
) -> Result<LocalPg, LocalPgError> {
    let env = &options.environment;
    let binaries = Binaries::find(env, options.bin_dir.as_deref())?;
    let account = Account::choose()?;
    let run_dir = env.temp.join(format!("rowcast-pg-{}", random_hex(6)));
    account.private_dir(&run_dir)?;
    let watchdog = Watchdog::start(env, account, &run_dir)?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| run_dir.join("data"));
    let settings = Vec::new();
    let mut server =
        Server { binaries, account, env: env.clone(), settings, data_dir, run_dir, postgres: None, watchdog };
    let mut template = options.template;
    let mut tries = 0;
    let (port, password) = loop {
        let password = server.prepare(template)?;
        let port = next_port()?;
        server.settings = settings_for(options, port, &server.run_dir);
        tries += 1;
        match server.run() {
            Ok(()) => break (port, password),
            Err(LocalPgError::Start { log, .. }) if log.contains("could not create any TCP/IP sockets") => {
                if tries >= PORT_TRIES {
                    return Err(LocalPgError::NoPort { tries });
                }
            }
            // A template cut short by a crash of the machine: once more with a fresh cluster.
            Err(LocalPgError::Start { .. }) if template && options.data_dir.is_none() && server.drop_template() => {
                template = false;
                let _ = std::fs::remove_dir_all(&server.data_dir);
            }
            Err(error) => return Err(error),
        }
    };
    let (binaries, run_dir, data_dir) = (server.binaries.clone(), server.run_dir.clone(), server.data_dir.clone());
    Ok(LocalPg { binaries, port, password, run_dir, data_dir, server: Arc::new(Mutex::new(server)) })
}

impl Server {
    fn cluster(&self) -> Cluster<'_> {
        Cluster { binaries: &self.binaries, account: self.account, env: &self.env, scratch: &self.run_dir }
    }

    fn prepare(&self, template: bool) -> Result<String, LocalPgError> {
        self.cluster().prepare(&self.data_dir, template)
    }

    fn drop_template(&self) -> bool {
        self.cluster().drop_template()
    }
}

fn settings_for(options: &LocalPgOptions, port: u16, run_dir: &Path) -> Vec<(String, String)> {
    let run_dir = run_dir.to_string_lossy();
    let socket_dir = if run_dir.len() <= SOCKET_DIR_MAX { run_dir } else { "".into() };
    let mut settings = vec![("shared_buffers", "32MB")];
    // Shared memory as files in the data directory: /dev/shm is small in containers and keeps what a killed server leaves.
    settings.push(("dynamic_shared_memory_type", "mmap"));
    if !options.fsync {
        settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
    }
    let mut settings: Vec<(String, String)> = settings.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
    settings.extend(options.settings.iter().cloned());
    settings.push(("listen_addresses".into(), Ipv4Addr::LOCALHOST.to_string()));
    settings.push(("port".into(), port.to_string()));
    settings.push(("unix_socket_directories".into(), socket_dir.into()));
    settings
}

/// A port nobody listens on now; somebody may before the server does.
fn free_port() -> Result<u16, LocalPgError> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..PORT_PROBES).map(|_| rand::random_range(PORTS)).find(free).ok_or(LocalPgError::NoPort { tries: PORT_PROBES })
}

/// The last lines of the log, enough for a cause and its hint.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalPgError> + Send + 'static,
) -> Result<T, LocalPgError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LocalPgError::Interrupted)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_taken_in_the_meantime_is_replaced_by_another() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        let mut ports = vec![free_port().unwrap(), taken_port];
        let environment = Environment::read(|name| (name == "TMPDIR").then(|| "/tmp".into()));
        let options = LocalPgOptions { environment, ..LocalPgOptions::default() };
        let server = start(&options, || Ok(ports.pop().unwrap())).unwrap();
        assert!(ports.is_empty());
        assert_ne!(server.port(), taken_port);
        assert!(std::fs::read_to_string(server.log_file()).unwrap().contains("could not create any TCP/IP sockets"));
    }
}
