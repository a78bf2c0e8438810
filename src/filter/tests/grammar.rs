//! Text to filter: spellings, quoting, caps, refusals.

use super::*;
use crate::filter::{MAX_BYTES, MAX_DEPTH, MAX_LIST, MAX_TERMS};

#[test]
fn one_meaning_has_one_text() {
    let same: [(&[(&str, &str)], &str); 12] = [
        (&[("score", "gte.10"), ("league", "eq.nfl")], "league.eq.nfl,score.gte.10"),
        (&[("league", "not.neq.nfl"), ("score", "not.lt.010")], "league.eq.nfl,score.gte.10"),
        (&[("and", "(score.gte.10,and(league.eq.nfl,score.gte.10))")], "league.eq.nfl,score.gte.10"),
        (&[("not.or", "(score.lt.10, league.neq.\"nfl\")")], "league.eq.nfl,score.gte.10"),
        (&[("league", "in.(b,a,b)")], "league.in.(a,b)"),
        (&[("league", "in.(b)")], "league.eq.b"),
        (&[("league", "not.in.(b)")], "league.neq.b"),
        (&[("or", "(score.eq.1,or(id.eq.2,score.eq.1))")], "or(id.eq.2,score.eq.1)"),
        (&[("or", "(score.eq.1)")], "score.eq.1"),
        (&[("price", "in.(1.50,15e-1,001.5)")], "price.eq.1.5"),
        (&[("on", "is.UNKNOWN")], "on.is.null"),
        (&[("on", "not.is.true"), ("score", "not.is.null")], "on.not.is.true,score.not.is.null"),
    ];
    for (pairs, text) in same {
        assert_eq!(canonical(pairs), text, "{pairs:?}");
    }
    assert_eq!(filter(&[]), Ok(Filter::everything()));
    assert!(Filter::everything().is_everything() && Filter::everything().canonical().is_empty());
    assert!(!filter(&[("score", "eq.1")]).unwrap().is_everything());
}

