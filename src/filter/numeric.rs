//! Decimal numbers of any length, compared as Postgres compares `numeric`, and the syntax of all
//! number literals.
//!
//! Must not know: columns. Invariant: comparing allocates nothing and reads each digit once; `NaN`
//! equals itself and is above everything, as in Postgres.

use std::borrow::Cow;
use std::cmp::Ordering;

/// Largest exponent of a literal, either way. Keeps `1e999999` from growing into a number Postgres
/// refuses (131,072 digits before the point, 16,383 behind it); doubles need 324.
const MAX_EXPONENT: i64 = 1_000;

/// Zeros written out before a literal turns to exponent notation. Bounds the canonical text: a list of
/// `1e1000` would otherwise grow two-hundredfold.
const PLAIN_ZEROS: i64 = 20;

/// A number cut at its point; digits only, as written.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Parts<'a> {
    /// Reads `-12.50e-3`: a digit on both sides of a point, an exponent of at most four digits.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (negative, bytes) = match bytes.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let (whole, rest) = digits(bytes);
        let (fraction, rest) = match rest.strip_prefix(b".") {
            Some(rest) => {
                let (fraction, rest) = digits(rest);
                if fraction.is_empty() {
                    return None;
                }
                (fraction, rest)
            }
            None => (&[][..], rest),
        };
        let exponent = match rest.split_first() {
            None => 0,
            Some((b'e' | b'E', rest)) => exponent(rest)?,
            Some(_) => return None,
        };
        if whole.is_empty() { None } else { Some(Self { negative, whole, fraction, exponent }) }
    }

    /// No digit but zero.
    pub(super) fn is_zero(&self) -> bool {
        self.whole.iter().chain(self.fraction).all(|d| *d == b'0')
    }
}

fn digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    bytes.split_at(end)
}

fn exponent(bytes: &[u8]) -> Option<i64> {
    let (sign, bytes) = match bytes.split_first()? {
        (b'-', rest) => (-1, rest),
        (b'+', rest) => (1, rest),
        _ => (1, bytes),
    };
    if bytes.is_empty() || bytes.len() > 4 || !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let size = bytes.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0'));
    (size <= MAX_EXPONENT).then_some(sign * size)
}

/// Where a number stands before its digits are looked at; the derived order is Postgres's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    MinusInfinity,
    Negative,
    Zero,
    Positive,
    Infinity,
    NaN,
}

/// A number: `0.d1d2d3... * 10^magnitude`, where the digits are `head` then `tail` and `d1` is not zero.
#[derive(Clone, Debug)]
pub(super) struct Decimal<'a> {
    class: Class,
    magnitude: i64,
    head: Cow<'a, [u8]>,
    tail: Cow<'a, [u8]>,
}

