//! One run of the `postgres` program: start it, see it ready, end it, and know when its last process is gone.
//!
//! Must not know: data directories beyond their path, cleaning up. Invariant: the process is our direct child and is always
//! waited for; a killed postmaster left as a zombie makes the next start believe it still lives.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::account::Account;
use super::{Binaries, Environment, LocalPgError, io};

/// How often a starting or ending server is looked at; a start takes about 100 ms.
const POLL: Duration = Duration::from_millis(5);

/// How long a start may take. Minutes of crash recovery are not for a private server.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running server.
pub(super) struct Postgres {
    child: Child,
    /// Ends when no process of the server is left: all of them inherit the postmaster's standard output, a pipe.
    all_gone: Receiver<()>,
}

/// How to run it.
pub(super) struct Run<'a> {
    pub(super) binaries: &'a Binaries,
    pub(super) account: Account,
    pub(super) env: &'a Environment,
    pub(super) data: &'a Path,
    pub(super) log: &'a Path,
    pub(super) settings: &'a [(String, String)],
}

impl Postgres {
    /// Starts the program; [`Postgres::wait_ready`] says when it can be used.
    pub(super) fn spawn(run: &Run<'_>) -> Result<Self, LocalPgError> {
        let log = File::options().create(true).append(true).open(run.log).map_err(io("open the server's log"))?;
        let mut command = Command::new(run.binaries.program("postgres"));
        command.arg("-D").arg(run.data);
        for (name, value) in run.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.env_clear().env("PATH", run.env.path_value()).env("LC_ALL", "C").current_dir(run.data);
        // A group of its own: a terminal's Ctrl-C is for us; we end the server when we are done with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        run.account.apply(&mut command);
        let mut child = command.spawn().map_err(io(format!("run `{}`", run.binaries.program("postgres").display())))?;
        let (tell, all_gone) = sync_channel(1);
        if let Some(mut stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut sink = [0; 4096];
                while matches!(stdout.read(&mut sink), Ok(1..)) {}
                let _ = tell.send(());
            });
        }
        Ok(Self { child, all_gone })
    }

    /// The postmaster's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until connections are accepted. `Err` says why that will not happen.
    ///
    /// The postmaster writes its state into `postmaster.pid`, line 8 (`pg_ctl -w` looks there too). A stale file of a killed
    /// server has another process id in line 1.
    pub(super) fn wait_ready(&mut self, data: &Path) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        let pid = self.pid().to_string();
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("ended while starting ({status})"));
            }
            let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            let mut lines = file.lines();
            if lines.next() == Some(&pid) && lines.nth(6).is_some_and(|state| state.trim() == "ready") {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(format!("was not ready within {} s", READY_WITHIN.as_secs()))
    }

    /// Sends a signal and waits for the end of every process of the server.
    pub(super) fn end(&mut self, signal: Signal, within: Duration) -> Result<(), LocalPgError> {
        let deadline = Instant::now() + within;
        if self.exited().is_none() {
            self.signal(signal);
        }
        while self.exited().is_none() {
            if Instant::now() >= deadline {
                return Err(LocalPgError::WillNotEnd { pid: self.pid(), seconds: within.as_secs() });
            }
            std::thread::sleep(POLL);
        }
        match self.all_gone.recv_timeout(deadline.saturating_duration_since(Instant::now()).max(POLL)) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                Err(LocalPgError::WillNotEnd { pid: self.pid(), seconds: within.as_secs() })
            }
        }
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) {
        // The child has not been waited for, so the id is still its own.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Postgres {
    /// The last resort of a path that did not end the server itself: never leave it running, never leave a zombie.
    fn drop(&mut self) {
        if self.exited().is_none() {
            let _ = self.end(Signal::QUIT, Duration::from_secs(6));
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