#[test]
fn quotes_are_syntax_inside_parentheses_only() {
    assert_eq!(canonical(&[("league", r#"eq."a""#)]), r#"league.eq."\"a\"""#);
    assert_eq!(canonical(&[("league", "eq.a,b)")]), r#"league.eq."a,b)""#);
    assert_eq!(canonical(&[("league", r#"in.("a,b", "c\"\\d" ,e f, )"#)]), r#"league.in.("","a,b","c\"\\d","e f")"#);
    assert_eq!(canonical(&[("or", r#"(league.eq.a"b,league.eq.(x)"#)]), r#"or(league.eq."(x",league.eq."a\"b")"#);
    assert_eq!(canonical(&[("league", "eq.")]), r#"league.eq."""#);
    assert_eq!(canonical(&[("league", "in.()")]), "league.in.()");
}

#[test]
fn odd_column_names_are_reached_in_quotes() {
    assert_eq!(canonical(&[(r#""or""#, "eq.1"), (r#""select""#, "eq.2")]), "or.eq.1,select.eq.2");
    assert_eq!(canonical(&[("or", r#"("or".eq.1,or.eq.2)"#)]), "or(or.eq.1,or.eq.2)");
    assert_eq!(canonical(&[(r#"a.b "c""#, "eq.1")]), r#""a.b \"c\"".eq.1"#);
    assert_eq!(canonical(&[("and", r#"("a.b \"c\"".not.eq.1)"#)]), r#""a.b \"c\"".neq.1"#);
}

#[test]
fn refusals_have_codes_and_columns() {
    for (key, value, code) in [
        ("nope", "eq.1", "unknown-column"),
        ("or", "(nope.eq.1)", "unknown-column"),
        ("score", "equals.1", "unknown-operator"),
        ("score", "not.not.eq.1", "unknown-operator"),
        ("score", "10", "unknown-operator"),
        ("league", "fts.x", "unknown-operator"),
        ("score", "eq", "malformed-filter"),
        ("score", "in.1", "malformed-filter"),
        ("score", "in.(1", "malformed-filter"),
        ("score", "in.(1)x", "malformed-filter"),
        ("league", r#"in.("a)"#, "malformed-filter"),
        ("league", r#"in.("a"b)"#, "malformed-filter"),
        ("or", "", "malformed-filter"),
        ("or", "()", "malformed-filter"),
        ("or", "(score.eq.1", "malformed-filter"),
        ("or", "(score.eq.1))", "malformed-filter"),
        ("or", "(score.eq.1,)", "malformed-filter"),
        ("or", "(score)", "malformed-filter"),
        ("\"or", "eq.1", "malformed-filter"),
        ("score", "eq.x", "invalid-value"),
        ("score", "is.maybe", "invalid-value"),
        ("league", "like.a\\", "invalid-value"),
        ("league", "eq.\0", "invalid-value"),
        ("league", "like.\0", "invalid-value"),
        ("mood", "in.(a,\0)", "invalid-value"),
    ] {
        assert_eq!(refused(key, value), code, "{key}={value}");
    }
    let error = filter(&[("score", "eq.1.5")]).unwrap_err();
    assert_eq!(error.column(), Some("score"));
    let text =
        "invalid value `1.5` for column `score`; write a whole number from -2147483648 to 2147483647, such as `12`";
    assert_eq!(error.to_string(), text);
}

#[test]
fn what_is_not_exact_is_refused() {
    for (key, value) in [
        ("league", "gt.a"),
        ("league", "not.lte.a"),
        ("league", "ilike.a"),
        ("odd", "eq.a"),
        ("odd", "in.(a)"),
        ("odd", "like.a"),
        ("mood", "lt.a"),
        ("mood", "like.a"),
        ("doc", "eq.1"),
        ("doc", "in.()"),
        ("span", "eq.empty"),
        ("score", "like.1*"),
        ("score", "is.true"),
        ("league", "is.unknown"),
    ] {
        assert_eq!(refused(key, value), "operator-not-exact", "{key}={value}");
    }
    for (key, value) in [
        ("code", "gt.a"),
        ("code", "ilike.a"),
        ("league", "like.a"),
        ("odd", "is.null"),
        ("doc", "not.is.null"),
        ("mood", "eq.a"),
        ("raw", "lt.\\x00"),
    ] {
        assert!(filter(&[(key, value)]).is_ok(), "{key}={value}");
    }
}

#[test]
fn every_cap_holds_at_its_edge() {
    let terms = |n: usize| vec![("score", "eq.1"); n];
    assert!(filter(&terms(MAX_TERMS)).is_ok());
    assert_eq!(filter(&terms(MAX_TERMS + 1)).unwrap_err().code(), "filter-too-complex");

    let list = |n: usize| format!("in.({})", (0..n).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    assert!(filter(&[("id", &list(MAX_LIST))]).is_ok());
    assert_eq!(refused("id", &list(MAX_LIST + 1)), "filter-too-complex");

    let nested = |n: usize| format!("{}score.eq.1{}", "(or".repeat(n - 1) + "(", ")".repeat(n));
    assert!(filter(&[("and", &nested(MAX_DEPTH))]).is_ok());
    assert_eq!(refused("and", &nested(MAX_DEPTH + 1)), "filter-too-complex");
    assert_eq!(refused("and", &"(or".repeat(2_000)), "filter-too-complex");

    let text = |n: usize| format!("eq.{}", "x".repeat(n - "leagueeq.".len()));
    assert!(filter(&[("league", &text(MAX_BYTES))]).is_ok());
    assert_eq!(refused("league", &text(MAX_BYTES + 1)), "filter-too-complex");
    let half = text(MAX_BYTES / 2 + 1);
    assert_eq!(filter(&[("league", &half), ("league", &half)]).unwrap_err().code(), "filter-too-complex");
}

#[test]
fn an_error_shows_little_of_what_was_sent() {
    let error = filter(&[("score", &format!("eq.\u{7}`{}", "y".repeat(500)))]).unwrap_err().to_string();
    assert!(error.contains("\\u{7}\\u{60}yyy") && error.contains("y...`") && error.len() < 250, "{error}");
}
