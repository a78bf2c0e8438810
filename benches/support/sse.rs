//! A subscriber: one socket, read by a thread of its own, and the moment each change came.
//!
//! Invariant: the moment is taken right after the bytes were read, before they are looked at.

use super::Outcome;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What stands before the number by which a change is known.
const MARK: &[u8] = b"\"n\":";

#[derive(Default)]
struct Seen {
    when: Mutex<HashMap<i64, Instant>>,
    more: Condvar,
}

/// See the module.
pub(crate) struct Subscriber {
    seen: Arc<Seen>,
}

impl Subscriber {
    /// Asks for `path`; returns when the answer contains `ready`.
    pub(crate) fn open(address: SocketAddr, path: &str, ready: &str) -> Outcome<Subscriber> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n")?;
        let mut held: Vec<u8> = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while !held.windows(ready.len()).any(|part| part == ready.as_bytes()) {
            let read = socket.read(&mut buffer)?;
            if read == 0 {
                return Err(format!("`GET {path}` ended with {}", String::from_utf8_lossy(&held)).into());
            }
            held.extend_from_slice(&buffer[..read]);
        }
        let seen = Arc::new(Seen::default());
        let all = seen.clone();
        std::thread::spawn(move || {
            held.clear();
            while let Ok(read @ 1..) = socket.read(&mut buffer) {
                let now = Instant::now();
                held.extend_from_slice(&buffer[..read]);
                let kept = take_numbers(&held, |n| {
                    all.when.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_insert(now);
                });
                held.drain(..kept);
                all.more.notify_all();
            }
        });
        Ok(Subscriber { seen })
    }

    /// When the change with this number came; `None` when it does not come for 10 s.
    pub(crate) fn came(&self, n: i64) -> Option<Instant> {
        let when = self.seen.when.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = Duration::from_secs(10);
        let (when, _) = self
            .seen
            .more
            .wait_timeout_while(when, wait, |when| !when.contains_key(&n))
            .unwrap_or_else(PoisonError::into_inner);
        when.get(&n).copied()
    }
}

/// Finds every whole marked number; returns how many bytes need not be seen again.
fn take_numbers(bytes: &[u8], mut found: impl FnMut(i64)) -> usize {
    let mut done = 0;
    while let Some(at) = bytes[done..].windows(MARK.len()).position(|part| part == MARK) {
        let digits = &bytes[done + at + MARK.len()..];
        let Some(len) = digits.iter().position(|b| !b.is_ascii_digit()) else { return done + at };
        if let Some(n) = std::str::from_utf8(&digits[..len]).ok().and_then(|text| text.parse().ok()) {
            found(n);
        }
        done += at + MARK.len() + len;
    }
    done.max(bytes.len().saturating_sub(MARK.len() - 1))
}
