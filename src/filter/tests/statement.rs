//! The SQL text: where parameters stand, what never gets into it.

use super::*;

fn sql(key: &str, value: &str) -> (String, Vec<String>) {
    let sql = filter(&[(key, value)]).unwrap().to_sql("t", 1);
    (sql.text, sql.params)
}

#[test]
fn values_are_parameters_of_type_text() {
    for (key, value, text, params) in [
        (
            "score",
            "gte.010",
            r#"(t."score" operator(pg_catalog.>=) ($1::pg_catalog.text)::pg_catalog.int4)"#,
            &["10"][..],
        ),
        ("league", "neq.a", r#"(t."league" operator(pg_catalog.<>) ($1::pg_catalog.text))"#, &["a"]),
        (
            "score",
            "in.(3,1)",
            r#"(t."score" operator(pg_catalog.=) any (($1::pg_catalog.text)::pg_catalog.int4[]))"#,
            &[r#"{"1","3"}"#],
        ),
        (
            "league",
            r#"not.in.("\"","a\\b",NULL)"#,
            r#"(t."league" operator(pg_catalog.<>) all (($1::pg_catalog.text)::pg_catalog.text[]))"#,
            &[r#"{"\"","NULL","a\\b"}"#],
        ),
        (
            "code",
            "ilike.A*",
            r#"((t."code" collate pg_catalog."C") operator(pg_catalog.~~*) ($1::pg_catalog.text))"#,
            &["a%"],
        ),
        ("on", "not.is.true", r#"(t."on" is not true)"#, &[]),
        ("score", "is.null", r#"(t."score" is null)"#, &[]),
        ("span", "not.is.null", r#"(t."span" is distinct from null)"#, &[]),
        ("score", "in.()", "false", &[]),
        (
            r#"a.b "c""#,
            "eq.1",
            r#"(t."a.b ""c""" operator(pg_catalog.=) ($1::pg_catalog.text)::pg_catalog.int4)"#,
            &["1"],
        ),
    ] {
        assert_eq!(sql(key, value), (text.to_owned(), params.iter().map(|&p| p.to_owned()).collect()), "{key}={value}");
    }
}

#[test]
fn parameters_are_numbered_from_where_the_caller_is() {
    let sql = filter(&[("score", "eq.1"), ("or", "(id.eq.2,on.is.true)")]).unwrap().to_sql("x", 4);
    let (id, score) = (r#"x."id" operator(pg_catalog.=) ($4"#, r#"x."score" operator(pg_catalog.=) ($5"#);
    assert!(sql.text.contains(id) && sql.text.contains(score), "{}", sql.text);
    assert_eq!(sql.params, ["2", "1"]);
    assert_eq!(Filter::everything().to_sql("t", 1).text, "true");
}

#[test]
fn nothing_the_caller_wrote_gets_into_the_text() {
    for attack in ["1;drop table games", "') or 1=1--", "\\'", "$$", "\u{2019}", "$1", "\"", "%s{}"] {
        let plain = sql("league", "eq.x").0;
        assert_eq!(sql("league", &format!("eq.{attack}")), (plain, vec![attack.to_owned()]));
        let list = format!("in.(b,\"{}\")", attack.replace('\\', "\\\\").replace('"', "\\\""));
        assert_eq!(sql("league", &list).0, sql("league", "in.(a,b,c)").0);
        let code = if attack == "\"" { "malformed" } else { "unknown-column" };
        assert!(refused(attack, "eq.1").starts_with(code));
    }
}
