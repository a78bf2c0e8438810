//! Keys, and which algorithms each is for.
//!
//! Must not know: where keys come from in time, claims. Invariant: a key verifies with the algorithms of its own kind and no
//! others, whatever the token's header says: a public key is never taken for a shared secret.

use super::fault::AuthError;
use super::secret::Secret;
use super::token::Token;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde_json::value::RawValue;
use std::path::Path;

/// Shorter shared secrets can be guessed from one token.
const MIN_SECRET: usize = 32;

/// Bytes of a modulus of 2,048 bits. Encoded with its exponent a key is some bytes longer.
const MIN_MODULUS: usize = 256;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[Algorithm::RS256, Algorithm::PS256];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED: &[Algorithm] = &[Algorithm::EdDSA];

/// See the module.
#[derive(Clone)]
pub(super) struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithms", &self.algorithms).finish_non_exhaustive()
    }
}

impl Key {
    fn new(kid: Option<String>, algorithms: &[Algorithm], decoding: DecodingKey) -> Key {
        Key { kid, algorithms: algorithms.to_vec(), decoding }
    }

    /// A shared secret.
    ///
    /// # Errors
    /// It is short.
    pub(super) fn shared(secret: &Secret) -> Result<Key, AuthError> {
        let bytes = secret.expose().as_bytes();
        if bytes.len() < MIN_SECRET {
            return Err(AuthError::ShortSecret(bytes.len()));
        }
        Ok(Key::new(None, HMAC, DecodingKey::from_secret(bytes)))
    }

    /// A public key, or a certificate, as PEM.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn pem(path: &Path) -> Result<Key, AuthError> {
        let text = std::fs::read(path).map_err(|e| AuthError::Unreadable(path.to_owned(), e))?;
        read_pem(&text).map_err(|why| AuthError::NoKey(path.to_owned(), why))
    }

    /// A key of a JWKS. None when it is not one for signatures that are accepted here: others may be for somebody else.
    pub(super) fn jwk(json: &RawValue) -> Option<Key> {
        let jwk: Jwk = serde_json::from_str(json.get()).ok()?;
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let verifies = jwk.common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify));
        let decoding = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs && verifies)?;
        let algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => P256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => P384,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => ED,
            // a shared secret that everybody can fetch is none
            _ => return None,
        };
        let mut key = Key::new(jwk.common.key_id, algorithms, decoding);
        if let Some(pinned) = jwk.common.key_algorithm {
            key.algorithms.retain(|algorithm| Ok(*algorithm) == Algorithm::try_from(pinned));
        }
        (!key.algorithms.is_empty() && key.is_long_enough()).then_some(key)
    }

    fn is_long_enough(&self) -> bool {
        match self.decoding.kind() {
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len() >= MIN_MODULUS,
            jsonwebtoken::DecodingKeyKind::SecretOrDer(der) => {
                self.decoding.family() != AlgorithmFamily::Rsa || der.len() >= MIN_MODULUS
            }
        }
    }

    /// Is the algorithm one of shared secrets? Those are never fetched.
    pub(super) fn is_shared(algorithm: Algorithm) -> bool {
        HMAC.contains(&algorithm)
    }

    /// Its name in its set.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Is it for this algorithm?
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Did it sign the token?
    pub(super) fn signed(&self, token: &Token<'_>) -> bool {
        // the library compares the family once more
        self.fits(token.algorithm)
            && crypto::verify(token.signature, token.signed.as_bytes(), &self.decoding, token.algorithm)
                .unwrap_or(false)
    }
}

fn read_pem(text: &[u8]) -> Result<Key, &'static str> {
    if text.windows(11).any(|w| w == b"PRIVATE KEY") {
        return Err("it is a private key, which no gateway should have: give the public one (`openssl pkey -pubout`)");
    }
    let key = if let Ok(key) = DecodingKey::from_rsa_pem(text) {
        Key::new(None, RSA, key)
    } else if let Ok(key) = DecodingKey::from_ed_pem(text) {
        Key::new(None, ED, key)
    } else {
        let key = DecodingKey::from_ec_pem(text).map_err(|_| "it is no public key in PEM: RSA, EC or Ed25519")?;
        // an uncompressed point: 4, then two coordinates
        match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
            65 => Key::new(None, P256, key),
            97 => Key::new(None, P384, key),
            _ => return Err("the curve is neither P-256 nor P-384"),
        }
    };
    if key.is_long_enough() { Ok(key) } else { Err("an RSA key has at least 2048 bits") }
}
