//! A proxy that hurts a connection at the moment it commits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens at a COMMIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtCommit {
    /// It passes.
    #[default]
    Pass,
    /// The connection ends before the server hears of it.
    CutBefore,
    /// The server hears of it and commits; the connection ends before the answer.
    CutAfter,
    /// The server commits; its answer goes nowhere and the connection stays open.
    Silent,
}

/// As a write of the gateway sends it.
const COMMIT: &[u8] = b"commit\0";

/// See the module.
pub struct Cutter {
    mode: watch::Sender<AtCommit>,
    /// COMMITs seen.
    pub commits: Arc<AtomicUsize>,
}

impl Cutter {
    /// In front of the server of a `postgres://` url, and the url through it.
    pub async fn postgres(url: &str) -> (Cutter, String) {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = url.replacen(&format!(":{port}"), &format!(":{}", listener.local_addr().unwrap().port()), 1);
        assert_ne!(url, through, "the url names its port");
        let cutter = Cutter { mode: watch::Sender::new(AtCommit::Pass), commits: Arc::default() };
        let (mode, commits) = (cutter.mode.subscribe(), cutter.commits.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, SocketAddr::from(([127, 0, 0, 1], port)), mode.clone(), commits.clone()));
            }
        });
        (cutter, through)
    }

    pub fn set(&self, mode: AtCommit) {
        self.mode.send_replace(mode);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mode: watch::Receiver<AtCommit>, commits: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let (silent, mut answers) = (watch::Sender::new(false), vec![0; 64 * 1024]);
    let hears = silent.subscribe();
    let down = async {
        loop {
            let n = server_in.read(&mut answers).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            if !*hears.borrow() && client_out.write_all(&answers[..n]).await.is_err() {
                return;
            }
        }
    };
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = client_in.read(&mut buffer).await.unwrap_or(0);
            if n == 0 {
                return;
            }
            let mut how = AtCommit::Pass;
            if buffer[..n].windows(COMMIT.len()).any(|w| w == COMMIT) {
                commits.fetch_add(1, Ordering::SeqCst);
                how = *mode.borrow();
            }
            if how == AtCommit::CutBefore {
                return;
            }
            if how != AtCommit::Pass {
                silent.send_replace(true);
            }
            if server_out.write_all(&buffer[..n]).await.is_err() || how == AtCommit::CutAfter {
                // what was sent is read by the server before it sees the end
                let _ = server_out.shutdown().await;
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}
