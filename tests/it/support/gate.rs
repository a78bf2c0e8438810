//! A proxy that hurts only the connection that LISTENs: leadership and ticks go on beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the listening connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gated {
    /// Bytes pass.
    #[default]
    Pass,
    /// Bytes are taken and go nowhere: a half-open peer.
    Swallow,
    /// Nothing is read any more, so the buffers between fill up: a stopped peer.
    Stall,
    /// What the client sends from LISTEN on is kept, and passed on when the mode changes to `Pass`.
    Hold,
}

const NEEDLE: &[u8] = b"listen rowcast";

/// See the module.
pub struct Gate {
    mode: watch::Sender<Gated>,
    /// LISTENs seen.
    pub listens: Arc<AtomicUsize>,
}

impl Gate {
    /// A gate in front of the server of a `postgres://` url, and the url through it.
    pub async fn postgres(url: &str) -> (Gate, String) {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = url.replacen(&format!(":{port}"), &format!(":{}", listener.local_addr().unwrap().port()), 1);
        let gate = Gate { mode: watch::Sender::new(Gated::Pass), listens: Arc::default() };
        let (mode, listens) = (gate.mode.clone(), gate.listens.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = SocketAddr::from(([127, 0, 0, 1], port));
                tokio::spawn(carry(client, target, mode.subscribe(), listens.clone()));
            }
        });
        (gate, through)
    }

    pub fn set(&self, mode: Gated) {
        self.mode.send_replace(mode);
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mode: watch::Receiver<Gated>, listens: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let is_listener = watch::Sender::new(false);
    let seen = is_listener.subscribe();
    let up = async {
        let (mut from, mut to, mut buffer) = (client_in, server_out, vec![0; 64 * 1024]);
        let mut mode = mode.clone();
        loop {
            let n = from.read(&mut buffer).await?;
            if buffer[..n].windows(NEEDLE.len()).any(|w| w == NEEDLE) {
                is_listener.send_replace(true);
                listens.fetch_add(1, Ordering::SeqCst);
            }
            if *is_listener.borrow() {
                let _ = mode.wait_for(|m| !matches!(m, Gated::Hold | Gated::Stall)).await;
                if *mode.borrow() == Gated::Swallow {
                    // a half-open peer does not even hear the end
                    if n == 0 {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
            }
            if n == 0 {
                return std::io::Result::Ok(());
            }
            to.write_all(&buffer[..n]).await?;
        }
    };
    let down = async {
        let (mut from, mut to, mut buffer) = (server_in, client_out, vec![0; 64 * 1024]);
        let mut mode = mode.clone();
        loop {
            let n = from.read(&mut buffer).await?;
            if *seen.borrow() {
                let _ = mode.wait_for(|m| *m != Gated::Stall).await;
                if *mode.borrow() == Gated::Swallow {
                    if n == 0 {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
            }
            if n == 0 {
                return std::io::Result::Ok(());
            }
            to.write_all(&buffer[..n]).await?;
        }
    };
    tokio::select! {
        _ = up => {}
        _ = down => {}
    }
}

/// Closes the list of what was heard; a channel of its own, so that no gateway is woken by it.
const UNTIL_HERE: &str = "until_here";

/// What a session of the test's own hears on the doorbell's channel.
pub struct Ear {
    heard: tokio::sync::mpsc::Receiver<String>,
    client: tokio_postgres::Client,
}

impl Ear {
    /// Listens.
    pub async fn on(url: &str) -> Ear {
        let (client, mut connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let (tell, heard) = tokio::sync::mpsc::channel(10_000);
        tokio::spawn(async move {
            let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
            while let Some(Ok(message)) = futures_util::StreamExt::next(&mut messages).await {
                if let tokio_postgres::AsyncMessage::Notification(n) = message {
                    let _ = tell.send(n.channel().to_owned()).await;
                }
            }
        });
        client.batch_execute(&format!("listen rowcast; listen {UNTIL_HERE}")).await.unwrap();
        Ear { heard, client }
    }

    /// How often it rang since the last question: notifications arrive in commit order.
    pub async fn rung(&mut self) -> usize {
        self.client.batch_execute(&format!("notify {UNTIL_HERE}")).await.unwrap();
        let mut count = 0;
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.heard.recv()).await;
            match next.expect("our own notification").unwrap() {
                channel if channel == UNTIL_HERE => return count,
                _ => count += 1,
            }
        }
    }
}
