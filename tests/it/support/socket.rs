//! A WebSocket client: message by message, and as a subscriber like any other.

use super::client::Client;
use super::replica::tick_of;
use super::{PATIENCE, Replica};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A connection.
pub struct Socket {
    pub inner: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Every message, for tests that look at the wire.
    pub seen: Vec<Value>,
}

/// How a connection ended: the code of the close frame (none for one without) and its reason, or without any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Closed(u16, String),
    Broken,
}

impl Socket {
    /// Connects with these headers.
    pub async fn connect(at: SocketAddr, headers: &[(&str, &str)]) -> Result<(Socket, Response), tungstenite::Error> {
        Socket::connect_to(at, "/v1/ws", headers).await
    }

    /// The same to this address of the gateway.
    pub async fn connect_to(
        at: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Socket, Response), tungstenite::Error> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        Socket::over(stream, at, target, headers).await
    }

    async fn over(
        stream: TcpStream,
        at: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Socket, Response), tungstenite::Error> {
        let mut request = format!("ws://{at}{target}").into_client_request().unwrap();
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        // a snapshot may be as large as its rows
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let stream = MaybeTlsStream::Plain(stream);
        let (inner, answer) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await?;
        Ok((Socket { inner, seen: Vec::new() }, answer))
    }

    /// Connects, says `init` and waits for `ready`.
    pub async fn ready(at: SocketAddr) -> Socket {
        Socket::ready_as(at, None).await
    }

    /// The same with a token.
    pub async fn ready_as(at: SocketAddr, token: Option<&str>) -> Socket {
        let (socket, _) = Socket::connect(at, &[("sec-websocket-protocol", "rowcast.v1")]).await.unwrap();
        socket.begun(token).await
    }

    /// The same, with a kernel that keeps next to nothing while this does not read.
    pub async fn narrow(at: SocketAddr) -> Socket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = socket.connect(at).await.unwrap();
        let (socket, _) = Socket::over(stream, at, "/v1/ws", &[]).await.unwrap();
        socket.begun(None).await
    }

    async fn begun(mut self, token: Option<&str>) -> Socket {
        self.send(json!({ "type": "init", "token": token })).await;
        let ready = self.next().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        self
    }

    pub async fn send(&mut self, message: Value) {
        self.inner.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Says it whether or not anybody listens.
    pub async fn try_send(&mut self, message: impl Into<Message>) -> bool {
        self.inner.send(message.into()).await.is_ok()
    }

    /// The next message, or how it ended.
    pub async fn step(&mut self) -> Result<Value, Ended> {
        loop {
            match self.inner.next().await {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                    self.seen.push(message.clone());
                    return Ok(message);
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(Ended::Closed(frame.code.into(), frame.reason.to_string()));
                }
                Some(Ok(Message::Close(None))) => return Err(Ended::Closed(0, String::new())),
                Some(Ok(Message::Binary(bytes))) => panic!("a binary message: {bytes:?}"),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Ended::Broken),
            }
        }
    }

    /// The next message.
    pub async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(PATIENCE, self.step()).await;
        next.expect("a message").unwrap_or_else(|ended| panic!("it ended: {ended:?}"))
    }

    /// The next message of this type; those before it are passed over.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// How it ends; messages before are passed over.
    pub async fn end(&mut self) -> Ended {
        let ended = async {
            loop {
                if let Err(ended) = self.step().await {
                    return ended;
                }
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("an end")
    }

    /// The code it is closed with.
    pub async fn closed(&mut self) -> u16 {
        match self.end().await {
            Ended::Closed(code, _) => code,
            Ended::Broken => panic!("cut, not closed"),
        }
    }
}

/// The subscriptions of a query string: `table=..&..`, or `sub=<label>~<table>?<filters>` repeated.
pub fn subscriptions(query: &str, since: Option<&str>) -> Vec<Value> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap();
    let subs: Vec<&str> = pairs.iter().filter(|(name, _)| name == "sub").map(|(_, value)| value.as_str()).collect();
    if subs.is_empty() {
        return vec![subscription("1", query, since)];
    }
    let one = |sub: &&str| {
        let (label, rest) = sub.split_once('~').unwrap();
        let (table, query) = rest.split_once('?').unwrap_or((rest, ""));
        subscription(label, &format!("table={table}&{query}"), since)
    };
    subs.iter().map(one).collect()
}

/// `where` has what is not said beside it.
fn subscription(label: &str, query: &str, since: Option<&str>) -> Value {
    let mut message = json!({ "type": "subscribe", "sub": label, "since": since });
    let mut filters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap() {
            (name @ ("table" | "select" | "numbers" | "since"), value) => {
                let decoded = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
                if name != "since" || since.is_none() {
                    message[name] = json!(decoded);
                }
            }
            _ => filters.push(pair),
        }
    }
    message["where"] = json!(filters.join("&"));
    message
}

/// A subscriber over a WebSocket.
pub struct SocketClient {
    query: String,
    socket: Socket,
    token: Option<String>,
    /// Subscriptions that are not taken yet: no `cursor` speaks of them.
    untaken: usize,
    pub replica: Replica,
}

impl SocketClient {
    pub async fn open_as(at: SocketAddr, query: &str, token: Option<&str>) -> SocketClient {
        let mut socket = Socket::ready_as(at, token).await;
        let subscribe = subscriptions(query, None);
        let untaken = subscribe.len();
        for subscribe in subscribe {
            socket.send(subscribe).await;
        }
        SocketClient {
            query: query.to_owned(),
            socket,
            token: token.map(str::to_owned),
            untaken,
            replica: Replica::default(),
        }
    }

    /// Does this say that everything up to its position was told? Of the only subscription, the last part of a tick does;
    /// of several, a `cursor`.
    fn is_whole(&self, message: &Value) -> bool {
        match message["type"].as_str() {
            Some("snapshot" | "changes") => message["more"] == false && !self.query.contains("sub="),
            kind => kind == Some("cursor") && self.untaken == 0,
        }
    }
}

impl Client for SocketClient {
    fn advance(&mut self) -> BoxFuture<'_, Result<Vec<Value>, String>> {
        Box::pin(async move {
            let message = self.socket.step().await.map_err(|ended| format!("{ended:?}"))?;
            self.socket.seen.clear();
            self.replica.apply(&message);
            self.untaken -= usize::from(message["type"] == "subscribed");
            if let Some(position) = message["position"].as_str().filter(|_| self.is_whole(&message)) {
                let before = self.replica.tick();
                assert!(before.is_none_or(|b| tick_of(position) >= b), "back from {before:?} to {position}");
                self.replica.settle(position.to_owned());
            }
            Ok(vec![message])
        })
    }

    fn replica(&self) -> &Replica {
        &self.replica
    }

    fn reconnect(&mut self, to: SocketAddr) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.replica.roll_back();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                match Socket::connect(to, &[]).await {
                    Ok((socket, _)) => {
                        self.socket = socket;
                        break;
                    }
                    Err(e) => assert!(tokio::time::Instant::now() < deadline, "{to} does not come back: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let subscribe = subscriptions(&self.query, self.replica.position.as_deref());
            self.untaken = subscribe.len();
            let init = json!({ "type": "init", "token": self.token });
            for message in std::iter::once(init).chain(subscribe) {
                // a gateway that goes again is noticed when the next message is waited for
                self.socket.try_send(Message::text(message.to_string())).await;
            }
        })
    }

    fn show(&mut self, token: Option<&str>) {
        self.token = token.map(str::to_owned);
    }
}
