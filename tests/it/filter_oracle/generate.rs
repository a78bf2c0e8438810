//! Random filters that have a chance of selecting some of the rows.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rowcast::filter::Image;

use super::columns::{Shape, Spec, World};
use super::rules::{Ruled, claim};
use super::values::{pick, some_value};

/// Literals at and past the edges: what the parser takes of them, Postgres must take.
const EDGES: &[&str] = &[
    "5874898-01-01",
    "5874897-12-31",
    "4714-11-23 BC",
    "4714-11-24 BC",
    "4714-11-24T00:00:00Z BC",
    "4714-11-24T00:00:00+00:01 BC",
    "4714-11-24T00:00:00-00:01 BC",
    "4714-11-23T23:59:00-00:01 BC",
    "294277-01-01T00:00:00Z",
    "294277-01-01T00:00:00+00:01",
    "294276-12-31T23:59:59.999999-00:01",
    "294276-12-31T23:59:59.9999999Z",
    "294277-01-01",
    "4714-11-24 00:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "24:00:00",
    "24:00:00.000001",
    "23:59:60",
    "2024-01-01T24:00:00Z",
    "2024-01-01T24:00:00",
    "2024-02-30",
    "1900-02-29",
    "0004-02-29 BC",
    "0005-02-29 BC",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "-9223372036854775809",
    "-1",
    "-0",
    "1e309",
    "1.7976931348623157e308",
    "1.7976931348623159e308",
    "2.4703282292062327e-324",
    "2.4703282292062328e-324",
    "3.4028235e38",
    "3.4028236e38",
    "7.006492321624085e-46",
    "7.1e-46",
    "1e-400",
    "0e-1000",
    "1e1000",
    "1e-1000",
    "1e1001",
    ".5",
    "5.",
    "1e",
    "+1",
    "0x10",
    "1_000",
    "inf",
    "nan",
    "Infinity",
    "NaN",
    "\\x",
    "\\xABcd",
    "\\xa",
    "true",
    "t",
];

/// Makes filters over the rows of a round.
pub(super) struct Generator<'a> {
    world: &'a World,
    images: Vec<Image<'a>>,
    rng: &'a mut StdRng,
}

impl<'a> Generator<'a> {
    pub(super) fn new(world: &'a World, images: &'a [String], rng: &'a mut StdRng) -> Self {
        let images = images.iter().map(|json| Image::parse(json.as_bytes()).expect("image")).collect();
        Self { world, images, rng }
    }

    /// A filter as query pairs, seldom of more than two.
    pub(super) fn pairs(&mut self) -> Vec<(String, String)> {
        (0..pick(self.rng, &[1, 1, 1, 1, 2, 2, 2, 2, 2, 3])).map(|_| self.pair()).collect()
    }

    /// Terms without lists and patterns, in few words.
    pub(super) fn simple(&mut self) -> Vec<(String, String)> {
        (0..self.rng.random_range(1..=3))
            .map(|_| self.term(false))
            .map(|(name, head, text)| (name, format!("{head}.{text}")))
            .collect()
    }

    /// A rule whose values are claims, most of them.
    pub(super) fn ruled(&mut self) -> Ruled {
        let (mut filter, mut claims, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        let group = self.rng.random_ratio(1, 3);
        for n in 0..self.rng.random_range(1..=3) {
            let (name, head, text) = self.term(true);
            let (joint, written) = if group { (".", quote(&text)) } else { ("=", text.clone()) };
            if head.ends_with("in") {
                let words: Vec<String> = (0..self.rng.random_range(0..4))
                    .map(|_| self.literal(name.trim_matches('"'), self.shape(&name)))
                    .collect();
                let list: Vec<String> = words.iter().map(|word| claim(word, self.rng)).collect();
                claims.push((format!("c{n}"), format!("[{}]", list.join(","))));
                filter.push(format!("{name}{joint}{head}.{{c{n}}}"));
                let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
                pairs.push((name, format!("{head}.({})", words.join(","))));
                continue;
            }
            claims.push((format!("c{n}"), claim(&text, self.rng)));
            filter.push(format!("{name}{joint}{head}.{{c{n}}}"));
            pairs.push((name, format!("{head}.{written}")));
        }
        if group {
            let word = pick(self.rng, &["and", "or", "not.and", "not.or"]);
            let items: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}.{value}")).collect();
            pairs = vec![(word.to_owned(), format!("({})", items.join(",")))];
            filter = vec![format!("{word}=({})", filter.join(","))];
        }
        Ruled { filter: filter.join("&"), claims, pairs }
    }

