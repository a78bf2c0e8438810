//! Before the upgrade: who may connect, and what is a handshake.

use crate::bad_input::{get, served};
use crate::support::World;
use crate::support::raw_socket::{RawSocket, request};
use crate::support::socket::Socket;
use rowcast::wire::CloseReason;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Error;

/// The status and, of a refusal, the code of the problem.
fn refused(error: Error) -> (u16, String) {
    let Error::Http(answer) = error else { panic!("{error}") };
    let problem: Value = serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).unwrap_or_default();
    (answer.status().as_u16(), problem["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_before_the_upgrade() {
    let world = World::new().await;
    let gateway = world.gateway_with(|s| s.allowed_origins = vec!["https://app.example.com".to_owned()]).await;
    let own = format!("http://{}", gateway.address);
    for origin in ["https://app.example.com", &own] {
        let opened = Socket::connect(gateway.address, &[("origin", origin)]).await;
        assert!(opened.is_ok(), "{origin}");
    }
    let other_port = format!("http://{}:1", gateway.address.ip());
    for origin in [
        "https://evil.example",
        "null",
        "https://app.example.com.evil",
        "https://app.example.com:8443",
        "https://APP.EXAMPLE.COM",
        "http://app.example.com",
        &other_port,
    ] {
        let error = Socket::connect(gateway.address, &[("origin", origin)]).await.err().unwrap();
        assert_eq!(refused(error), (403, "origin-not-allowed".to_owned()), "{origin}");
    }
    let two = [("origin", "https://app.example.com"), ("origin", "https://evil.example")];
    let error = Socket::connect(gateway.address, &two).await.err().unwrap();
    assert_eq!(refused(error).0, 403, "two origins");
    let plain = get(gateway.address, "/v1/ws", &[("origin", "https://evil.example")]).await;
    assert_eq!((plain.status, plain.problem()["code"].as_str().unwrap()), (403, "origin-not-allowed"));
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_no_handshake_is_told_what_would_be() {
    let (_world, gateway) = served().await;
    let at = gateway.address;
    let plain = get(at, "/v1/ws", &[]).await;
    assert_eq!((plain.status, plain.problem()["code"].as_str().unwrap()), (426, "upgrade-required"));
    assert!(plain.headers.contains(&("sec-websocket-version".into(), "13".into())), "{:?}", plain.headers);
    let good = request("");
    for (bad, status) in [
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (good.replace("Connection: Upgrade", "Connection: close"), 400),
        (good.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        (good.replace("/v1/ws", "/v1/ws?token=x"), 400),
    ] {
        let (_, head) = RawSocket::connect(at, &bad).await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")) || head.starts_with(&format!("HTTP/1.0 {status} ")),
            "{bad}{head}"
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_answer_names_the_protocol_and_no_extension() {
    let (_world, gateway) = served().await;
    let at = gateway.address;
    let offer = "Sec-WebSocket-Protocol: graphql-ws, rowcast.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n";
    let (_, head) = RawSocket::connect(at, &request(offer)).await;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nsec-websocket-protocol: rowcast.v1\r\n"), "{head}");
    // the example of RFC 6455, 1.3
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("extensions") && !head.contains("transfer-encoding"), "{head}");
    let (_, head) = RawSocket::connect(at, &request("")).await;
    assert!(!head.to_ascii_lowercase().contains("protocol:"), "{head}");
    let before = gateway.gateway().closes().of(CloseReason::NoSubprotocol);
    let (mut socket, _) = RawSocket::connect(at, &request("Sec-WebSocket-Protocol: graphql-ws\r\n")).await;
    assert_eq!(socket.close().await.code(), 4406);
    let mut rest = Vec::new();
    socket.stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "nothing after the close: {rest:?}");
    assert_eq!(gateway.gateway().closes().of(CloseReason::NoSubprotocol), before + 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_gateway_without_its_database_says_when_to_come_back() {
    let world = World::bare().await;
    let gateway = world.starting_gateway(|s| s.database_url = "postgres://nobody@127.0.0.1:1/nothing".to_owned());
    let (mut socket, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    socket.send(json!({ "type": "init" })).await;
    let bye = socket.next().await;
    assert_eq!((bye["type"].as_str(), bye["reason"].as_str()), (Some("bye"), Some("not-ready")), "{bye}");
    assert_eq!(socket.closed().await, 1013);
    gateway.stop().await;
}
