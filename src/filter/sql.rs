//! Compiles a filter to a SQL condition.
//!
//! Must not know: connections. Invariants: the caller's text appears only in parameters; every name is
//! qualified, operators too, so that no `search_path` changes the meaning; the text depends on the
//! shape of the filter and not on its values or the length of its lists, so that a statement prepared
//! once serves many.

use std::fmt::Write as _;

use super::kind::Kind;
use super::term::{Node, Term, Test};

/// A condition and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// A boolean expression, safe to paste after `where` or beside `and`.
    pub text: String,
    /// Values of the parameters, in order, all of type `text`.
    pub params: Vec<String>,
}

pub(super) fn compile(node: &Node, alias: &str, first_param: usize) -> Sql {
    let mut writer = Writer { alias, first_param, sql: Sql { text: String::new(), params: Vec::new() } };
    writer.node(node);
    writer.sql
}

/// A name as SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Writer<'a> {
    alias: &'a str,
    first_param: usize,
    sql: Sql,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.sql.text.push_str(text);
    }

    fn node(&mut self, node: &Node) {
        let (nodes, joint, empty) = match node {
            Node::Term(term) => return self.term(term),
            Node::And(nodes) => (nodes, " and ", "true"),
            Node::Or(nodes) => (nodes, " or ", "false"),
        };
        if nodes.is_empty() {
            return self.push(empty);
        }
        for (n, node) in nodes.iter().enumerate() {
            self.push(if n == 0 { "(" } else { joint });
            self.node(node);
        }
        self.push(")");
    }

    fn term(&mut self, term: &Term) {
        let column = format!("{}.{}", self.alias, quoted(&term.column));
        match &term.test {
            Test::Null => self.null(&column, term.kind, term.negated),
            Test::Is(truth) => {
                let not = if term.negated { "not " } else { "" };
                let _ = write!(self.sql.text, "({column} is {not}{truth})");
            }
            Test::Eq(literal) => {
                self.comparison(&column, term.kind, if term.negated { "<>" } else { "=" }, &literal.text);
            }
            Test::Less(literal) => {
                self.comparison(&column, term.kind, if term.negated { ">=" } else { "<" }, &literal.text);
            }
            Test::Greater(literal) => {
                self.comparison(&column, term.kind, if term.negated { "<=" } else { ">" }, &literal.text);
            }
            // `= any('{}')` is false even for null, but there is no need to ask.
            Test::In(list) if list.is_empty() => self.push(if term.negated { "true" } else { "false" }),
            Test::In(list) => {
                let left = operand(&column, term.kind);
                let operator = if term.negated { "operator(pg_catalog.<>) all" } else { "operator(pg_catalog.=) any" };
                let param = self.param(array(list.iter().map(|literal| &*literal.text)));
                let _ = write!(self.sql.text, "({left} {operator} (({param})::{}[]))", term.kind.sql_type());
            }
            Test::Like(pattern) => {
                let operator = match (pattern.folds(), term.negated) {
                    (false, false) => "~~",
                    (false, true) => "!~~",
                    (true, false) => "~~*",
                    (true, true) => "!~~*",
                };
                // A database can sort as `C` and yet fold case by another locale; saying `C` here pins both.
                let collate = if pattern.folds() { " collate pg_catalog.\"C\"" } else { "" };
                let param = self.param(pattern.canonical().to_owned());
                let _ = write!(self.sql.text, "(({column}{collate}) operator(pg_catalog.{operator}) ({param}))");
            }
        }
    }

    fn null(&mut self, column: &str, kind: Kind, negated: bool) {
        let not = if negated { "not " } else { "" };
        let text = match kind {
            // Null is here what the image shows as `null`, the only thing the stream can see.
            Kind::SelfShown | Kind::Enum => format!(
                "({not}({column} is not distinct from null or pg_catalog.btrim(pg_catalog.to_json({column})::pg_catalog.text, \
                 E' \\t\\n\\r') operator(pg_catalog.=) 'null'))"
            ),
            // `is null` is also true of a composite whose fields are all null; this is not.
            Kind::Opaque => format!("({column} is {}distinct from null)", if negated { "" } else { "not " }),
            _ => format!("({column} is {not}null)"),
        };
        self.push(&text);
    }

    fn comparison(&mut self, column: &str, kind: Kind, operator: &str, text: &str) {
        let left = operand(column, kind);
        let param = self.param(text.to_owned());
        let cast = match kind.sql_type() {
            "pg_catalog.text" => String::new(),
            other => format!("::{other}"),
        };
        let _ = write!(self.sql.text, "({left} operator(pg_catalog.{operator}) ({param}){cast})");
    }

    fn param(&mut self, value: String) -> String {
        let number = self.first_param + self.sql.params.len();
        self.sql.params.push(value);
        format!("${number}::pg_catalog.text")
    }
}

/// The column as it is compared. Enums by the label the image shows: a literal cast to the enum fails on
/// an unknown label, a cast of the column to `text` could be somebody's own, and `enum_out` takes no
/// domains. The price is that an index on the column does not serve.
fn operand(column: &str, kind: Kind) -> String {
    match kind {
        Kind::Enum => {
            format!("(pg_catalog.to_json({column}) operator(pg_catalog.#>>) '{{}}') collate pg_catalog.\"C\"")
        }
        _ => column.to_owned(),
    }
}

/// An array literal: one parameter whatever the length of the list.
fn array<'a>(elements: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("{");
    for (n, element) in elements.enumerate() {
        out.push_str(if n == 0 { "\"" } else { ",\"" });
        for c in element.chars() {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        }
        out.push('"');
    }
    out.push('}');
    out
}
