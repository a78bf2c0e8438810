//! `rowcast serve` as a process of its own, as an operator runs it.
//!
//! Invariant: ended with the value.

use super::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a start, or reading what was missed, may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// See the module.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts it and returns when it listens.
    pub(crate) fn start(program: &Path, url: &str, settings: &[(&str, &str)]) -> Outcome<Gateway> {
        let mut command = Command::new(program);
        command.arg("serve").env("DATABASE_URL", url).env("ROWCAST_LISTEN", "127.0.0.1:0");
        command.env("ROWCAST_LOG_JSON", "true").env("ROWCAST_LOG", "info").envs(settings.iter().copied());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no log of the gateway")?).lines();
        let mut said = Vec::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else {
                return Err(format!("the gateway does not start; it said:\n{}", said.join("\n")).into());
            };
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = entry["fields"]["address"].as_str() {
                break address.parse()?;
            }
            said.push(line);
        };
        // a full pipe would stop it; what it says is shown when something is wrong
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if !line.contains(r#""level":"INFO""#) {
                    anstream::eprintln!("gateway: {line}");
                }
            }
        });
        Ok(Gateway { child, address })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `/readyz`, when it answers.
    pub(crate) async fn readyz(&self) -> Option<serde_json::Value> {
        reqwest::get(format!("http://{}/readyz", self.address)).await.ok()?.json().await.ok()
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn until(&self, what: &str, good: impl Fn(&serde_json::Value) -> bool) -> Outcome {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if self.readyz().await.is_some_and(|answer| good(&answer)) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Err(format!("the gateway was not {what} within {} s", PATIENCE.as_secs()).into())
    }

    pub(crate) async fn ready(&self) -> Outcome {
        self.until("ready", |answer| answer["ready"] == true && answer["doorbell"] == "ok").await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
