//! Bad and hostile input: problem+json with the remedy, never a 500, never a hang.

use crate::support::mirror::encoded;
use crate::support::{Sse, TestGateway, World, eventually};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest that any answer may take here; the longest wait of the gateway itself is 10 s.
pub const ANSWER: Duration = Duration::from_secs(25);

pub async fn served() -> (World, TestGateway) {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, name text collate \"C\", n int, hidden text, f float8, j jsonb);
             create table private (id int primary key); create table unwatched (id int primary key);
             insert into t values (1, 'a', 1, 'canary', 1, '{}'), (2, 'b', 2, 'canary', 2, '{}'); insert into private values (1);
             select rowcast.watch('t', exclude => array['hidden'], public => true), rowcast.watch('private')",
        )
        .await;
    let gateway = world.gateway().await;
    (world, gateway)
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn problem(&self) -> Value {
        assert!(
            self.headers.contains(&("content-type".into(), "application/problem+json".into())),
            "{:?}: {}",
            self.headers,
            self.body
        );
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        for member in ["type", "title", "status", "detail", "code", "request_id"] {
            assert!(!problem[member].is_null(), "{member}: {problem}");
        }
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], format!("/problems/{}", problem["code"].as_str().unwrap()));
        for secret in ["canary", "rowcast.log", "pg_catalog", "postgres://", "src/"] {
            assert!(!self.body.contains(secret), "{problem}");
        }
        problem
    }
}

