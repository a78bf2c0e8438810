//! What is different about the filter of a rule: pairs joined with `&`, and claims in place of values.
//!
//! Must not know: tokens, JSON. Invariant: the text of a claim is a value and nothing else, whatever is in it: the reader takes the
//! place of it from the rule and its value from here.

use super::error::FilterError;
use super::kind::Kind;
use super::value::Literal;

/// A value that a token claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A text.
    Text(String),
    /// A number, as it is written.
    Number(String),
    /// True or false.
    Bool(bool),
}

/// Where the values of claims come from.
pub enum Claims<'a> {
    /// Any value will do: to see whether a filter is one.
    Any,
    /// A caller's. For `list` the claim must be one, otherwise a single value; an error says why it is not.
    Of {
        /// One value.
        value: &'a dyn Fn(&str) -> Result<Claim, &'static str>,
        /// Several.
        list: &'a dyn Fn(&str) -> Result<Vec<Claim>, &'static str>,
    },
}

impl Claims<'_> {
    /// None: any value.
    pub(super) fn value(&self, name: &str) -> Result<Option<Claim>, FilterError> {
        match self {
            Claims::Any => Ok(None),
            Claims::Of { value, .. } => value(name).map(Some).map_err(|why| fault(name, why)),
        }
    }

    /// None: any list.
    pub(super) fn list(&self, name: &str) -> Result<Option<Vec<Claim>>, FilterError> {
        match self {
            Claims::Any => Ok(None),
            Claims::Of { list, .. } => list(name).map(Some).map_err(|why| fault(name, why)),
        }
    }
}

fn fault(name: &str, why: &'static str) -> FilterError {
    FilterError::Claim { name: name.to_owned(), why }
}

impl Claim {
    /// As a value of a column. A text fits whatever it is a literal of: identifiers are often claimed as texts. A number fits numbers
    /// and texts, true and false only themselves.
    pub(super) fn literal(&self, kind: Kind) -> Option<Literal> {
        let text = match self {
            Claim::Text(text) => text,
            Claim::Number(number) if kind != Kind::Bool => number,
            Claim::Bool(true) if kind == Kind::Bool => "true",
            Claim::Bool(false) if kind == Kind::Bool => "false",
            Claim::Number(_) | Claim::Bool(_) => return None,
        };
        Literal::parse(kind, text).ok()
    }
}

/// Is it the name of a claim? Of an object's member: `app.team`.
pub(super) fn is_name(text: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    text.split('.').all(word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The pairs of a rule's filter, cut at each `&` that does not stand in double quotes. (No pair without `=` is any, and a filter
/// that has one is refused for it.)
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (pair, after) = match unquoted(text, '&') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(name_and_value(pair))
    })
}

/// Where a character first stands outside double quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.char_indices().find_map(|(at, c)| {
        if escaped {
            escaped = false;
        } else if c == '"' {
            quoted = !quoted;
        } else if quoted && c == '\\' {
            escaped = true;
        }
        (c == wanted && !quoted).then_some(at)
    })
}

/// A quoted name may have a `=` in it.
fn name_and_value(pair: &str) -> (&str, &str) {
    let cut = unquoted(pair, '=');
    cut.map_or((pair, ""), |at| (&pair[..at], &pair[at + 1..]))
}
