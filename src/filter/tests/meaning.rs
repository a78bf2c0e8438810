//! Filters on images: the cases a reader would ask about first, and images that cannot be read.

use super::*;
use crate::filter::ImageError;

#[test]
fn null_is_unknown_and_unknown_selects_nothing() {
    let image = r#"{"score":null,"on":null,"league":"nfl"}"#;
    for value in ["eq.1", "neq.1", "not.eq.1", "lt.1", "gte.1", "in.(1,2)", "not.in.(1,2)"] {
        assert!(!matches("score", value, image), "{value}");
    }
    assert!(matches("score", "is.null", image) && !matches("score", "not.is.null", image));
    assert!(
        matches("on", "is.unknown", image) && matches("on", "not.is.true", image) && !matches("on", "is.false", image)
    );
    assert!(!matches("score", "in.()", image) && matches("score", "not.in.()", image));
    assert!(matches("or", "(score.eq.1,league.eq.nfl)", image));
    assert!(!matches("and", "(score.eq.1,league.eq.nfl)", image));
    assert!(!matches("not.and", "(score.eq.1,league.eq.nfl)", image));
    assert!(matches("not.and", "(score.eq.1,league.eq.nba)", image));
}

#[test]
fn numbers_keep_every_digit() {
    let image =
        r#"{"id":9007199254740993,"price":0.10000000000000000000000000000000000000000000001,"f8":0.1,"f4":0.1}"#;
    assert!(matches("id", "eq.9007199254740993", image) && !matches("id", "eq.9007199254740992", image));
    assert!(matches("price", "gt.0.1", image) && !matches("price", "eq.0.1", image));
    assert!(
        matches("price", "lt.1e-1000", r#"{"price":-1e-1}"#) && matches("price", "lt.NaN", r#"{"price":"Infinity"}"#)
    );
    assert!(matches("f8", "eq.0.1", image) && matches("f4", "eq.0.1", image));
    assert!(!matches("f4", "eq.0.10000001", image) && matches("f4", "eq.0.100000001", image));
    assert!(matches("f8", "eq.NaN", r#"{"f8":"NaN"}"#) && matches("f8", "gt.Infinity", r#"{"f8":"NaN"}"#));
    assert!(matches("f8", "eq.0", r#"{"f8":-0}"#));
}

#[test]
fn padding_counts_in_patterns_only() {
    let image = r#"{"pad":"ab   ","code":"ab "}"#;
    assert!(matches("pad", "eq.ab", image) && matches("pad", "in.(\"ab \",c)", image));
    assert!(!matches("pad", "like.ab", image) && matches("pad", "like.ab___", image));
    assert!(!matches("code", "eq.ab", image) && matches("code", "eq.ab ", image));
}

#[test]
fn dates_pass_year_zero_and_the_ends_of_time() {
    assert!(matches("day", "lt.0001-01-01", r#"{"day":"0001-12-31 BC"}"#));
    assert!(matches("day", "gt.0002-01-01 BC", r#"{"day":"0001-01-01 BC"}"#));
    assert!(matches("day", "gt.5874897-12-31", r#"{"day":"infinity"}"#));
    assert!(matches("at", "eq.2026-11-21T21:12:17.265+01:00", r#"{"at":"2026-11-21T20:12:17.265+00:00"}"#));
    assert!(matches("at", "lt.2026-11-21T20:12:17.265001Z", r#"{"at":"2026-11-21T20:12:17.265+00:00"}"#));
}

#[test]
fn an_image_that_does_not_fit_is_an_error_and_selects_nothing() {
    let try_matches = |value: &str, image: &str| {
        let filter = filter(&[("score", value)]).unwrap();
        let image = Image::parse(image.as_bytes()).unwrap();
        (filter.matches(&image), filter.try_matches(&image))
    };
    let missing = Err(ImageError::Missing { column: "score".to_owned() });
    let unreadable = Err(ImageError::Unreadable { column: "score".to_owned() });
    for value in ["eq.1", "neq.1", "is.null", "not.is.null", "in.()"] {
        assert_eq!(try_matches(value, r#"{"id":1}"#), (false, missing.clone()), "{value}");
    }
    for image in [r#"{"score":"x"}"#, r#"{"score":{}}"#, r#"{"score":true}"#] {
        assert_eq!(try_matches("neq.1", image), (false, unreadable.clone()), "{image}");
    }
}

#[test]
fn images_are_cut_by_column_and_kept_to_the_byte() {
    let text = r#" {"a":1.50 , "b\"\u00e9" : "x\ny", "doc":{"a":[1, {"a":"}"}],"\ud800":"\u0000"}, "n":null} "#;
    let image = Image::parse(text.as_bytes()).unwrap();
    assert_eq!(image.get("a"), Some("1.50"));
    assert_eq!(image.get("b\"é"), Some(r#""x\ny""#));
    assert_eq!(image.get("doc"), Some(r#"{"a":[1, {"a":"}"}],"\ud800":"\u0000"}"#));
    assert_eq!((image.get("n"), image.get("x")), (Some("null"), None));
    assert_eq!(image.columns().count(), 4);
    let deep = format!(r#"{{"doc":{}{},"score":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(Image::parse(deep.as_bytes()).unwrap().get("score"), Some("1"));
    for bad in [&b""[..], b"[]", b"{\"a\":1", b"{\"a\":}", b"{\"a\":1}x", b"{\"a\":\"\xff\"}", b"null", b"1"] {
        assert!(Image::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}
