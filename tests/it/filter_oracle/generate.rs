//! Random values of every type, and random filters that have a chance of selecting some of them.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rowcast::filter::Image;

use super::columns::{Shape, World};

const LETTERS: &[char] = &[
    'a', 'b', 'A', 'B', 'z', ' ', ' ', '%', '_', '*', '\\', '"', ',', ')', '(', '.', '\'', '\n', '\t', '\u{1}', '\u{7f}', 'é', 'É',
    'ß', 'İ', 'ı', '\u{212a}', '日', '😀', '\u{e000}', '\u{ffff}', '\u{301}',
];
const INTS: &[i64] = &[0, 1, -1, 9, 10, 127, 32_767, -32_768, 2_147_483_647, -2_147_483_648, 4_294_967_295, i64::MAX, i64::MIN];
const NUMBERS: &[&str] = &[
    "0", "-0", "0.0", "1", "1.0", "1.00", "-1", "10", "100", "0.1", "0.10", "0.01", "-0.001", "1e3", "1E+3", "12.5e-2", "1e-20", "1e25",
    "99999999999999999999999999.5", "99999999999999999999999999.50000001", "0.30000000000000004", "NaN", "Infinity", "-Infinity",
    "9007199254740993", "1e-400", "123e400", "00012.50",
];
const FLOATS: &[&str] = &[
    "0", "-0", "0.1", "0.3", "1e10", "1.5", "-1.5", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45", "1.17549435e-38", "16777217",
    "0.1000000014901161193847656", "1.000000059604644775390625", "1e38", "123456.789", "5e-30",
];
const DOUBLES: &[&str] = &["1.7976931348623157e308", "5e-324", "2.2250738585072014e-308", "9007199254740993", "0.30000000000000004"];
const DATES: &[&str] = &[
    "infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "0001-01-01", "0001-12-31 BC", "0004-02-29", "2000-02-29", "2024-02-29",
    "1900-03-01", "1970-01-01", "1999-12-31", "2000-01-01", "9999-12-31", "10000-01-01", "0044-03-15 BC",
];
const CLOCKS: &[&str] = &["00:00:00", "23:59:59.999999", "12:00:00", "20:12:17.265", "01:02:03.000001", "00:00:00.5", "07:30"];
const OFFSETS: &[&str] = &["Z", "+00", "+00:00", "+02", "-03:30", "+05:45", "-11:59:59", "+15:59"];
const LABELS: &[&str] = &["ok", "o\"k", "very, happy", "été", "OK", "\\"];

/// A value to store, as text Postgres reads; `None` is null.
pub(super) fn value(shape: Shape, rng: &mut StdRng) -> Option<String> {
    if rng.random_ratio(1, 8) { None } else { Some(some_value(shape, rng)) }
}

