//! Query strings to subscription requests.
//!
//! Invariant: whatever is not understood is an error that says what would be; nothing is ignored.

use super::{Problem, credentials};
use crate::change::Resume;
use crate::hub::Start;
use crate::session::Request;
use crate::wire::message::{ANEW, FIRST_SUB};
use std::collections::HashSet;
use std::time::Duration;

/// Subscriptions of one connection. The contract's number.
pub(super) const MAX_SUBS: usize = 128;

/// Longest label of a subscription: it is repeated in every message.
pub(super) const MAX_LABEL: usize = 64;

/// Longest long-poll: below the idle timeout of common proxies (60 s).
pub(super) const MAX_WAIT: Duration = Duration::from_secs(55);

/// A parsed query string of `/v1/stream` or `/v1/changes`.
#[derive(Debug)]
pub(super) struct StreamParams {
    /// The subscriptions, at least one.
    pub requests: Vec<Request>,
    /// `since`, if given.
    pub since: Option<Start>,
    /// `wait`, if given.
    pub wait: Option<Duration>,
    /// `ticket`, if given.
    pub ticket: Option<String>,
}

pub(super) fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(400, "malformed-request", detail)
}

/// Reads a position or `now`.
///
/// # Errors
/// 400 `invalid-position`.
pub(super) fn start(text: &str) -> Result<Start, Problem> {
    if text == "now" {
        return Ok(Start::Now);
    }
    let (text, anew) = text.strip_suffix(ANEW).map_or((text, false), |text| (text, true));
    let point: Resume = text.parse().map_err(|e| Problem::new(400, "invalid-position", format!("{e}")))?;
    Ok(if anew { Start::SnapshotFrom(point.position) } else { Start::After(point) })
}

impl StreamParams {
    /// Reads the decoded pairs of a query string.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn parse(pairs: Vec<(String, String)>) -> Result<StreamParams, Problem> {
        credentials::refuse_in(&pairs)?;
        let (mut since, mut wait, mut ticket) = (None, None, None);
        let mut subs = Vec::new();
        let mut own = Vec::new();
        for (name, value) in pairs {
            match name.as_str() {
                "since" => since = Some(start(&value)?),
                "wait" => wait = Some(seconds(&value)?),
                "ticket" if ticket.is_some() => return Err(malformed("`ticket` stands twice")),
                "ticket" => ticket = Some(value),
                "sub" => subs.push(sub(&value)?),
                _ => own.push((name, value)),
            }
        }
        if subs.is_empty() {
            subs.push(one(FIRST_SUB, None, own)?);
        } else if let Some((name, _)) = own.first() {
            return Err(malformed(format!(
                "`{name}` beside `sub`: with several subscriptions each has its own filter, `sub=<id>~<table>?<filters, encoded>`"
            )));
        }
        fit_together(subs.iter())?;
        Ok(StreamParams { requests: subs, since, wait, ticket })
    }
}

/// Can these be on one connection?
///
/// # Errors
/// They are too many, or two have one name.
pub(super) fn fit_together<'a>(subs: impl ExactSizeIterator<Item = &'a Request>) -> Result<(), Problem> {
    if subs.len() > MAX_SUBS {
        let detail = format!("{} subscriptions, at most {MAX_SUBS} on one connection", subs.len());
        return Err(Problem::new(400, "too-many-subscriptions", detail));
    }
    let mut seen = HashSet::new();
    for request in subs {
        if !seen.insert(&request.sub) {
            return Err(malformed(format!("two subscriptions are called `{}`", request.sub)));
        }
    }
    Ok(())
}

/// `<id>~<table>?<filters, encoded>`.
fn sub(text: &str) -> Result<Request, Problem> {
    let (label, rest) =
        text.split_once('~').ok_or_else(|| malformed("`sub` must be `<id>~<table>?<filters, encoded>`"))?;
    let (table, query) = rest.split_once('?').unwrap_or((rest, ""));
    let pairs =
        serde_urlencoded::from_str(query).map_err(|e| malformed(format!("the filters of `sub` `{label}`: {e}")))?;
    one(label, Some(table), pairs)
}

