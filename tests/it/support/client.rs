//! Clients over every transport, behind one trait: a scenario is written once and runs over all.

use super::replica::tick_of;
use super::socket::SocketClient;
use super::{PATIENCE, Replica};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use rowcast::http::POSITION;
use serde_json::Value;
use std::io::BufRead;
use std::net::SocketAddr;
use std::time::Duration;

/// A subscriber, whatever its transport.
pub trait Client: Send {
    /// Waits for the next messages and applies them. Returns what came; an error when the connection ended.
    fn advance(&mut self) -> BoxFuture<'_, Result<Vec<Value>, String>>;
    /// What it holds.
    fn replica(&self) -> &Replica;
    /// Leaves and comes back, maybe to another gateway, from where it was.
    fn reconnect(&mut self, to: SocketAddr) -> BoxFuture<'_, ()>;
    /// From the next connection on it shows this token.
    fn show(&mut self, token: Option<&str>);
}

impl dyn Client + '_ {
    /// Advances until the condition holds; panics with `what` when it does not come.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Replica) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self.replica()) {
            match tokio::time::timeout_at(deadline, self.advance()).await {
                Ok(Ok(_)) => {}
                Ok(Err(e)) => panic!("{what}: the stream ended: {e}"),
                Err(_) => panic!("{what}: waited {PATIENCE:?} in vain; holds {:#?}", self.replica()),
            }
        }
    }
}

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Sse,
    LongPoll,
    WebSocket,
}

pub const TRANSPORTS: [Transport; 3] = [Transport::Sse, Transport::LongPoll, Transport::WebSocket];

/// Subscribes with a query string (`table=scores&league=eq.nfl`).
pub async fn subscribe(transport: Transport, at: SocketAddr, query: &str) -> Box<dyn Client> {
    subscribe_as(transport, at, query, None).await
}

/// Subscribes with a token.
pub async fn subscribe_as(transport: Transport, at: SocketAddr, query: &str, token: Option<&str>) -> Box<dyn Client> {
    match transport {
        // nobody can look at its events from here on
        Transport::Sse => Box::new(Sse { recording: false, ..Sse::open_as(at, query, token).await }),
        Transport::LongPoll => Box::new(LongPoll { token: token.map(str::to_owned), ..LongPoll::new(at, query) }),
        Transport::WebSocket => Box::new(SocketClient::open_as(at, query, token).await),
    }
}

/// One SSE event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    pub event: String,
    pub id: Option<String>,
    pub data: String,
}

/// `GET /v1/stream`.
pub struct Sse {
    query: String,
    /// Shown with every request.
    pub token: Option<String>,
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
    /// No event ends before this offset of the buffer: a large one is searched once.
    searched: usize,
    pub replica: Replica,
    /// Every event, for tests that look at the wire.
    pub events: Vec<SseEvent>,
    /// Are events kept?
    pub recording: bool,
}

type Body = BoxStream<'static, reqwest::Result<bytes::Bytes>>;

impl Sse {
    pub async fn open(at: SocketAddr, query: &str) -> Sse {
        Sse::open_as(at, query, None).await
    }

    pub async fn open_as(at: SocketAddr, query: &str, token: Option<&str>) -> Sse {
        let body = Sse::get(at, query, None, token).await.unwrap();
        let (buffer, replica, events) = (Vec::new(), Replica::default(), Vec::new());
        Sse {
            query: query.to_owned(),
            token: token.map(str::to_owned),
            body,
            buffer,
            searched: 0,
            replica,
            events,
            recording: true,
        }
    }

    async fn get(at: SocketAddr, query: &str, last: Option<&str>, token: Option<&str>) -> reqwest::Result<Body> {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let mut request = client.get(format!("http://{at}/v1/stream?{query}")).header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        assert_eq!(answer.status(), 200, "{query}: {}", answer.text().await.unwrap());
        Ok(answer.bytes_stream().boxed())
    }

    /// The next whole event.
    pub async fn event(&mut self) -> Result<SseEvent, String> {
        loop {
            if let Some(end) = event_end(&self.buffer, self.searched) {
                let block: Vec<u8> = self.buffer.drain(..end).collect();
                self.searched = 0;
                let block = String::from_utf8(block).unwrap();
                if let Some(event) = parse(&block) {
                    if self.recording {
                        self.events.push(event.clone());
                    }
                    return Ok(event);
                }
                continue;
            }
            self.searched = self.buffer.len().saturating_sub(1);
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(e)) => return Err(e.to_string()),
                None if self.buffer.is_empty() => return Err("end".to_owned()),
                None => {
                    return Err(format!("cut in the middle of an event: {}", String::from_utf8_lossy(&self.buffer)));
                }
            }
        }
    }
}

