//! Settings of tokens: shared by `serve` and `token`.
//!
//! Must not know: what tokens are. Invariant: no secret is shown by help, by an error or in a log.

use super::{ConfigError, File};
use crate::auth::{AuthOptions, Clock, Secret};
use clap::Args;
use std::path::{Path, PathBuf};

/// Flags of tokens, each also an environment variable and a key of the file.
#[derive(Args, Clone, Debug, Default)]
pub struct AuthArgs {
    /// Shared secret of tokens signed with HS256, HS384 or HS512: at least 32 bytes. Others see flags: better in the environment
    #[arg(long, env = "ROWCAST_JWT_SECRET", hide_env_values = true, value_name = "TEXT")]
    pub jwt_secret: Option<Secret>,
    /// File with the shared secret, instead
    #[arg(long, env = "ROWCAST_JWT_SECRET_FILE", value_name = "FILE")]
    pub jwt_secret_file: Option<PathBuf>,
    /// File with the public key (PEM: RSA, EC, Ed25519) of tokens signed with RS256, PS256, ES256, ES384 or EdDSA
    #[arg(long, env = "ROWCAST_JWT_PUBLIC_KEY_FILE", value_name = "FILE")]
    pub jwt_public_key_file: Option<PathBuf>,
    /// Where the issuer of tokens publishes its keys (JWKS): `https://id.example.com/.well-known/jwks.json`
    #[arg(long, env = "ROWCAST_JWKS_URL", hide_env_values = true, value_name = "URL")]
    pub jwks_url: Option<String>,
    /// What `iss` of a token must be [default: anything]
    #[arg(long, env = "ROWCAST_JWT_ISSUER", value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// What `aud` of a token must be, or have in it [default: anything]
    #[arg(long, env = "ROWCAST_JWT_AUDIENCE", value_name = "TEXT")]
    pub jwt_audience: Option<String>,
    /// Claim that names the role, or a path such as `app_metadata.role` [default: role]
    #[arg(long, env = "ROWCAST_JWT_ROLE_CLAIM", value_name = "CLAIM")]
    pub jwt_role_claim: Option<String>,
}

impl AuthArgs {
    /// With what the file of this path says where nothing else does.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn options_with(&self, config: Option<&PathBuf>) -> Result<AuthOptions, ConfigError> {
        self.options(&mut super::file(config)?)
    }

    pub(super) fn options(&self, file: &mut File) -> Result<AuthOptions, ConfigError> {
        let or = |flag: &Option<String>, file: &mut Option<String>| {
            flag.clone().or(file.take()).filter(|text| !text.is_empty())
        };
        // flags and environment, taken together, come before the file
        let given = (self.jwt_secret.clone(), self.jwt_secret_file.clone());
        let given = match given {
            (None, None) => (file.jwt_secret.take(), file.jwt_secret_file.take()),
            given => given,
        };
        let secret = match given {
            (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
            (secret, None) => secret,
            (None, Some(path)) => Some(secret_in(&path)?),
        };
        Ok(AuthOptions {
            secret,
            public_key_file: self.jwt_public_key_file.clone().or(file.jwt_public_key_file.take()),
            jwks_url: or(&self.jwks_url, &mut file.jwks_url),
            issuer: or(&self.jwt_issuer, &mut file.jwt_issuer),
            audience: or(&self.jwt_audience, &mut file.jwt_audience),
            role_claim: or(&self.jwt_role_claim, &mut file.jwt_role_claim),
            clock: Clock::default(),
        })
    }
}

/// Editors end a file with a line's end, which is no part of the secret.
fn secret_in(path: &Path) -> Result<Secret, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Read(path.to_owned(), e))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned().into())
}

/// An error of the file's reader, which shows the line: without it. Any may have a secret in it, also under a misspelt key.
pub(super) fn hushed(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.as_bytes().get(..span.start));
    match before.map(|before| before.iter().filter(|byte| **byte == b'\n').count()) {
        Some(lines) => format!("line {}: {}", lines + 1, error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_file_is_shown() {
        for (text, line, word) in [
            ("jwt_secert = \"hunter2\"", 1, "jwt_secert"),
            ("# first\njwt_secret = \"hunter2", 2, "string"),
            ("listen = \"127.0.0.1:1\"\ndatabse = \"postgres://u:hunter2@h\"", 2, "databse"),
        ] {
            let told = hushed(&toml::from_str::<File>(text).err().unwrap(), text);
            assert!(told.starts_with(&format!("line {line}: ")) && told.contains(word), "{told}");
            assert!(!told.contains("hunter2") && !told.contains('|'), "{told}");
        }
    }
}
