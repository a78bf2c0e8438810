//! Reads filters in `PostgREST`'s grammar.
//!
//! Must not know: images, SQL. Invariant: any text at all gives a filter or an error, in time and stack
//! bounded by the caps below.
//!
//! Where this reader is stricter or kinder than `PostgREST`: a literal must fit the column's type; spaces
//! around an unquoted value inside parentheses are dropped; `\*` in a pattern is a literal `*`.

use super::error::FilterError;
use super::kind::{Demand, Kind};
use super::like::{MAX_MIXED_PIECE, Pattern, PatternError};
use super::term::{Node, Term, Test};
use super::value::Literal;
use crate::change::{Column, Table};

/// Tests of one column each. A shape is matched on every change of its table, so this bounds what one
/// subscriber can make each change cost; no screen seen so far needs 20.
pub const MAX_TERMS: usize = 64;
/// Values of one `in`, as many as a page of rows. They are searched, not scanned.
pub const MAX_LIST: usize = 1_000;
/// Groups within groups: the depth of the recursion here and in the matcher.
pub const MAX_DEPTH: usize = 8;
/// All of a filter's text, decoded, in bytes: what fits a request line of common proxies.
pub const MAX_BYTES: usize = 8 * 1024;

/// What ends an unquoted word inside parentheses.
const ENDS: [char; 2] = [',', ')'];

pub(super) fn parse<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    table: &Table,
) -> Result<Node, FilterError> {
    let mut parser = Parser { table, terms: 0 };
    let mut bytes = 0;
    let mut nodes = Vec::new();
    for (key, value) in pairs {
        bytes += key.len() + value.len();
        if bytes > MAX_BYTES {
            return Err(FilterError::TooComplex {
                what: "bytes of text",
                limit: MAX_BYTES,
                remedy: "split it into several subscriptions",
            });
        }
        nodes.push(parser.pair(key, value)?);
    }
    Ok(Node::And(nodes).normal_form())
}

struct Parser<'t> {
    table: &'t Table,
    terms: usize,
}

/// A column and where it stands in the table.
type Place<'t> = (usize, &'t Column);

impl<'t> Parser<'t> {
    fn pair(&mut self, key: &str, value: &str) -> Result<Node, FilterError> {
        if matches!(key, "and" | "or" | "not.and" | "not.or") {
            let mut text = Text(value);
            let node = self.group(key, &mut text, 1)?;
            return text.end().map(|()| node);
        }
        let name = if key.starts_with('"') {
            let mut text = Text(key);
            let name = text.quoted()?;
            text.end()?;
            name
        } else {
            key.to_owned()
        };
        let column = self.column(&name)?;
        let mut text = Text(value);
        let (negated, operator) = operator(column.1, &mut text)?;
        // A value that stands alone is taken as it is, quotes and commas too; only a list has syntax.
        let value = if operator == "in" {
            let list = Operand::List(list(&mut text)?);
            text.end()?;
            list
        } else {
            Operand::One(text.0.to_owned())
        };
        self.term(column, negated, operator, value)
    }

    /// `(item,item,...)` after `and`, `or`, `not.and`, `not.or`.
    fn group(&mut self, word: &str, text: &mut Text<'_>, depth: usize) -> Result<Node, FilterError> {
        if depth > MAX_DEPTH {
            return Err(FilterError::TooComplex {
                what: "groups within groups",
                limit: MAX_DEPTH,
                remedy: "write it flatter",
            });
        }
        text.expect('(', "write a group as `or=(a.eq.1,b.eq.2)`")?;
        let mut nodes = Vec::new();
        loop {
            text.skip_spaces();
            nodes.push(self.item(text, depth)?);
            text.skip_spaces();
            if text.eat(')') {
                break;
            }
            text.expect(',', "expected `,` or `)`; double-quote a value that contains one of them")?;
        }
        let node = if word.ends_with("and") { Node::And(nodes) } else { Node::Or(nodes) };
        Ok(if word.starts_with("not.") { node.negate() } else { node })
    }

