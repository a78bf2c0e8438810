//! Who asks, and until when.
//!
//! Must not know: transports, what a role may do. Invariant: authority ends with the token, by the wall clock or by the
//! monotonic one, whichever is first, and is never renewed but by another token.

use super::clock::Clock;
use crate::wire::strict::members;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The role of whoever shows no token.
pub const ANON: &str = "anon";

/// The role of a token that names none.
pub const AUTHENTICATED: &str = "authenticated";

/// A caller.
#[derive(Debug)]
pub struct Caller {
    /// As which role.
    pub role: Box<str>,
    /// `sub`: who, for the application.
    pub subject: Option<Box<str>>,
    /// `jti`: which token.
    pub token_id: Option<Box<str>>,
    /// All claims: the object as it was signed.
    pub claims: Box<RawValue>,
    /// Until when; none without a token.
    pub expiry: Option<Expiry>,
}

static ANONYMOUS: LazyLock<Arc<Caller>> = LazyLock::new(|| {
    let claims =
        RawValue::from_string(format!("{{\"role\":\"{ANON}\"}}")).unwrap_or_else(|_| RawValue::NULL.to_owned());
    Arc::new(Caller { role: ANON.into(), subject: None, token_id: None, claims, expiry: None })
});

impl Caller {
    /// Whoever shows no token: role [`ANON`]. Always the same one.
    #[must_use]
    pub fn anonymous() -> &'static Arc<Caller> {
        &ANONYMOUS
    }

    /// Is it whoever shows no token? A token whose role is [`ANON`] is one, and ends.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.expiry.is_none()
    }

    /// In whose name what this caller keeps is kept: two callers with the same text are the same one, for the application. With
    /// issuer and role: a subject is somebody by his issuer's word alone. With lengths, so that no text is spelt like two.
    #[must_use]
    pub fn owner(&self) -> String {
        if self.is_anonymous() {
            return ANON.to_owned();
        }
        let part = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| format!("{}:{text}", text.len()));
        let issuer = self.issuer();
        [part(issuer.as_ref().map(|raw| raw.get())), part(Some(&self.role)), part(self.subject.as_deref())].concat()
    }

    /// Is `other` the same one?
    #[must_use]
    pub fn is_same_as(&self, other: &Caller) -> bool {
        self.owner() == other.owner()
    }

    /// May `other` take this one's place while it is served? Without a subject, claims are all that tells callers apart.
    #[must_use]
    pub fn goes_on_as(&self, other: &Caller) -> bool {
        self.is_same_as(other) && (self.subject.is_some() || self.lasting_claims() == other.lasting_claims())
    }

    /// `iss`, as it is written: a text, unless no issuer is configured.
    fn issuer(&self) -> Option<Box<RawValue>> {
        members(self.claims.get()).ok()?.into_iter().find(|(name, _)| name == "iss").map(|(_, raw)| raw)
    }

    /// The claims that are no part of one token alone, by name.
    fn lasting_claims(&self) -> Option<BTreeMap<String, serde_json::Value>> {
        let mut claims: BTreeMap<String, serde_json::Value> = serde_json::from_str(self.claims.get()).ok()?;
        claims.retain(|name, _| !["exp", "iat", "nbf", "jti"].contains(&name.as_str()));
        Some(claims)
    }

    /// Waits until its authority is over: for ever without a token.
    pub async fn over(&self, clock: &Clock) {
        match &self.expiry {
            // apart: most have none, and what waits here waits by the thousand
            Some(expiry) => Box::pin(expiry.over(clock)).await,
            None => std::future::pending().await,
        }
    }

    /// Is its authority over?
    #[must_use]
    pub fn is_over(&self, clock: &Clock) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.is_over(clock))
    }
}

/// When authority ends.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// `exp`, seconds since 1970.
    pub exp: i64,
    /// Milliseconds since 1970.
    wall: i64,
    /// The same moment as it was reckoned when the token was verified.
    deadline: Instant,
    /// How long the token had to live then.
    life: Duration,
}

impl Expiry {
    /// Of a token with this `exp`, verified now. One that is shown after its `exp` is within the leeway, and has the rest of it:
    /// clocks differ.
    #[must_use]
    pub fn new(exp: i64, leeway: Duration, clock: &Clock) -> Expiry {
        let now = clock.wall();
        let end = exp.saturating_mul(1000);
        let leeway = i64::try_from(leeway.as_millis()).unwrap_or_default();
        let wall = if now < end { end } else { end.saturating_add(leeway) };
        let life = Duration::from_millis(u64::try_from(wall.saturating_sub(now)).unwrap_or_default());
        // `exp` is bounded, and a century from now is a moment that can be reckoned
        let life = life.min(Duration::from_secs(3_155_760_000));
        Expiry { exp, wall, deadline: Instant::now() + life, life }
    }

