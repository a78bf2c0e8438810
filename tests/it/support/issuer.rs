//! An issuer that publishes its keys, and can be told to misbehave.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it answers.
#[derive(Clone, Debug)]
pub enum Mood {
    /// A set of keys.
    Keys(Vec<Value>),
    /// These bytes, as 200.
    Says(Vec<u8>),
    /// Another status, and a place to look instead.
    Status(u16, String),
    /// Nothing, for ever.
    Hangs,
}

/// See the module.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

struct Shared {
    mood: Mutex<Mood>,
    asked: AtomicUsize,
}

impl Issuer {
    pub async fn start(mood: Mood) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { mood: Mutex::new(mood), asked: AtomicUsize::new(0) });
        let serving = tokio::spawn({
            let shared = shared.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer(stream, shared.clone()));
                }
            }
        });
        Issuer { address, shared, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub fn becomes(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.lock().unwrap().clone();
    let (status, more, body) = match mood {
        Mood::Keys(keys) => (200, String::new(), json!({ "keys": keys }).to_string().into_bytes()),
        Mood::Says(bytes) => (200, String::new(), bytes),
        Mood::Status(status, location) => (status, format!("location: {location}\r\n"), Vec::new()),
        Mood::Hangs => return std::future::pending().await,
    };
    let head = format!("HTTP/1.1 {status} x\r\n{more}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // it may have turned away
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}
