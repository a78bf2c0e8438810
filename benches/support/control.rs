//! The control: a Node server with `pg`, `ws` and a buffer of 5 ms, in processes of its own.
//!
//! Must not know: what is measured. Invariant: what runs is what the lock file says; ended with the value.

use super::Outcome;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the bench has of it, beside what npm fetches.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// See the module.
pub(crate) struct Control {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) pids: Vec<u32>,
}

#[derive(serde::Deserialize)]
struct Told {
    port: u16,
    pids: Vec<u32>,
}

/// Installs it, unless what is there is the same.
fn install() -> Outcome<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/control");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?.join("bench-control");
    let installed = to.join("installed-lock.json");
    std::fs::create_dir_all(&to)?;
    for file in FILES {
        std::fs::copy(from.join(file), to.join(file))?;
    }
    let lock = std::fs::read(to.join("package-lock.json"))?;
    if std::fs::read(&installed).is_ok_and(|there| there == lock) {
        return Ok(to);
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"])
        .current_dir(&to)
        .stdout(Stdio::null())
        .status();
    match npm {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(format!("`npm ci` in {} ended with {status}", to.display()).into()),
        Err(error) => {
            return Err(
                format!("`npm` cannot be run ({error}): install Node 20 or newer, or leave `--control` out").into()
            );
        }
    }
    std::fs::write(installed, lock)?;
    Ok(to)
}

impl Control {
    /// Starts so many processes of it, and returns when all listen.
    pub(crate) fn start(url: &str, processes: u32) -> Outcome<Control> {
        let home = install()?;
        let mut child = Command::new("node")
            .arg("server.mjs")
            .env("DATABASE_URL", url)
            .env("CONTROL_PROCESSES", processes.to_string())
            .env("NODE_ENV", "production")
            .current_dir(home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("`node` cannot be run ({error}): install Node 20 or newer"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("nothing heard of the control")?).read_line(&mut line)?;
        let told: Told = serde_json::from_str(&line).map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            format!("the control does not start ({error}); what it said stands above")
        })?;
        Ok(Control { child, address: SocketAddr::from(([127, 0, 0, 1], told.port)), pids: told.pids })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // the others end when the first is gone
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
