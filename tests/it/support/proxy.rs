//! A TCP proxy that breaks on command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    #[default]
    Pass,
    /// Bytes are taken and go nowhere, connections stay open: a half-open peer.
    Swallow,
    /// Bytes pass, each portion so many milliseconds late.
    Delay(u64),
    /// New connections are closed at once; old ones are too.
    Refuse,
}

/// See the module.
pub struct Proxy {
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Bumped to cut all connections open now.
    cuts: watch::Sender<u64>,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let (modes, cut, stop) = (mode.clone(), cuts.clone(), stopped.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if *modes.borrow() == Mode::Refuse {
                    continue;
                }
                tokio::spawn(carry(client, target, modes.subscribe(), cut.subscribe()));
            }
        });
        Proxy { address, mode, cuts, stopped }
    }

    /// A proxy in front of the server of a `postgres://` url, and the url through it.
    pub async fn postgres(url: &str) -> (Proxy, String) {
        let config: tokio_postgres::Config = url.parse().unwrap();
        let port = config.get_ports()[0];
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let through = url.replacen(&format!(":{port}"), &format!(":{}", proxy.address.port()), 1);
        assert_ne!(url, through, "the url names its port");
        (proxy, through)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Resets all connections open now.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.cut();
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>, mut cut: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    cut.mark_unchanged();
    tokio::select! {
        _ = pump(&mut client_in, &mut server_out, mode.clone()) => {}
        _ = pump(&mut server_in, &mut client_out, mode) => {}
        _ = cut.changed() => {}
    }
}

async fn pump(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mode: watch::Receiver<Mode>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        let now = *mode.borrow();
        if let Mode::Delay(ms) = now {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        }
        let swallow = now == Mode::Swallow;
        match (n, swallow) {
            (0, false) => return Ok(()),
            // a half-open peer does not even hear the end
            (0, true) => std::future::pending().await,
            (n, false) => to.write_all(&buffer[..n]).await?,
            (_, true) => {}
        }
    }
}
