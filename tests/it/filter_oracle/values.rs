//! Random values of every type, hard ones often.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::columns::Shape;

const LETTERS: &[char] = &[
    'a', 'b', 'A', 'B', 'z', ' ', ' ', '%', '_', '*', '\\', '"', ',', ')', '(', '.', '\'', '\n', '\t', '\u{1}',
    '\u{7f}', 'é', 'É', 'ß', 'İ', 'ı', '\u{212a}', '日', '😀', '\u{e000}', '\u{ffff}', '\u{301}',
];
/// Letters with another case, in ASCII and beyond.
const CASES: &[char] = &['a', 'A', 'k', '\u{212a}', 'é', 'É'];
const INTS: &[i64] =
    &[0, 1, -1, 9, 10, 127, 32_767, -32_768, 2_147_483_647, -2_147_483_648, 4_294_967_295, i64::MAX, i64::MIN];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "0.0",
    "1",
    "1.0",
    "1.00",
    "-1",
    "10",
    "100",
    "0.1",
    "0.10",
    "0.01",
    "-0.001",
    "1e3",
    "1E+3",
    "12.5e-2",
    "1e-20",
    "1e25",
    "99999999999999999999999999.5",
    "99999999999999999999999999.50000001",
    "0.30000000000000004",
    "NaN",
    "Infinity",
    "-Infinity",
    "9007199254740993",
    "1e-400",
    "123e400",
    "00012.50",
];
const FLOATS: &[&str] = &[
    "0",
    "-0",
    "0.1",
    "0.3",
    "1e10",
    "1.5",
    "-1.5",
    "NaN",
    "Infinity",
    "-Infinity",
    "3.4028235e38",
    "1e-45",
    "1.17549435e-38",
    "16777217",
    "0.1000000014901161193847656",
    "1.000000059604644775390625",
    "1e38",
    "123456.789",
    "5e-30",
    // Rounded to a double first, these come out as another float4.
    "1.00000017881393432617187499",
    "-1.00000029802322387695312500000000000001",
    "7.038531e-26",
];
const DOUBLES: &[&str] =
    &["1.7976931348623157e308", "5e-324", "2.2250738585072014e-308", "9007199254740993", "0.30000000000000004"];
const DATES: &[&str] = &[
    "infinity",
    "-infinity",
    "4714-11-24 BC",
    "5874897-12-31",
    "0001-01-01",
    "0001-12-31 BC",
    "0004-02-29",
    "2000-02-29",
    "2024-02-29",
    "1900-03-01",
    "1970-01-01",
    "1999-12-31",
    "2000-01-01",
    "9999-12-31",
    "10000-01-01",
    "0044-03-15 BC",
];
const CLOCKS: &[&str] =
    &["00:00:00", "23:59:59.999999", "12:00:00", "20:12:17.265", "01:02:03.000001", "00:00:00.5", "07:30"];
const OFFSETS: &[&str] = &["Z", "+00", "+00:00", "+02", "-03:30", "+05:45", "-11:59:59", "+15:59"];
const LABELS: &[&str] = &["ok", "o\"k", "very, happy", "été", "OK", "\\"];

/// A value to store, as text Postgres reads; `None` is null.
pub(super) fn value(shape: Shape, rng: &mut StdRng) -> Option<String> {
    if rng.random_ratio(1, 8) { None } else { Some(some_value(shape, rng)) }
}

/// A value, as text Postgres reads.
pub(super) fn some_value(shape: Shape, rng: &mut StdRng) -> String {
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
        Shape::Time => {
            if rng.random_ratio(1, 12) {
                "24:00:00".to_owned()
            } else {
                clock(rng)
            }
        }
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

pub(super) fn pick<T: Copy>(rng: &mut StdRng, items: &[T]) -> T {
    *items.choose(rng).expect("not empty")
}

fn finite(float: f32) -> f32 {
    if float.is_finite() { float } else { 0.5 }
}

fn number(rng: &mut StdRng) -> String {
    match rng.random_range(0..4) {
        3 => pick(rng, &["NaN", "Infinity", "-Infinity", "0"]).to_owned(),
        0 => {
            let digits =
                |rng: &mut StdRng, n: usize| (0..n).map(|_| pick(rng, &['0', '0', '1', '9'])).collect::<String>();
            let (whole, fraction) = (rng.random_range(1..40), rng.random_range(1..40));
            let sign = if rng.random() { "-" } else { "" };
            format!("{sign}{}.{}", digits(rng, whole), digits(rng, fraction))
        }
        1 => format!("{}.{}", rng.random_range(-3..3), rng.random_range(0..20)),
        _ => pick(rng, NUMBERS).to_owned(),
    }
}

fn text(length: usize, rng: &mut StdRng) -> String {
    // Few letters at a time, so that texts meet; each in turn, so that none is missed.
    let start = rng.random_range(0..LETTERS.len() - 4);
    let letters = match rng.random_range(0..4) {
        0 => CASES,
        1 => &LETTERS[start..start + 4],
        _ => &LETTERS[..6],
    };
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
    let edges = [
        "infinity",
        "-infinity",
        "4714-11-25 00:00:00 BC",
        "294276-12-30 23:59:59.999999",
        "1999-12-31 23:59:59.999999",
    ];
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
        let too_far =
            day.len() > 10 && !day.starts_with("12345") && !day.starts_with("10000") || day.starts_with("4714");
        if day.ends_with("infinity") || !too_far {
            let joint = if rng.random() { "T" } else { " " };
            return if day.ends_with("infinity") {
                day.to_owned()
            } else {
                add(&format!("{day}{joint}{}{bc}", clock(rng)))
            };
        }
    }
}
