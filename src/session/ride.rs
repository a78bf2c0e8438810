//! A session that lets somebody else tell its client the news: the common case of one subscription that is live.
//!
//! Must not know: sockets. Invariant: nothing is told by two, and nothing by none: the session says nothing from
//! [`Session::ride`] to [`Session::alight`], and goes on exactly where it was left.

use super::Session;
use crate::change::Position;
use crate::hub::Shape;
use std::sync::Arc;
use tokio::time::Instant;

/// Where a client stands.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// In the ring.
    pub cursor: u64,
    /// It was told everything up to here.
    pub position: Option<Position>,
    /// When it was last told something.
    pub told: Instant,
}

/// What to tell, and from where on.
pub struct Ride {
    /// The shape of the only subscription.
    pub shape: Arc<Shape>,
    /// The subscription's label.
    pub sub: Arc<str>,
    /// Where it begins.
    pub stand: Stand,
}

impl Session {
    /// Hands the client over. None when there is something that only the session can say.
    pub fn ride(&mut self) -> Option<Ride> {
        let rides = self.current && !self.greet && !self.announce && self.untold.is_empty();
        let [sub] = self.subs.as_mut_slice() else { return None };
        if !rides || !sub.told {
            return None;
        }
        let (shape, cursor) = sub.running.as_mut()?.park()?;
        let stand = Stand { cursor, position: self.position, told: self.quiet_since };
        Some(Ride { shape, sub: sub.request.sub.clone(), stand })
    }

    /// Takes the client back.
    pub fn alight(&mut self, stand: Stand) {
        if let [sub] = self.subs.as_mut_slice()
            && let Some(running) = &mut sub.running
        {
            running.unpark(stand.cursor);
            self.position = stand.position;
            self.quiet_since = stand.told;
        }
    }
}
