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
use super::template::{self, Claim, Claims};
use super::term::{Node, Term, Test};
use super::value::Literal;
use crate::change::{Column, Seen};

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
    seen: Seen<'_>,
    claims: Option<&Claims<'_>>,
) -> Result<Node, FilterError> {
    let mut parser = Parser { seen, terms: 0, claims, empty: None };
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
    let node = Node::And(nodes).normal_form();
    match parser.empty {
        // it would select every row, as if nothing were claimed to be kept away
        Some(name) if node.excludes_nothing() => Err(FilterError::Claim { name, why: "is an empty list behind `not`" }),
        _ => Ok(node),
    }
}

struct Parser<'t> {
    seen: Seen<'t>,
    terms: usize,
    /// With them `{name}` stands for a value; without, for itself.
    claims: Option<&'t Claims<'t>>,
    /// A claim that is an empty list.
    empty: Option<String>,
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
        // A value that stands alone is taken as it is, quotes and commas too; only a list has syntax, and a claim.
        let value = if operator == "in" || self.is_claim(&text) {
            let value = self.operand(operator, &mut text)?;
            text.end()?;
            value
        } else {
            Operand::One(Word::Written(text.0.to_owned()))
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
        let value = self.operand(operator, text)?;
        self.term(column, negated, operator, value)
    }

    fn is_claim(&self, text: &Text<'_>) -> bool {
        self.claims.is_some() && text.0.starts_with('{')
    }

    /// What stands behind an operator that has syntax: a list, a claim, a word.
    fn operand(&mut self, operator: &str, text: &mut Text<'_>) -> Result<Operand, FilterError> {
        match self.claims.filter(|_| text.0.starts_with('{')) {
            Some(claims) if operator == "in" => {
                let name = text.claim()?;
                let Some(list) = claims.list(name)? else { return Ok(Operand::Any) };
                if list.is_empty() {
                    self.empty = Some(name.to_owned());
                }
                Ok(Operand::List(list.into_iter().map(|c| Word::claimed(name, c)).collect()))
            }
            _ if operator == "in" => self.list(text),
            _ => self.word(text).map(|word| word.map_or(Operand::Any, Operand::One)),
        }
    }

    /// A value, or a claim in its place; none for a claim that may be any value.
    fn word(&self, text: &mut Text<'_>) -> Result<Option<Word>, FilterError> {
        match self.claims.filter(|_| text.0.starts_with('{')) {
            Some(claims) => {
                let name = text.claim()?;
                Ok(claims.value(name)?.map(|claim| Word::claimed(name, claim)))
            }
            None => text.word().map(|word| Some(Word::Written(word))),
        }
    }

    /// `(a,"b,c",d)`, or `()`, which holds nothing.
    fn list(&self, text: &mut Text<'_>) -> Result<Operand, FilterError> {
        text.expect('(', "write a list as `in.(a,b)`")?;
        let (mut words, mut any) = (Vec::new(), false);
        text.skip_spaces();
        if text.eat(')') {
            return Ok(Operand::List(words));
        }
        loop {
            if words.len() == MAX_LIST {
                return Err(too_many());
            }
            text.skip_spaces();
            match self.word(text)? {
                Some(word) => words.push(word),
                None => any = true,
            }
            text.skip_spaces();
            if text.eat(')') {
                // what is written is tested also when what is not may be anything
                return Ok(if any && words.is_empty() { Operand::Any } else { Operand::List(words) });
            }
            text.expect(',', "expected `,` or `)`; double-quote a value that contains one of them")?;
        }
    }

    fn column(&self, name: &str) -> Result<Place<'t>, FilterError> {
        self.seen.column(name).ok_or_else(|| FilterError::UnknownColumn { column: name.to_owned() })
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
    One(Word),
    List(Vec<Word>),
    /// A claim that may be any value.
    Any,
}

/// A value.
enum Word {
    /// As the text has it.
    Written(String),
    /// In place of the claim of this name.
    Claimed(String, Claim),
}

impl Word {
    fn claimed(name: &str, claim: Claim) -> Word {
        Word::Claimed(name.to_owned(), claim)
    }
}

fn too_many() -> FilterError {
    let remedy = "subscribe to a wider filter, or to several parts of the list";
    FilterError::TooComplex { what: "values in a list", limit: MAX_LIST, remedy }
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
    let literal = |word: &Word| match word {
        Word::Written(text) => Literal::parse(kind, text).map_err(|expected| invalid(text, expected)),
        Word::Claimed(name, claim) => claim.literal(kind).ok_or_else(|| unfit(name)),
    };
    let word = match operand {
        Operand::List(words) => {
            exact(Demand::Equality)?;
            if words.len() > MAX_LIST {
                return Err(too_many());
            }
            let list = words.iter().map(literal).collect::<Result<Vec<_>, _>>()?;
            return Ok((false, one_of(list)));
        }
        Operand::One(word) => word,
        Operand::Any => {
            let demand = match operator {
                "lt" | "gte" | "gt" | "lte" => Demand::Order,
                "eq" | "neq" | "in" => Demand::Equality,
                _ => return Err(no_claim(operator)),
            };
            // nothing is as good as anything while there is no caller
            return exact(demand).map(|()| (false, Test::In(Vec::new())));
        }
    };
    let text = match (operator, &word) {
        ("eq" | "neq", word) => {
            exact(Demand::Equality)?;
            return Ok((operator == "neq", Test::Eq(literal(word)?)));
        }
        ("lt" | "gte", word) => {
            exact(Demand::Order)?;
            return Ok((operator == "gte", Test::Less(literal(word)?)));
        }
        ("gt" | "lte", word) => {
            exact(Demand::Order)?;
            return Ok((operator == "lte", Test::Greater(literal(word)?)));
        }
        // a `%` in a claim would match anything
        (_, Word::Claimed(..)) => return Err(no_claim(operator)),
        (_, Word::Written(text)) => text,
    };
    if matches!(operator, "like" | "ilike") {
        let fold = operator == "ilike";
        exact(if fold { Demand::Ilike } else { Demand::Like })?;
        // For the check of NUL alone: to a pattern, padding counts.
        Literal::parse(Kind::Text, text).map_err(|expected| invalid(text, expected))?;
        return Ok((
            false,
            Test::Like(Pattern::parse(text, fold).map_err(|fault| pattern_error(fault, text, &invalid))?),
        ));
    }
    let test = is(text, &exact).ok_or_else(|| invalid(text, "write `null`, `true`, `false` or `unknown`"))??;
    Ok((false, test))
}

fn no_claim(operator: &'static str) -> FilterError {
    FilterError::Malformed {
        near: operator.to_owned(),
        remedy: "this operator takes no claim; compare with `eq` or `in`",
    }
}

fn unfit(name: &str) -> FilterError {
    FilterError::Claim { name: name.to_owned(), why: "is no value of the column's type" }
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

    /// The name of a claim: `{name}`.
    fn claim(&mut self) -> Result<&'a str, FilterError> {
        let end = self.0.find('}').ok_or_else(|| self.malformed("the brace that opens here is never closed"))?;
        let name = &self.0[1..end];
        if !template::is_name(name) {
            return Err(self.malformed("a claim is `{name}`: letters, digits and `_`, with `.` to walk into objects"));
        }
        self.0 = &self.0[end + 1..];
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
