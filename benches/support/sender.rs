//! The least fan-out can cost here: a bare tokio server that writes a frame it is given to every socket it has.
//!
//! Must not know: where changes come from. Invariant: a frame is made once for all sockets; as many threads as the
//! gateway has workers.

use super::Outcome;
use super::part::{micros, obey};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

/// Tells the program to be this part.
pub(crate) const ROLE: &str = "--be-the-sender";

/// Threads, and so many shares of the sockets.
const SHARES: usize = 2;

type Sockets = Arc<Mutex<Vec<TcpStream>>>;

/// Writes what is told to a share of the sockets, all at once.
async fn share(sockets: Sockets, mut told: broadcast::Receiver<Arc<[u8]>>, done: tokio::sync::mpsc::Sender<()>) {
    while let Ok(frames) = told.recv().await {
        let mut behind = Vec::new();
        {
            let sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
            for (i, socket) in sockets.iter().enumerate() {
                let written = socket.try_write(&frames).unwrap_or(0);
                if written < frames.len() {
                    behind.push((i, written));
                }
            }
        }
        // no more than one frame behind: what is measured has clients that read
        for (i, mut written) in behind {
            while written < frames.len() {
                tokio::time::sleep(Duration::from_micros(200)).await;
                let sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
                written += sockets[i].try_write(&frames[written..]).unwrap_or(0);
            }
        }
        let _ = done.send(()).await;
    }
}

/// Is the sender.
pub(crate) async fn run() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let (tell, _) = broadcast::channel::<Arc<[u8]>>(16);
    let (done, mut finished) = tokio::sync::mpsc::channel(SHARES);
    let shares: Vec<Sockets> = (0..SHARES).map(|_| Sockets::default()).collect();
    for sockets in &shares {
        super::server::spawn(share(sockets.clone(), tell.subscribe(), done.clone()));
    }
    super::server::spawn(async move {
        let mut turn = shares.iter().cycle();
        while let (Ok((mut socket, _)), Some(sockets)) = (listener.accept().await, turn.next()) {
            let _ = socket.set_nodelay(true);
            let _ = socket.read(&mut [0; 1024]).await;
            let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: cursor\ndata: {}\n\n";
            let _ = socket.write_all(head).await;
            sockets.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        }
    });
    obey(async |order: Value| {
        if order["do"] != "send" {
            return Ok(json!({ "at": at.to_string() }));
        }
        let number = |name: &str| order[name].as_i64().unwrap_or_default();
        // `@` stands where the number of the change goes
        let frame = order["frame"].as_str().unwrap_or_default();
        let (base, changes, each) = (number("base"), number("changes"), number("together"));
        let pause = Duration::from_micros(number("pause_us").unsigned_abs());
        let began = tokio::time::Instant::now();
        let began_micros = micros();
        let mut n = base;
        let mut turn = 0;
        while n < base + changes {
            tokio::time::sleep_until(began + pause * turn).await;
            turn += 1;
            let mut frames = String::new();
            for _ in 0..each.min(base + changes - n) {
                n += 1;
                frames.push_str(&frame.replace('@', &n.to_string()));
            }
            tell.send(frames.into_bytes().into())?;
            for _ in 0..SHARES {
                finished.recv().await;
            }
        }
        Ok(json!({ "began": began_micros }))
    })
    .await
}
