//! A token taken apart: what is signed, by which algorithm and key, and its claims as they stand.
//!
//! Must not know: keys, the time. Invariants: a token has one meaning or is none (a name twice, padding, spare bits are
//! refused); the algorithm is one of a fixed list; no address in a header is ever followed.

use super::fault::Fault;
use crate::wire::strict::{self, Members};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use std::fmt;

/// Longest token. Headers of a request are at most 16 kB in all.
pub(super) const MAX_TOKEN: usize = 8 * 1024;

/// See the module.
pub(super) struct Token<'a> {
    /// Header and claims, encoded.
    pub(super) signed: &'a str,
    /// Encoded.
    pub(super) signature: &'a str,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// The claims' text.
    pub(super) text: String,
    /// The claims.
    pub(super) claims: Members,
}

/// Without what is signed and by what: whoever reads it in a log could show it.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("algorithm", &self.algorithm).field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// What is accepted. RS384, RS512 and the like add nothing that anybody needs.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "HS256" => Algorithm::HS256,
        "HS384" => Algorithm::HS384,
        "HS512" => Algorithm::HS512,
        "RS256" => Algorithm::RS256,
        "PS256" => Algorithm::PS256,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

fn decoded(part: &str) -> Result<String, Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)?;
    String::from_utf8(bytes).map_err(|_| Fault::Malformed)
}

fn object(text: &str) -> Result<Members, Fault> {
    strict::object(text.as_bytes()).map_err(|_| Fault::Malformed)
}

/// A member that is a text; none when it is not there.
pub(super) fn text(members: &Members, name: &str) -> Option<Result<String, Fault>> {
    let (_, raw) = members.iter().find(|(member, _)| member == name)?;
    Some(serde_json::from_str(raw.get()).map_err(|_| Fault::Malformed))
}

impl<'a> Token<'a> {
    /// Takes it apart.
    ///
    /// # Errors
    /// It is none that could be accepted.
    pub(super) fn read(token: &'a str) -> Result<Token<'a>, Fault> {
        if token.len() > MAX_TOKEN {
            return Err(Fault::TooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Fault::Malformed)?;
        let header = object(&decoded(header)?)?;
        let algorithm = text(&header, "alg").ok_or(Fault::Malformed)??;
        let algorithm = self::algorithm(&algorithm).ok_or(Fault::Algorithm)?;
        if header.iter().any(|(name, _)| name == "crit") {
            return Err(Fault::Critical);
        }
        // one for another purpose, signed by the same key: an ID token's logout, a proof of possession
        let typ = text(&header, "typ").transpose()?;
        if typ.is_some_and(|typ| {
            let typ = typ.to_ascii_lowercase();
            !matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
        }) {
            return Err(Fault::Type);
        }
        let kid = text(&header, "kid").transpose()?;
        // a dot in it is no base64url
        let text = decoded(claims)?;
        let claims = object(&text)?;
        Ok(Token { signed, signature, algorithm, kid, text, claims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text =
            token(r#"{"typ":"JWT","alg":"ES256","kid":"../../k';--","jku":"https://evil.example/"}"#, r#"{"a":1}"#);
        let token = Token::read(&text).unwrap();
        assert_eq!((token.algorithm, token.kid.as_deref()), (Algorithm::ES256, Some("../../k';--")));
        assert_eq!((token.text.as_str(), token.signature), (r#"{"a":1}"#, "c2ln"));
        assert_eq!(token.claims[0].0, "a");
        let shown = format!("{token:?}");
        assert!(!shown.contains("eyJ") && !shown.contains("c2ln"), "{shown}");
    }

    #[test]
    fn what_is_none_is_refused() {
        for (header, claims, fault) in [
            (r#"{"alg":"none"}"#, "{}", Fault::Algorithm),
            (r#"{"alg":"None"}"#, "{}", Fault::Algorithm),
            (r#"{"alg":"hs256"}"#, "{}", Fault::Algorithm),
            (r#"{"alg":"RS512"}"#, "{}", Fault::Algorithm),
            (r#"{"alg":""}"#, "{}", Fault::Algorithm),
            (r#"{"alg":["HS256"]}"#, "{}", Fault::Malformed),
            (r#"{"alg":"HS256","alg":"none"}"#, "{}", Fault::Malformed),
            (r#"{}"#, "{}", Fault::Malformed),
            (r#"[]"#, "{}", Fault::Malformed),
            (r#"{"alg":"HS256","crit":["exp"]}"#, "{}", Fault::Critical),
            (r#"{"alg":"HS256","crit":[]}"#, "{}", Fault::Critical),
            (r#"{"alg":"HS256","typ":"id+jwt"}"#, "{}", Fault::Type),
            (r#"{"alg":"HS256","typ":"dpop+jwt"}"#, "{}", Fault::Type),
            (r#"{"alg":"HS256","typ":7}"#, "{}", Fault::Malformed),
            (r#"{"alg":"HS256","kid":7}"#, "{}", Fault::Malformed),
            (r#"{"alg":"HS256"}"#, r#"{"exp":1,"exp":2}"#, Fault::Malformed),
            (r#"{"alg":"HS256"}"#, r#"{"a":{"b":1,"b":2}}"#, Fault::Malformed),
            (r#"{"alg":"HS256"}"#, "[]", Fault::Malformed),
            (r#"{"alg":"HS256"}"#, "{}{}", Fault::Malformed),
            (r#"{"alg":"HS256"}"#, r#"{"sub":"a\u0000b"}"#, Fault::Malformed),
        ] {
            assert_eq!(Token::read(&token(header, claims)).unwrap_err(), fault, "{header} {claims}");
        }
        let good = token(r#"{"alg":"HS256","typ":"at+JWT"}"#, "{}");
        assert!(Token::read(&good).is_ok());
        for text in [
            "".to_owned(),
            "a.b".to_owned(),
            "..".to_owned(),
            format!("{good}.more"),
            good.replacen('.', "=.", 1),
            good.replacen('.', "..", 1),
            format!(" {good}"),
            // two dots are missing
            good.replace('.', ""),
        ] {
            assert_eq!(Token::read(&text).unwrap_err(), Fault::Malformed, "{text}");
        }
        let claims = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_TOKEN));
        assert_eq!(Token::read(&token(r#"{"alg":"HS256"}"#, &claims)).unwrap_err(), Fault::TooLong);
        // deep, as far as it fits
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(2000), "]".repeat(2000));
        assert_eq!(Token::read(&token(r#"{"alg":"HS256"}"#, &deep)).unwrap_err(), Fault::Malformed);
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,100}", header in ".{0,50}", claims in ".{0,50}") {
            let _ = Token::read(&text);
            let _ = Token::read(&token(&header, &claims));
        }
    }
}