pub async fn get(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    let client = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().unwrap();
    let mut request = client.get(format!("http://{at}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap_or_else(|e| panic!("{path}: {e}"));
    let status = answer.status().as_u16();
    let headers: Vec<_> = answer
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str().to_owned(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    // a stream that began is an answer, too
    let stream = headers.contains(&("content-type".into(), "text/event-stream".into()));
    let body = if stream { String::new() } else { answer.text().await.unwrap_or_else(|e| panic!("{path}: {e}")) };
    Answer { status, headers, body }
}

/// Query, status, code, part of the detail: the remedy.
const BAD: &[(&str, u16, &str, &str)] = &[
    ("", 400, "malformed-request", "`?table=<table>`"),
    ("table=", 400, "malformed-request", "`?table=<table>`"),
    ("table=nope", 404, "not-found", "it must be watched"),
    ("table=unwatched", 404, "not-found", "it must be watched"),
    ("table=pg_catalog.pg_authid", 404, "not-found", ""),
    ("table=rowcast.log_0", 404, "not-found", ""),
    ("table=T", 404, "not-found", "spelt as in the database"),
    ("table=t\"%3B--", 404, "not-found", ""),
    ("table=public.t a, private", 404, "not-found", ""),
    ("table=t%00", 404, "not-found", ""),
    ("table=../../etc/passwd", 404, "not-found", ""),
    ("table=t&nope=eq.1", 400, "unknown-column", "unknown column `nope`"),
    ("table=t&hidden=eq.canar", 400, "unknown-column", "unknown column `hidden`"),
    ("table=t&ctid=eq.1", 400, "unknown-column", "unknown column"),
    ("table=t&id;drop table t=eq.1", 400, "unknown-column", "unknown column"),
    ("table=t&select=nope", 400, "unknown-column", "unknown column `nope` in `select`"),
    ("table=t&select=count(*)", 400, "unknown-column", "in `select`"),
    ("table=t&select=id::text", 400, "unknown-column", "in `select`"),
    ("table=t&select=j->>a", 400, "unknown-column", "in `select`"),
    ("table=t&select=id,(select 1)", 400, "unknown-column", "in `select`"),
    ("table=t&id=equals.1", 400, "unknown-operator", "use `eq`, `neq`"),
    ("table=t&name=match.x", 400, "unknown-operator", "use `eq`"),
    ("table=t&name=fts.x", 400, "unknown-operator", "use `eq`"),
    ("table=t&id=1", 400, "unknown-operator", "use `eq`"),
    ("table=t&id=eq", 400, "malformed-filter", "expected `.` and a value"),
    ("table=t&id=eq.x", 400, "invalid-value", "`x`"),
    ("table=t&id=eq.1;drop table t", 400, "invalid-value", ""),
    ("table=t&id=eq.99999999999999999999", 400, "invalid-value", ""),
    ("table=t&id=in.(1,2", 400, "malformed-filter", "expected `,` or `)`"),
    ("table=t&id=in.1", 400, "malformed-filter", "write a list as `in.(a,b)`"),
    ("table=t&or=(id.eq.1", 400, "malformed-filter", ""),
    ("table=t&or=id.eq.1", 400, "malformed-filter", "`or=(a.eq.1,b.eq.2)`"),
    ("table=t&or=(id.eq.1))", 400, "malformed-filter", ""),
    ("table=t&id=is.maybe", 400, "invalid-value", "write `null`"),
    ("table=t&name=eq.a%00b", 400, "invalid-value", ""),
    ("table=t&j=eq.{}", 400, "operator-not-exact", "column `j`"),
    ("table=t&order=id.desc", 400, "malformed-request", "no meaning in a stream"),
    ("table=t&limit=-1", 400, "malformed-request", "no meaning in a stream"),
    ("table=t&offset=1e9", 400, "malformed-request", "no meaning in a stream"),
    ("table=t&numbers=roman", 400, "malformed-request", "`string` or `number`"),
    ("table=t&since=", 400, "invalid-position", ""),
    ("table=t&since=x", 400, "invalid-position", ""),
    ("table=t&since=1", 400, "invalid-position", ""),
    ("table=t&since=1-", 400, "invalid-position", ""),
    ("table=t&since=1-zz", 400, "invalid-position", ""),
    ("table=t&since=-1-000000", 400, "invalid-position", ""),
    ("table=t&since=99999999999999999999-000000", 400, "invalid-position", ""),
    ("table=t&since=1-000000%0d%0aevil: 1", 400, "invalid-position", ""),
    ("table=t&since=%00", 400, "invalid-position", ""),
    ("table=t&since=%ff%fe", 400, "invalid-position", ""),
    ("sub=a", 400, "malformed-request", "`<id>~<table>?<filters, encoded>`"),
    ("sub=a~t&sub=a~t", 400, "malformed-request", "two subscriptions are called `a`"),
    ("sub=a~t&id=eq.1", 400, "malformed-request", "beside `sub`"),
    ("sub=a~t&sub=b~nope", 404, "not-found", "it must be watched"),
    ("sub=a%0ab~t", 400, "malformed-request", "printable"),
];

#[tokio::test]
async fn bad_requests_are_told_the_remedy() {
    let (world, gateway) = served().await;
    for (query, status, code, says) in BAD {
        // everything but what separates pairs
        let query =
            query.replace(' ', "%20").replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace('>', "%3E");
        for path in ["/v1/stream", "/v1/changes"] {
            let answer = get(gateway.address, &format!("{path}?{query}"), &[]).await;
            assert_eq!(answer.status, *status, "{path}?{query}: {}", answer.body);
            let problem = answer.problem();
            assert_eq!(problem["code"], *code, "{query}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(says) && detail.len() > 10, "{query}: {problem}");
            assert!(!detail.chars().any(char::is_control), "{problem}");
        }
    }
    for (path, says) in
        [("/v1/changes?table=t&wait=soon", "number of seconds"), ("/v1/stream?table=t&wait=5", "`GET /v1/changes`")]
    {
        let problem = get(gateway.address, path, &[]).await.problem();
        assert!(
            problem["code"] == "malformed-request" && problem["detail"].as_str().unwrap().contains(says),
            "{problem}"
        );
    }
    let rows = world.sql().await.query_one("select count(*) from t", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 2);
    gateway.stop().await;
}

#[tokio::test]
async fn filters_beyond_the_caps_are_refused_and_those_below_are_served() {
    let (_world, gateway) = served().await;
    let terms = |n: usize| format!("or=({})", vec!["id.eq.1"; n].join(","));
    let nested = |n: usize| (0..n).fold("id.eq.1".to_owned(), |inner, _| format!("or({inner})"));
    let list = |n: usize| format!("id=in.({})", vec!["1"; n].join(","));
    let subs = |n: usize| (0..n).map(|i| format!("sub={i}~t")).collect::<Vec<_>>().join("&");
    for (query, code) in [
        (format!("table=t&{}", terms(64)), None),
        (format!("table=t&{}", terms(65)), Some("filter-too-complex")),
        (format!("table=t&{}", list(1000)), None),
        (format!("table=t&{}", list(1001)), Some("filter-too-complex")),
        (format!("table=t&or=({})", nested(7)), None),
        (format!("table=t&or=({})", nested(8)), Some("filter-too-complex")),
        (format!("table=t&or=({})", nested(1000)), Some("filter-too-complex")),
        (format!("table=t&or={}", "(".repeat(5000)), Some("malformed-filter")),
        (format!("table=t&name=like.{}", "%25a".repeat(2000)), None),
        (format!("table=t&name=like.{}", "%25a_".repeat(1500)), None),
        (subs(128), None),
        (subs(129), Some("too-many-subscriptions")),
    ] {
        let answer = get(gateway.address, &format!("/v1/changes?{query}"), &[]).await;
        match code {
            None => assert_eq!(answer.status, 200, "{}: {}", &query[..60.min(query.len())], answer.body),
            Some(code) => {
                assert_eq!(answer.status, 400, "{}: {}", &query[..60.min(query.len())], answer.body);
                assert_eq!(answer.problem()["code"], code);
            }
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn values_are_values_whatever_they_look_like() {
    let (world, gateway) = served().await;
    let hostile = [
        "') or 1=1--",
        "'; drop table t; --",
        "\\'",
        "$$x$$",
        "$1",
        "\u{2019} or \u{2018}a\u{2019}=\u{2018}a",
        "%27",
        "a\" or \"a",
        "E'\\x41'",
        "\u{202e}x",
        "null",
        "(a)",
        "*",
    ];
    for value in hostile {
        world.sql().await.execute("insert into t (id, name) values (3, $1)", &[&value]).await.unwrap();
        let listed = format!("in.(\"{}\")", value.replace('\\', "\\\\").replace('"', "\\\""));
        for filter in [format!("eq.{value}"), listed] {
            let answer = get(gateway.address, &format!("/v1/changes?table=t&name={}", encoded(&filter)), &[]).await;
            assert_eq!(answer.status, 200, "{value}: {}", answer.body);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            let rows = body["messages"][0]["rows"].as_array().unwrap();
            assert!(rows.len() == 1 && rows[0]["row"]["name"] == value, "{filter}: {body}");
        }
        world.run("delete from t where id = 3").await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_private_reads_the_same_as_what_is_absent() {
    let (_world, gateway) = served().await;
    for path in ["/v1/stream", "/v1/changes"] {
        for query in [
            "table=X",
            "table=X&id=eq.1",
            "table=X&nope=eq.1",
            "table=X&select=nope",
            "sub=a~t&sub=b~X",
            "table=X&since=now",
            "table=public.X",
        ] {
            let mut answers = Vec::new();
            for name in ["private", "absentt", "unwatch"] {
                let mut answer = get(gateway.address, &format!("{path}?{}", query.replace('X', name)), &[]).await;
                assert_eq!(answer.status, 404, "{query} {name}");
                let id = answer.problem()["request_id"].as_str().unwrap().to_owned();
                answer.body = answer.body.replace(&id, "ID");
                answer.headers.retain(|(name, _)| name != "date" && name != "x-request-id");
                answers.push((answer.headers, answer.body));
            }
            assert!(answers.windows(2).all(|w| w[0] == w[1]), "{answers:#?}");
        }
    }
    // a column that is not published and one that is not there
    for query in ["table=t&X=eq.1", "table=t&select=X", "table=t&or=(X.eq.1,id.eq.1)"] {
        let [hidden, absent] = ["hidden", "absent"].map(|name| (name, query.replace('X', name)));
        let (one, two) = (
            get(gateway.address, &format!("/v1/changes?{}", hidden.1), &[]).await,
            get(gateway.address, &format!("/v1/changes?{}", absent.1), &[]).await,
        );
        let (one, two) = (one.problem(), two.problem());
        assert_eq!((one["code"].as_str(), one["status"].as_u64()), (Some("unknown-column"), Some(400)));
        assert_eq!(
            one["detail"].as_str().unwrap().replace(hidden.0, "X"),
            two["detail"].as_str().unwrap().replace(absent.0, "X")
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn positions_that_are_well_formed_but_unknown() {
    let (world, gateway) = served().await;
    let answer = get(gateway.address, "/v1/changes?table=t", &[]).await;
    let here: Value = serde_json::from_str(&answer.body).unwrap();
    let here = here["position"].as_str().unwrap().to_owned();
    let (tick, nonce) = here.split_once('-').unwrap();
    let flipped = format!("{tick}-{:06x}", u32::from_str_radix(nonce, 16).unwrap() ^ 1);
    let future = format!("{}-{nonce}", tick.parse::<i64>().unwrap() + 1000);
    for position in [flipped.as_str(), future.as_str(), "0-000000", "9223372036854775807-000000"] {
        let answer = get(gateway.address, &format!("/v1/changes?table=t&since={position}"), &[]).await;
        assert_eq!(
            (answer.status, answer.problem()["code"].as_str().unwrap()),
            (410, "position-expired"),
            "{position}: {}",
            answer.body
        );
        // an EventSource would give up for good on any status but 200: it is told in-band
        let mut sse = Sse::open(gateway.address, &format!("table=t&since={position}")).await;
        let client: &mut dyn crate::support::Client = &mut sse;
        client.until("reset and snapshot", |r| r.rows("1").len() == 2).await;
        assert_eq!(client.replica().resets, ["position-expired"], "{position}");
    }
    // Last-Event-ID wins over since: a reconnecting EventSource repeats the address it began with
    world.run("update t set n = 7 where id = 1").await;
    eventually("the change is there", || async {
        get(gateway.address, &format!("/v1/changes?table=t&since={here}"), &[]).await.status == 200
    })
    .await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (since, last, expected) in [
        ("now", here.as_str(), "\"changes\""),
        (here.as_str(), flipped.as_str(), "position-expired"),
        ("nonsense-000000", "nonsense", ""),
    ] {
        let answer = http
            .get(gateway.url(&format!("/v1/stream?table=t&since={since}")))
            .header("last-event-id", last)
            .send()
            .await
            .unwrap();
        if expected.is_empty() {
            assert_eq!(answer.status(), 400);
            continue;
        }
        assert_eq!(answer.status(), 200);
        let mut answer = answer;
        let mut text = String::new();
        while !text.contains("\ndata:") {
            let chunk = tokio::time::timeout(ANSWER, answer.chunk()).await.expect("an event").unwrap().expect("more");
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        assert!(text.contains(expected), "since={since}, Last-Event-ID: {last}: {text}");
    }
    for bad in ["x", "1", "1-zz", "4711-9f3a2c x"] {
        let answer = get(gateway.address, "/v1/stream?table=t&since=now", &[("last-event-id", bad)]).await;
        assert_eq!((answer.status, answer.problem()["code"].as_str().unwrap()), (400, "invalid-position"), "{bad}");
    }
    gateway.stop().await;
}
