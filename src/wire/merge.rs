//! JSON merge patch (RFC 7396) on texts.
//!
//! Must not know: columns. Invariant: what the patch does not name keeps its text, digit for digit.

use super::strict::{Level, quoted};

/// `target` with `patch` merged in: members that are null are removed, objects are merged, everything else replaces.
/// Depth is bounded by that of the patch.
///
/// # Errors
/// A text is no JSON, or has names that are no Unicode.
pub fn merge(target: &str, patch: &str) -> Result<String, serde_json::Error> {
    if !patch.starts_with('{') {
        return Ok(patch.to_owned());
    }
    let Level(patch) = serde_json::from_str(patch)?;
    let Level(target) = if target.starts_with('{') { serde_json::from_str(target)? } else { Level(Vec::new()) };
    let mut members: Vec<(String, String)> = Vec::new();
    for (name, raw) in target {
        // a `json` column may hold a name twice; Postgres takes the last, and so do we
        members.retain(|(n, _)| *n != name);
        members.push((name, raw.get().to_owned()));
    }
    for (name, raw) in patch {
        let place = members.iter().position(|(n, _)| *n == name);
        if raw.get() == "null" {
            place.map(|i| members.remove(i));
            continue;
        }
        let old = place.map_or("null", |i| members[i].1.as_str());
        let new = merge(old, raw.get())?;
        match place {
            Some(i) => members[i].1 = new,
            None => members.push((name, new)),
        }
    }
    let inner: Vec<String> = members.iter().map(|(name, raw)| format!("{}:{raw}", quoted(name))).collect();
    Ok(format!("{{{}}}", inner.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// The examples of RFC 7396, appendix A: original, patch, result.
    const EXAMPLES: &[(&str, &str, &str)] = &[
        (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
        (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
        (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
        (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
        (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
        (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
        (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
        (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
        (r#"{"a":"foo"}"#, "null", "null"),
        (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
        (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
        (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
        (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
    ];

    #[test]
    fn the_examples_of_the_rfc() {
        for (target, patch, result) in EXAMPLES {
            assert_eq!(merge(target, patch).unwrap(), *result, "{target} + {patch}");
        }
    }

    #[test]
    fn digits_stay() {
        let target = r#"{"n":12345678901234567890.10, "d":{"x":1e2 ,"y":2}}"#;
        let merged = merge(target, r#"{"d":{"y":9007199254740993}}"#).unwrap();
        assert_eq!(merged, r#"{"n":12345678901234567890.10,"d":{"x":1e2,"y":9007199254740993}}"#);
    }

    /// The pseudo-code of the RFC, on values.
    fn reference(target: Value, patch: Value) -> Value {
        let Value::Object(patch) = patch else { return patch };
        let mut target = match target {
            Value::Object(target) => target,
            _ => serde_json::Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(&name);
            } else {
                let old = target.remove(&name).unwrap_or(Value::Null);
                target.insert(name, reference(old, value));
            }
        }
        Value::Object(target)
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Into::into), "[a-c\"]*".prop_map(Into::into)];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn merges_as_the_rfc_says(target in json(), patch in json()) {
            let merged: Value = serde_json::from_str(&merge(&target.to_string(), &patch.to_string()).unwrap()).unwrap();
            prop_assert_eq!(merged, reference(target, patch));
        }
    }
}