pub(super) fn one(label: &str, table: Option<&str>, pairs: Vec<(String, String)>) -> Result<Request, Problem> {
    if label.is_empty() || label.len() > MAX_LABEL || label.chars().any(char::is_control) {
        return Err(malformed(format!("the id of a subscription has 1 to {MAX_LABEL} printable characters")));
    }
    let mut request = Request {
        sub: label.into(),
        table: table.unwrap_or_default().to_owned(),
        filter: Vec::new(),
        select: None,
        wide_as_strings: false,
    };
    for (name, value) in pairs {
        match (name.as_str(), value.as_str()) {
            ("table", _) if table.is_none() => request.table = value,
            ("select", _) => request.select = Some(value),
            ("numbers", "string") => request.wide_as_strings = true,
            ("numbers", "number") => request.wide_as_strings = false,
            ("numbers", _) => return Err(malformed("`numbers` is `string` or `number`")),
            ("order" | "limit" | "offset", _) => {
                return Err(malformed(format!(
                    "`{name}` has no meaning in a stream: a subscription is a set of rows, without order or end; filter instead"
                )));
            }
            _ => request.filter.push((name, value)),
        }
    }
    if request.table.is_empty() {
        return Err(malformed("`table` is missing: `?table=<table>`"));
    }
    Ok(request)
}

fn seconds(text: &str) -> Result<Duration, Problem> {
    let seconds: u64 = text.parse().map_err(|_| malformed("`wait` is a number of seconds, such as `25`"))?;
    Ok(Duration::from_secs(seconds).min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(query: &str) -> Result<StreamParams, Problem> {
        StreamParams::parse(serde_urlencoded::from_str(query).unwrap())
    }

    #[test]
    fn one_table_with_filters() {
        let p = parse("table=scores&league=eq.nfl&select=id,home&since=4711-9f3a2c&wait=25").unwrap();
        assert_eq!(p.requests[0].filter, [("league".to_owned(), "eq.nfl".to_owned())]);
        assert_eq!((p.requests[0].sub.as_ref(), p.requests[0].select.as_deref()), ("1", Some("id,home")));
        assert!(matches!(p.since, Some(Start::After(_))) && p.wait == Some(Duration::from_secs(25)));
    }

    #[test]
    fn several_subscriptions() {
        let p = parse("sub=a~scores%3Fleague%3Deq.nfl%26note%3Deq.a%2526b&sub=b~teams").unwrap();
        assert_eq!(p.requests[0].filter, [("league".into(), "eq.nfl".into()), ("note".into(), "eq.a&b".into())]);
        assert_eq!((p.requests[1].sub.as_ref(), p.requests[1].table.as_str()), ("b", "teams"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, says) in [
            ("", "`table` is missing"),
            ("table=t&since=x", "malformed position"),
            ("table=t&wait=-1", "seconds"),
            ("table=t&limit=3", "no meaning in a stream"),
            ("sub=a~t&sub=a~u", "two subscriptions"),
            ("sub=t", "`<id>~<table>"),
            ("sub=a~t&league=eq.x", "beside `sub`"),
            ("sub=~t", "1 to 64"),
            ("table=t&numbers=x", "`string` or `number`"),
        ] {
            let problem = parse(query).unwrap_err();
            assert!(problem.to_string().contains(says), "{query}: {problem}");
        }
        let many = (0..129).map(|i| format!("sub={i}~t")).collect::<Vec<_>>().join("&");
        assert_eq!(parse(&many).unwrap_err().code(), "too-many-subscriptions");
    }

    proptest! {
        #[test]
        fn any_query_is_answered(query in ".*") {
            if let Ok(pairs) = serde_urlencoded::from_str(&query) {
                let _ = StreamParams::parse(pairs);
            }
        }
    }
}
