//! What can be wrong with tokens and with keys.
//!
//! Must not know: transports. Invariant: no text here repeats any part of a token or a key; and what is wrong with a token is for
//! the log alone: whoever presents one learns nothing but that it is not taken.

use std::path::PathBuf;

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No key is configured.
    #[error("no key is configured: set `ROWCAST_JWT_SECRET`, `ROWCAST_JWT_PUBLIC_KEY_FILE` or `ROWCAST_JWKS_URL`")]
    NotConfigured,
    /// It is too long.
    #[error("it is longer than 8 kB")]
    TooLong,
    /// It is not three parts of base64url, of which two are JSON objects with one meaning.
    #[error("it is no JWT")]
    Malformed,
    /// The algorithm is not on the list.
    #[error("its algorithm is not one that is accepted")]
    Algorithm,
    /// It names extensions that must be understood.
    #[error("its `crit` names extensions, none is known")]
    Critical,
    /// It is of another type.
    #[error("its `typ` is neither `JWT` nor `at+jwt`")]
    Type,
    /// A claim is missing or not what it must be.
    #[error("its `{0}` is missing or malformed")]
    Claim(&'static str),
    /// Its time is over.
    #[error("it is expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet")]
    Early,
    /// Another issuer, another audience.
    #[error("its `{0}` is not the one configured")]
    Foreign(&'static str),
    /// There is no key for it.
    #[error("there is no key of this `kid` for its algorithm")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature does not fit")]
    Signature,
}

/// Why there is no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The token is not taken.
    #[error(transparent)]
    Token(#[from] Fault),
    /// Nobody knows: no keys could be fetched so far.
    #[error("no keys could be fetched yet from `jwks_url`")]
    NoKeys,
}

/// Keys and settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The secret is short.
    #[error("`jwt_secret` has {0} bytes, at least 32 are needed: make one with `openssl rand -base64 32`")]
    ShortSecret(usize),
    /// The key cannot be read.
    #[error("cannot read `{0}` of `jwt_public_key_file`: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The key is none that is known.
    #[error("`{0}` of `jwt_public_key_file`: {1}")]
    NoKey(PathBuf, &'static str),
    /// The address of the keys is none.
    #[error("`jwks_url` must be `https://..`, or `http://..` on this very machine (`localhost`, `127.0.0.1`, `[::1]`)")]
    JwksUrl,
    /// No client for fetching.
    #[error("keys cannot be fetched: {0}")]
    Client(String),
    /// A name of a claim that is none.
    #[error("`jwt_role_claim` is the name of a claim, or a path such as `app_metadata.role`")]
    RoleClaim,
    /// A token cannot be signed.
    #[error("the token cannot be signed: {0}")]
    Sign(String),
}
