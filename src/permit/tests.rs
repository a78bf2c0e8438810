//! Rules and hostile claims.

use super::*;
use crate::change::{Collation, Column};
use crate::filter::Image;
use std::time::Duration;

fn column(name: &str, type_oid: u32, collation: Collation) -> Column {
    Column { name: name.to_owned(), type_oid, type_sql: "pg_catalog.x".to_owned(), is_enum: false, collation }
}

fn rule(role: &str, filter: Option<&str>) -> Rule {
    Rule {
        role: role.to_owned(),
        filter: filter.map(str::to_owned),
        columns: None,
        write: false,
        version_required: true,
    }
}

fn table(rules: Vec<Rule>) -> Table {
    let none = Collation::None;
    Table {
        relid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![
            column("id", 20, none),
            column("owner", 25, Collation::Deterministic),
            column("n", 23, none),
            column("price", 1700, none),
            column("ok", 16, none),
            column("uid", 2950, none),
            column("row_version", 20, none),
        ],
        key: vec!["id".to_owned()],
        key_sql: String::new(),
        row_sql: String::new(),
        public: false,
        ttl: Duration::ZERO,
        stale: Duration::ZERO,
        snapshot_every: Duration::ZERO,
        broken: None,
        fingerprint: String::new(),
        rules,
    }
}

/// The filter that claims make of a rule's; none: nothing is given.
fn filled(filter: &str, claims: &str) -> Option<String> {
    let table = table(vec![rule("m", Some(filter))]);
    Permit::of(&table, "m", claims).ok().map(|permit| permit.filter.canonical().to_owned())
}

