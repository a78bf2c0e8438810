//! The listening socket, and what every connection inherits from it.
//!
//! Must not know: requests. Invariant: what the kernel holds for a connection is bounded, in bytes and in time, also
//! when the peer says nothing any more.

use rustix::net::sockopt;
use std::io;
use std::net::TcpListener;
use std::time::Duration;

/// Connections that wait to be accepted. The standard library asks for 128: of a crowd that comes back at once, the rest
/// would try again a second later. The system's own limit (`net.core.somaxconn`, 4096) still holds.
const BACKLOG: i32 = 4096;

/// Bytes the kernel may hold for a client that does not read; it takes twice of what it is told. Left to itself it
/// grows to 4 MB a connection.
const SEND_BUFFER: usize = 64 * 1024;

/// What was sent and not acknowledged for so long, or met a closed window, ends the connection.
const UNANSWERED: Duration = Duration::from_secs(15);

/// A connection that is silent for so long is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(15);

/// Between two such questions, of which [`PROBES`] may be left unanswered.
const INTERVAL: Duration = Duration::from_secs(5);

/// See [`INTERVAL`]: a peer that is gone without a word is known to be after 25 s.
const PROBES: u32 = 2;

/// Listens on an address.
///
/// # Errors
/// The address is taken or not ours.
pub fn listen(address: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // listening already: this only makes the queue longer
    rustix::net::listen(&listener, BACKLOG)?;
    sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER)?;
    sockopt::set_socket_keepalive(&listener, true)?;
    #[cfg(target_os = "linux")]
    {
        sockopt::set_tcp_keepidle(&listener, IDLE)?;
        sockopt::set_tcp_keepintvl(&listener, INTERVAL)?;
        sockopt::set_tcp_keepcnt(&listener, PROBES)?;
        sockopt::set_tcp_user_timeout(&listener, u32::try_from(UNANSWERED.as_millis()).unwrap_or(u32::MAX))?;
    }
    Ok(listener)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn connections_inherit_it() {
        let listener = listen("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(sockopt::socket_send_buffer_size(&accepted).unwrap(), 2 * SEND_BUFFER);
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), IDLE);
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), PROBES);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 15_000);
    }
}
