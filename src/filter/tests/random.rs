//! Any text at all.

use proptest::prelude::*;

use super::*;

/// Pieces of the grammar, so that random text gets past the first character.
fn fragments() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "score",
        "league",
        "code",
        "at",
        "\"or\"",
        ".",
        "eq.",
        "in.(",
        "not.",
        "like.",
        "is.",
        "null",
        "(",
        ")",
        ",",
        "and(",
        "or(",
        "\"",
        "\\",
        "1",
        "a",
        "*",
        "%",
        "_",
        " ",
        "\0",
        "é",
        "2026-11-21T00:00:00Z",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 0..24).prop_map(|words| words.concat())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![fragments(), ".*"]
}

fn term() -> impl Strategy<Value = String> {
    let quoted = "\\PC{0,6}".prop_map(|text| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")));
    let text = ("league|code|pad", "eq|neq|not\\.eq", quoted.clone()).prop_map(|(c, o, v)| format!("{c}.{o}.{v}"));
    let list = ("league|code", "in|not\\.in", prop::collection::vec(quoted, 0..4))
        .prop_map(|(c, o, v)| format!("{c}.{o}.({})", v.join(",")));
    let number = ("score|price|f8", "eq|gt|gte|not\\.lt|lte", -20..20).prop_map(|(c, o, v)| format!("{c}.{o}.{v}"));
    let pattern = ("league|code", "like|not\\.like", "[ab%_*é]{0,6}").prop_map(|(c, o, v)| format!("{c}.{o}.{v}"));
    prop_oneof![text, pattern, list, number, "(score|doc|on)\\.(not\\.)?is\\.null"]
}

fn group() -> impl Strategy<Value = String> {
    let grow = |inner| {
        ("(not\\.)?(and|or)", prop::collection::vec(inner, 1..4))
            .prop_map(|(word, items): (_, Vec<String>)| format!("{word}({})", items.join(",")))
    };
    term().prop_recursive(4, 20, 4, grow)
}

proptest! {
    #[test]
    fn no_text_panics(key in any_text(), value in any_text(), json in any_text()) {
        for key in [key.as_str(), "and", "not.or", "league", "score", "at"] {
            if let Ok(filter) = filter(&[(key, value.as_str())]) {
                let canonical = format!("({})", filter.canonical());
                let again = super::filter(&[("and", canonical.as_str())]);
                prop_assert_eq!(again.as_ref().map(Filter::canonical), Ok(filter.canonical()));
                let _ = filter.to_sql("t", 1);
                if let Ok(image) = Image::parse(json.as_bytes()) {
                    let _ = filter.matches(&image);
                }
            }
        }
    }

    #[test]
    fn no_bytes_panic_an_image(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = Image::parse(&bytes);
    }

    #[test]
    fn the_canonical_text_reads_back_as_itself(text in group()) {
        let wrapped = format!("({text})");
        let filter = filter(&[("and", wrapped.as_str())]).unwrap();
        let canonical = format!("({})", filter.canonical());
        let again = super::filter(&[("and", canonical.as_str())]).unwrap();
        prop_assert_eq!(again.canonical(), filter.canonical());
        prop_assert_eq!(again.to_sql("t", 1), filter.to_sql("t", 1));
        let twice = super::filter(&[("not.and", format!("(not.and({}))", filter.canonical()).as_str())]).unwrap();
        prop_assert_eq!(twice, filter);
    }

    #[test]
    fn what_order_terms_stand_in_does_not_matter(mut terms in prop::collection::vec(group(), 1..5)) {
        let read = |terms: &[String]| {
            let pairs: Vec<String> = terms.iter().map(|term| format!("({term})")).collect();
            Filter::parse(pairs.iter().map(|value| ("and", value.as_str())), &table()).unwrap()
        };
        let forth = read(&terms);
        terms.reverse();
        terms.push(terms[0].clone());
        prop_assert_eq!(read(&terms), forth);
    }
}
