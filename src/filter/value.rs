//! A value in memory: read from a literal or from a row image, compared as Postgres compares.
//!
//! Must not know: terms, SQL text. Invariant: one type has one variant, and equal values have equal
//! canonical texts.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::image;
use super::kind::Kind;
use super::numeric::{self, Decimal};
use super::time::{self, Zone};

/// A value of a column that filters can compare.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Bool(bool),
    /// Integers, oids, and dates and times as counts.
    Int(i64),
    Uuid(u128),
    /// Both floats: every `float4` is a `float8`.
    Float(f64),
    Numeric(Decimal<'a>),
    /// Text, enum labels, and bytes as lower-case hex (which sorts as the bytes do).
    Text(Cow<'a, str>),
}

impl<'a> Value<'a> {
    /// Reads the raw JSON of a column that is not null. `None`: it is no value of this type.
    pub(super) fn from_image(kind: Kind, raw: &'a str) -> Option<Self> {
        Some(match kind {
            Kind::Bool => match raw {
                "true" => Self::Bool(true),
                "false" => Self::Bool(false),
                _ => return None,
            },
            Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Oid => Self::Int(image::bare(raw).parse().ok()?),
            Kind::Numeric => Self::Numeric(Decimal::read(image::bare(raw))?),
            Kind::Float4 => Self::Float(f64::from(image::bare(raw).parse::<f32>().ok()?)),
            Kind::Float8 => Self::Float(image::bare(raw).parse().ok()?),
            Kind::Uuid => Self::Uuid(uuid(image::bare(raw))?),
            Kind::Date => Self::Int(time::date(image::bare(raw))?),
            Kind::Time => Self::Int(time::time(image::bare(raw))?),
            Kind::Timestamp => Self::Int(time::timestamp(image::bare(raw), Zone::Without)?),
            Kind::Timestamptz => Self::Int(time::timestamp(image::bare(raw), Zone::With)?),
            // The one backslash of the hex format is escaped in JSON, and nothing else is.
            Kind::Bytea => Self::Text(Cow::Borrowed(raw.strip_prefix(r#""\\x"#)?.strip_suffix('"')?)),
            Kind::Text | Kind::Name | Kind::Enum => Self::Text(image::string(raw)?),
            Kind::Bpchar => Self::Text(without_padding(image::string(raw)?)),
            Kind::Opaque | Kind::SelfShown => return None,
        })
    }

    /// The order Postgres has on the type. Values of different variants never meet.
    pub(super) fn compare(&self, other: &Value<'_>) -> Ordering {
        match (self, other) {
            (Self::Bool(l), Value::Bool(r)) => l.cmp(r),
            (Self::Int(l), Value::Int(r)) => l.cmp(r),
            (Self::Uuid(l), Value::Uuid(r)) => l.cmp(r),
            (Self::Float(l), Value::Float(r)) => numeric::compare_floats(*l, *r),
            (Self::Numeric(l), Value::Numeric(r)) => l.compare(r),
            (Self::Text(l), Value::Text(r)) => l.as_bytes().cmp(r.as_bytes()),
            (l, r) => l.variant().cmp(&r.variant()),
        }
    }

    fn variant(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::Uuid(_) => 2,
            Self::Float(_) => 3,
            Self::Numeric(_) => 4,
            Self::Text(_) => 5,
        }
    }

    /// The one text of this value, which Postgres reads back as the same value.
    pub(super) fn into_canonical(self, kind: Kind) -> Cow<'a, str> {
        Cow::Owned(match self {
            Self::Bool(value) => return Cow::Borrowed(if value { "true" } else { "false" }),
            Self::Text(hex) if kind == Kind::Bytea => format!("\\x{hex}"),
            Self::Text(text) => return text,
            Self::Float(value) => numeric::float_text(value, kind == Kind::Float4),
            Self::Numeric(value) => value.canonical(),
            Self::Uuid(value) => uuid_text(value),
            Self::Int(value) => match kind {
                Kind::Date => time::date_text(value),
                Kind::Time => time::time_text(value),
                Kind::Timestamp => time::timestamp_text(value, Zone::Without),
                Kind::Timestamptz => time::timestamp_text(value, Zone::With),
                _ => value.to_string(),
            },
        })
    }
}

/// A value a filter compares with.
#[derive(Clone, Debug)]
pub(super) struct Literal {
    pub(super) value: Value<'static>,
    pub(super) text: Box<str>,
}

impl Literal {
    /// Reads a literal. The syntax is strict and never wider than Postgres's own, so that nothing is
    /// left for Postgres to refuse; spaces around anything but text are ignored.
    ///
    /// # Errors
    /// With what would have been right, and an example.
    pub(super) fn parse(kind: Kind, text: &str) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("text in Postgres cannot contain the character NUL, leave it out");
        }
        let keeps_spaces = kind.is_textual() || kind == Kind::Enum;
        let text = if keeps_spaces { text } else { text.trim_matches(' ') };
        let value = read(kind, text).ok_or_else(|| expected(kind))?;
        Ok(Self { text: value.clone().into_canonical(kind).into(), value })
    }
}

