//! Query strings and form bodies to reads.
//!
//! Must not know: the database. Invariant: whatever is not understood is an error that says what would be; nothing is
//! ignored, and what is said twice is refused.

use super::{Problem, credentials};
use crate::cache::{Query, Window};
use crate::change::{Position, Resume};
use crate::filter::Filter;
use crate::hub::Tables;
use crate::permit::Permit;
use crate::session::{Access, Refusal, Request};
use crate::wire::Order;
use actix_web::http::header::HeaderMap;

/// Rows that may be passed over. Postgres reads them all the same: behind so many, a filter is what is wanted.
pub(super) const MAX_OFFSET: u64 = 1_000_000;

/// Says which state is old enough.
const MIN_POSITION: &str = "rowcast-min-position";

/// A read of a list, as asked for.
#[derive(Debug)]
pub(super) struct ListParams {
    request: Request,
    order: Option<String>,
    limit: usize,
    pub offset: u64,
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(400, "malformed-request", detail)
}

/// The decoded pairs of a query string or a form body.
///
/// # Errors
/// It is none.
pub(super) fn pairs(what: &str, text: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_bytes(text).map_err(|e| malformed(format!("{what}: {e}")))?;
    credentials::refuse_in(&pairs)?;
    Ok(pairs)
}

/// Sets what may be said once.
fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(malformed(format!("`{name}` stands twice"))),
    }
}

/// A whole number, however long; above what is counted it is as good as infinite.
fn number(name: &str, text: &str) -> Result<u64, Problem> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(malformed(format!("`{name}` is a number such as `100`, not negative and without an exponent")));
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

/// `numbers`: are wide ones sent as strings?
fn as_strings(text: &str) -> Result<bool, Problem> {
    match text {
        "string" => Ok(true),
        "number" => Ok(false),
        _ => Err(malformed("`numbers` is `string` or `number`")),
    }
}

fn request(table: &str) -> Request {
    let table = table.to_owned();
    Request { sub: "".into(), table, filter: Vec::new(), select: None, wide_as_strings: false }
}

/// A refusal, with the words that do not tell a missing table from a missing row.
fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotFound => Problem::no_row(),
        other => other.into(),
    }
}

impl ListParams {
    /// Reads the decoded pairs.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn parse(table: &str, pairs: Vec<(String, String)>, max_rows: usize) -> Result<ListParams, Problem> {
        let mut request = request(table);
        let (mut select, mut numbers, mut order, mut limit, mut offset) = (None, None, None, None, None);
        for (name, value) in pairs {
            match name.as_str() {
                "select" => once(&mut select, &name, value)?,
                "numbers" => once(&mut numbers, &name, as_strings(&value)?)?,
                "order" => once(&mut order, &name, value)?,
                "limit" => once(&mut limit, &name, number(&name, &value)?)?,
                "offset" => once(&mut offset, &name, number(&name, &value)?)?,
                _ => request.filter.push((name, value)),
            }
        }
        (request.select, request.wide_as_strings) = (select, numbers.unwrap_or_default());
        let offset = offset.unwrap_or_default();
        if offset > MAX_OFFSET {
            return Err(malformed(format!(
                "`offset` is at most {MAX_OFFSET}; go on with a filter on the last key seen"
            )));
        }
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).map_or(max_rows, |limit| limit.min(max_rows));
        Ok(ListParams { request, order, limit, offset })
    }

    /// Resolves names against the tables as they are now.
    ///
    /// # Errors
    /// The table is not there, or not for this caller; a name or a value is wrong.
    pub(super) fn resolve(&self, tables: &Tables, access: &Access) -> Result<(Query, Permit), Problem> {
        let (table, permit) = access.reach(tables, &self.request.table).map_err(refused)?;
        let order = self.order.as_deref().map(|order| Order::parse(order, permit.seen(&table))).transpose();
        let spec = self.request.within(table, &permit).map_err(refused)?;
        let order = order.map_err(|e| Problem::new(400, e.code(), e.to_string()))?.unwrap_or_default();
        let incarnation = tables.incarnation(spec.table.relid);
        let window = Window::List { order, limit: self.limit, offset: self.offset };
        Ok((Query::new(spec, incarnation, window), permit))
    }

    /// Where the next page begins.
    pub(super) fn next(&self) -> u64 {
        self.offset.saturating_add(u64::try_from(self.limit).unwrap_or(u64::MAX))
    }

    /// Can there be a next page?
    pub(super) fn has_next(&self) -> bool {
        self.limit > 0 && self.next() <= MAX_OFFSET
    }
}

