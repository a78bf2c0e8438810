//! From a token to a caller.
//!
//! Must not know: transports. Invariant: there is no caller but by a signature of a key that is configured, over claims that are
//! good here and now.

use super::caller::{Caller, Expiry};
use super::claims::{Expected, LEEWAY};
use super::clock::Clock;
use super::fault::{AuthError, Fault, Rejected};
use super::fetch::Source;
use super::jwks::Jwks;
use super::key::Key;
use super::secret::Secret;
use super::token::Token;
use crate::tasks::Tasks;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::sync::{Arc, Once};

/// Which tokens are taken.
#[derive(Clone, Debug, Default)]
pub struct AuthOptions {
    /// The shared secret of HS256, HS384, HS512.
    pub secret: Option<Secret>,
    /// A public key or certificate, PEM.
    pub public_key_file: Option<PathBuf>,
    /// Where an issuer publishes its keys.
    pub jwks_url: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be, or have in it.
    pub audience: Option<String>,
    /// The claim that names the role, or the path to it; none is `role`.
    pub role_claim: Option<String>,
    /// What time it is. No setting: for tests.
    pub clock: Clock,
}

/// The claim that names the role.
pub const ROLE_CLAIM: &str = "role";

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<Key>,
    jwks: Option<Jwks>,
    expected: Expected,
    clock: Clock,
    /// Was it said that no key is configured? Once is enough: whoever asks could say it for ever.
    said: Once,
}

impl Verifier {
    /// Takes tokens as these options say; begins to fetch keys if they are to be.
    ///
    /// # Errors
    /// A key or an option cannot be used.
    pub fn start(options: &AuthOptions, tasks: &Tasks) -> Result<Verifier, AuthError> {
        let mut keys = Vec::new();
        keys.extend(options.secret.as_ref().map(Key::shared).transpose()?);
        keys.extend(options.public_key_file.as_deref().map(Key::pem).transpose()?);
        let role = options.role_claim.clone().unwrap_or_else(|| ROLE_CLAIM.to_owned());
        let expected = Expected::new(options.issuer.clone(), options.audience.clone(), role)?;
        let source = options.jwks_url.as_deref().map(Source::new).transpose()?;
        let jwks = source.map(|source| Jwks::start(source, tasks));
        if jwks.is_some() && options.audience.is_none() {
            tracing::warn!(
                "`jwks_url` without `jwt_audience`: every token that the issuer signs is taken, also those it gave out for other \
                 services; set `jwt_audience` to what `aud` of the tokens for this gateway is"
            );
        }
        tasks.spawn("wall clock", options.clock.clone().watch());
        Ok(Verifier { keys, jwks, expected, clock: options.clock.clone(), said: Once::new() })
    }

    /// By which clock tokens end.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// It is not taken.
    pub async fn verify(&self, token: &str) -> Result<Arc<Caller>, Rejected> {
        if self.keys.is_empty() && self.jwks.is_none() {
            self.said.call_once(|| tracing::warn!("a token was shown, and is refused: {}", Fault::NotConfigured));
            return Err(Fault::NotConfigured.into());
        }
        let token = Token::read(token)?;
        // before the signature: what could not be taken anyway makes nobody fetch keys
        let said = self.expected.read(&token.claims, self.clock.wall())?;
        self.check(&token).await?;
        let expiry = Expiry::new(said.exp, LEEWAY, &self.clock);
        if expiry.is_over(&self.clock) {
            return Err(Fault::Expired.into());
        }
        let claims = RawValue::from_string(token.text).map_err(|_| Fault::Malformed)?;
        let boxed = |text: Option<String>| text.map(String::into_boxed_str);
        let (subject, token_id) = (boxed(said.subject), boxed(said.token_id));
        Ok(Arc::new(Caller { role: said.role.into(), subject, token_id, claims, expiry: Some(expiry) }))
    }

    async fn check(&self, token: &Token<'_>) -> Result<(), Rejected> {
        let mut fault = Fault::UnknownKey;
        for key in self.keys.iter().filter(|key| key.fits(token.algorithm)) {
            if key.signed(token) {
                return Ok(());
            }
            fault = Fault::Signature;
        }
        let Some(jwks) = self.jwks.as_ref().filter(|_| !Key::is_shared(token.algorithm)) else {
            return Err(fault.into());
        };
        if jwks.keys(token).await?.iter().any(|key| key.signed(token)) { Ok(()) } else { Err(Fault::Signature.into()) }
    }
}
