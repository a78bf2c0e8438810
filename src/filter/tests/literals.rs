//! What literals are taken, and as what.

use super::*;
use crate::filter::index_key;

fn literal(column: &str, text: &str) -> Option<String> {
    let filter = filter(&[(column, &format!("eq.{text}"))]).ok()?;
    filter.equalities().next().map(|(_, literal)| literal.to_owned())
}

#[test]
fn literals_have_one_spelling() {
    for (column, written, canonical) in [
        ("score", " 007 ", "7"),
        ("score", "-0", "0"),
        ("id", "-9223372036854775808", "-9223372036854775808"),
        ("price", "-0.00", "0"),
        ("price", "1500.00", "1500"),
        ("price", "0.00150", "0.0015"),
        ("price", "1e20", "100000000000000000000"),
        ("price", "12e400", "12e400"),
        ("price", "-1.20E-400", "-12e-401"),
        ("price", "NaN", "NaN"),
        ("f8", "-0", "0"),
        ("f8", "1e2", "100"),
        ("f8", "0.30000000000000004", "0.30000000000000004"),
        ("f4", "16777217", "16777216"),
        ("f4", "0.1", "0.1"),
        ("uid", "3F2B8C1E-0D5A-4F6B-9A7C-1E2D3C4B5A69", "3f2b8c1e-0d5a-4f6b-9a7c-1e2d3c4b5a69"),
        ("day", "0044-03-15 BC", "0044-03-15 BC"),
        ("day", "infinity", "infinity"),
        ("clock", "07:30", "07:30:00"),
        ("clock", "24:00:00", "24:00:00"),
        ("local", "2026-11-21", "2026-11-21 00:00:00"),
        ("local", "2026-11-21T20:12:17.260", "2026-11-21 20:12:17.26"),
        ("at", "2026-11-21T20:12:17.265+02:00", "2026-11-21 18:12:17.265+00"),
        ("at", "0001-01-01 00:30:00+01", "0001-12-31 23:30:00+00 BC"),
        ("at", "-infinity", "-infinity"),
        ("raw", "\\xDEad", "\\xdead"),
        ("pad", "ab  ", "ab"),
        ("league", " ab  ", " ab  "),
        ("on", "true", "true"),
    ] {
        assert_eq!(literal(column, written).as_deref(), Some(canonical), "{column} {written}");
        assert_eq!(literal(column, canonical).as_deref(), Some(canonical), "{column} {canonical}");
    }
}

#[test]
fn loose_literals_are_invalid_values() {
    for (column, texts) in [
        ("score", &["", "+1", "1.0", "1e2", "0x1", "1_000", "2147483648", "--1", "- 1", "\u{661}"][..]),
        ("small", &["32768", "-32769"]),
        ("ref", &["-1", "4294967296", "012"]),
        ("id", &["9223372036854775808"]),
        ("price", &[".5", "5.", "1e", "1e1001", "1e-1001", "+1", "nan", "inf", "1_0", "0x1"]),
        ("f8", &["1e309", "-1e309", "1e-400", ".5", "inf", "infinity"]),
        ("f4", &["3.5e38", "1e-46"]),
        ("on", &["t", "TRUE", "1", "yes", ""]),
        (
            "uid",
            &[
                "3f2b8c1e0d5a4f6b9a7c1e2d3c4b5a69",
                "{3f2b8c1e-0d5a-4f6b-9a7c-1e2d3c4b5a69}",
                "3f2b8c1e-0d5a-4f6b-9a7c-1e2d3c4b5a6g",
            ],
        ),
        (
            "day",
            &[
                "2026-02-29",
                "2026-13-01",
                "2026-1-1",
                "0000-01-01",
                "26-01-01",
                "today",
                "4714-11-23 BC",
                "5874898-01-01",
                "2026-11-21 ad",
            ],
        ),
        ("clock", &["24:00:01", "7:30", "07:60", "07:30:60", "07:30:00.", "07:30:00.1234567", "07:30+01"]),
        (
            "local",
            &["2026-11-21T20:12:17Z", "294277-01-01", "2026-11-21T24:00:00", "2026-11-21T", "2026-11-21T20", "now"],
        ),
        (
            "at",
            &[
                "2026-11-21T20:12:17",
                "2026-11-21",
                "2026-11-21T20:12:17 00:00",
                "2026-11-21T20:12:17+16",
                "2026-11-21T20:12:17z",
            ],
        ),
        (
            "at",
            &[
                "4714-11-24T00:00:00+00:01 BC",
                "294276-12-31T23:59:59-00:01",
                "2026-11-21T20:12:17+0200",
                "2026-11-21T20:12:17 UTC",
            ],
        ),
        ("raw", &["dead", "\\xdea", "\\xzz", "\\x de"]),
    ] {
        for text in texts {
            assert_eq!(refused(column, &format!("eq.{text}")), "invalid-value", "{column} {text}");
        }
    }
}

#[test]
fn the_examples_in_the_errors_are_right() {
    let table = table();
    for column in table
        .columns
        .iter()
        .filter(|column| !["league", "code", "pad", "odd", "mood", "doc", "span"].contains(&&*column.name))
    {
        let name = if column.name == "or" { "\"or\"" } else { &column.name };
        let Err(FilterError::InvalidValue { expected, .. }) = filter(&[(name, "eq.?")]) else { panic!("{name}") };
        let examples = expected.split('`').skip(1).step_by(2).filter(|text| !matches!(*text, "Z" | "+" | "%2B"));
        assert!(examples.map(|text| assert!(literal(name, text).is_some(), "{name} {text}")).count() > 0);
    }
}

#[test]
fn an_image_value_and_its_literal_share_the_index_key() {
    let table = table();
    for (name, raw, key) in [
        ("score", "7", Some("7")),
        ("ref", r#""7""#, Some("7")),
        ("price", "1500.00", Some("1500")),
        ("price", r#""NaN""#, Some("NaN")),
        ("f8", "1e+20", Some("1e20")),
        ("f8", "-0", Some("0")),
        ("f4", "0.1", Some("0.1")),
        ("league", r#""a\"\u0001b""#, Some("a\"\u{1}b")),
        ("pad", r#""ab   ""#, Some("ab")),
        ("at", r#""2026-11-21T20:12:17.265+00:00""#, Some("2026-11-21 20:12:17.265+00")),
        ("at", r#""0044-03-15T00:00:00+00:00 BC""#, Some("0044-03-15 00:00:00+00 BC")),
        ("raw", r#""\\xdead""#, Some("\\xdead")),
        ("on", "true", Some("true")),
        ("on", "null", None),
        ("odd", r#""a""#, None),
        ("doc", "1", None),
        ("score", r#""x""#, None),
    ] {
        let found = index_key(table.column(name).unwrap(), raw);
        assert_eq!(found.as_deref(), key, "{name} {raw}");
        if let Some(key) = key {
            assert_eq!(literal(name, key).as_deref(), Some(key));
        }
    }
}

#[test]
fn equalities_are_those_that_must_hold() {
    let filter =
        filter(&[("score", "eq.1"), ("league", "in.(b)"), ("id", "neq.2"), ("or", "(day.eq.infinity,on.is.true)")])
            .unwrap();
    assert_eq!(filter.equalities().collect::<Vec<_>>(), [("league", "b"), ("score", "1")]);
    assert_eq!(super::filter(&[("or", "(score.eq.1,id.eq.2)")]).unwrap().equalities().count(), 0);
    assert_eq!(super::filter(&[("score", "eq.1")]).unwrap().equalities().count(), 1);
    assert_eq!(Filter::everything().equalities().count(), 0);
}
