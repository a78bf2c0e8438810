//! Ends the server and removes its directory when this process dies without doing so, even by `kill -9`.
//!
//! Must not know: Postgres, beyond that SIGQUIT ends it at once. Invariant: while a server runs, a shell waits on a pipe
//! whose other end only this process holds; the kernel closes it however we die.
//!
//! Not `setpriv --pdeathsig`: the kernel sends that signal when the *thread* that started the child ends, and threads of a
//! runtime, or of a test, end long before the process. It also is Linux only and leaves the directory behind.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::account::Account;
use super::{Environment, LocalPgError, io};

/// Reads process ids, the newest counts (0: nothing to end). At the end of the input: ends that process and removes the
/// directory. A server is given 5 s, because SIGQUIT lets it stop its own children.
const SCRIPT: &str = r#"
pid=0
while read -r line; do pid=$line; done
if [ "$pid" -gt 0 ] && kill -QUIT "$pid" 2>/dev/null; then
  tries=50
  while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

/// The waiting shell.
pub(super) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts to watch; `dir` is removed at the end, whoever brings it about.
    pub(super) fn start(env: &Environment, account: Account, dir: &Path) -> Result<Self, LocalPgError> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(SCRIPT).arg("rowcast-watchdog").arg(dir);
        command.env_clear().env("PATH", env.path_value()).current_dir("/");
        // A group of its own: Ctrl-C and a killed process group must not take the watchdog along.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        account.apply(&mut command);
        let mut shell = command.spawn().map_err(io("run `/bin/sh`"))?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// From now on this process is the one to end.
    pub(super) fn watch(&mut self, pid: u32) {
        self.tell(pid);
    }

    /// Nothing runs: from now on only the directory is to be removed.
    pub(super) fn release(&mut self) {
        self.tell(0);
    }

    fn tell(&mut self, pid: u32) {
        if let Some(pipe) = &mut self.pipe {
            // A watchdog somebody killed is a lost convenience, no reason to fail.
            let _ = writeln!(pipe, "{pid}");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
