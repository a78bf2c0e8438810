//! A connection whose client is told by the passes of a rail: the outlet is theirs, and the connection goes on hearing.
//!
//! Must not know: what messages say. Invariants: whatever is to be written, and whatever changes the subscriptions, takes the
//! outlet back first; what a pass had begun to write leaves before anything else; the session says nothing meanwhile.

use super::super::super::rail::{Back, Seat};
use super::super::incoming::Heard;
use super::{Connection, End};
use crate::session::Ride;
use crate::wire::{CloseReason, Control, Format, control_frame, text_frame};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until};

/// Why a ride is over.
enum Turn {
    /// The passes gave it back.
    PutDown,
    /// Something that changes what is told, or wants an answer.
    Heard(Heard),
    /// A write was carried out.
    Written(String),
    /// A ping is due.
    Ping,
    /// The token is soon over.
    Remind,
    Over(End),
}

impl Connection {
    /// Lets the passes tell the client what comes, as long as nothing else is to be written.
    pub(super) async fn ride(&mut self, ride: Ride) -> Result<(), End> {
        let outlet = self.outlet.take().ok_or(CloseReason::Lost)?;
        let seat = self.rail.board(ride, outlet, Format::WebSocket);
        let (back, turn) = self.sit(seat).await;
        let Back { outlet, stand, rest } = back.ok_or(CloseReason::Lost)?;
        self.session.alight(stand);
        self.outlet = Some(outlet);
        self.leaving = rest;
        match turn {
            Turn::PutDown => self.walks = true,
            Turn::Heard(heard) => self.hear(heard).await?,
            Turn::Written(answer) => text_frame(&answer, &mut self.answers),
            Turn::Remind => self.remind(),
            Turn::Ping => control_frame(Control::Ping, b"", &mut self.answers),
            Turn::Over(end) => return Err(end),
        }
        Ok(())
    }

    /// Waits for the end of a ride. The session is nobody's to touch meanwhile.
    async fn sit(&mut self, mut seat: Seat) -> (Option<Back>, Turn) {
        loop {
            let due = self.due();
            // frames come before the passes, which have always more; there may be so many and no more
            let turn = tokio::select! {
                biased;
                reason = self.stay.ends() => Turn::Over(reason.into()),
                Some(answer) = self.writes.next(), if !self.writes.is_empty() => Turn::Written(answer),
                heard = self.incoming.next() => match heard.map_err(End::from).and_then(|h| self.note().map(|()| h)) {
                    Ok(Heard::Pong) => continue,
                    Ok(heard) => Turn::Heard(heard),
                    Err(end) => Turn::Over(end),
                },
                () = sleep_until(due) => {
                    let reminds = self.is_reminder_due();
                    match if reminds { Ok(true) } else { self.pulse.beat(Instant::now()) } {
                        Ok(true) if reminds => Turn::Remind,
                        Ok(true) => Turn::Ping,
                        Ok(false) => continue,
                        Err(reason) => Turn::Over(reason.into()),
                    }
                }
                back = seat.back() => return (back, Turn::PutDown),
            };
            return (seat.leave(), turn);
        }
    }
}
