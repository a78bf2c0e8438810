//! Text that nobody may see.
//!
//! Must not know: what it is for. Invariant: nothing that prints, logs or compares for equality can be done with it; who needs
//! the text says so.

use serde::{Deserialize, Deserializer};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// See the module.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// The text, for the one who computes with it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text.into())
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.into()))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // the reader's own words would repeat what it found
        let text = String::deserialize(deserializer).map_err(|_| serde::de::Error::custom("a secret is a text"))?;
        Ok(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_printed() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret Some(Secret)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