fn some_value(shape: Shape, rng: &mut StdRng) -> String {
    match shape {
        Shape::Bool => rng.random::<bool>().to_string(),
        Shape::Int(min, max) => match rng.random_range(0..3) {
            0 => (pick(rng, INTS)).clamp(min, max).to_string(),
            1 => rng.random_range(-3..=3).clamp(min, max).to_string(),
            _ => rng.random_range(min..=max).to_string(),
        },
        Shape::Numeric => number(rng),
        Shape::Scaled => match rng.random_range(0..4) {
            0 => "NaN".to_owned(),
            1 => format!("{}.5", rng.random_range(-3..3)),
            _ => format!("{}.{:02}", rng.random_range(-99_999..=99_999), rng.random_range(0..100)),
        },
        Shape::Float4 => match rng.random_range(0..3) {
            0 => format!("{:?}", finite(f32::from_bits(rng.random()))),
            1 => format!("{}.{}", rng.random_range(-9..9), rng.random_range(0..99_999)),
            _ => pick(rng, FLOATS).to_owned(),
        },
        Shape::Float8 => match rng.random_range(0..4) {
            0 => {
                let float = f64::from_bits(rng.random());
                if float.is_finite() { format!("{float:?}") } else { "NaN".to_owned() }
            }
            1 => format!("{}.{}", rng.random_range(-9..9), rng.random_range(0..99_999)),
            2 => pick(rng, DOUBLES).to_owned(),
            _ => pick(rng, FLOATS).to_owned(),
        },
        Shape::Text(length) => text(length, rng),
        Shape::Uuid => {
            let small = rng.random::<bool>();
            let bits: u128 = if small { rng.random_range(0..4) << 126 | rng.random_range(0..3) } else { rng.random() };
            let hex = format!("{bits:032x}");
            format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
        }
        Shape::Date => date(rng),
        Shape::Time => if rng.random_ratio(1, 12) { "24:00:00".to_owned() } else { clock(rng) },
        Shape::Timestamp => timestamp("", rng),
        Shape::Timestamptz => {
            let offset = pick(rng, OFFSETS);
            timestamp(offset, rng)
        }
        Shape::Bytea => {
            let bytes: Vec<u8> = (0..rng.random_range(0..4)).map(|_| pick(rng, &[0, 1, 0x7f, 0x80, 0xff])).collect();
            format!("\\x{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
        }
        Shape::Enum => pick(rng, LABELS).to_owned(),
        Shape::OneOf(values) => pick(rng, values).to_owned(),
    }
}

fn pick<T: Copy>(rng: &mut StdRng, items: &[T]) -> T {
    *items.choose(rng).expect("not empty")
}

fn finite(float: f32) -> f32 {
    if float.is_finite() { float } else { 0.5 }
}

fn number(rng: &mut StdRng) -> String {
    match rng.random_range(0..3) {
        0 => {
            let digits = |rng: &mut StdRng, n: usize| (0..n).map(|_| pick(rng, &['0', '0', '1', '9'])).collect::<String>();
            let (whole, fraction) = (rng.random_range(1..40), rng.random_range(1..40));
            let sign = if rng.random() { "-" } else { "" };
            format!("{sign}{}.{}", digits(rng, whole), digits(rng, fraction))
        }
        1 => format!("{}.{}", rng.random_range(-3..3), rng.random_range(0..20)),
        _ => pick(rng, NUMBERS).to_owned(),
    }
}

fn text(length: usize, rng: &mut StdRng) -> String {
    let few = &LETTERS[..6];
    let letters = if rng.random() { few } else { LETTERS };
    (0..rng.random_range(0..=length)).map(|_| pick(rng, letters)).collect()
}

fn date(rng: &mut StdRng) -> String {
    if rng.random() {
        return pick(rng, DATES).to_owned();
    }
    let year = pick(rng, &[1, 4, 99, 1582, 1969, 2000, 2023, 2024, 2100, 12_345, 294_276]);
    let bc = if year < 4_000 && rng.random_ratio(1, 4) { " BC" } else { "" };
    format!("{year:04}-{:02}-{:02}{bc}", rng.random_range(1..=12), rng.random_range(1..=28))
}

fn clock(rng: &mut StdRng) -> String {
    if rng.random() {
        return pick(rng, CLOCKS).to_owned();
    }
    let (h, m, s) = (rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
    format!("{h:02}:{m:02}:{s:02}.{}", rng.random_range(0..1_000_000))
}

fn timestamp(offset: &str, rng: &mut StdRng) -> String {
    let edges = ["infinity", "-infinity", "4714-11-25 00:00:00 BC", "294276-12-30 23:59:59.999999", "1999-12-31 23:59:59.999999"];
    let add = |text: &str| match text.strip_suffix(" BC") {
        _ if text.ends_with("infinity") => text.to_owned(),
        Some(text) => format!("{text}{offset} BC"),
        None => format!("{text}{offset}"),
    };
    if rng.random_ratio(1, 4) {
        return add(pick(rng, &edges));
    }
    loop {
        let day = date(rng);
        let (day, bc) = day.strip_suffix(" BC").map_or((day.as_str(), ""), |day| (day, " BC"));
        let too_far = day.len() > 10 && !day.starts_with("12345") && !day.starts_with("10000") || day.starts_with("4714");
        if day.ends_with("infinity") || !too_far {
            let joint = if rng.random() { "T" } else { " " };
            return if day.ends_with("infinity") { day.to_owned() } else { add(&format!("{day}{joint}{}{bc}", clock(rng))) };
        }
    }
}

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

    /// A filter as query pairs.
    pub(super) fn pairs(&mut self) -> Vec<(String, String)> {
        (0..self.rng.random_range(1..=10) / 5 + 1).map(|_| self.pair()).collect()
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
                let value = match operator {
                    "in" => self.list(name, shape),
                    _ => {
                        let value = self.operand(operator, name, shape);
                        self.word(&value)
                    }
                };
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
                format!("{}.{not}{operator}.{value}", if plain { name.to_owned() } else { quote(name) })
            })
            .collect();
        format!("({})", items.join(if self.rng.random() { "," } else { " , " }))
    }

    fn head(&mut self) -> (&'static str, &'static str, &'static str, Shape) {
        let spec = self.world.specs.choose(self.rng).expect("specs");
        let not = if self.rng.random_ratio(1, 4) { "not." } else { "" };
        let operators: &[&str] = match spec.shape {
            Shape::Text(_) => &["eq", "neq", "lt", "lte", "gt", "gte", "in", "is", "like", "like", "like", "ilike", "ilike"],
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
        if self.rng.random_ratio(1, 12) { self.damaged(text) } else { text }
    }

    /// The value of this column in some row, as its image has it.
    fn held(&mut self, column: &str) -> Option<String> {
        let raw = self.images.choose(self.rng)?.get(column)?;
        if raw == "null" { None } else { Some(serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned())) }
    }

    fn damaged(&mut self, text: String) -> String {
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
        let text = self.held(column).unwrap_or_else(|| some_value(shape, self.rng));
        let mut out = String::new();
        for c in text.chars() {
            match self.rng.random_range(0..12) {
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

    fn list(&mut self, column: &str, shape: Shape) -> String {
        let count = pick(self.rng, &[0, 1, 2, 3, 5, 12, 40]);
        let words: Vec<String> = (0..count)
            .map(|_| {
                let text = self.held(column).filter(|_| self.rng.random()).unwrap_or_else(|| some_value(shape, self.rng));
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
