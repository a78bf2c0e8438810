//! The document against the router, the problem table, and itself.

use super::super::{problem, routes};
use super::openapi;
use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service};
use serde_json::Value;
use std::collections::BTreeSet;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];

fn document() -> Value {
    serde_json::from_str(openapi()).unwrap()
}

/// Every object below, with the path that leads to it.
fn walk<'a>(value: &'a Value, path: &str, visit: &mut impl FnMut(&str, &'a Value)) {
    visit(path, value);
    match value {
        Value::Object(members) => members.iter().for_each(|(name, v)| walk(v, &format!("{path}/{name}"), visit)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| walk(v, &format!("{path}/{i}"), visit)),
        _ => {}
    }
}

#[actix_web::test]
async fn methods_are_those_the_router_answers() {
    let app = init_service(actix_web::App::new().configure(routes::configure)).await;
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(
        paths.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        routes::ROUTES.iter().map(|route| route.path).collect::<BTreeSet<_>>()
    );
    for (path, item) in paths {
        let address = path.replace("{table}", "t").replace("{key}", "1");
        let mut answered = BTreeSet::new();
        let mut allowed = BTreeSet::new();
        for method in METHODS.iter().copied().chain(["BREW"]) {
            let request = TestRequest::default().uri(&address).method(Method::from_bytes(method.as_bytes()).unwrap());
            // without the shared state a handler fails; a method without a handler is refused all the same
            let answer = call_service(&app, request.to_request()).await;
            assert_ne!(answer.status(), 404, "{path}");
            match answer.headers().get("allow").filter(|_| answer.status() == 405) {
                Some(allow) => allowed.insert(allow.to_str().unwrap().to_owned()),
                None => answered.insert(method.to_owned()),
            };
        }
        let documented: BTreeSet<String> = METHODS
            .iter()
            .filter(|method| item.get(method.to_lowercase()).is_some())
            .map(|method| (*method).to_owned())
            .collect();
        assert_eq!(documented, answered, "{path}");
        assert_eq!(allowed.len(), 1, "{path}: one `Allow`: {allowed:?}");
        let allowed: BTreeSet<String> = allowed.iter().flat_map(|a| a.split(", ")).map(str::to_owned).collect();
        assert_eq!(allowed, answered, "{path}");
    }
}

#[test]
fn problem_codes_are_those_of_the_table() {
    let document = document();
    let known: BTreeSet<&str> = problem::codes().collect();
    let listed = |schema: &Value| -> Vec<String> {
        schema["properties"]["code"]["enum"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|code| code.as_str().unwrap().to_owned())
            .collect()
    };
    let schema: BTreeSet<String> = listed(&document["components"]["schemas"]["Problem"]).into_iter().collect();
    assert_eq!(schema.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
    let mut told = BTreeSet::new();
    walk(&document, "", &mut |path, value| {
        if path.ends_with("/content/application/problem+json/schema") {
            let codes: Vec<String> = value["allOf"].as_array().unwrap().iter().flat_map(listed).collect();
            assert!(!codes.is_empty(), "{path} names no code");
            told.extend(codes);
        }
    });
    // told in messages only
    told.extend(["already-subscribed", "too-many-writes"].map(str::to_owned));
    assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), known, "each is an answer to something");
}

#[test]
fn every_reference_is_there_and_every_operation_has_a_name() {
    let document = document();
    assert_eq!(document["openapi"], "3.2.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let (mut used, mut names) = (BTreeSet::new(), Vec::new());
    walk(&document, "", &mut |path, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(target).is_some(), "{path}: nothing at {reference}");
            used.insert(target.to_owned());
        }
        if path.ends_with("/operationId") {
            names.push(value.as_str().unwrap().to_owned());
        }
    });
    let named = names.len();
    names.sort();
    names.dedup();
    assert_eq!(named, names.len(), "twice the same: {names:?}");
    for kind in ["schemas", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(used.contains(&format!("/components/{kind}/{name}")), "nothing uses {kind}/{name}");
        }
    }
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{operation}");
            assert!(operation["responses"].as_object().is_some_and(|r| !r.is_empty()), "{operation}");
        }
    }
}