#[test]
fn a_role_has_its_own_rule_or_what_everybody_has() {
    let table = table(vec![rule("anon", Some("ok=is.true")), rule("m", Some("owner=eq.{sub}"))]);
    let of = |role, claims| Permit::of(&table, role, claims).map(|p| p.filter.canonical().to_owned()).ok();
    assert_eq!(of("anon", "{}").as_deref(), Some("ok.is.true"));
    assert_eq!(of("other", r#"{"sub":"a"}"#).as_deref(), Some("ok.is.true"));
    assert_eq!(of("m", r#"{"sub":"a"}"#).as_deref(), Some("owner.eq.a"));
    assert_eq!(of("m", "{}"), None, "and not what everybody has");
    let closed = self::table(vec![rule("m", None)]);
    assert!(Permit::of(&closed, "m", "{}").unwrap().filter.is_everything());
    assert!(matches!(Permit::of(&closed, "anon", "{}"), Err(Denied::NoRule)));
}

/// `allow` refuses such a rule; it gives nothing however it came to be there.
#[test]
fn what_everybody_has_follows_from_no_claims() {
    for filter in ["owner=eq.{sub}", "owner=in.{teams}", "or=(ok.is.true,owner.eq.{sub})"] {
        let table = table(vec![rule("anon", Some(filter))]);
        for role in ["anon", "other"] {
            let permit = Permit::of(&table, role, r#"{"sub":"a","teams":["a"]}"#);
            assert!(matches!(permit, Err(Denied::Filter(FilterError::Claim { .. }))), "{filter} {role}");
        }
    }
}

#[test]
fn a_claim_is_a_value_whatever_is_in_it() {
    for text in [
        "a",
        "a,b",
        "a)",
        "\"",
        "\\",
        "\"),or(id.gt.0",
        "x&id=gt.0",
        "{sub}",
        "{other}",
        "eq.1",
        "not.is.null",
        "'; drop table t; --",
        "$1",
        "%",
        "*",
        "日\u{202e}é",
        " ",
        "",
        "null",
        "a\nb",
    ] {
        let claims = serde_json::json!({ "sub": text, "other": "z" }).to_string();
        let expected = Filter::parse([("owner", format!("eq.{text}").as_str())], &table(Vec::new())).unwrap();
        assert_eq!(filled("owner=eq.{sub}", &claims).as_deref(), Some(expected.canonical()), "{text}");
        let image = serde_json::json!({ "id": 1, "owner": text, "n": 1, "ok": false }).to_string();
        let other = serde_json::json!({ "id": 1, "owner": format!("{text}x"), "n": 1, "ok": false }).to_string();
        for filter in
            ["owner=eq.{sub}", "or=(owner.eq.{sub},ok.is.true)", "owner=in.(b!,{sub})", "and=(owner.in.({sub}))"]
        {
            let table = table(vec![rule("m", Some(filter))]);
            let filter = Permit::of(&table, "m", &claims).unwrap().filter;
            let matches = |image: &str| filter.try_matches(&Image::parse(image.as_bytes()).unwrap()).unwrap();
            assert!(matches(&image) && !matches(&other), "{text}: {filter:?}");
            let tame = Permit::of(&table, "m", r#"{"sub":"tame"}"#).unwrap().filter;
            assert_eq!(filter.to_sql("t", 1).text, tame.to_sql("t", 1).text, "{text}");
        }
        let list = serde_json::json!({ "teams": [text, "z"] }).to_string();
        let table = table(vec![rule("m", Some("owner=in.{teams}"))]);
        let filter = Permit::of(&table, "m", &list).unwrap().filter;
        assert!(filter.try_matches(&Image::parse(image.as_bytes()).unwrap()).unwrap(), "{text}");
        assert!(!filter.try_matches(&Image::parse(other.as_bytes()).unwrap()).unwrap(), "{text}");
    }
}

#[test]
fn what_is_no_value_of_the_column_gives_nothing() {
    for (filter, claims) in [
        ("owner=eq.{sub}", "{}"),
        ("owner=eq.{sub}", r#"{"sub":null}"#),
        ("owner=eq.{sub}", r#"{"sub":["a"]}"#),
        ("owner=eq.{sub}", r#"{"sub":{"a":1}}"#),
        ("owner=eq.{sub}", r#"{"sub":true}"#),
        ("owner=eq.{sub}", r#"{"sub":"\u0000"}"#),
        ("owner=eq.{sub}", r#"{"sub":"a\u0000b"}"#),
        ("owner=eq.{sub}", r#"{"sub":"\ud800"}"#),
        ("owner=eq.{sub}", r#"{"sub":"a","sub":"a"}"#),
        ("owner=eq.{sub}", r#"{"SUB":"a"}"#),
        ("owner=eq.{sub}", "[]"),
        ("owner=eq.{sub}", "null"),
        ("owner=eq.{sub}", ""),
        ("owner=neq.{sub}", "{}"),
        ("or=(owner.eq.{sub},ok.is.true)", "{}"),
        ("n=eq.{n}", r#"{"n":1.0}"#),
        ("n=eq.{n}", r#"{"n":1e0}"#),
        ("n=eq.{n}", r#"{"n":2147483648}"#),
        ("n=eq.{n}", r#"{"n":"1 or 1=1"}"#),
        ("n=gte.{n}", r#"{"n":""}"#),
        ("n=eq.{n}", r#"{"n":false}"#),
        ("ok=eq.{b}", r#"{"b":1}"#),
        ("uid=eq.{u}", r#"{"u":"3f2b8c1e"}"#),
        ("owner=in.{teams}", r#"{"teams":"a"}"#),
        ("owner=in.{teams}", r#"{"teams":["a",null]}"#),
        ("owner=in.{teams}", r#"{"teams":["a",["b"]]}"#),
        ("owner=in.{teams}", r#"{"teams":{"0":"a"}}"#),
        ("owner=in.(a,{teams})", r#"{"teams":["b"]}"#),
        ("n=in.{ns}", r#"{"ns":[1,"x"]}"#),
        ("owner=eq.{a.b}", r#"{"a.b":"x"}"#),
        ("owner=eq.{a.b}", r#"{"a":[{"b":"x"}]}"#),
        ("owner=eq.{a.b}", r#"{"a":"{\"b\":\"x\"}"}"#),
        ("owner=like.{sub}", r#"{"sub":"%"}"#),
        ("ok=is.{b}", r#"{"b":true}"#),
        ("nope=eq.1", "{}"),
        ("owner=eq.{sub", r#"{"sub":"a"}"#),
        ("owner=eq.{}", r#"{"":"a"}"#),
        ("", "{}"),
    ] {
        assert_eq!(filled(filter, claims), None, "{filter} {claims}");
    }
    let many = format!(r#"{{"teams":[{}]}}"#, vec!["\"a\""; 1001].join(","));
    assert_eq!(filled("owner=in.{teams}", &many), None);
}

#[test]
fn an_empty_list_keeps_nobody_away() {
    for filter in [
        "owner=not.in.{t}",
        "not.and=(owner.in.{t},n.eq.1)",
        "or=(n.eq.1,owner.not.in.{t})",
        "not.or=(and(owner.in.{t},n.eq.1),id.eq.2)",
    ] {
        assert_eq!(filled(filter, r#"{"t":[]}"#), None, "{filter}");
        assert!(filled(filter, r#"{"t":["a","b"]}"#).is_some(), "{filter}");
    }
    for filter in ["not.and=(owner.not.in.{t})", "not.or=(not.and(owner.in.{t},ok.is.true),n.eq.1)"] {
        assert!(filled(filter, r#"{"t":[]}"#).is_some(), "not behind not: {filter}");
    }
    // what the rule itself says is what it says
    assert!(filled("owner=not.in.()&n=eq.{n}", r#"{"n":1}"#).is_some());
}

#[test]
fn what_fits_is_taken_to_the_digit() {
    for (filter, claims, canonical) in [
        ("id=eq.{n}", r#"{"n":9007199254740993}"#, "id.eq.9007199254740993"),
        (
            "price=gt.{n}",
            r#"{"n":0.1000000000000000055511151231257827}"#,
            "price.gt.0.1000000000000000055511151231257827",
        ),
        ("owner=eq.{n}", r#"{"n":1.50}"#, "owner.eq.1.50"),
        ("owner=eq.{n}", r#"{"n":9007199254740993}"#, "owner.eq.9007199254740993"),
        ("id=eq.{n}", r#"{"n":"12"}"#, "id.eq.12"),
        ("ok=eq.{b}", r#"{"b":true}"#, "ok.eq.true"),
        ("owner=in.{t}", r#"{"t":["b","a","b"]}"#, "owner.in.(a,b)"),
        ("owner=in.{t}", r#"{"t":[]}"#, "owner.in.()"),
        ("owner=eq.{a.b.c}", r#"{"a":{"b":{"c":"x"}}}"#, "owner.eq.x"),
        ("owner=eq.{sub}&n=lt.5", "{\"other\":\"\\\"\",\"sub\" :\"x\"}", "n.lt.5,owner.eq.x"),
        (r#"and=(owner.eq."R&D",n.eq.{n})"#, r#"{"n":1}"#, r#"n.eq.1,owner.eq."R&D""#),
        (r#"and=(owner.eq."{sub}")"#, r#"{"sub":"a"}"#, r#"owner.eq."{sub}""#),
    ] {
        assert_eq!(filled(filter, claims).as_deref(), Some(canonical), "{filter} {claims}");
    }
    let image = |owner: &str| format!(r#"{{"id":1,"owner":{owner}}}"#);
    let nobody = Permit::of(&table(vec![rule("m", Some("owner=in.{t}"))]), "m", r#"{"t":[]}"#).unwrap().filter;
    for owner in ["\"\"", "null", "\"a\""] {
        assert!(!nobody.matches(&Image::parse(image(owner).as_bytes()).unwrap()), "an empty list is nobody");
    }
}

#[test]
fn only_what_changes_what_is_seen_ends_a_grant() {
    let granted = |rules: Vec<Rule>, role: &str| Permit::of(&table(rules), role, r#"{"sub":"a"}"#).unwrap().grant;
    let mine = || rule("m", Some("owner=eq.{sub}"));
    let grant = granted(vec![mine()], "m");
    let holds = |rules: Vec<Rule>| grant.holds(&table(rules));
    assert!(holds(vec![mine(), rule("anon", None), rule("other", Some("n=eq.1"))]));
    assert!(holds(vec![Rule { write: true, version_required: false, ..mine() }]));
    assert!(!holds(vec![]) && !holds(vec![rule("anon", None)]) && !holds(vec![rule("m", None)]));
    assert!(!holds(vec![rule("other", Some("owner=eq.{sub}"))]), "somebody else's");
    assert!(!holds(vec![Rule { columns: Some(Vec::new()), ..mine() }]));
    // who had what everybody has, and gets a rule
    let common = granted(vec![rule("anon", None)], "m");
    assert!(common.holds(&table(vec![rule("anon", None), mine_of("x")])));
    assert!(!common.holds(&table(vec![rule("anon", None), mine()])));
    assert!(Grant::operator().holds(&table(Vec::new())));
}

fn mine_of(role: &str) -> Rule {
    rule(role, Some("owner=eq.{sub}"))
}

#[test]
fn columns_always_have_the_key_and_the_version() {
    let narrow = Rule { columns: Some(vec!["n".to_owned(), "gone".to_owned()]), ..rule("m", Some("owner=eq.{sub}")) };
    let table = table(vec![narrow, rule("anon", None)]);
    let permit = Permit::of(&table, "m", r#"{"sub":"a"}"#).unwrap();
    let names: Vec<_> = permit.seen(&table).columns().map(|(at, c)| (at, c.name.as_str())).collect();
    assert_eq!(names, [(0, "id"), (2, "n"), (6, "row_version")]);
    assert!(permit.seen(&table).column("owner").is_none(), "by which it is filtered all the same");
    let open = Permit::of(&table, "anon", "{}").unwrap();
    assert!(permit.columns_tag().is_some() && open.columns_tag().is_none());
    assert!(permit.mark(&table) != open.mark(&table));
    let other = Permit::of(&table, "m", r#"{"sub":"b"}"#).unwrap();
    assert!(other.mark(&table) != permit.mark(&table) && other.columns_tag() == permit.columns_tag());
    assert!(!permit.is_for_anybody(&table) && open.is_for_anybody(&table));
}

proptest::proptest! {
    #[test]
    fn any_claims_are_answered(claims in ".*", text in ".*") {
        let _ = filled("owner=eq.{sub}", &claims);
        let _ = filled("owner=in.{teams.of}", &claims);
        let quoted = serde_json::json!({ "sub": text }).to_string();
        let expected = (!text.contains('\0')).then(|| Filter::parse([("owner", format!("eq.{text}").as_str())], &table(Vec::new())).unwrap());
        proptest::prop_assert_eq!(filled("owner=eq.{sub}", &quoted), expected.map(|f| f.canonical().to_owned()));
        let _ = filled(&text, &quoted);
    }
}