    /// Is it over?
    #[must_use]
    pub fn is_over(&self, clock: &Clock) -> bool {
        self.left(clock).is_zero()
    }

    /// How long it is still good, by the clock that says less.
    #[must_use]
    pub fn left(&self, clock: &Clock) -> Duration {
        let wall = u64::try_from(self.wall.saturating_sub(clock.wall())).unwrap_or_default();
        Duration::from_millis(wall).min(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// When a client is best told to bring another: at four fifths of the time it had.
    #[must_use]
    pub fn reminder(&self) -> Instant {
        self.deadline - self.life / 5
    }

    /// Waits until it is over.
    pub async fn over(&self, clock: &Clock) {
        let mut jumps = clock.jumps();
        loop {
            let left = self.left(clock);
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep_until(Instant::now() + left) => {}
                // the clock lives as long as this
                _ = jumps.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEEWAY: Duration = Duration::from_secs(30);

    fn now(clock: &Clock) -> i64 {
        clock.wall() / 1000
    }

    #[test]
    fn before_its_end_it_lasts_to_the_end_and_behind_it_as_long_as_clocks_may_differ() {
        let clock = Clock::default();
        let good = Expiry::new(now(&clock) + 100, LEEWAY, &clock);
        assert!((98..=100).contains(&good.left(&clock).as_secs()), "{good:?}");
        let late = Expiry::new(now(&clock) - 10, LEEWAY, &clock);
        assert!((18..=20).contains(&late.left(&clock).as_secs()), "{late:?}");
        assert!(Expiry::new(now(&clock) - 31, LEEWAY, &clock).is_over(&clock));
        let far = Expiry::new(253_402_300_799, LEEWAY, &clock);
        assert!(!far.is_over(&clock) && far.left(&clock) > LEEWAY);
    }

    #[tokio::test]
    async fn either_clock_ends_it() {
        let clock = Clock::default();
        let expiry = Expiry::new(now(&clock) + 2, LEEWAY, &clock);
        // back by an hour: the monotonic clock knows better
        clock.jump(-3_600_000);
        assert!(expiry.left(&clock) <= Duration::from_secs(2) && !expiry.is_over(&clock));
        expiry.over(&clock).await;
        assert!(expiry.is_over(&clock));

        let clock = Clock::default();
        let expiry = Expiry::new(now(&clock) + 100, LEEWAY, &clock);
        let waiting = expiry.over(&clock);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        clock.jump(3_600_000);
        waiting.await;
        assert!(expiry.is_over(&clock));
    }

    #[test]
    fn owners_do_not_meet() {
        let clock = Clock::default();
        let caller = |role: &str, subject: Option<&str>| Caller {
            role: role.into(),
            subject: subject.map(Into::into),
            token_id: None,
            claims: RawValue::NULL.to_owned(),
            expiry: Some(Expiry::new(0, LEEWAY, &clock)),
        };
        let owners = [
            Caller::anonymous().owner(),
            caller("anon", None).owner(),
            caller("anon", Some("anon")).owner(),
            caller("a", Some("role:a")).owner(),
            caller("a", None).owner(),
        ];
        let distinct: std::collections::HashSet<_> = owners.iter().collect();
        assert_eq!(distinct.len(), owners.len(), "{owners:?}");
        let with = |claims: &str, subject| Caller {
            claims: RawValue::from_string(claims.to_owned()).unwrap(),
            ..caller("a", subject)
        };
        let by = |issuer: &str| with(&format!(r#"{{"iss":"{issuer}"}}"#), Some("x"));
        assert!(by("one").is_same_as(&by("one")) && !by("one").is_same_as(&by("two")));
        assert!(!by("one").is_same_as(&caller("a", Some("x"))));
        let (seven, later, eight) =
            (r#"{"team":7,"exp":1,"jti":"a"}"#, r#"{"exp":2,"iat":1,"team":7}"#, r#"{"team":8,"exp":1,"jti":"a"}"#);
        assert!(with(seven, None).goes_on_as(&with(later, None)));
        assert!(!with(seven, None).goes_on_as(&with(eight, None)));
        assert!(with(seven, Some("x")).goes_on_as(&with(eight, Some("x"))));
        assert!(caller("a", Some("x")).is_same_as(&caller("a", Some("x"))));
        assert!(!caller("a", Some("x")).is_same_as(&caller("b", Some("x"))));
        assert_eq!(Caller::anonymous().claims.get(), r#"{"role":"anon"}"#);
    }
}
