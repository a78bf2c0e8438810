//! Who asks: tokens, the keys they are held against, and when their authority ends.
//!
//! Must not know: HTTP servers, SQL, what a role may do. The only module that knows `jsonwebtoken`, and the only one that
//! fetches anything. Invariant: every fault of a token is told apart here and nowhere outside.
//!
//! Two walks: [`Verifier::verify`] takes a token apart (`token`), holds its claims against settings and clock (`claims`), then its
//! signature against the configured keys and those of an issuer's set (`key`, `jwks`). A [`Caller`] carries its [`Expiry`] wherever it
//! goes, and whatever runs in its name waits for that end too.

mod caller;
mod claims;
mod clock;
mod fault;
mod fetch;
mod jwks;
mod key;
mod secret;
mod sign;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

pub use caller::{ANON, AUTHENTICATED, Caller, Expiry};
pub use claims::LEEWAY;
pub use clock::Clock;
pub use fault::{AuthError, Fault, Rejected};
pub use secret::Secret;
pub use sign::{put_role, sign};
pub use verifier::{AuthOptions, ROLE_CLAIM, Verifier};
