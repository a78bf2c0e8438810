//! The filter language: one text, one meaning, in SQL and in memory.
//!
//! `PostgREST`'s grammar. Each pair is a condition and all must hold:
//! `league=eq.nfl`, `score=gte.10`, `status=in.(live,"final, ot")`, `winner=is.null`, `name=not.like.A*`,
//! `or=(a.eq.1,and(b.gt.2,c.not.is.true))`, `not.and=(...)`.
//!
//! Must not know: tokio, I/O, clocks, logging, the environment. Invariant: for every row,
//! [`Filter::matches`] on its image says what [`Filter::to_sql`] says on the row itself; a filter for
//! which this is not certain cannot be made. `tests/it/filter_oracle.rs` holds both against Postgres.
//!
//! Reading order: `parse` turns text into `term` trees, `template` that of rules; `kind` says which operators are exact on which
//! type; `value`, `numeric`, `time` and `like` know what literals mean; `matcher` and `sql` are the two
//! sides that must agree; `image` cuts a row image into columns.

mod error;
mod image;
mod kind;
mod like;
mod matcher;
mod numeric;
mod parse;
mod sql;
mod template;
mod term;
#[cfg(test)]
mod tests;
mod time;
mod value;

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

pub use error::FilterError;
pub use image::{Image, ImageError};
pub use parse::{MAX_BYTES, MAX_DEPTH, MAX_LIST, MAX_TERMS};
pub use sql::Sql;
pub use template::{Claim, Claims};

use crate::change::{Column, Seen, Table};
use kind::{Demand, Kind};
use term::{Node, Test};
use value::Value;

/// A condition on the rows of one table. Cheap to clone; equal when the canonical texts are.
#[derive(Clone)]
pub struct Filter {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    canonical: String,
}

impl Filter {
    /// Reads a filter for `table` from decoded query pairs. The caller has taken out reserved names
    /// (`select`, `order`, `since` and so on); a column of such a name is reached in double quotes.
    ///
    /// # Errors
    /// When the text is no filter, or none whose meaning is certain.
    pub fn parse<'a, 't>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        seen: impl Into<Seen<'t>>,
    ) -> Result<Self, FilterError> {
        parse::parse(pairs, seen.into(), None).map(Self::new)
    }

    /// Reads the filter of a rule: pairs joined with `&`, in which `{name}` stands for a claim. A claim is a value from the
    /// beginning: it is never part of the text that is read.
    ///
    /// # Errors
    /// When the text is no filter, or a claim is missing or no value of its column.
    pub fn of_rule(text: &str, table: &Table, claims: &Claims<'_>) -> Result<Self, FilterError> {
        parse::parse(template::pairs(text), table.into(), Some(claims)).map(Self::new)
    }

    /// The rows that both filters select.
    #[must_use]
    pub fn and(&self, other: &Filter) -> Self {
        match (self.is_everything(), other.is_everything()) {
            (_, true) => self.clone(),
            (true, _) => other.clone(),
            _ => Self::new(Node::And(vec![self.inner.node.clone(), other.inner.node.clone()]).normal_form()),
        }
    }

    /// The filter that selects every row.
    #[must_use]
    pub fn everything() -> Self {
        Self::new(Node::And(Vec::new()))
    }

    /// The filter that selects the row of this key (the wire's text, see [`crate::change::Key`]).
    ///
    /// # Errors
    /// The text is no key of this table: another number of columns, or a value that does not fit its column.
    pub fn of_key(text: &str, table: &Table) -> Result<Self, FilterError> {
        let parts: Vec<&str> = if table.key.len() > 1 { text.split(',').collect() } else { vec![text] };
        if parts.len() != table.key.len() {
            return Err(FilterError::Malformed {
                near: text.to_owned(),
                remedy: "a key has the text of each key column, percent-encoded and joined with `,`",
            });
        }
        let mut pairs = Vec::new();
        for (column, part) in table.key.iter().zip(parts) {
            let value = percent_decode_str(part).decode_utf8().map_err(|_| FilterError::Malformed {
                near: column.clone(),
                remedy: "a key is UTF-8, percent-encoded",
            })?;
            pairs.push((format!("\"{}\"", column.replace('\\', "\\\\").replace('"', "\\\"")), format!("eq.{value}")));
        }
        Self::parse(pairs.iter().map(|(column, value)| (column.as_str(), value.as_str())), table)
    }

    fn new(node: Node) -> Self {
        let canonical = match &node {
            Node::And(nodes) => {
                let mut out = String::new();
                term::write_list(&mut out, nodes, |node, out| out.push_str(&node.canonical()));
                out
            }
            node => node.canonical(),
        };
        Self { inner: Arc::new(Inner { node, canonical }) }
    }

    /// True for a filter without a term.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(&self.inner.node, Node::And(nodes) if nodes.is_empty())
    }

    /// The one text of this filter: terms sorted, literals in one spelling. Put in parentheses it is the
    /// value of an `and` pair, and reads back as the same filter. Empty for [`Filter::everything`].
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.inner.canonical
    }

    /// Whether the row of this image is selected. Unknown, as with null, selects nothing; nor does an
    /// image that cannot be read: where that must not pass unseen, use [`Filter::try_matches`].
    #[must_use]
    pub fn matches(&self, image: &Image<'_>) -> bool {
        self.try_matches(image).unwrap_or(false)
    }

    /// [`Filter::matches`], telling an image that cannot be read from a row that is not selected.
    ///
    /// # Errors
    /// When the image lacks a column or holds a value of another type: the table changed since.
    pub fn try_matches(&self, image: &Image<'_>) -> Result<bool, ImageError> {
        matcher::evaluate(&self.inner.node, image).map(|truth| truth == Some(true))
    }

    /// The filter as a SQL condition on the table of this alias (pasted as it is). Parameters are
    /// numbered from `first_param` and all of type `text`. `true` for [`Filter::everything`].
    #[must_use]
    pub fn to_sql(&self, alias: &str, first_param: usize) -> Sql {
        sql::compile(&self.inner.node, alias, first_param)
    }

    /// Columns that must equal a value for any row selected, with the value's canonical text:
    /// [`index_key`] gives the same text for the same value in an image.
    pub fn equalities(&self) -> impl Iterator<Item = (&str, &str)> {
        let nodes = match &self.inner.node {
            Node::And(nodes) => nodes.as_slice(),
            node => std::slice::from_ref(node),
        };
        nodes.iter().filter_map(|node| match node {
            Node::Term(term) if !term.negated => match &term.test {
                Test::Eq(literal) => Some((&*term.column, &*literal.text)),
                _ => None,
            },
            _ => None,
        })
    }
}

/// The canonical text of a column's value in an image (its raw JSON), to look it up among the texts of
/// [`Filter::equalities`]. `None` for null, and for a column that no filter can compare.
#[must_use]
pub fn index_key<'a>(column: &Column, raw: &'a str) -> Option<Cow<'a, str>> {
    let kind = Kind::of(column);
    if raw == "null" || kind.refuses(column.collation, Demand::Equality).is_some() {
        return None;
    }
    let value = Value::from_image(kind, raw)?;
    Some(match kind {
        // Postgres writes these in the one spelling already.
        Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid | Kind::Uuid => Cow::Borrowed(image::bare(raw)),
        _ => value.into_canonical(kind),
    })
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.canonical()).finish()
    }
}
