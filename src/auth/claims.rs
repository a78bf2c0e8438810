//! What the claims of a token must be, and what they say.
//!
//! Must not know: keys, signatures. Invariant: a claim that is missing, of another type, or beyond what it can mean refuses the
//! token; nothing is guessed.

use super::caller::AUTHENTICATED;
use super::fault::{AuthError, Fault};
use super::token::text;
use crate::wire::strict::{Members, members};
use serde_json::value::RawValue;
use std::time::Duration;

/// Clocks of issuers and ours may differ by so much.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// The end of the year 9999. Above it somebody counted in milliseconds, or tries what happens.
const LAST: i64 = 253_402_300_799;

/// Longest name of a role: that of a role in Postgres.
const MAX_ROLE: usize = 63;

/// Longest `sub` and `jti`. RFC 7519 has no limit; OpenID Connect says 255 for `sub`.
const MAX_ID: usize = 255;

/// What is expected of every token.
#[derive(Debug)]
pub(super) struct Expected {
    issuer: Option<String>,
    audience: Option<String>,
    role: String,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) role: String,
    pub(super) subject: Option<String>,
    pub(super) token_id: Option<String>,
    pub(super) exp: i64,
}

impl Expected {
    /// Issuer and audience if configured, and where the role stands.
    ///
    /// # Errors
    /// The last is no path.
    pub(super) fn new(issuer: Option<String>, audience: Option<String>, role: String) -> Result<Expected, AuthError> {
        if role.split('.').any(str::is_empty) {
            return Err(AuthError::RoleClaim);
        }
        Ok(Expected { issuer, audience, role })
    }

    /// Reads the claims; `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// The token is not one for here and now.
    pub(super) fn read(&self, claims: &Members, now: i64) -> Result<Said, Fault> {
        let leeway = i64::try_from(LEEWAY.as_millis()).unwrap_or_default();
        let exp = seconds(claims, "exp")?.ok_or(Fault::Claim("exp"))?;
        if exp * 1000 + leeway <= now {
            return Err(Fault::Expired);
        }
        if seconds(claims, "nbf")?.is_some_and(|nbf| nbf * 1000 - leeway > now) {
            return Err(Fault::Early);
        }
        if let Some(wanted) = &self.issuer
            && id(claims, "iss")?.as_ref() != Some(wanted)
        {
            return Err(Fault::Foreign("iss"));
        }
        if let Some(wanted) = &self.audience
            && !audiences(claims)?.contains(wanted)
        {
            return Err(Fault::Foreign("aud"));
        }
        Ok(Said { role: self.role(claims)?, subject: id(claims, "sub")?, token_id: id(claims, "jti")?, exp })
    }

    fn role(&self, claims: &Members) -> Result<String, Fault> {
        let Some(role) = at(claims, &self.role)? else { return Ok(AUTHENTICATED.to_owned()) };
        let role: String = serde_json::from_str(role.get()).map_err(|_| Fault::Claim("role"))?;
        let fits = !role.is_empty() && role.len() <= MAX_ROLE && !role.chars().any(char::is_control);
        if fits { Ok(role) } else { Err(Fault::Claim("role")) }
    }
}

fn find<'a>(claims: &'a Members, name: &str) -> Option<&'a RawValue> {
    claims.iter().find(|(member, _)| member == name).map(|(_, raw)| &**raw)
}

/// The claim of this name, or at the end of this path: names may have dots in them (`https://example.com/role`).
fn at(claims: &Members, path: &str) -> Result<Option<Box<RawValue>>, Fault> {
    if let Some(found) = find(claims, path) {
        return Ok(Some(found.to_owned()));
    }
    let Some((first, rest)) = path.split_once('.') else { return Ok(None) };
    match find(claims, first) {
        None => Ok(None),
        Some(inner) => at(&members(inner.get()).map_err(|_| Fault::Claim("role"))?, rest),
    }
}

/// A moment: a whole number of seconds.
fn seconds(claims: &Members, name: &'static str) -> Result<Option<i64>, Fault> {
    let Some(raw) = find(claims, name) else { return Ok(None) };
    let seconds: i64 = raw.get().parse().map_err(|_| Fault::Claim(name))?;
    if (0..=LAST).contains(&seconds) { Ok(Some(seconds)) } else { Err(Fault::Claim(name)) }
}

/// A text that names somebody or something.
fn id(claims: &Members, name: &'static str) -> Result<Option<String>, Fault> {
    let id = text(claims, name).transpose().map_err(|_| Fault::Claim(name))?;
    match id {
        Some(id) if id.is_empty() || id.len() > MAX_ID => Err(Fault::Claim(name)),
        id => Ok(id),
    }
}

