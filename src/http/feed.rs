//! Writes a session to a connection until either ends.
//!
//! Must not know: what transports say before the first frame. Invariants: only whole frames leave, in the order the session
//! told them; more is taken from the session only when the socket took the last.

use super::closes::Counted;
use super::outlet::{Cut, Outlet};
use super::rail::{Back, Rail};
use super::streams::Stay;
use crate::session::{Event, Session};
use crate::wire::{CloseReason, Format};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes gathered into one write.
const CHUNK: usize = 64 * 1024;

/// Between these a client that lost the connection waits, so that not all come back at one moment.
pub(super) const RETRY_MS: std::ops::Range<u32> = 500..2500;

/// How long a client that takes nothing may hold up the end of the gateway.
const FAREWELL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Feed {
    session: Session,
    /// None while the client rides.
    outlet: Option<Outlet>,
    rail: Rc<Rail>,
    format: Format,
    /// When it is to end.
    stay: Stay,
    /// Counts its end.
    counted: Counted,
}

/// Why a feed ended.
enum End {
    /// As planned: the client is told.
    Planned(CloseReason),
    /// It cannot be told anything.
    Cut(Cut),
}

impl From<Cut> for End {
    fn from(cut: Cut) -> End {
        End::Cut(cut)
    }
}

impl Feed {
    /// Tells the session to whoever the outlet belongs to, as long as it may stay.
    pub(super) fn new(
        session: Session,
        outlet: Outlet,
        rail: Rc<Rail>,
        format: Format,
        stay: Stay,
        counted: Counted,
    ) -> Feed {
        Feed { session, outlet: Some(outlet), rail, format, stay, counted }
    }

    /// Writes `first`, which must be whole, then what the session tells, then the reason of the end. The connection is shut
    /// when this returns. Boxed: a future holds what it is handed twice, and this one lasts.
    pub(super) async fn run(mut self: Box<Self>, first: Bytes) {
        let end = match self.follow(first).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        match end {
            End::Planned(reason) => {
                self.counted.because(reason);
                self.say_bye(reason).await;
            }
            End::Cut(cut) => {
                // a client that is slow to take the last it may have is not what ended it
                let over = self.stay.over().filter(|reason| *reason == CloseReason::TokenExpired && cut == Cut::Slow);
                self.counted.because(over.unwrap_or(cut.into()));
                tracing::debug!(?cut, "a stream was cut");
                if let Some(outlet) = self.outlet.take() {
                    outlet.abandon();
                }
            }
        }
    }

    async fn follow(&mut self, first: Bytes) -> Result<std::convert::Infallible, End> {
        self.write(first).await?;
        loop {
            self.ride().await?;
            // apart: most of the time a client rides, and does not need the room this takes
            let next = Box::pin(self.session.next());
            let events = tokio::select! {
                biased;
                reason = self.stay.ends() => return Err(End::Planned(reason)),
                events = next => events,
            };
            let events = events.ok_or(End::Planned(CloseReason::NoSubscriptionLeft))?;
            self.tell(events.into()).await?;
        }
    }

    /// Lets the passes tell the client what comes, as long as they can.
    async fn ride(&mut self) -> Result<(), End> {
        let Some(ride) = self.session.ride() else { return Ok(()) };
        let Some(outlet) = self.outlet.take() else { return Err(End::Cut(Cut::Gone)) };
        let mut seat = self.rail.board(ride, outlet, self.format);
        let back = tokio::select! {
            biased;
            back = seat.back() => back,
            _ = self.stay.ends() => seat.leave(),
        };
        let Some(Back { outlet, stand, rest }) = back else { return Err(End::Cut(Cut::Gone)) };
        self.outlet = Some(outlet);
        self.session.alight(stand);
        Ok(self.write(rest).await?)
    }

    /// Writes events, about [`CHUNK`] bytes at a time: a long backlog is never held a second time.
    async fn tell(&mut self, mut events: VecDeque<Event>) -> Result<(), End> {
        while !events.is_empty() {
            let (mut out, mut large) = (BytesMut::new(), None);
            while out.len() < CHUNK && large.is_none() {
                match events.pop_front() {
                    Some(Event::Message { sub, message, id }) => {
                        large = self.format.shared(&message, &sub, id, &mut out);
                        if large.is_none() {
                            self.format.message(&message, &sub, id, &mut out);
                        }
                    }
                    Some(Event::Cursor { position, lag }) => {
                        self.format.cursor(position, u64::try_from(lag.as_millis()).unwrap_or(u64::MAX), &mut out);
                    }
                    None => break,
                }
            }
            self.write(out.freeze()).await?;
            if let Some(large) = large {
                // an `id:` line may stand before it: nothing may come between
                self.write(large).await?;
            }
            if let Some(reason) = self.stay.over() {
                return Err(End::Planned(reason));
            }
        }
        Ok(())
    }

    /// Writes all of it; when the stream is to end meanwhile, the client has a moment to take the rest.
    async fn write(&mut self, mut bytes: Bytes) -> Result<(), Cut> {
        let outlet = self.outlet.as_mut().ok_or(Cut::Gone)?;
        tokio::select! {
            biased;
            written = outlet.write_all(&mut bytes) => return written,
            _ = self.stay.ends() => {}
        }
        timeout(FAREWELL, outlet.write_all(&mut bytes)).await.unwrap_or(Err(Cut::Slow))
    }

    async fn say_bye(self: Box<Self>, reason: CloseReason) {
        let Some(mut outlet) = self.outlet else { return };
        let mut out = BytesMut::new();
        self.format.bye(reason, rand::random_range(RETRY_MS), &mut out);
        match timeout(FAREWELL, outlet.write_all(&mut out.freeze())).await {
            Ok(Ok(())) => {
                // unsubscribed before the client is waited for
                drop(self.session);
                outlet.finish().await;
            }
            _ => outlet.abandon(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::lasting::tests::size;

    #[test]
    fn what_an_idle_stream_holds_is_small() {
        let (feed, future) = (size_of::<Feed>(), size(Feed::run));
        assert!(feed <= 400 && future <= 1000, "{feed} and {future} bytes");
    }
}
