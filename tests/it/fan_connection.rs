//! The connection of a stream, taken over from the framework: who is gone is noticed, and nothing is mixed into it.

use crate::support::{PATIENCE, World, eventually};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const STREAM: &str = "GET /v1/stream?table=scores HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n";

async fn world() -> World {
    let world = World::new().await;
    world
        .run("create table scores (id int primary key, home int); select rowcast.watch('scores', public => true)")
        .await;
    world.run("insert into scores values (1, 0)").await;
    world
}

async fn connect(at: std::net::SocketAddr, request: &str) -> TcpStream {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

/// Reads until the text is there.
async fn until(socket: &mut TcpStream, held: &mut String, what: &str) {
    let mut buffer = vec![0; 16 * 1024];
    while !held.contains(what) {
        let n = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect(what).unwrap();
        assert!(n > 0, "{what}: ended with {held}");
        held.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
}

#[tokio::test]
async fn who_leaves_is_noticed_within_a_second() {
    let world = world().await;
    let gateway = world.gateway().await;
    let subscribers = || gateway.gateway().core().hub.size().1;
    for how in ["close", "half-close", "reset"] {
        let mut held = String::new();
        let mut socket = connect(gateway.address, STREAM).await;
        until(&mut socket, &mut held, "\"more\":false").await;
        assert_eq!(subscribers(), 1, "{how}");
        let left = tokio::time::Instant::now();
        let kept = match how {
            "close" => {
                drop(socket);
                None
            }
            "half-close" => {
                socket.shutdown().await.unwrap();
                Some(socket)
            }
            _ => {
                socket.set_zero_linger().unwrap();
                drop(socket);
                None
            }
        };
        eventually(how, || async { subscribers() == 0 }).await;
        assert!(left.elapsed() < Duration::from_secs(1), "{how}: {:?}", left.elapsed());
        drop(kept);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_after_other_requests_of_the_connection() {
    let world = world().await;
    let gateway = world.gateway().await;
    let rows = "GET /v1/tables/scores HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut held = String::new();
    let mut socket = connect(gateway.address, rows).await;
    until(&mut socket, &mut held, "}]").await;
    held.clear();
    socket.write_all(STREAM.as_bytes()).await.unwrap();
    until(&mut socket, &mut held, "\"more\":false").await;
    assert!(held.starts_with("HTTP/1.1 200 OK\r\n"), "{held}");
    world.run("update scores set home = 7").await;
    until(&mut socket, &mut held, "\"home\":7").await;

    // pipelined behind a small answer: that comes first, whole
    let (mut held, expect) = (String::new(), format!("{STREAM}\r\n"));
    let mut socket = connect(gateway.address, &format!("{rows}{STREAM}")).await;
    until(&mut socket, &mut held, "\"type\":\"snapshot\"").await;
    let second = held.rfind("HTTP/1.1 200").unwrap();
    assert!(second > 0 && held[..second].ends_with("}]"), "{held}");

    // and an answer that was announced comes before it as well
    let mut held = String::new();
    let expect = expect.replace("\r\n\r\n\r\n", "\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\nx");
    let mut socket = connect(gateway.address, &expect).await;
    until(&mut socket, &mut held, "\"type\":\"snapshot\"").await;
    assert!(held.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{held}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_behind_an_answer_that_is_stuck_is_refused() {
    let world = world().await;
    world.run("insert into scores select i, i from generate_series(2, 60000) as i").await;
    let gateway = world.gateway_with(|s| s.read_max_rows = 100_000).await;
    let rows = "GET /v1/tables/scores?limit=60000 HTTP/1.1\r\nhost: a\r\n\r\n";
    // more than all buffers between the two hold
    let mut socket = connect(gateway.address, &format!("{}{STREAM}", rows.repeat(8))).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut all = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    let end = b"\"reason\":\"pipelined\"";
    while !all[all.len().saturating_sub(1024)..].windows(end.len()).any(|w| w == end) {
        let n = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await.expect("the refusal").unwrap();
        assert!(n > 0, "ended");
        all.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8(all).unwrap();
    let answers: Vec<&str> = text.split("HTTP/1.1 200 OK\r\n").collect();
    assert_eq!(answers.len(), 10, "eight lists and the refusal");
    for list in &answers[1..9] {
        let (_, body) = list.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(body).unwrap().len(), 60_000);
    }
    // it comes back on the same connection
    socket.write_all(STREAM.as_bytes()).await.unwrap();
    let mut head = vec![0; 4096];
    let n = loop {
        let n = socket.read(&mut head).await.unwrap();
        if String::from_utf8_lossy(&head[..n]).contains("HTTP/1.1 200 OK") {
            break n;
        }
    };
    assert!(String::from_utf8_lossy(&head[..n]).contains("connection: close"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_of_http_1_0_and_one_that_takes_nothing() {
    let world = world().await;
    let gateway = world.gateway_with(|s| s.write_timeout = Duration::from_secs(1)).await;
    let mut held = String::new();
    let mut socket = connect(gateway.address, &STREAM.replace("HTTP/1.1", "HTTP/1.0")).await;
    until(&mut socket, &mut held, "\"more\":false").await;
    assert!(!held.contains("chunked"), "{held}");
    // it takes nothing from here on: what it cannot take is more than the buffers between the two hold
    let subscribers = || gateway.gateway().core().hub.size().1;
    world.run("alter table scores add pad text; insert into scores (id, home, pad) select i, 0, repeat('x', 1000) from generate_series(2, 9000) as i").await;
    let sql = world.sql().await;
    for _ in 0..40 {
        if subscribers() == 0 {
            break;
        }
        sql.batch_execute("update scores set home = home + 1").await.unwrap();
    }
    eventually("a client that takes nothing is let go", || async { subscribers() == 0 }).await;
    gateway.stop().await;
}
