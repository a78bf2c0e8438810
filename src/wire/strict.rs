//! The strict reader of request bodies: JSON with one meaning, values as the text they were sent in.
//!
//! Must not know: columns, HTTP. Invariants: what two readers could understand differently (a name twice, half a
//! surrogate pair) is refused at any depth; no number passes through a float.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Deepest nesting of arrays and objects, the outermost counted.
pub const MAX_DEPTH: usize = 32;

/// The members of an object, in order, each name once.
pub type Members = Vec<(String, Box<RawValue>)>;

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON, or JSON that can be read in two ways.
    #[error("{0}")]
    Malformed(String),
    /// Text with U+0000, which Postgres cannot store.
    #[error("text must not contain U+0000: the database cannot store it")]
    Nul,
}

fn malformed(text: impl Into<String>) -> BodyError {
    BodyError::Malformed(text.into())
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> BodyError {
        malformed(format!("not valid JSON: {error}"))
    }
}

/// Reads a body that is one object.
///
/// # Errors
/// It is none, or not strict; see [`BodyError`].
pub fn object(body: &[u8]) -> Result<Members, BodyError> {
    members(value(body)?.get())
}

/// Reads a body that is any one value.
///
/// # Errors
/// It is none, or not strict; see [`BodyError`].
pub fn value(body: &[u8]) -> Result<&RawValue, BodyError> {
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
    let raw: &RawValue = serde_json::from_str(text)?;
    check(raw.get(), 1)?;
    Ok(raw)
}

/// The members of an object whose text was checked.
///
/// # Errors
/// It is no object.
pub fn members(text: &str) -> Result<Members, BodyError> {
    if !text.starts_with('{') {
        return Err(malformed("expected one JSON object"));
    }
    let Level(members) = serde_json::from_str(text)?;
    Ok(members.into_iter().map(|(name, raw)| (name, raw.to_owned())).collect())
}

/// One level at a time: a level is read as often as it is deep, which the depth bounds, and nothing recurses further
/// than that.
fn check(text: &str, depth: usize) -> Result<(), BodyError> {
    let nested = || if depth > MAX_DEPTH { Err(malformed(format!("nested deeper than {MAX_DEPTH}"))) } else { Ok(()) };
    match text.as_bytes().first() {
        Some(b'{') => {
            nested()?;
            let Level(members) = serde_json::from_str(text)?;
            let mut seen = HashSet::new();
            for (name, raw) in &members {
                if !seen.insert(name) {
                    return Err(malformed(format!("the name `{}` stands twice in one object", name.escape_debug())));
                }
                if name.contains('\0') {
                    return Err(BodyError::Nul);
                }
                check(raw.get(), depth + 1)?;
            }
            Ok(())
        }
        Some(b'[') => {
            nested()?;
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            elements.iter().try_for_each(|raw| check(raw.get(), depth + 1))
        }
        // decoded, because only that tells half a surrogate pair
        Some(b'"') => {
            let text: String = serde_json::from_str(text)?;
            if text.contains('\0') { Err(BodyError::Nul) } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// One level of an object: names decoded, values as they stand.
pub(super) struct Level<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Level<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        deserializer.deserialize_map(Pairs).map(Level)
    }
}

/// An object from names and texts of values.
#[must_use]
pub fn write_object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (name, raw) in members {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(&quoted(name));
        out.push(':');
        out.push_str(raw);
    }
    out.push('}');
    out
}

/// A JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<Vec<(String, String)>, BodyError> {
        object(body.as_bytes()).map(|m| m.into_iter().map(|(n, r)| (n, r.get().to_owned())).collect())
    }

    #[test]
    fn values_keep_their_text() {
        let digits = "1".repeat(1000);
        let body = format!(
            r#" {{"a": 9007199254740993, "b":-0.{digits}e+5, "c":{{"x" : [1 ,{{}}]}}, "\u00e4":"\ud83d\ude00", "e":1e400}} "#
        );
        let pairs = read(&body).unwrap();
        let expected = [
            ("a", "9007199254740993".to_owned()),
            ("b", format!("-0.{digits}e+5")),
            ("c", r#"{"x" : [1 ,{}]}"#.to_owned()),
            ("ä", r#""\ud83d\ude00""#.to_owned()),
            ("e", "1e400".to_owned()),
        ];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v)));
    }

    #[test]
    fn what_has_no_one_meaning_is_refused() {
        let deep = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n - 1), "]".repeat(n - 1));
        assert!(read(&deep(MAX_DEPTH)).is_ok());
        let (one, many) = (deep(MAX_DEPTH + 1), deep(10_000));
        for body in [
            "",
            "[]",
            "1",
            "null",
            "{",
            "{}{}",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":NaN}",
            "{\"a\":Infinity}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "{\"x\":[{\"y\":{\"a\":1,\"a\":2}}]}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\\ud800\"}",
            "{\"a\":[\"\\ud800x\"]}",
            "{\"\\udfff\":1}",
            "{\"a\":\"\u{0}\"}",
            "\u{feff}{\"a\":1}",
            "{\"a\":\"\n\"}",
            &one,
            &many,
        ] {
            assert!(matches!(read(body), Err(BodyError::Malformed(_))), "{:.80}: {:?}", body, read(body));
        }
        assert!(matches!(object(b"{\"a\":\"\xff\"}"), Err(BodyError::Malformed(_))));
        for body in [r#"{"a":"x\u0000"}"#, r#"{"a":{"b\u0000":1}}"#, r#"{"a":[["\u0000"]]}"#] {
            assert_eq!(read(body), Err(BodyError::Nul), "{body}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[^\u{0}]*".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("[^\u{0}]{0,4}", inner, 0..5)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&body);
        }

        #[test]
        fn any_soup_of_json_is_answered(body in r#"[\[\]{}",:a0-9eE.\\u+ -]{0,60}"#) {
            if let Ok(members) = object(body.as_bytes()) {
                // whatever passes is JSON to everybody else too, with as many names
                let other: serde_json::Map<String, serde_json::Value> = match serde_json::from_str(&body) {
                    Ok(map) => map,
                    // the one thing that others refuse: numbers beyond a float
                    Err(e) => { prop_assert!(e.to_string().contains("number out of range"), "{}", e); return Ok(()); }
                };
                prop_assert_eq!(members.len(), other.len());
            }
        }

        #[test]
        fn honest_json_passes_and_is_written_back(value in json()) {
            let body = serde_json::json!({ "a": value }).to_string();
            let members = object(body.as_bytes()).unwrap();
            prop_assert_eq!(write_object(members.iter().map(|(n, r)| (n.as_str(), r.get()))), body);
        }
    }
}
