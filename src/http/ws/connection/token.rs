//! Who a connection is for: what `init` shows, what `auth` brings later, and the reminder in between.
//!
//! Must not know: tokens' insides, subscriptions. Invariants: a connection is for one subject and one role from `init` to its
//! end; it shows its credential once, and another only to live longer; no row that only the claims before show is told after the
//! answer to `auth`.

use super::{Connection, End, Told, end};
use crate::auth::{Caller, Rejected};
use crate::session::Access;
use crate::wire::CloseReason;
use std::sync::Arc;
use tokio::time::Instant;

impl From<Rejected> for End {
    fn from(rejected: Rejected) -> End {
        tracing::debug!(why = %rejected, "a token was refused");
        match rejected {
            Rejected::Token(_) => end(CloseReason::BadToken, "the token is not accepted: get a new one"),
            Rejected::NoKeys => end(CloseReason::NotReady, "tokens cannot be checked yet"),
        }
    }
}

impl Connection {
    /// The token of `init`.
    pub(super) async fn show(&mut self, token: &str) -> Result<(), End> {
        if !self.caller.is_anonymous() {
            return Err(end(CloseReason::BadMessage, "two credentials: one came with the handshake, one with `init`"));
        }
        let caller = self.verify(token).await?;
        self.becomes(caller);
        Ok(())
    }

    /// The token of `auth`.
    pub(super) async fn renew(&mut self, token: &str) -> Result<(), End> {
        let caller = self.verify(token).await?;
        if self.caller.is_anonymous() || !self.caller.goes_on_as(&caller) {
            return Err(end(
                CloseReason::Forbidden,
                "`auth` goes on for the same issuer, subject and role: connect anew",
            ));
        }
        self.becomes(caller);
        self.expect_end();
        let expires = self.expires_in();
        self.events.push_back(Told::Auth(format!("{{\"type\":\"auth\",\"token_expires_in\":{expires}}}")));
        Ok(())
    }

    /// The end of the token there is ends the connection also while another is looked at.
    async fn verify(&self, token: &str) -> Result<Arc<Caller>, End> {
        tokio::select! {
            biased;
            reason = self.stay.ends() => Err(reason.into()),
            verified = self.app.verifier.verify(token) => Ok(verified?),
        }
    }

    fn becomes(&mut self, caller: Arc<Caller>) {
        self.stay.belongs_to(&caller);
        self.session.act_for(Access::Caller(caller.clone()));
        // it rides what the claims before show: the session looks first whether these show it too
        self.walks = true;
        self.caller = caller;
    }

    /// From here on the client is reminded in time.
    pub(super) fn expect_end(&mut self) {
        self.remind = self.caller.expiry.as_ref().map(|expiry| expiry.reminder());
    }

    /// When [`Connection::remind`] or a ping is due.
    pub(super) fn due(&self) -> Instant {
        self.remind.into_iter().fold(self.pulse.due(), Instant::min)
    }

    /// Is the client to be told that its token is soon over?
    pub(super) fn is_reminder_due(&self) -> bool {
        self.remind.is_some_and(|at| at <= Instant::now())
    }

    /// Tells it, once a token.
    pub(super) fn remind(&mut self) {
        self.remind = None;
        let expires = self.expires_in();
        self.answer(&format!("{{\"type\":\"reauth\",\"expires_in\":{expires}}}"));
    }

    /// Whole seconds that the token is good, as JSON; null without one.
    pub(super) fn expires_in(&self) -> String {
        let left = self.caller.expiry.as_ref().map(|expiry| expiry.left(self.app.verifier.clock()).as_secs());
        left.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string())
    }
}