/// `aud`: one or several.
fn audiences(claims: &Members) -> Result<Vec<String>, Fault> {
    let Some(raw) = find(claims, "aud") else { return Err(Fault::Claim("aud")) };
    let one = serde_json::from_str(raw.get()).map(|one: String| vec![one]);
    one.or_else(|_| serde_json::from_str(raw.get())).map_err(|_| Fault::Claim("aud"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn read(expected: &Expected, json: &str) -> Result<Said, Fault> {
        expected.read(&members(json).unwrap(), NOW * 1000)
    }

    fn plain() -> Expected {
        Expected::new(None, None, "role".to_owned()).unwrap()
    }

    fn with_exp(more: &str) -> String {
        format!(r#"{{"exp":{}{more}}}"#, NOW + 60)
    }

    #[test]
    fn what_a_token_says() {
        let said =
            read(&plain(), &with_exp(r#","role":"player","sub":"ann","jti":"t1","iss":["any"],"aud":7"#)).unwrap();
        let (role, exp) = ("player".to_owned(), NOW + 60);
        assert_eq!(said, Said { role, subject: Some("ann".into()), token_id: Some("t1".into()), exp });
        let said = read(&plain(), &with_exp("")).unwrap();
        assert_eq!((said.role.as_str(), said.subject, said.token_id), ("authenticated", None, None));
    }

    #[test]
    fn times_are_whole_seconds_and_within_the_leeway() {
        for (exp, fault) in [
            (format!("{}", NOW - 29), None),
            (format!("{}", NOW - 30), Some(Fault::Expired)),
            ("0".to_owned(), Some(Fault::Expired)),
            ("253402300799".to_owned(), None),
            ("253402300800".to_owned(), Some(Fault::Claim("exp"))),
            ("1000000000000000000".to_owned(), Some(Fault::Claim("exp"))),
            ("99999999999999999999999".to_owned(), Some(Fault::Claim("exp"))),
            ("-1".to_owned(), Some(Fault::Claim("exp"))),
            (format!("{}.5", NOW + 60), Some(Fault::Claim("exp"))),
            ("18e8".to_owned(), Some(Fault::Claim("exp"))),
            (format!("\"{}\"", NOW + 60), Some(Fault::Claim("exp"))),
            ("null".to_owned(), Some(Fault::Claim("exp"))),
            ("[]".to_owned(), Some(Fault::Claim("exp"))),
        ] {
            assert_eq!(read(&plain(), &format!(r#"{{"exp":{exp}}}"#)).err(), fault, "{exp}");
        }
        assert_eq!(read(&plain(), r#"{"role":"a"}"#).unwrap_err(), Fault::Claim("exp"));
        for (nbf, fault) in [
            (format!("{}", NOW + 30), None),
            (format!("{}", NOW + 31), Some(Fault::Early)),
            (format!("\"{NOW}\""), Some(Fault::Claim("nbf"))),
            ("null".to_owned(), Some(Fault::Claim("nbf"))),
        ] {
            assert_eq!(read(&plain(), &with_exp(&format!(r#","nbf":{nbf}"#))).err(), fault, "{nbf}");
        }
    }

    #[test]
    fn issuer_and_audience_when_configured() {
        let expected = Expected::new(Some("https://id.example".into()), Some("rowcast".into()), "role".into()).unwrap();
        let judge = |more: &str| read(&expected, &with_exp(more)).err();
        let issued = r#","iss":"https://id.example""#;
        assert_eq!(judge(&format!(r#"{issued},"aud":"rowcast""#)), None);
        assert_eq!(judge(&format!(r#"{issued},"aud":["x","rowcast"]"#)), None);
        assert_eq!(judge(&format!(r#"{issued},"aud":["x"]"#)), Some(Fault::Foreign("aud")));
        assert_eq!(judge(&format!(r#"{issued},"aud":"rowcast.evil""#)), Some(Fault::Foreign("aud")));
        assert_eq!(judge(&format!(r#"{issued},"aud":[["rowcast"]]"#)), Some(Fault::Claim("aud")));
        assert_eq!(judge(issued), Some(Fault::Claim("aud")));
        assert_eq!(judge(r#","aud":"rowcast""#), Some(Fault::Foreign("iss")));
        assert_eq!(judge(r#","aud":"rowcast","iss":"https://id.example/""#), Some(Fault::Foreign("iss")));
        assert_eq!(judge(r#","aud":"rowcast","iss":["https://id.example"]"#), Some(Fault::Claim("iss")));
    }

    #[test]
    fn the_role_stands_where_it_is_said_to() {
        let role = |path: &str, more: &str| {
            let expected = Expected::new(None, None, path.to_owned()).unwrap();
            read(&expected, &with_exp(more)).map(|said| said.role)
        };
        let nested = r#","app_metadata":{"role":"coach","more":{"role":"x"}}"#;
        assert_eq!(role("app_metadata.role", nested).unwrap(), "coach");
        assert_eq!(role("app_metadata.more.role", nested).unwrap(), "x");
        assert_eq!(role("app_metadata.none", nested).unwrap(), "authenticated");
        assert_eq!(role("none.role", nested).unwrap(), "authenticated");
        assert_eq!(role("https://example.com/role", r#","https://example.com/role":"a""#).unwrap(), "a");
        let long = format!(r#","role":"{}""#, "x".repeat(64));
        for (path, more) in [
            ("role", r#","role":null"#),
            ("role", r#","role":"""#),
            ("role", r#","role":["a"]"#),
            ("role", r#","role":"a\nb""#),
            ("role", &long),
            ("role.name", r#","role":"text""#),
        ] {
            assert_eq!(role(path, more).unwrap_err(), Fault::Claim("role"), "{path} {more}");
        }
        // what it may do is said elsewhere, never by its spelling
        assert_eq!(role("role", r#","role":"app\"; set role""#).unwrap(), "app\"; set role");
        for path in ["", ".", "a.", ".a", "a..b"] {
            assert!(Expected::new(None, None, path.to_owned()).is_err(), "{path}");
        }
    }

    #[test]
    fn names_are_texts_of_a_bounded_length() {
        let long = "x".repeat(256);
        for more in [r#","sub":7"#, r#","sub":null"#, r#","sub":"""#, r#","jti":{}"#] {
            assert!(matches!(read(&plain(), &with_exp(more)), Err(Fault::Claim("sub" | "jti"))), "{more}");
        }
        assert_eq!(read(&plain(), &with_exp(&format!(r#","sub":"{long}""#))).unwrap_err(), Fault::Claim("sub"));
    }
}