    fn shape(&self, name: &str) -> Shape {
        let name = name.trim_matches('"').replace("\\\"", "\"");
        self.world.specs.iter().find(|spec| spec.name == name).expect("a column").shape
    }

    /// Name, operator and value. `listed`: a list may be asked for.
    fn term(&mut self, listed: bool) -> (String, String, String) {
        loop {
            let (name, not, operator, shape) = self.head();
            if matches!(operator, "is" | "like" | "ilike") || (operator == "in" && !listed) {
                continue;
            }
            let text = self.literal(name, shape);
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric()) && name != "or";
            let name = if plain { name.to_owned() } else { quote(name) };
            return (name, format!("{not}{operator}"), text);
        }
    }

    /// A column that has literals and text that may be one.
    pub(super) fn equality(&mut self) -> (&'static str, String) {
        loop {
            let spec = self.world.specs.choose(self.rng).expect("specs");
            if self.world.literal_type(spec.name).is_some() && !matches!(spec.shape, Shape::Text(_)) {
                let text = self.literal(spec.name, spec.shape);
                if self.rng.random_ratio(1, 3) {
                    return (spec.name, pick(self.rng, EDGES).to_owned());
                }
                return (spec.name, if self.rng.random_ratio(1, 3) { self.damaged(&text) } else { text });
            }
        }
    }

    fn pair(&mut self) -> (String, String) {
        if self.rng.random_ratio(1, 3) {
            let word = pick(self.rng, &["and", "or", "not.and", "not.or"]);
            return (word.to_owned(), self.group(1));
        }
        let (name, not, operator, shape) = self.head();
        let name = if matches!(name, "or") || self.rng.random_ratio(1, 9) { quote(name) } else { name.to_owned() };
        let value = match operator {
            "in" => self.list(name.trim_matches('"'), shape),
            _ => self.operand(operator, name.trim_matches('"'), shape),
        };
        (name, format!("{not}{operator}.{value}"))
    }

    fn group(&mut self, depth: usize) -> String {
        let items: Vec<String> = (0..self.rng.random_range(1..=3))
            .map(|_| {
                if depth < 4 && self.rng.random_ratio(1, 4) {
                    let word = pick(self.rng, &["and", "or", "not.and", "not.or"]);
                    return format!("{word}{}", self.group(depth + 1));
                }
                let (name, not, operator, shape) = self.head();
                let value = if operator == "in" {
                    self.list(name, shape)
                } else {
                    let value = self.operand(operator, name, shape);
                    self.word(&value)
                };
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
                format!("{}.{not}{operator}.{value}", if plain { name.to_owned() } else { quote(name) })
            })
            .collect();
        format!("({})", items.join(if self.rng.random() { "," } else { " , " }))
    }

    fn head(&mut self) -> (&'static str, &'static str, &'static str, Shape) {
        let texts = |spec: &&Spec| matches!(spec.shape, Shape::Text(_));
        let spec = if self.rng.random_ratio(1, 4) {
            self.world.specs.iter().filter(texts).choose(self.rng).expect("texts")
        } else {
            self.world.specs.choose(self.rng).expect("specs")
        };
        let not = if self.rng.random_ratio(1, 4) { "not." } else { "" };
        let operators: &[&str] = match spec.shape {
            Shape::Text(_) => {
                &["eq", "neq", "lt", "lte", "gt", "gte", "in", "is", "like", "like", "like", "ilike", "ilike"]
            }
            Shape::OneOf(_) => &["is", "is", "is", "eq", "in"],
            _ => &["eq", "neq", "lt", "lte", "gt", "gte", "in", "is"],
        };
        (spec.name, not, pick(self.rng, operators), spec.shape)
    }

    fn operand(&mut self, operator: &str, column: &str, shape: Shape) -> String {
        match operator {
            "is" if shape == Shape::Bool => pick(self.rng, &["null", "true", "false", "unknown"]).to_owned(),
            "is" => "null".to_owned(),
            "like" | "ilike" => self.pattern(column, shape),
            _ => self.literal(column, shape),
        }
    }

    /// Half of the time a value that some row has.
    fn literal(&mut self, column: &str, shape: Shape) -> String {
        let text = if self.rng.random() { self.held(column) } else { None };
        let text = text.unwrap_or_else(|| some_value(shape, self.rng));
        let text = match shape {
            Shape::Numeric | Shape::Scaled if self.rng.random_ratio(1, 4) => respell(&text),
            _ => text,
        };
        if self.rng.random_ratio(1, 12) { self.damaged(&text) } else { text }
    }

    /// The value of this column in some row, as its image has it.
    fn held(&mut self, column: &str) -> Option<String> {
        let raw = self.images.choose(self.rng)?.get(column)?;
        if raw == "null" { None } else { Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())) }
    }

    fn damaged(&mut self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        let at = self.rng.random_range(0..=chars.len());
        let odd = ['0', '9', '-', '+', ' ', 'e', '.', ':', 'Z', 'T', 'x', '\0', '\n', 'a', '_', '\u{a0}', '٣'];
        match self.rng.random_range(0..3) {
            0 if at < chars.len() => drop(chars.remove(at)),
            1 if at < chars.len() => chars[at] = pick(self.rng, &odd),
            _ => chars.insert(at, pick(self.rng, &odd)),
        }
        chars.into_iter().collect()
    }

    fn pattern(&mut self, column: &str, shape: Shape) -> String {
        let wild = pick(self.rng, &[12, 12, 40]);
        let text = self.held(column).unwrap_or_else(|| some_value(shape, self.rng));
        if self.rng.random_ratio(1, 3) {
            return self.recased(&text);
        }
        let mut out = String::new();
        for c in text.chars() {
            match self.rng.random_range(0..wild) {
                0 => out.push('_'),
                1 => out.push('%'),
                2 => out.push('*'),
                3 => out.push_str("%_"),
                4 => out.extend(c.to_lowercase()),
                5 => out.extend(c.to_uppercase()),
                6 | 7 => out.extend(['\\', c]),
                8 if c == 'a' => out.push_str("%a"),
                _ => out.push(c),
            }
        }
        if self.rng.random_ratio(1, 3) {
            out.push('%');
        }
        out
    }

    /// The text itself as a pattern, in other cases.
    fn recased(&mut self, text: &str) -> String {
        let mut out = String::new();
        let case = self.rng.random_range(0..4);
        for c in text.chars() {
            match case {
                0 => out.extend(c.to_lowercase()),
                1 => out.extend(c.to_uppercase()),
                2 if self.rng.random() => {
                    out.push(if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
                }
                _ if matches!(c, '%' | '_' | '*' | '\\') => out.extend(['\\', c]),
                _ => out.push(c),
            }
        }
        if out.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 { out + "\\" } else { out }
    }

    fn list(&mut self, column: &str, shape: Shape) -> String {
        let count = pick(self.rng, &[0, 1, 2, 3, 5, 12, 40]);
        let words: Vec<String> = (0..count)
            .map(|_| {
                let text =
                    self.held(column).filter(|_| self.rng.random()).unwrap_or_else(|| some_value(shape, self.rng));
                self.word(&text)
            })
            .collect();
        format!("({})", words.join(","))
    }

    /// A value inside parentheses, quoted where it must be and sometimes where it need not.
    fn word(&mut self, text: &str) -> String {
        let must = text.is_empty() || text.starts_with([' ', '"']) || text.ends_with(' ') || text.contains([',', ')']);
        if must || self.rng.random_ratio(1, 4) { quote(text) } else { text.to_owned() }
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The same number in another spelling.
fn respell(text: &str) -> String {
    match (text.split_once('.'), text.contains(['e', 'E', 'N', 'I'])) {
        (_, true) => text.to_owned(),
        (Some((whole, fraction)), _) => format!("{whole}{fraction}0e-{}", fraction.len() + 1),
        (None, _) => format!("{text}.000"),
    }
}
