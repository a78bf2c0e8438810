//! What a filter says once it is read: a tree without `not`, and its one spelling.
//!
//! Must not know: how it is evaluated. Invariant: two trees of equal meaning, as far as sorting and
//! De Morgan's laws can tell, are equal, and so are their canonical texts.

use super::kind::Kind;
use super::like::Pattern;
use super::value::Literal;

/// A condition.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// True when there are none.
    And(Vec<Self>),
    Or(Vec<Self>),
    Term(Term),
}

/// One test of one column.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) column: Box<str>,
    /// Where the column stands in the table, and so, most likely, in an image.
    pub(super) position: usize,
    pub(super) kind: Kind,
    /// The opposite of the test. Unknown stays unknown.
    pub(super) negated: bool,
    pub(super) test: Test,
}

#[derive(Clone, Debug)]
pub(super) enum Test {
    Null,
    /// `is.true` and `is.false`: never unknown.
    Is(bool),
    Eq(Literal),
    Less(Literal),
    Greater(Literal),
    /// Sorted by value, no two equal. An empty list holds nothing, not even null.
    In(Vec<Literal>),
    Like(Pattern),
}

impl Node {
    /// Turns `not` inwards, which three-valued logic allows, so that only terms carry it.
    pub(super) fn negate(self) -> Self {
        match self {
            Self::And(nodes) => Self::Or(nodes.into_iter().map(Self::negate).collect()),
            Self::Or(nodes) => Self::And(nodes.into_iter().map(Self::negate).collect()),
            Self::Term(term) => Self::Term(Term { negated: !term.negated, ..term }),
        }
    }

    /// Is there a `not.in.()` in it, which every row passes?
    pub(super) fn excludes_nothing(&self) -> bool {
        match self {
            Self::And(nodes) | Self::Or(nodes) => nodes.iter().any(Self::excludes_nothing),
            Self::Term(term) => term.negated && matches!(&term.test, Test::In(list) if list.is_empty()),
        }
    }

    /// Groups of one and groups within the same group are dissolved, the rest sorted, repeats dropped.
    pub(super) fn normal_form(self) -> Self {
        let (and, nodes) = match self {
            Self::And(nodes) => (true, nodes),
            Self::Or(nodes) => (false, nodes),
            term @ Self::Term(_) => return term,
        };
        let mut flat = Vec::with_capacity(nodes.len());
        for node in nodes {
            match (node.normal_form(), and) {
                (Self::And(inner), true) | (Self::Or(inner), false) => flat.extend(inner),
                (node, _) => flat.push(node),
            }
        }
        flat.sort_by_cached_key(Self::canonical);
        flat.dedup_by_key(|node| node.canonical());
        match (flat.len(), and) {
            (1, _) => flat.remove(0),
            (_, true) => Self::And(flat),
            (_, false) => Self::Or(flat),
        }
    }

    /// The text of the node as it stands inside a group.
    pub(super) fn canonical(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Term(term) => term.write(out),
            Self::And(nodes) | Self::Or(nodes) => {
                out.push_str(if matches!(self, Self::And(_)) { "and(" } else { "or(" });
                write_list(out, nodes, Self::write);
                out.push(')');
            }
        }
    }
}

/// Writes items with commas between them.
pub(super) fn write_list<T>(out: &mut String, items: &[T], mut write: impl FnMut(&T, &mut String)) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write(item, out);
    }
}

impl Term {
    fn write(&self, out: &mut String) {
        write_word(out, &self.column, |b| b.is_ascii_alphanumeric() || b == b'_');
        let (plain, opposite) = match &self.test {
            Test::Null => (".is.null", ".not.is.null"),
            Test::Is(true) => (".is.true", ".not.is.true"),
            Test::Is(false) => (".is.false", ".not.is.false"),
            Test::Eq(_) => (".eq.", ".neq."),
            Test::Less(_) => (".lt.", ".gte."),
            Test::Greater(_) => (".gt.", ".lte."),
            Test::In(_) => (".in.(", ".not.in.("),
            Test::Like(pattern) if pattern.folds() => (".ilike.", ".not.ilike."),
            Test::Like(_) => (".like.", ".not.like."),
        };
        out.push_str(if self.negated { opposite } else { plain });
        match &self.test {
            Test::Null | Test::Is(_) => {}
            Test::Eq(literal) | Test::Less(literal) | Test::Greater(literal) => write_value(out, &literal.text),
            Test::Like(pattern) => write_value(out, pattern.canonical()),
            Test::In(list) => {
                write_list(out, list, |literal, out| write_value(out, &literal.text));
                out.push(')');
            }
        }
    }
}

fn write_value(out: &mut String, text: &str) {
    write_word(out, text, |b| b.is_ascii_alphanumeric() || b"_-+.:%".contains(&b));
}

/// Writes a word, in double quotes unless all its bytes are plain.
fn write_word(out: &mut String, text: &str, plain: impl Fn(u8) -> bool) {
    if !text.is_empty() && text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