impl<'a> Decimal<'a> {
    /// Reads a number, or `NaN`, `Infinity`, `-Infinity`.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let special = |class| Some(Self { class, magnitude: 0, head: Cow::Borrowed(&[]), tail: Cow::Borrowed(&[]) });
        match text {
            "NaN" => special(Class::NaN),
            "Infinity" => special(Class::Infinity),
            "-Infinity" => special(Class::MinusInfinity),
            _ => Parts::read(text).map(Self::new),
        }
    }

    fn new(parts: Parts<'a>) -> Self {
        let head = without_leading_zeros(parts.whole);
        let mut tail = parts.fraction;
        let mut magnitude = i64::try_from(head.len()).unwrap_or(i64::MAX / 2);
        if head.is_empty() {
            tail = without_leading_zeros(tail);
            magnitude = -i64::try_from(parts.fraction.len() - tail.len()).unwrap_or(i64::MAX / 2);
        }
        let class = match (head.is_empty() && tail.is_empty(), parts.negative) {
            (true, _) => {
                return Self { class: Class::Zero, magnitude: 0, head: Cow::Borrowed(&[]), tail: Cow::Borrowed(&[]) };
            }
            (false, true) => Class::Negative,
            (false, false) => Class::Positive,
        };
        Self { class, magnitude: magnitude + parts.exponent, head: Cow::Borrowed(head), tail: Cow::Borrowed(tail) }
    }

    /// The same number, standing on its own, its digits trimmed on both sides.
    pub(super) fn into_owned(self) -> Decimal<'static> {
        let mut digits: Vec<u8> = self.digits().collect();
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        Decimal { class: self.class, magnitude: self.magnitude, head: Cow::Owned(digits), tail: Cow::Borrowed(&[]) }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.head.iter().chain(self.tail.iter()).copied()
    }

    pub(super) fn compare(&self, other: &Decimal<'_>) -> Ordering {
        let by_class = self.class.cmp(&other.class);
        if by_class != Ordering::Equal {
            return by_class;
        }
        match self.class {
            Class::Positive => self.compare_size(other),
            Class::Negative => other.compare_size(self),
            _ => Ordering::Equal,
        }
    }

    fn compare_size(&self, other: &Decimal<'_>) -> Ordering {
        let by_magnitude = self.magnitude.cmp(&other.magnitude);
        if by_magnitude != Ordering::Equal {
            return by_magnitude;
        }
        let (mut left, mut right) = (self.digits(), other.digits());
        loop {
            let (l, r) = (left.next(), right.next());
            if l.is_none() && r.is_none() {
                return Ordering::Equal;
            }
            let by_digit = l.unwrap_or(b'0').cmp(&r.unwrap_or(b'0'));
            if by_digit != Ordering::Equal {
                return by_digit;
            }
        }
    }

    /// One text per number, in a syntax both this module and Postgres read.
    pub(super) fn canonical(&self) -> String {
        let sign = match self.class {
            Class::MinusInfinity => return "-Infinity".to_owned(),
            Class::Infinity => return "Infinity".to_owned(),
            Class::NaN => return "NaN".to_owned(),
            Class::Zero => return "0".to_owned(),
            Class::Negative => "-",
            Class::Positive => "",
        };
        let digits: String = self.digits().map(char::from).collect();
        let digits = digits.trim_end_matches('0');
        let count = i64::try_from(digits.len()).unwrap_or(i64::MAX / 2);
        let zeros = |n: i64| "0".repeat(usize::try_from(n).unwrap_or(0));
        match self.magnitude {
            m if m >= count && m - count <= PLAIN_ZEROS => format!("{sign}{digits}{}", zeros(m - count)),
            m if m > 0 && m < count => {
                let (whole, fraction) = digits.split_at(usize::try_from(m).unwrap_or(0));
                format!("{sign}{whole}.{fraction}")
            }
            m if m <= 0 && -m <= PLAIN_ZEROS => format!("{sign}0.{}{digits}", zeros(-m)),
            m => format!("{sign}{digits}e{}", m - count),
        }
    }
}

fn without_leading_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|d| *d != b'0').unwrap_or(digits.len());
    &digits[start..]
}

/// Order of floats as Postgres has it: `NaN` equals itself and is above infinity, `-0` equals `0`.
pub(super) fn compare_floats(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
    }
}

/// Reads a float literal: `None` outside the syntax, too large, or too small to be told from zero
/// (Postgres refuses those two as well).
pub(super) fn read_float(text: &str, single: bool) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let parts = Parts::read(text)?;
    // A `float4` is rounded once, from the decimal; going through a double would round twice.
    let value = if single { f64::from(text.parse::<f32>().ok()?) } else { text.parse::<f64>().ok()? };
    let lost = value.is_infinite() || (value == 0.0 && !parts.is_zero());
    // The sign of zero is dropped: `-0` equals `0` and must have the same canonical text.
    (!lost).then_some(if value == 0.0 { 0.0 } else { value })
}

/// The shortest text that reads back as the same float.
pub(super) fn float_text(value: f64, single: bool) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let value = if value == 0.0 { 0.0 } else { value };
    #[expect(clippy::cast_possible_truncation, reason = "a `float4` was widened and is narrowed back, exactly")]
    let text = if single { format!("{:?}", value as f32) } else { format!("{value:?}") };
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}