    fn item(&mut self, text: &mut Text<'_>, depth: usize) -> Result<Node, FilterError> {
        for word in ["and", "or", "not.and", "not.or"] {
            if let Some(rest) = text.0.strip_prefix(word).filter(|rest| rest.starts_with('(')) {
                text.0 = rest;
                return self.group(word, text, depth + 1);
            }
        }
        let name = if text.0.starts_with('"') { text.quoted()? } else { text.until_dot()?.to_owned() };
        text.expect('.', "expected `.` and an operator after the column")?;
        let column = self.column(&name)?;
        let (negated, operator) = operator(column.1, text)?;
        let value = if operator == "in" { Operand::List(list(text)?) } else { Operand::One(text.word()?) };
        self.term(column, negated, operator, value)
    }

    fn column(&self, name: &str) -> Result<Place<'t>, FilterError> {
        let place = self.table.columns.iter().enumerate().find(|(_, column)| column.name == name);
        place.ok_or_else(|| FilterError::UnknownColumn { column: name.to_owned() })
    }

    fn term(
        &mut self,
        place: Place<'_>,
        negated: bool,
        operator: &'static str,
        operand: Operand,
    ) -> Result<Node, FilterError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            let remedy = "use `in.(...)` for many values of one column";
            return Err(FilterError::TooComplex { what: "terms", limit: MAX_TERMS, remedy });
        }
        let (position, column) = place;
        let kind = Kind::of(column);
        let (flipped, test) = test(column, kind, operator, operand)?;
        Ok(Node::Term(Term { column: column.name.as_str().into(), position, kind, negated: negated != flipped, test }))
    }
}

/// What stands behind an operator.
enum Operand {
    One(String),
    List(Vec<String>),
}

/// Reads `eq.` or `not.eq.`.
fn operator(column: &Column, text: &mut Text<'_>) -> Result<(bool, &'static str), FilterError> {
    let mut negated = false;
    if let Some(rest) = text.0.strip_prefix("not.") {
        (text.0, negated) = (rest, true);
    }
    let end = text.0.find(['.', ',', '(', ')', '"']).unwrap_or(text.0.len());
    let word = &text.0[..end];
    let known = ["eq", "neq", "gt", "gte", "lt", "lte", "in", "is", "like", "ilike"];
    let Some(operator) = known.into_iter().find(|known| *known == word) else {
        return Err(FilterError::UnknownOperator { column: column.name.clone(), operator: word.to_owned() });
    };
    text.0 = &text.0[end..];
    text.expect('.', "expected `.` and a value after the operator")?;
    Ok((negated, operator))
}

/// `(a,"b,c",d)`, or `()`, which holds nothing.
fn list(text: &mut Text<'_>) -> Result<Vec<String>, FilterError> {
    text.expect('(', "write a list as `in.(a,b)`")?;
    let mut words = Vec::new();
    text.skip_spaces();
    if text.eat(')') {
        return Ok(words);
    }
    loop {
        if words.len() == MAX_LIST {
            let remedy = "subscribe to a wider filter, or to several parts of the list";
            return Err(FilterError::TooComplex { what: "values in a list", limit: MAX_LIST, remedy });
        }
        text.skip_spaces();
        words.push(text.word()?);
        text.skip_spaces();
        if text.eat(')') {
            return Ok(words);
        }
        text.expect(',', "expected `,` or `)`; double-quote a value that contains one of them")?;
    }
}

