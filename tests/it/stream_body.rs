//! `POST /v1/stream`: the same streams, asked for in a body.

use crate::bad_input::{ANSWER, served};
use crate::support::writing::http;
use serde_json::{Value, json};

/// The events that came when `enough` says so.
async fn events(url: &str, body: &Value, last: Option<&str>, enough: impl Fn(&str) -> bool) -> String {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.post(url).header("content-type", "application/json").body(body.to_string());
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut answer = request.send().await.unwrap();
    let status = answer.status();
    assert_eq!(status, 200, "{body}: {}", answer.text().await.unwrap());
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !enough(&text) {
        let chunk = tokio::time::timeout(ANSWER, answer.chunk()).await.expect("an event").unwrap().expect("more");
        text.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    text
}

#[tokio::test]
async fn one_or_several_subscriptions_from_a_body() {
    let (world, gateway) = served().await;
    let url = gateway.url("/v1/stream");
    let one = events(&url, &json!({ "table": "t", "where": "id=eq.1" }), None, |t| t.contains("snapshot")).await;
    assert!(one.contains("\"sub\":\"1\"") && one.contains("\"key\":\"1\"") && !one.contains("\"key\":\"2\""), "{one}");
    let id = one.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let both = json!([{ "type": "subscribe", "sub": "a", "table": "t", "where": "id=eq.1" }, { "sub": "b", "table": "t", "select": "id" }]);
    let told = events(&url, &both, None, |t| t.matches("\"snapshot\"").count() == 2).await;
    assert!(told.contains("\"sub\":\"a\"") && told.contains("\"sub\":\"b\""), "{told}");
    world.run("update t set n = 50").await;
    // each from its own position, or all from the header's
    let mixed = json!([{ "sub": "a", "table": "t", "since": id }, { "sub": "b", "table": "t" }]);
    let told = events(&url, &mixed, None, |t| t.contains("\"changes\"") && t.contains("\"snapshot\"")).await;
    let of = |kind: &str| told.lines().find(|l| l.contains(&format!("\"{kind}\",\"sub\""))).unwrap().to_owned();
    assert!(of("changes").contains("\"sub\":\"a\"") && of("snapshot").contains("\"sub\":\"b\""), "{told}");
    let told = events(&url, &mixed, Some(&id), |t| t.matches("\"changes\",\"sub\"").count() == 2).await;
    assert!(!told.contains("\"snapshot\""), "{told}");
    // far more than an address can have
    let many: Vec<String> = (0..700).map(|i| format!("{}", 1_000_000_000 + i)).collect();
    let long = |sub: &str| json!({ "sub": sub, "table": "t", "where": format!("n=in.({},50)", many.join(",")) });
    let told = events(&url, &json!([long("a"), long("b")]), None, |t| t.matches("\"snapshot\"").count() == 2).await;
    assert!(told.contains("\"key\":\"2\""), "{told}");
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said() {
    let (_world, gateway) = served().await;
    let too_many: Vec<Value> = (0..129).map(|i| json!({ "sub": i.to_string(), "table": "t" })).collect();
    for (body, kind, status, code) in [
        ("", "application/json", 400, "malformed-request"),
        ("[]", "application/json", 400, "malformed-request"),
        ("{\"table\":\"t\",\"table\":\"t\"}", "application/json", 400, "malformed-request"),
        ("{\"table\":\"t\",\"filter\":\"\"}", "application/json", 400, "malformed-request"),
        ("[{\"table\":\"t\"},{\"table\":\"t\"}]", "application/json", 400, "malformed-request"),
        (&json!(too_many).to_string(), "application/json", 400, "too-many-subscriptions"),
        ("{\"table\":\"t\",\"where\":\"hidden=eq.1\"}", "application/json", 400, "unknown-column"),
        ("{\"table\":\"t\",\"since\":\"x\"}", "application/json", 400, "invalid-position"),
        ("{\"table\":\"private\"}", "application/json", 404, "not-found"),
        ("{\"table\":\"t\"}", "text/plain", 415, "unsupported-media-type"),
    ] {
        let request = http().post(gateway.url("/v1/stream")).header("content-type", kind).body(body.to_owned());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{body}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], code, "{body}");
    }
    gateway.stop().await;
}
