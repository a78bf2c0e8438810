//! A subscription as a JSON object: `{"sub", "table", "where", "select", "numbers", "since"}`, over a WebSocket and in the
//! body of `POST /v1/stream`.
//!
//! Invariant: it means what the same texts mean in the query string of a stream; nothing is ignored.

use super::Problem;
use super::params::{self, malformed};
use crate::hub::Start;
use crate::session::Request;
use crate::wire::message::FIRST_SUB;
use crate::wire::strict;
use serde::Deserialize;

/// The `type` of the message; a body may leave it out.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Subscribe,
}

/// See the module.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(rename = "type")]
    _kind: Option<Kind>,
    sub: Option<String>,
    table: String,
    #[serde(rename = "where")]
    filter: Option<String>,
    select: Option<String>,
    numbers: Option<String>,
    since: Option<String>,
}

impl Wanted {
    /// Its label.
    pub(super) fn label(&self) -> &str {
        self.sub.as_deref().unwrap_or(FIRST_SUB)
    }

    /// What is asked for, and from where on.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn read(&self) -> Result<(Request, Start), Problem> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let mut pairs: Vec<(String, String)> =
            serde_urlencoded::from_str(filter).map_err(|e| malformed(format!("`where`: {e}")))?;
        if let Some((name, _)) = pairs.iter().find(|(name, _)| name == "select" || name == "numbers") {
            return Err(malformed(format!("`{name}` in `where`: it stands beside it, as a member of its own")));
        }
        let own = [("select", &self.select), ("numbers", &self.numbers)];
        pairs.extend(own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
        let start = self.since.as_deref().map(params::start).transpose()?;
        Ok((params::one(self.label(), Some(&self.table), pairs)?, start.unwrap_or(Start::Snapshot)))
    }
}

/// The subscriptions in a body: one object, or a list of them.
///
/// # Errors
/// 400 with what would be right.
pub(super) fn in_body(body: &[u8]) -> Result<Vec<(Request, Start)>, Problem> {
    let text = strict::value(body)?.get();
    let wanted: Vec<Wanted> = match text.as_bytes() {
        [b'[', ..] => serde_json::from_str(text),
        _ => serde_json::from_str(text).map(|one| vec![one]),
    }
    .map_err(|e| {
        malformed(format!("a subscription is `{{\"sub\", \"table\", \"where\", ..}}`, or a list of them: {e}"))
    })?;
    if wanted.is_empty() {
        return Err(malformed("an empty list: there is nothing to stream"));
    }
    let read: Vec<(Request, Start)> = wanted.iter().map(Wanted::read).collect::<Result<_, _>>()?;
    params::fit_together(read.iter().map(|(request, _)| request))?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(Request, Start), String> {
        let wanted: Wanted = serde_json::from_str(json).map_err(|e| e.to_string())?;
        wanted.read().map_err(|problem| problem.to_string())
    }

    #[test]
    fn it_is_what_a_query_string_says() {
        let (request, start) = read(
            r#"{"type":"subscribe","sub":"a","table":"t","where":"league=eq.a%26b&or=(a.eq.1,b.eq.2)","select":"id,home",
                "numbers":"string","since":"4711-9f3a2c"}"#,
        )
        .unwrap();
        assert_eq!((&*request.sub, request.table.as_str(), request.select.as_deref()), ("a", "t", Some("id,home")));
        assert_eq!(request.filter[0], ("league".to_owned(), "eq.a&b".to_owned()));
        assert!(request.wide_as_strings && matches!(start, Start::After(_)));
        let (request, start) = read(r#"{"table":"t","since":null,"where":null}"#).unwrap();
        assert_eq!((&*request.sub, request.filter.len(), start), (FIRST_SUB, 0, Start::Snapshot));
    }

    #[test]
    fn whatever_else_is_refused() {
        for (json, says) in [
            (r#"{}"#, "table"),
            (r#"{"table":"t","sub":""}"#, "printable"),
            (r#"{"table":""}"#, "`table` is missing"),
            (r#"{"table":"t","filter":"a=eq.1"}"#, "unknown field"),
            (r#"{"type":"write","table":"t"}"#, "unknown variant"),
            (r#"{"table":"t","where":"select=id"}"#, "beside it"),
            (r#"{"table":"t","numbers":"text"}"#, "`string` or `number`"),
            (r#"{"table":"t","where":"limit=3"}"#, "no meaning in a stream"),
            (r#"{"table":"t","since":"x"}"#, "malformed position"),
        ] {
            assert!(read(json).unwrap_err().contains(says), "{json}: {:?}", read(json));
        }
    }
}