/// The test, and whether it is the operator's opposite.
fn test(column: &Column, kind: Kind, operator: &'static str, operand: Operand) -> Result<(bool, Test), FilterError> {
    let exact = |demand| match kind.refuses(column.collation, demand) {
        None => Ok(()),
        Some(reason) => Err(FilterError::NotExact {
            column: column.name.clone(),
            type_sql: column.type_sql.clone(),
            operator,
            reason,
        }),
    };
    let invalid = |value: &str, expected| FilterError::InvalidValue {
        column: column.name.clone(),
        value: value.to_owned(),
        expected,
    };
    let literal = |text: &str| Literal::parse(kind, text).map_err(|expected| invalid(text, expected));
    let text = match operand {
        Operand::List(words) => {
            exact(Demand::Equality)?;
            let list = words.iter().map(|word| literal(word)).collect::<Result<Vec<_>, _>>()?;
            return Ok((false, one_of(list)));
        }
        Operand::One(text) => text,
    };
    Ok(match operator {
        "eq" | "neq" => {
            exact(Demand::Equality)?;
            (operator == "neq", Test::Eq(literal(&text)?))
        }
        "lt" | "gte" => {
            exact(Demand::Order)?;
            (operator == "gte", Test::Less(literal(&text)?))
        }
        "gt" | "lte" => {
            exact(Demand::Order)?;
            (operator == "lte", Test::Greater(literal(&text)?))
        }
        "like" | "ilike" => {
            let fold = operator == "ilike";
            exact(if fold { Demand::Ilike } else { Demand::Like })?;
            // For the check of NUL alone: to a pattern, padding counts.
            Literal::parse(Kind::Text, &text).map_err(|expected| invalid(&text, expected))?;
            (false, Test::Like(Pattern::parse(&text, fold).map_err(|fault| pattern_error(fault, &text, &invalid))?))
        }
        _ => (false, is(&text, &exact).ok_or_else(|| invalid(&text, "write `null`, `true`, `false` or `unknown`"))??),
    })
}

fn is(text: &str, exact: &dyn Fn(Demand) -> Result<(), FilterError>) -> Option<Result<Test, FilterError>> {
    let truth = |test| Some(exact(Demand::Truth).map(|()| test));
    match text {
        t if t.eq_ignore_ascii_case("null") => Some(Ok(Test::Null)),
        t if t.eq_ignore_ascii_case("unknown") => truth(Test::Null),
        t if t.eq_ignore_ascii_case("true") => truth(Test::Is(true)),
        t if t.eq_ignore_ascii_case("false") => truth(Test::Is(false)),
        _ => None,
    }
}

fn one_of(mut list: Vec<Literal>) -> Test {
    list.sort_by(|l, r| l.value.compare(&r.value));
    list.dedup_by(|l, r| l.value.compare(&r.value).is_eq());
    if list.len() == 1 { Test::Eq(list.remove(0)) } else { Test::In(list) }
}

fn pattern_error(fault: PatternError, text: &str, invalid: &dyn Fn(&str, &'static str) -> FilterError) -> FilterError {
    match fault {
        PatternError::TrailingEscape => {
            invalid(text, "a pattern cannot end in one `\\`; write `\\\\` for the character itself")
        }
        PatternError::Mixed => FilterError::TooComplex {
            what: "characters between two `%` of a pattern with `_` among them",
            limit: MAX_MIXED_PIECE,
            remedy: "shorten that piece",
        },
    }
}

/// What is left to read.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn malformed(&self, remedy: &'static str) -> FilterError {
        let near = if self.0.is_empty() { "end of text" } else { self.0 };
        FilterError::Malformed { near: near.chars().take(256).collect(), remedy }
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, c: char, remedy: &'static str) -> Result<(), FilterError> {
        if self.eat(c) { Ok(()) } else { Err(self.malformed(remedy)) }
    }

    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches(' ');
    }

    fn end(&self) -> Result<(), FilterError> {
        if self.0.is_empty() { Ok(()) } else { Err(self.malformed("nothing may follow here")) }
    }

    /// A column's name inside a group.
    fn until_dot(&mut self) -> Result<&'a str, FilterError> {
        let end = self.0.find(['.', ',', '(', ')', '"']).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        if !rest.starts_with('.') {
            return Err(self.malformed("expected `column.operator.value`, `and(...)` or `or(...)`"));
        }
        self.0 = rest;
        Ok(name)
    }

    /// A value inside parentheses: quoted, or as it is up to `,` or `)`.
    fn word(&mut self) -> Result<String, FilterError> {
        if self.0.starts_with('"') {
            return self.quoted();
        }
        let end = self.0.find(ENDS).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Ok(word.trim_end_matches(' ').to_owned())
    }

    /// `"..."`, where `\` takes the next character as it is.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let mut word = String::new();
        let mut chars = self.0.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(word);
                }
                '\\' => match chars.next() {
                    Some((_, c)) => word.push(c),
                    None => break,
                },
                c => word.push(c),
            }
        }
        Err(self.malformed("the quote that opens here is never closed"))
    }
}