/// A read of one row, as asked for.
#[derive(Debug)]
pub(super) struct RowParams {
    request: Request,
    key: String,
}

impl RowParams {
    /// Reads the key as it stands in the path, and the decoded pairs.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn parse(table: &str, key: &str, pairs: Vec<(String, String)>) -> Result<RowParams, Problem> {
        let mut request = request(table);
        let (mut select, mut numbers) = (None, None);
        for (name, value) in pairs {
            match name.as_str() {
                "select" => once(&mut select, &name, value)?,
                "numbers" => once(&mut numbers, &name, as_strings(&value)?)?,
                _ => {
                    return Err(malformed(format!(
                        "`{}` has no meaning for one row, which its key names: `select` and `numbers` have",
                        name.chars().filter(|c| !c.is_control()).take(64).collect::<String>()
                    )));
                }
            }
        }
        (request.select, request.wide_as_strings) = (select, numbers.unwrap_or_default());
        Ok(RowParams { request, key: key.to_owned() })
    }

    /// Resolves names against the tables as they are now.
    ///
    /// # Errors
    /// The table is not there, or not for this caller; the key is none of it.
    pub(super) fn resolve(&self, tables: &Tables, access: &Access) -> Result<(Query, Permit), Problem> {
        let (table, permit) = access.reach(tables, &self.request.table).map_err(refused)?;
        let mut spec = self.request.within(table, &permit).map_err(refused)?;
        let key = Filter::of_key(&self.key, &spec.table).map_err(|e| Problem::from(Refusal::from(e)))?;
        // a row that is there and not shown is looked for, and not found, like one that is not there
        spec.filter = key.and(&permit.filter);
        let incarnation = tables.incarnation(spec.table.relid);
        Ok((Query::new(spec, incarnation, Window::Row), permit))
    }
}

/// The state that is old enough, if the request names one.
///
/// # Errors
/// 400 `invalid-position`.
pub(super) fn min_position(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let Some(text) = headers.get(MIN_POSITION) else { return Ok(None) };
    let text = text.to_str().unwrap_or("not text");
    text.parse()
        .map(|point: Resume| Some(point.position))
        .map_err(|e| Problem::new(400, "invalid-position", format!("{e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(query: &str) -> Result<ListParams, Problem> {
        ListParams::parse("t", pairs("the query string", query.as_bytes())?, 1000)
    }

    #[test]
    fn reserved_names_and_filters() {
        let p = parse("league=eq.nfl&select=id,home&order=score.desc&limit=5&offset=10&numbers=string").unwrap();
        assert_eq!(p.request.filter, [("league".to_owned(), "eq.nfl".to_owned())]);
        assert_eq!((p.limit, p.offset, p.next()), (5, 10, 15));
        assert_eq!((p.request.select.as_deref(), p.request.wide_as_strings), (Some("id,home"), true));
        assert_eq!(parse("").unwrap().limit, 1000);
        assert_eq!(parse("limit=99999999999999999999999").unwrap().limit, 1000);
        assert!(!parse("limit=0").unwrap().has_next() && parse("limit=1").unwrap().has_next());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (query, says) in [
            ("limit=-1", "`limit` is a number"),
            ("limit=1e9", "`limit` is a number"),
            ("limit=", "`limit` is a number"),
            ("limit=%2B1", "`limit` is a number"),
            ("offset=-1", "`offset` is a number"),
            ("offset=1000001", "at most 1000000"),
            ("limit=1&limit=2", "stands twice"),
            ("order=id&order=n", "stands twice"),
            ("numbers=roman", "`string` or `number`"),
        ] {
            let problem = parse(query).unwrap_err();
            assert!(problem.to_string().contains(says) && problem.status() == 400, "{query}: {problem}");
        }
        let problem = RowParams::parse("t", "1", vec![("id".into(), "eq.1".into())]).unwrap_err();
        assert!(problem.to_string().contains("no meaning for one row"), "{problem}");
    }

    proptest! {
        #[test]
        fn any_query_is_answered(query in ".*") {
            let _ = parse(&query);
        }
    }
}
