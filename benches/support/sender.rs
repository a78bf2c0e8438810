//! The least fan-out can cost here: a bare tokio server that writes a frame it is given to every socket it has.
//!
//! Must not know: the gateway. Invariant: a frame is made once for all sockets; as many threads as the gateway has workers.

use super::part::{micros, obey};
use super::transport::Transport;
use super::{Outcome, server, ws};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio_postgres::{AsyncMessage, Client, NoTls};

/// Tells the program to be this part.
pub(crate) const ROLE: &str = "--be-the-sender";

/// Threads, and so many shares of the sockets.
const SHARES: usize = 2;

/// Changes that wait for the pass before them.
const QUEUE: usize = 100_000;

type Sockets = Arc<Mutex<Vec<TcpStream>>>;

/// Writes what is told to a share of the sockets, all at once.
async fn share(sockets: Sockets, mut told: broadcast::Receiver<Arc<[u8]>>, done: mpsc::Sender<()>) {
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

/// Greets a subscriber and counts it in.
async fn greet(mut socket: TcpStream, transport: Transport, sockets: &Sockets) {
    let _ = socket.set_nodelay(true);
    let _ = socket.read(&mut [0; 1024]).await;
    let head = match transport {
        Transport::Sse => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: cursor\ndata: {}\n\n".to_owned()
        }
        Transport::Ws => ws::accepted(),
    };
    // whoever has read that it stands is told everything from then on
    let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
    if socket.try_write(head.as_bytes()).is_ok_and(|written| written == head.len()) {
        sockets.push(socket);
    }
}

/// Passes over all sockets, one after the other.
struct Passes {
    tell: broadcast::Sender<Arc<[u8]>>,
    finished: mpsc::Receiver<()>,
}

impl Passes {
    async fn pass(&mut self, frames: Vec<u8>) -> Outcome {
        self.tell.send(frames.into())?;
        for _ in 0..SHARES {
            self.finished.recv().await;
        }
        Ok(())
    }
}

/// What a change is told with: `@` stands where its number goes.
#[derive(Clone)]
struct Wording {
    frame: String,
    transport: Transport,
}

impl Wording {
    fn of(&self, n: &str) -> Vec<u8> {
        let told = self.frame.replace('@', n);
        match self.transport {
            Transport::Sse => told.into_bytes(),
            Transport::Ws => ws::text(&told),
        }
    }
}

/// A session that listens to a row trigger, and a task that tells every change it hears, one write each.
async fn listen(url: &str, wording: Wording, passes: Arc<tokio::sync::Mutex<Passes>>) -> Outcome<Client> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (heard, mut hear) = mpsc::channel(QUEUE);
    server::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(note) = message {
                let number = note.payload().split_once("\"n\":").map(|(_, rest)| rest);
                let number = number.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
                if heard.try_send(number.unwrap_or_default().to_owned()).is_err() {
                    anstream::eprintln!("the bare server is {QUEUE} changes behind");
                    return;
                }
            }
        }
    });
    client.batch_execute("listen classic").await?;
    server::spawn(async move {
        while let Some(number) = hear.recv().await {
            if passes.lock().await.pass(wording.of(&number)).await.is_err() {
                return;
            }
        }
    });
    Ok(client)
}

/// Is the sender.
pub(crate) async fn run() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let (tell, _) = broadcast::channel::<Arc<[u8]>>(16);
    let (done, finished) = mpsc::channel(SHARES);
    let shares: Vec<Sockets> = (0..SHARES).map(|_| Sockets::default()).collect();
    for sockets in &shares {
        server::spawn(share(sockets.clone(), tell.subscribe(), done.clone()));
    }
    let passes = Arc::new(tokio::sync::Mutex::new(Passes { tell, finished }));
    let mut wording = Wording { frame: String::new(), transport: Transport::Sse };
    let (mut shares, mut listener) = (Some(shares), Some(listener));
    let mut session = None;
    obey(async |order: Value| {
        let number = |name: &str| order[name].as_i64().unwrap_or_default();
        match order["do"].as_str() {
            Some("be") => {
                wording.transport = serde_json::from_value(order["transport"].clone())?;
                order["frame"].as_str().unwrap_or_default().clone_into(&mut wording.frame);
                let (shares, listener) = (shares.take().ok_or("is already")?, listener.take().ok_or("is already")?);
                let transport = wording.transport;
                server::spawn(async move {
                    let mut turn = shares.iter().cycle();
                    while let (Ok((socket, _)), Some(sockets)) = (listener.accept().await, turn.next()) {
                        greet(socket, transport, sockets).await;
                    }
                });
                if let Some(url) = order["listen"].as_str() {
                    session = Some(listen(url, wording.clone(), passes.clone()).await?);
                }
                Ok(json!({ "at": at.to_string() }))
            }
            Some("send") if session.is_none() => {
                let (base, changes, each) = (number("base"), number("changes"), number("together"));
                let pause = Duration::from_micros(number("pause_us").unsigned_abs());
                let began = tokio::time::Instant::now();
                let began_micros = micros();
                let (mut n, mut turn) = (base, 0);
                while n < base + changes {
                    tokio::time::sleep_until(began + pause * turn).await;
                    turn += 1;
                    let mut frames = Vec::new();
                    for _ in 0..each.min(base + changes - n) {
                        n += 1;
                        frames.extend(wording.of(&n.to_string()));
                    }
                    passes.lock().await.pass(frames).await?;
                }
                Ok(json!({ "began": began_micros }))
            }
            _ => Err(format!("unknown order {order}").into()),
        }
    })
    .await
}
