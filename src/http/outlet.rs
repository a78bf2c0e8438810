//! The write half of a connection, taken over from the framework.
//!
//! The framework's way for a part of a body (wake the connection's task, poll the body, copy, frame as a chunk, write) costs
//! 5.4 to 6.1 us where the write alone costs 2.2 to 2.7. So a stream writes its whole answer itself, while the future of its
//! handler stays pending and the framework waits for it: the framework goes on reading, and drops the future
//! within moments when the client closes, half-closes or resets the connection.
//!
//! Must not know: what is written. Invariants: one owner writes at a time: nothing the framework still has to write for an
//! earlier request of the connection can come between; nobody is waited for longer than the write timeout.
//!
//! The answer has no length and no chunks: it ends with the connection (RFC 9112, 6.3). A stream ends with its connection
//! anyway, its frames are the same bytes for everybody, and whether it was whole is said by `bye`, which a client needs
//! with chunks as well, as it must tell a planned end from a proxy's. HTTP/1.0 clients are served alike.

use crate::wire::CloseReason;
use actix_web::HttpRequest;
use actix_web::body::BodySize;
use actix_web::http::Version;
use actix_web::http::header::EXPECT;
use bytes::{Buf, Bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long the client may take to close its side after the end of a stream. Closing earlier, with anything unread in our
/// receive buffer, would reset the connection and take the last bytes from the client.
const PARTING: Duration = Duration::from_secs(1);

/// The second handle of a connection's socket, kept with the connection until a stream takes it.
pub(super) struct Spare {
    socket: RefCell<Option<TcpStream>>,
    /// Something was answered on the connection before.
    used: Cell<bool>,
    /// The last answer was larger than what surely was written at once.
    large: Cell<bool>,
}

/// Answers up to here fit the smallest send buffer. After a larger one, part of it may wait in the framework where nobody
/// sees it.
const AT_ONCE: u64 = 16 * 1024;

impl Spare {
    /// Keeps one for a connection that was just accepted. Without one (no descriptor left, say) the connection answers
    /// everything but streams.
    pub(super) fn keep(connection: &dyn Any) -> Option<Spare> {
        let connection = connection.downcast_ref::<actix_web::rt::net::TcpStream>()?;
        let socket = TcpStream::from(connection.as_fd().try_clone_to_owned().ok()?);
        Some(Spare { socket: RefCell::new(Some(socket)), used: Cell::new(false), large: Cell::new(false) })
    }

    /// A request was answered with a body of this size.
    pub(super) fn answered(&self, size: BodySize) {
        self.used.set(true);
        self.large.set(match size {
            BodySize::None => false,
            BodySize::Sized(bytes) => bytes > AT_ONCE,
            BodySize::Stream => true,
        });
    }

    /// Has the framework written all it had to?
    ///
    /// Before the first answer it had nothing to write. Later, a client that sends one request after the other has read
    /// the whole answer before it asks for a stream, but one that pipelines has not, and nothing tells them apart. A small answer
    /// is written as soon as this handler waits, unless the client takes nothing, which the socket knows. After a large one
    /// the stream is refused; the refusal is a small answer, so that who comes back on the same connection is served.
    async fn is_settled(&self, request: &HttpRequest) -> bool {
        if !self.used.get() && !request.headers().contains_key(EXPECT) {
            return true;
        }
        if self.large.get() || !self.is_writable() {
            return false;
        }
        // one turn of the reactor, one more of the framework
        sleep(Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        self.is_writable()
    }

    fn is_writable(&self) -> bool {
        let socket = self.socket.borrow();
        let Some(socket) = &*socket else { return false };
        let mut fds = [PollFd::new(socket, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n == 1) && fds[0].revents().contains(PollFlags::OUT)
    }
}

/// Why nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The socket took nothing for the whole write timeout.
    Slow,
    /// The connection is broken.
    Gone,
}

impl From<Cut> for CloseReason {
    fn from(cut: Cut) -> CloseReason {
        match cut {
            Cut::Slow => CloseReason::TooSlow,
            Cut::Gone => CloseReason::Lost,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outlet {
    socket: Socket,
    write_timeout: Duration,
}

/// Known to the reactor only once it was full: most never are, and each registration costs memory and two system calls.
#[derive(Debug)]
enum Socket {
    Plain(TcpStream),
    Waiting(tokio::net::TcpStream),
    /// Between the two, and when the second could not be made.
    Lost,
}

impl Outlet {
    /// Takes over the write half of the request's connection. None when it cannot be had: an answer to an earlier request is
    /// stuck before, or the connection has none to give. The handler must then answer through the framework.
    ///
    /// Once taken, the whole answer is written by it: the connection ends with the outlet.
    pub(super) async fn take(request: &HttpRequest, write_timeout: Duration) -> Option<Outlet> {
        let spare = request.conn_data::<Spare>()?;
        if request.version() > Version::HTTP_11 || !spare.is_settled(request).await {
            return None;
        }
        let socket = spare.socket.take()?;
        Some(Outlet { socket: Socket::Plain(socket), write_timeout })
    }

    /// Writes what the socket takes now. `WouldBlock` when that is nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.socket {
            Socket::Plain(socket) => (&mut &*socket).write(bytes),
            Socket::Waiting(socket) => socket.try_write(bytes),
            Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes all of it and waits for the socket in between. What was written is gone from `bytes` also when this is
    /// dropped while it waits: call it again for the rest.
    ///
    /// # Errors
    /// See [`Cut`].
    pub(super) async fn write_all(&mut self, bytes: &mut Bytes) -> Result<(), Cut> {
        while bytes.has_remaining() {
            match self.try_write(bytes) {
                Ok(0) => return Err(Cut::Gone),
                Ok(written) => bytes.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let write_timeout = self.write_timeout;
                    let socket = self.waiting().map_err(|_| Cut::Gone)?;
                    match timeout(write_timeout, socket.writable()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(Cut::Gone),
                        Err(_) => return Err(Cut::Slow),
                    }
                }
                Err(_) => return Err(Cut::Gone),
            }
        }
        Ok(())
    }

    fn waiting(&mut self) -> io::Result<&tokio::net::TcpStream> {
        if let Socket::Plain(_) = &self.socket
            && let Socket::Plain(socket) = std::mem::replace(&mut self.socket, Socket::Lost)
        {
            self.socket = Socket::Waiting(tokio::net::TcpStream::from_std(socket)?);
        }
        match &self.socket {
            Socket::Waiting(socket) => Ok(socket),
            Socket::Plain(_) | Socket::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends the answer and gives the client a moment to read it to its end: when it closes, the framework drops the future that
    /// waits here.
    pub(super) async fn finish(self) {
        if self.shut(Shutdown::Write).is_ok() {
            sleep(PARTING).await;
        }
    }

    /// Ends the connection without another word: for a client that takes nothing.
    pub(super) fn abandon(self) {
        drop(self);
    }

    fn shut(&self, how: Shutdown) -> io::Result<()> {
        match &self.socket {
            Socket::Plain(socket) => socket.shutdown(how),
            Socket::Waiting(socket) => Ok(rustix::net::shutdown(
                socket,
                match how {
                    Shutdown::Read => rustix::net::Shutdown::Read,
                    Shutdown::Write => rustix::net::Shutdown::Write,
                    Shutdown::Both => rustix::net::Shutdown::Both,
                },
            )?),
            Socket::Lost => Ok(()),
        }
    }
}

/// Nothing that the framework still writes reaches the client: it would stand in the middle of what we wrote.
impl Drop for Outlet {
    fn drop(&mut self) {
        let _ = self.shut(Shutdown::Both);
    }
}
