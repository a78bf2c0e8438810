//! A gateway in a process of its own: one that can be killed, stopped, and measured.

use super::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// See the module. Ends with its owner.
pub struct GatewayProcess {
    pub address: SocketAddr,
    child: Child,
}

impl GatewayProcess {
    /// `rowcast serve`, ready. The settings are environment variables.
    pub async fn start(url: &str, settings: &[(&str, &str)]) -> GatewayProcess {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
        command.arg("serve").env("DATABASE_URL", url).env("ROWCAST_LISTEN", "127.0.0.1:0").env("ROWCAST_LOG", "info");
        command.envs(settings.iter().copied()).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (mut tell, show) = (Some(tell), std::env::var("ROWCAST_LOG").is_ok());
            // to the end: a full pipe would stop the gateway
            while let Ok(Some(line)) = lines.next_line().await {
                if show {
                    eprintln!("process: {line}");
                }
                let plain: String = strip_colours(&line);
                if let Some(address) = plain.split("address=").nth(1).filter(|_| plain.contains("listening")) {
                    tell.take().map(|tell| tell.send(address.trim().parse().unwrap()));
                }
            }
        });
        let address = told.await.expect("the gateway says where it listens");
        let gateway = GatewayProcess { address, child };
        eventually("the gateway process is ready", || async {
            reqwest::get(format!("http://{address}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        gateway
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ended by itself.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// The most memory it ever had resident, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory it has resident, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// `/readyz` as JSON.
    pub async fn readyz(&self) -> serde_json::Value {
        reqwest::get(format!("http://{}/readyz", self.address)).await.unwrap().json().await.unwrap()
    }
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            let _ = chars.by_ref().find(|c| *c == 'm');
        } else {
            plain.push(c);
        }
    }
    plain
}