/// Where the first event ends that does not end before `from`. Line by line, as std's search for a byte is fast also in
/// a test build; events may be hundreds of megabytes.
fn event_end(buffer: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += (&buffer[at..]).skip_until(b'\n').ok()?;
        match buffer.get(at) {
            Some(b'\n') if buffer[at - 1] == b'\n' => return Some(at + 1),
            Some(_) => {}
            None => return None,
        }
    }
}

fn parse(block: &str) -> Option<SseEvent> {
    let mut event = SseEvent::default();
    let mut data = Vec::new();
    for line in block.lines() {
        let (field, value) =
            line.split_once(':').map(|(f, v)| (f, v.strip_prefix(' ').unwrap_or(v))).unwrap_or((line, ""));
        match field {
            "event" => event.event = value.to_owned(),
            "id" => event.id = Some(value.to_owned()),
            "data" => data.push(value),
            "retry" | "" => {}
            other => panic!("unknown SSE field {other}"),
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}

impl Client for Sse {
    fn advance(&mut self) -> BoxFuture<'_, Result<Vec<Value>, String>> {
        Box::pin(async move {
            let event = self.event().await?;
            let message: Value = serde_json::from_str(&event.data).unwrap_or_else(|e| panic!("{e}: {}", event.data));
            self.replica.apply(&message);
            // `~`: for who threw away what it held at a reset. This client keeps it until the snapshot is whole, so that
            // it can go on from the resume point it has.
            if let Some(id) = event.id.filter(|id| !id.ends_with('~')) {
                // the browser's rule: the id counts once its event was dispatched
                let before = self.replica.tick();
                assert!(before.is_none_or(|b| tick_of(&id) >= b), "the id goes back from {before:?} to {id}");
                self.replica.settle(id);
            }
            Ok(vec![message])
        })
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn reconnect(&mut self, to: SocketAddr) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.buffer.clear();
            self.searched = 0;
            self.replica.roll_back();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                match Sse::get(to, &self.query, self.replica.position.as_deref(), self.token.as_deref()).await {
                    Ok(body) => return self.body = body,
                    // a gateway that starts again
                    Err(e) => assert!(tokio::time::Instant::now() < deadline, "{to} does not come back: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn show(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }
}

/// `GET /v1/changes` with `wait`.
pub struct LongPoll {
    at: SocketAddr,
    query: String,
    /// Keeps connections, as browsers do.
    http: reqwest::Client,
    /// Shown with every request.
    pub token: Option<String>,
    pub replica: Replica,
    /// Seconds of `wait`; 0 polls.
    pub wait: u64,
}

impl LongPoll {
    pub fn new(at: SocketAddr, query: &str) -> LongPoll {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(90)).build().unwrap();
        LongPoll { at, query: query.to_owned(), http, token: None, replica: Replica::default(), wait: 5 }
    }
}

impl Client for LongPoll {
    fn advance(&mut self) -> BoxFuture<'_, Result<Vec<Value>, String>> {
        Box::pin(async move {
            let since = self.replica.position.as_ref().map(|p| format!("&since={p}")).unwrap_or_default();
            let url = format!("http://{}/v1/changes?{}{since}&wait={}", self.at, self.query, self.wait);
            let mut request = self.http.get(&url);
            if let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.map_err(|e| e.to_string())?;
            let status = answer.status().as_u16();
            let position = answer.headers().get(POSITION.as_str()).map(|p| p.to_str().unwrap().to_owned());
            let text = answer.text().await.map_err(|e| e.to_string())?;
            if status == 410 {
                self.replica.position = None;
                self.replica.resets.push("410".to_owned());
                return Ok(Vec::new());
            }
            let messages = match status {
                200 => {
                    let body: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(body["position"].as_str().map(str::to_owned), position);
                    body["messages"].as_array().unwrap().clone()
                }
                204 => Vec::new(),
                401 | 404 | 503 => return Err(text),
                // a connection opened ahead of need, and given up by the server as the request was on its way
                408 if text.is_empty() => return Err("the connection was idle for too long".to_owned()),
                other => panic!("{url}: {other}: {text}"),
            };
            messages.iter().for_each(|m| self.replica.apply(m));
            self.replica.settle(position.unwrap());
            Ok(messages)
        })
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn reconnect(&mut self, to: SocketAddr) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.at = to })
    }

    fn show(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }
}
