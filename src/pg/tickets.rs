//! One-time tickets: given out for a token, taken once by whichever gateway they are shown to.
//!
//! Must not know: HTTP. Invariants: a ticket is nowhere but with who it was given to: the database has its hash; those who make
//! tickets up cannot take the pool's connections from everybody else.

use super::PgError;
use crate::auth::{Caller, Clock, Expiry, LEEWAY};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::Pool;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::{ToSql, Type};

/// How long a ticket is good. The database's number; a page asks for it and connects.
const LIFE: Duration = Duration::from_secs(30);

/// Statements for tickets at a time. They take a fraction of a millisecond.
const PLACES: usize = 2;

/// How long a place and the statement may take.
const TIME: Duration = Duration::from_secs(3);

/// Bytes of a ticket that nobody can guess.
const RANDOM: usize = 32;

const GIVE: &str =
    "select rowcast.give_ticket($1, $2::pg_catalog.text::pg_catalog.json, $3::pg_catalog.text::pg_catalog.json)";

const TAKE: &str =
    "select t.claims::pg_catalog.text as claims, t.caller::pg_catalog.text as caller from rowcast.take_ticket($1) as t";

/// What is kept of a caller beside the claims.
#[derive(Deserialize, Serialize)]
struct Kept<'a> {
    role: Cow<'a, str>,
    subject: Option<Cow<'a, str>>,
    token_id: Option<Cow<'a, str>>,
    exp: i64,
}

/// See the module.
#[derive(Clone)]
pub struct Tickets {
    pool: Pool,
    places: Arc<Semaphore>,
    clock: Clock,
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket.as_bytes()).to_vec()
}

/// Can it be one? Whatever cannot is not asked the database for.
fn is_one(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == RANDOM)
}

impl Tickets {
    /// Tickets kept through this pool; what they are for ends by this clock.
    #[must_use]
    pub fn new(pool: Pool, clock: Clock) -> Tickets {
        Tickets { pool, places: Arc::new(Semaphore::new(PLACES)), clock }
    }

    /// A ticket for the caller, and how long it is good. None when the caller has no token, or a second later would not.
    ///
    /// # Errors
    /// The database cannot keep it.
    pub async fn give(&self, caller: &Caller) -> Result<Option<(String, Duration)>, PgError> {
        let Some(expiry) = &caller.expiry else { return Ok(None) };
        let life = LIFE.min(expiry.left(&self.clock));
        if life < Duration::from_secs(1) {
            return Ok(None);
        }
        let ticket = URL_SAFE_NO_PAD.encode(rand::random::<[u8; RANDOM]>());
        let kept = Kept {
            role: (&*caller.role).into(),
            subject: caller.subject.as_deref().map(Into::into),
            token_id: caller.token_id.as_deref().map(Into::into),
            exp: expiry.exp,
        };
        let kept = serde_json::to_string(&kept).map_err(|e| PgError::Unexpected(e.to_string()))?;
        let (hash, claims) = (hash(&ticket), caller.claims.get());
        self.ask(GIVE, &[(&hash, Type::BYTEA), (&claims, Type::TEXT), (&kept, Type::TEXT)]).await?;
        Ok(Some((ticket, life)))
    }

    /// The caller it was given to. None when there is no such ticket, or none any more.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn take(&self, ticket: &str) -> Result<Option<Caller>, PgError> {
        if !is_one(ticket) {
            return Ok(None);
        }
        let rows = self.ask(TAKE, &[(&hash(ticket), Type::BYTEA)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (claims, caller): (String, String) = (row.try_get("claims")?, row.try_get("caller")?);
        let unreadable = |e: serde_json::Error| PgError::Unexpected(format!("a kept ticket cannot be read: {e}"));
        let kept: Kept<'_> = serde_json::from_str(&caller).map_err(unreadable)?;
        let boxed = |text: Cow<'_, str>| text.into_owned().into_boxed_str();
        Ok(Some(Caller {
            role: boxed(kept.role),
            subject: kept.subject.map(boxed),
            token_id: kept.token_id.map(boxed),
            claims: RawValue::from_string(claims).map_err(unreadable)?,
            expiry: Some(Expiry::new(kept.exp, LEEWAY, &self.clock)),
        }))
    }

    async fn ask(
        &self,
        sql: &str,
        params: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<tokio_postgres::Row>, PgError> {
        let asked = async {
            let _place: Option<SemaphorePermit<'_>> = self.places.acquire().await.ok();
            let client = self.pool.get().await?;
            Ok(client.query_typed(sql, params).await?)
        };
        let late = |_| Err(PgError::Unreachable("no answer about a ticket in time".to_owned()));
        tokio::time::timeout(TIME, asked).await.unwrap_or_else(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_ticket_is_not_asked_for() {
        let ticket = URL_SAFE_NO_PAD.encode([7; RANDOM]);
        assert!(is_one(&ticket) && ticket.len() == 43);
        let long = "A".repeat(5000);
        for text in ["", "x", &ticket[1..], &format!("{ticket}="), &format!("{ticket}A"), "' or 1=1--", &long] {
            assert!(!is_one(text), "{text}");
        }
    }
}
