//! Frames that no honest client sends: each is answered with the code that RFC 6455 has for it, and nothing is kept.

use crate::bad_input::served;
use crate::support::raw_socket::{Frame, RawSocket, frame, text};

#[tokio::test]
async fn a_broken_frame_is_named_by_its_code() {
    let (_world, gateway) = served().await;
    let at = gateway.address;
    let unmasked = [&[0x81, 15][..], b"{\"type\":\"ping\"}"].concat();
    let huge = [&[0x81, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[1, 2, 3, 4]].concat();
    let negative = [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let half = |first| frame(first, b"{\"type\":");
    let close = |payload: &[u8]| frame(0x88, payload);
    for (name, bytes, code) in [
        ("reserved bit 1, as for compression", frame(0xc1, b"{}"), 1002),
        ("reserved bit 3", frame(0x91, b"{}"), 1002),
        ("an opcode that is none", frame(0x83, b"{}"), 1002),
        ("a control opcode that is none", frame(0x8f, b""), 1002),
        ("without a mask", unmasked, 1002),
        ("a ping in parts", frame(0x09, b""), 1002),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126]), 1002),
        ("a part of nothing", frame(0x80, b"{}"), 1002),
        ("a message inside another", [half(0x01), text("{}")].concat(), 1002),
        ("a length with its first bit", negative, 1002),
        ("a terabyte", huge, 1009),
        ("one byte too many", frame(0x81, &vec![b' '; 64 * 1024 + 1]), 1009),
        ("one byte too many, in parts", [frame(0x01, &vec![b' '; 64 * 1024]), frame(0x80, b" ")].concat(), 1009),
        ("binary", frame(0x82, b"{}"), 1003),
        ("no UTF-8", frame(0x81, b"{\"type\":\"\xff\"}"), 1007),
        ("half a character at the end", [frame(0x01, b"{\"a\":\"\xe2"), frame(0x80, b"\"}")].concat(), 1007),
        ("a close of one byte", close(&[3]), 1002),
        ("a close with a code that is never sent", close(&1005_u16.to_be_bytes()), 1002),
        ("a close with 999", close(&999_u16.to_be_bytes()), 1002),
        ("a close whose reason is no UTF-8", close(b"\x03\xe8\xff"), 1002),
    ] {
        let mut socket = RawSocket::ready(at).await;
        socket.send(&bytes).await;
        assert_eq!(socket.close().await.code(), code, "{name}");
        assert_eq!(socket.frame().await, None, "{name}: nothing comes after");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_legal_is_understood() {
    let (_world, gateway) = served().await;
    let mut socket = RawSocket::ready(gateway.address).await;
    let pong = |payload: &[u8]| Some(Frame { opcode: 10, payload: payload.to_vec() });
    socket.send(&frame(0x89, b"are you there")).await;
    assert_eq!(socket.frame().await, pong(b"are you there"));
    socket.send(&frame(0x89, &[b'x'; 125])).await;
    assert_eq!(socket.frame().await, pong(&[b'x'; 125]));
    // in parts, with a ping between, byte by byte
    let parts = [frame(0x01, b"{\"type\":"), frame(0x89, b"1"), frame(0x00, b""), frame(0x80, b"\"ping\"}")].concat();
    for byte in parts {
        socket.send(&[byte]).await;
    }
    assert_eq!(socket.frame().await, pong(b"1"));
    let answer = socket.frame().await.unwrap();
    assert_eq!((answer.opcode, answer.payload), (1, b"{\"type\":\"pong\"}".to_vec()));
    // as large as may be
    let padded = format!("{{\"type\":\"ping\"{}}}", " ".repeat(64 * 1024 - 15));
    assert_eq!(padded.len(), 64 * 1024);
    socket.send(&text(&padded)).await;
    assert_eq!(socket.frame().await.unwrap().payload, b"{\"type\":\"pong\"}");
    // many at once
    socket
        .send(&[text("{\"type\":\"ping\"}"), frame(0x8a, b"nobody asked"), text("{\"type\":\"ping\"}")].concat())
        .await;
    for _ in 0..2 {
        assert_eq!(socket.frame().await.unwrap().payload, b"{\"type\":\"pong\"}");
    }
    socket.send(&frame(0x88, &[&4321_u16.to_be_bytes()[..], b"enough"].concat())).await;
    assert_eq!(socket.frame().await.unwrap().code(), 4321, "a close is answered with its code");
    assert_eq!(socket.frame().await, None);
    let mut socket = RawSocket::ready(gateway.address).await;
    socket.send(&frame(0x88, b"")).await;
    assert_eq!(socket.frame().await, Some(Frame { opcode: 8, payload: Vec::new() }), "without a code, without one");
    gateway.stop().await;
}

#[tokio::test]
async fn whoever_sends_too_much_still_reads_why() {
    let (_world, gateway) = served().await;
    let mut socket = RawSocket::ready(gateway.address).await;
    // more than the sockets between us hold: it must be read and thrown away, or nobody reads the answer
    let much = frame(0x81, &vec![b'x'; 6 * 1024 * 1024]);
    assert!(socket.send(&much).await, "it was taken");
    assert_eq!(socket.close().await.code(), 1009);
    gateway.stop().await;
}
