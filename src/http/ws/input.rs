//! A client's messages.
//!
//! Must not know: sockets, tables. Invariant: a message is understood whole or not at all.

use super::super::params::MAX_LABEL;
use super::super::subscribe::Wanted;
use crate::auth::Secret;
use crate::wire::strict::{self, BodyError};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;

/// One message.
#[derive(Debug)]
pub(super) enum Input {
    /// The first one.
    Init(Token),
    /// Begins a subscription.
    Subscribe(Wanted),
    /// Ends one.
    Unsubscribe(String),
    /// Writes rows.
    Write(Write),
    /// Hands in a new token.
    Auth(Secret),
    /// A write, by its `id`, with text that the database cannot store.
    Nul(String),
    /// Asks for a sign of life.
    Ping,
}

/// `{"type": "init", "token"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// None is nobody in particular.
    pub token: Option<Secret>,
}

/// `{"type": "auth", "token"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    token: Secret,
}

/// `{"type": "write", "id", "ops", "idempotency_key"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    /// The client's name for it; stands in the answer.
    pub id: String,
    /// As of `POST /v1/batch`.
    pub ops: Vec<Box<RawValue>>,
    /// As the header of that name.
    pub idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
    sub: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bare {
    #[serde(rename = "type")]
    _kind: IgnoredAny,
}

impl Input {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &str) -> Result<Input, String> {
        let members = match strict::object(text.as_bytes()) {
            Ok(members) => members,
            // somebody may have typed it: no reason to lose the connection
            Err(BodyError::Nul) if let Ok(write) = serde_json::from_str::<Write>(text) => {
                return Ok(Input::Nul(write.id));
            }
            Err(error) => return Err(error.to_string()),
        };
        let kind = members.iter().find(|(name, _)| name == "type").ok_or("a message has a `type`")?;
        let kind: String = serde_json::from_str(kind.1.get()).map_err(|_| "`type` is a text")?;
        match kind.as_str() {
            "init" => Ok(Input::Init(whole(text)?)),
            "subscribe" => Ok(Input::Subscribe(whole(text)?)),
            "unsubscribe" => Ok(Input::Unsubscribe(whole::<Unsubscribe>(text)?.sub)),
            "write" => {
                let write: Write = whole(text)?;
                if write.id.is_empty() || write.id.len() > MAX_LABEL {
                    return Err(format!("the `id` of a write has 1 to {MAX_LABEL} bytes"));
                }
                Ok(Input::Write(write))
            }
            "auth" => Ok(Input::Auth(whole::<Auth>(text)?.token)),
            "ping" => whole::<Bare>(text).map(|_| Input::Ping),
            _ => Err("`type` is `init`, `subscribe`, `unsubscribe`, `write`, `auth` or `ping`".to_owned()),
        }
    }
}

fn whole<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_message_is_read() {
        assert!(matches!(Input::read(r#"{"type":"init"}"#), Ok(Input::Init(Token { token: None, .. }))));
        assert!(
            matches!(Input::read(r#"{"token":"x","type":"auth"}"#), Ok(Input::Auth(token)) if token.expose() == "x")
        );
        assert!(matches!(Input::read(r#"{"type":"subscribe","sub":"2","table":"t"}"#), Ok(Input::Subscribe(_))));
        assert!(
            matches!(Input::read(r#"{"type":"unsubscribe","sub":"2"}"#), Ok(Input::Unsubscribe(sub)) if sub == "2")
        );
        assert!(matches!(Input::read(r#"{"type":"ping"}"#), Ok(Input::Ping)));
        let write = Input::read(r#"{"type":"write","id":"w1","ops":[{"n":1.10}],"idempotency_key":"k"}"#);
        let Ok(Input::Write(write)) = write else { panic!("no write") };
        assert_eq!((write.ops[0].get(), write.id.as_str()), (r#"{"n":1.10}"#, "w1"));
    }

    #[test]
    fn anything_else_is_not() {
        let long = format!(r#"{{"type":"write","ops":[],"id":"{}"}}"#, "x".repeat(65));
        for text in [
            "",
            "{",
            "[]",
            "\"ping\"",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"hello"}"#,
            r#"{"type":"ping","type":"ping"}"#,
            r#"{"type":"ping","more":1}"#,
            r#"{"type":"init","token":1}"#,
            r#"{"type":"auth"}"#,
            r#"{"type":"auth","token":null}"#,
            r#"{"type":"unsubscribe"}"#,
            r#"{"type":"write","ops":[]}"#,
            r#"{"type":"write","id":"","ops":[]}"#,
            r#"{"type":"write","id":"w","ops":{}}"#,
            r#"{"type":"subscribe","sub":"1"}"#,
            r#"{"type":"subscribe","sub":"\ud800","table":"t"}"#,
            &long,
        ] {
            assert!(Input::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in r#"(\{"type":"(init|subscribe|write|ping)",?)?[\[\]{}",:a-z0-9]{0,60}"#) {
            let _ = Input::read(&text);
        }
    }
}
