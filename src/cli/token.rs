//! `rowcast token`: a token for development.
//!
//! Must not know: how tokens are verified. Invariant: what it prints, a gateway with the same settings takes.

use super::{CliError, write_line};
use crate::auth::{self, ROLE_CLAIM};
use crate::config::AuthArgs;
use clap::Args;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer than this no token should live, and for longer `exp` may not be taken.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Claims that have flags or settings of their own.
const OWN: [&str; 5] = ["exp", "iat", "iss", "aud", "sub"];

/// Arguments of `rowcast token`.
#[derive(Args, Debug)]
pub struct TokenArgs {
    /// As which role [default: none, which is `authenticated`]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// Who: the claim `sub`
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// Another claim: `team=7`, `leagues=["nfl"]`, `name=ann`; JSON where it is JSON, else a text. Any number of them
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
    /// How long it is good: `90s`, `15m`, `1h`, `7d`
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    expires: Duration,
    /// Settings file (TOML); see `rowcast.example.toml`
    #[arg(long, env = "ROWCAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Settings of tokens.
    #[command(flatten)]
    auth: AuthArgs,
}

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("a claim is `name=value`")?;
    if OWN.contains(&name) {
        return Err(format!(
            "`{name}` has a flag or a setting of its own: `--expires`, `--subject`, `--jwt-issuer`, `--jwt-audience`"
        ));
    }
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

fn span(text: &str) -> Result<Duration, String> {
    let wanted = || "a number and a unit: `90s`, `15m`, `1h`, `7d`, at most a year".to_owned();
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(wanted()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wanted())?;
    let span = number.checked_mul(unit).map(Duration::from_secs).ok_or_else(wanted)?;
    if span.is_zero() || span > LONGEST { Err(wanted()) } else { Ok(span) }
}

pub(super) fn token(args: &TokenArgs) -> Result<(), CliError> {
    let options = args.auth.options_with(args.config.as_ref())?;
    let secret = options.secret.as_ref().ok_or_else(|| {
        CliError::Usage(
            "no secret to sign with: set `ROWCAST_JWT_SECRET`, as for the gateway; tokens of a public key or a JWKS come from their issuer"
                .to_owned(),
        )
    })?;
    let wrong = |e: auth::AuthError| CliError::Usage(e.to_string());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut claims = Map::new();
    for (name, value) in &args.claims {
        if claims.insert(name.clone(), value.clone()).is_some() {
            return Err(CliError::Usage(format!("`--claim {name}=..` stands twice")));
        }
    }
    if let Some(role) = &args.role {
        auth::put_role(&mut claims, options.role_claim.as_deref().unwrap_or(ROLE_CLAIM), role).map_err(wrong)?;
    }
    let named = [("sub", &args.subject), ("iss", &options.issuer), ("aud", &options.audience)];
    claims.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?.into()))));
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), (now + args.expires.as_secs()).into());
    write_line(&auth::sign(secret, &claims).map_err(wrong)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_json_where_they_are() {
        for (text, value) in [
            ("team=7", json!(7)),
            ("leagues=[\"nfl\"]", json!(["nfl"])),
            ("name=ann", json!("ann")),
            ("note=a=b", json!("a=b")),
            ("empty=", json!("")),
            ("quoted=\"7\"", json!("7")),
        ] {
            assert_eq!(claim(text).unwrap().1, value, "{text}");
        }
        for text in ["team", "=7", "exp=1", "sub=x"] {
            assert!(claim(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_have_a_unit() {
        let seconds = |text: &str| span(text).map(|s| s.as_secs());
        assert_eq!(
            (seconds("90s"), seconds("15m"), seconds("1h"), seconds("7d")),
            (Ok(90), Ok(900), Ok(3600), Ok(604_800))
        );
        for text in ["", "1", "h", "0s", "-1h", "1.5h", "1w", "400d", "99999999999999999999s", "1é"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
