//! `like` patterns: against a plain recursive matcher, and against bombs.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::refused;
use crate::filter::like::{MAX_MIXED_PIECE, Pattern, PatternError};

/// The definition, in as few words as possible and exponential time.
fn defined(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['%', rest @ ..], text) => (0..=text.len()).any(|n| defined(rest, &text[n..])),
        (['_', rest @ ..], [_, text @ ..]) => defined(rest, text),
        ([c, rest @ ..], [t, text @ ..]) if c == t => defined(rest, text),
        _ => false,
    }
}

proptest! {
    #[test]
    fn matches_the_definition(pattern in "[ab%_é]{0,9}", text in "[abé]{0,9}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let compiled = Pattern::parse(&pattern, false).unwrap();
        let expected = defined(&chars(&pattern), &chars(&text));
        prop_assert_eq!(compiled.matches(&text), expected);
        let again = Pattern::parse(compiled.canonical(), false).unwrap();
        prop_assert_eq!(again.canonical(), compiled.canonical());
        prop_assert_eq!(again.matches(&text), expected);
        let folded = Pattern::parse(&pattern.to_ascii_uppercase(), true).unwrap();
        prop_assert_eq!(folded.matches(&text.to_ascii_uppercase()), expected);
    }
}

#[test]
fn patterns_have_one_spelling() {
    for (written, canonical) in
        [("*", "%"), ("%_%__*", "___%"), (r"\a\%\_\*\\", r"a\%\_\*\\"), (r"\**", r"\*%"), ("", ""), ("a%%b", "a%b")]
    {
        assert_eq!(Pattern::parse(written, false).unwrap().canonical(), canonical, "{written}");
    }
    assert_eq!(Pattern::parse("ÀA", true).unwrap().canonical(), "Àa");
}

#[test]
fn case_is_folded_in_ascii_only() {
    let folded = Pattern::parse("é%K", true).unwrap();
    assert!(folded.matches("ék") && folded.matches("éxK"));
    assert!(!folded.matches("Ék") && !folded.matches("é\u{212a}"));
}

#[test]
fn an_escape_needs_something_to_escape() {
    assert_eq!(Pattern::parse(r"a\", false).unwrap_err(), PatternError::TrailingEscape);
    assert!(Pattern::parse(r"a\\", false).is_ok());
}

#[test]
fn a_long_mixed_piece_is_refused_only_where_it_floats() {
    let piece = |n: usize| "a_".repeat(n / 2 - 1) + "ab";
    assert!(Pattern::parse(&format!("%{}%", piece(MAX_MIXED_PIECE)), false).is_ok());
    let long = piece(MAX_MIXED_PIECE + 2);
    assert_eq!(refused("league", &format!("like.%{long}%")), "filter-too-complex");
    for fine in [
        format!("{long}%"),
        format!("%{long}"),
        long.clone(),
        format!("%{}%", "ab".repeat(200)),
        format!("%{}%", "_".repeat(200)),
    ] {
        assert!(Pattern::parse(&fine, false).is_ok(), "{fine}");
    }
}

#[test]
fn bombs_take_time_in_proportion_to_the_text() {
    let text = "a".repeat(1 << 20);
    let start = Instant::now();
    for pattern in [
        "%a".repeat(4_000) + "%b",
        "%".to_owned() + &"a".repeat(4_000) + "b%",
        "%".to_owned() + &"a_".repeat(30) + "ab%",
        "%a_b".repeat(2_000),
    ] {
        assert!(!Pattern::parse(&pattern, false).unwrap().matches(&text));
    }
    // Milliseconds even unoptimised; a quadratic matcher needs minutes, so the bound can be wide.
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}
