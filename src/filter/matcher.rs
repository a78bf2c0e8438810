//! Evaluates a filter on a row image.
//!
//! Must not know: SQL. Invariant: three-valued like SQL (`None` is unknown), so that `not` of a
//! comparison with null selects nothing here either.

use std::cmp::Ordering;

use super::image::{self, Image, ImageError};
use super::kind::Kind;
use super::term::{Node, Term, Test};
use super::value::Value;

pub(super) fn evaluate(node: &Node, image: &Image<'_>) -> Result<Option<bool>, ImageError> {
    match node {
        Node::And(nodes) => fold(nodes, image, false),
        Node::Or(nodes) => fold(nodes, image, true),
        Node::Term(term) => term_of(term, image),
    }
}

/// One child that is `deciding` decides; else one unknown makes all unknown.
fn fold(nodes: &[Node], image: &Image<'_>, deciding: bool) -> Result<Option<bool>, ImageError> {
    let mut result = Some(!deciding);
    for node in nodes {
        match evaluate(node, image)? {
            Some(truth) if truth == deciding => return Ok(Some(deciding)),
            Some(_) => {}
            None => result = None,
        }
    }
    Ok(result)
}

fn term_of(term: &Term, image: &Image<'_>) -> Result<Option<bool>, ImageError> {
    let raw = image
        .get_near(term.position, &term.column)
        .ok_or_else(|| ImageError::Missing { column: term.column.to_string() })?;
    let truth = match (&term.test, raw) {
        (Test::Null, raw) => Some(raw == "null"),
        (Test::In(list), _) if list.is_empty() => Some(false),
        (Test::Is(_), "null") => Some(false),
        (_, "null") => return Ok(None),
        (test, raw) => compare(test, term.kind, raw),
    };
    let truth = truth.ok_or_else(|| ImageError::Unreadable { column: term.column.to_string() })?;
    Ok(Some(truth != term.negated))
}

/// `None`: the value is not of the type.
fn compare(test: &Test, kind: Kind, raw: &str) -> Option<bool> {
    if let Test::Like(pattern) = test {
        // Not through `Value`: to a pattern the padding of `char(n)` counts.
        return Some(pattern.matches(&image::string(raw)?));
    }
    let value = Value::from_image(kind, raw)?;
    Some(match test {
        Test::Null | Test::Like(_) => return None,
        Test::Is(truth) => value.compare(&Value::Bool(*truth)) == Ordering::Equal,
        Test::Eq(literal) => value.compare(&literal.value) == Ordering::Equal,
        Test::Less(literal) => value.compare(&literal.value) == Ordering::Less,
        Test::Greater(literal) => value.compare(&literal.value) == Ordering::Greater,
        Test::In(list) => list.binary_search_by(|literal| value.compare(&literal.value).reverse()).is_ok(),
    })
}