fn read(kind: Kind, text: &str) -> Option<Value<'static>> {
    Some(match kind {
        Kind::Bool => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return None,
        },
        Kind::Int2 => Value::Int(integer::<i16>(text)?.into()),
        Kind::Int4 => Value::Int(integer::<i32>(text)?.into()),
        Kind::Int8 => Value::Int(integer::<i64>(text)?),
        // Newer servers read a leading zero as octal, older ones do not.
        Kind::Oid if text.len() > 1 && text.starts_with('0') => return None,
        Kind::Oid => Value::Int(integer::<u32>(text)?.into()),
        Kind::Numeric => Value::Numeric(Decimal::read(text)?.into_owned()),
        Kind::Float4 => Value::Float(numeric::read_float(text, true)?),
        Kind::Float8 => Value::Float(numeric::read_float(text, false)?),
        Kind::Uuid => Value::Uuid(uuid(text)?),
        Kind::Date => Value::Int(time::date(text)?),
        Kind::Time => Value::Int(time::time(text)?),
        Kind::Timestamp => Value::Int(time::timestamp(text, Zone::Without)?),
        Kind::Timestamptz => Value::Int(time::timestamp(text, Zone::With)?),
        Kind::Bytea => Value::Text(Cow::Owned(hex(text.strip_prefix("\\x")?)?)),
        Kind::Text | Kind::Name | Kind::Enum => Value::Text(Cow::Owned(text.to_owned())),
        Kind::Bpchar => Value::Text(Cow::Owned(text.trim_end_matches(' ').to_owned())),
        Kind::Opaque | Kind::SelfShown => return None,
    })
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "write `true` or `false`",
        Kind::Int2 => "write a whole number from -32768 to 32767, such as `12`",
        Kind::Int4 => "write a whole number from -2147483648 to 2147483647, such as `12`",
        Kind::Int8 => "write a whole number from -9223372036854775808 to 9223372036854775807, such as `12`",
        Kind::Oid => "write a whole number from 0 to 4294967295 without leading zeros, such as `12`",
        Kind::Numeric => {
            "write a number such as `12.50`, `-3`, `1e6`, `NaN` or `-Infinity`, its exponent at most 1000 either way"
        }
        Kind::Float4 => "write a number in the range of float4, such as `12.5`, `1e-7`, `NaN` or `-Infinity`",
        Kind::Float8 => "write a number in the range of float8, such as `12.5`, `1e-7`, `NaN` or `-Infinity`",
        Kind::Uuid => "write a uuid such as `3f2b8c1e-0d5a-4f6b-9a7c-1e2d3c4b5a69`",
        Kind::Date => "write a date such as `2026-11-21`, `0044-03-15 BC` or `infinity`",
        Kind::Time => "write a time of day such as `20:12:17` or `20:12:17.265`",
        Kind::Timestamp => "write a time without an offset, such as `2026-11-21T20:12:17.265` or `infinity`",
        Kind::Timestamptz => {
            "write a time with `Z` or an offset, such as `2026-11-21T20:12:17.265Z`; a `+` in a query string is written `%2B`"
        }
        Kind::Bytea => "write bytes in hex, such as `\\x00ff`",
        Kind::Text | Kind::Name | Kind::Bpchar | Kind::Enum | Kind::Opaque | Kind::SelfShown => "write text",
    }
}

/// Digits with at most a minus before them. Rust's own parser would take a plus, which a query string
/// turns into a space.
fn integer<T: std::str::FromStr>(text: &str) -> Option<T> {
    // `-0` is fine for signed types; `u32` takes no minus at all, and `-0` is not worth an exception.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn hex(text: &str) -> Option<String> {
    (text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_ascii_lowercase())
}

fn uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    bytes.iter().enumerate().try_fold(0_u128, |value, (at, b)| match at {
        8 | 13 | 18 | 23 => (*b == b'-').then_some(value),
        _ => Some(value << 4 | u128::from(char::from(*b).to_digit(16)?)),
    })
}

fn uuid_text(value: u128) -> String {
    let hex = format!("{value:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `char(n)` compares without its padding, which is spaces and nothing else.
fn without_padding(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(' ')),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches(' ').to_owned()),
    }
}
