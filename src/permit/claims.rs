//! Claims of a token, by name: what a rule puts in the place of values.
//!
//! Must not know: rules, columns. Invariants: a number keeps its digits; what stands twice in an object, or is null, is not there.

use crate::filter::Claim;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

const MISSING: &str = "is missing";

/// One value.
pub(super) fn value(claims: &str, name: &str) -> Result<Claim, &'static str> {
    scalar(find(claims, name)?)
}

/// Several.
pub(super) fn list(claims: &str, name: &str) -> Result<Vec<Claim>, &'static str> {
    let raw = find(claims, name)?;
    let list: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| "is no list")?;
    list.into_iter().map(|raw| scalar(raw.get())).collect()
}

fn scalar(raw: &str) -> Result<Claim, &'static str> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map(Claim::Text).map_err(|_| "is no text"),
        Some(b't') => Ok(Claim::Bool(true)),
        Some(b'f') => Ok(Claim::Bool(false)),
        Some(b'-' | b'0'..=b'9') => Ok(Claim::Number(raw.to_owned())),
        Some(b'n') => Err(MISSING),
        _ => Err("is no single value"),
    }
}

/// The text of a claim; `a.b` is the member `b` of the object `a`.
fn find<'a>(claims: &'a str, name: &str) -> Result<&'a str, &'static str> {
    let mut raw = claims;
    for part in name.split('.') {
        let mut object = serde_json::Deserializer::from_str(raw);
        raw = object.deserialize_map(Member(part)).map_err(|_| MISSING)?.ok_or(MISSING)?.get();
    }
    Ok(raw)
}

/// Looks for a member of an object.
struct Member<'n>(&'n str);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Name(name)) = map.next_key()? {
            if name != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(found)
    }
}
