//! Who may come: every address and every transport with good tokens, and with bad ones of every kind.

use crate::support::issuer::{Issuer, Mood};
use crate::support::keys::{self, IssuerKey, SECRET, claims, now, shared, shared_as, token, unsigned};
use crate::support::socket::{Ended, Socket};
use crate::support::{TestGateway, World, with_secret};
use jsonwebtoken::Algorithm::{ES256, HS256, RS256};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TABLE: &str = "create table t (id int primary key, token text); insert into t values (1, 'a');
    create table hidden (id int primary key);
    select rowcast.watch('t', public => true), rowcast.watch('hidden');
    select rowcast.allow('t', 'anon', write => true, version_required => false)";

async fn served() -> (World, TestGateway) {
    let world = World::new().await;
    world.run(TABLE).await;
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            s.auth.issuer = Some("me".to_owned());
            s.auth.audience = Some("rowcast".to_owned());
        })
        .await;
    (world, gateway)
}

fn http() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// A request for each address that tells of rows, or takes them.
fn everywhere(gateway: &TestGateway) -> Vec<RequestBuilder> {
    let (http, url) = (http(), |path: &str| gateway.url(path));
    let json = |request: RequestBuilder, body: Value| {
        request.header("content-type", "application/json").body(body.to_string())
    };
    vec![
        http.get(url("/v1/stream?table=t")).header("accept", "text/event-stream"),
        json(http.post(url("/v1/stream")), json!({ "table": "t" })),
        http.get(url("/v1/changes?table=t")),
        http.get(url("/v1/tables/t")),
        http.head(url("/v1/tables/t")),
        http.get(url("/v1/tables/t/1")),
        http.request("QUERY".parse().unwrap(), url("/v1/tables/t"))
            .header("content-type", "application/x-www-form-urlencoded"),
        json(http.post(url("/v1/tables/t")), json!({ "id": rand::random::<u16>() })),
        json(http.patch(url("/v1/tables/t/1")), json!({ "token": "b" })),
        json(http.put(url("/v1/tables/t/1")), json!({ "token": "c" })),
        http.delete(url("/v1/tables/t/2")),
        json(http.post(url("/v1/batch")), json!({ "ops": [{ "op": "delete", "table": "t", "key": "9" }] })),
        http.post(url("/v1/tickets")),
    ]
}

fn good() -> String {
    shared(SECRET.as_bytes(), HS256, &meant_for_us(claims(60)))
}

fn meant_for_us(mut claims: Value) -> Value {
    claims["iss"] = json!("me");
    claims["aud"] = json!(["rowcast"]);
    claims
}

/// Tokens that must not be accepted, with what is wrong.
fn bad() -> Vec<(&'static str, String)> {
    let signed = |claims: Value| shared(SECRET.as_bytes(), HS256, &claims);
    let with = |name: &str, value: Value| {
        let mut claims = meant_for_us(claims(60));
        claims[name] = value;
        signed(claims)
    };
    let header = |header: Value| shared_as(SECRET.as_bytes(), HS256, &header, &meant_for_us(claims(60)));
    let (rsa, ec) = (IssuerKey::new(RS256, "r"), IssuerKey::new(ES256, "e"));
    let good = good();
    let twice = format!("{{\"exp\":{0},\"exp\":{0},\"iss\":\"me\",\"aud\":\"rowcast\"}}", now() + 60);
    vec![
        ("expired", with("exp", json!(now() - 31))),
        ("no exp", signed(json!({ "iss": "me", "aud": "rowcast" }))),
        ("exp as text", with("exp", json!((now() + 60).to_string()))),
        ("exp with a fraction", with("exp", json!(f64::from(u32::try_from(now() + 60).unwrap()) + 0.5))),
        ("exp below zero", with("exp", json!(-1))),
        ("exp beyond all times", with("exp", json!(1_000_000_000_000_000_000_i64))),
        ("exp null", with("exp", Value::Null)),
        ("not yet good", with("nbf", json!(now() + 60))),
        ("nbf as text", with("nbf", json!(now().to_string()))),
        ("another issuer", with("iss", json!("you"))),
        ("another audience", with("aud", json!(["others"]))),
        (
            "no audience",
            signed({
                let mut claims = claims(60);
                claims["iss"] = json!("me");
                claims
            }),
        ),
        ("a role that is none", with("role", json!(["player"]))),
        ("a long role", with("role", json!("x".repeat(64)))),
        ("claims of 100 kB", with("more", json!("x".repeat(100 * 1024)))),
        ("another secret", shared(b"another secret, and a long one as well", HS256, &meant_for_us(claims(60)))),
        ("no algorithm", format!("{}.", unsigned(&json!({ "alg": "none" }), &meant_for_us(claims(60))))),
        ("unknown extensions", header(json!({ "alg": "HS256", "crit": ["b64"], "b64": false }))),
        ("another type", header(json!({ "alg": "HS256", "typ": "id+jwt" }))),
        ("an issuer's key", rsa.sign(&meant_for_us(claims(60)))),
        ("a key of its own", ec.sign_as(&json!({ "alg": "ES256", "jwk": ec.jwk() }), &meant_for_us(claims(60)))),
        ("a path for a name", header(json!({ "alg": "RS256", "kid": "../../../etc/passwd" }))),
        ("claims said twice", {
            use base64::Engine;
            let body = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(twice);
            format!("{}.{body}.{}", good.split('.').next().unwrap(), good.rsplit('.').next().unwrap())
        }),
        ("no signature", good.rsplit_once('.').unwrap().0.to_owned()),
        ("an empty signature", format!("{}.", good.rsplit_once('.').unwrap().0)),
        ("one part too many", format!("{good}.x")),
        ("no token", "x".to_owned()),
    ]
}

/// Everything that an answer says, but for the request's name and the time.
async fn said(answer: Response) -> (u16, String, String, Option<Value>) {
    let header = |name: &str| answer.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let (status, challenge, kind) = (answer.status().as_u16(), header("www-authenticate"), header("content-type"));
    let mut body: Option<Value> = serde_json::from_str(&answer.text().await.unwrap()).ok();
    if let Some(body) = &mut body {
        assert!(body["request_id"].take().is_string());
    }
    (status, challenge, kind, body)
}

#[tokio::test]
async fn every_fault_of_a_token_is_told_in_the_same_words_on_every_address() {
    let (_world, gateway) = served().await;
    let mut seen = BTreeSet::new();
    for (what, token) in bad() {
        let fits = token.len() < 16 * 1024;
        for request in everywhere(&gateway) {
            let answer = request.bearer_auth(&token).send().await.unwrap();
            let url = answer.url().path().to_owned();
            if !fits {
                // the headers are refused before anybody looks at them
                assert_eq!(answer.status(), 431, "{what} {url}");
                continue;
            }
            let (status, challenge, kind, body) = said(answer).await;
            assert_eq!((status, kind.as_str()), (401, "application/problem+json"), "{what} {url}");
            seen.insert((challenge, body.map(|body| body.to_string())));
        }
    }
    // and other ways of saying who one is
    for other in ["Basic YW5uOnNlY3JldA==", "Bearer", "Token x"] {
        for request in everywhere(&gateway) {
            let answer = request.header("authorization", other).send().await.unwrap();
            let (status, challenge, _, body) = said(answer).await;
            assert_eq!(status, 401, "{other}");
            seen.insert((challenge, body.map(|body| body.to_string())));
        }
    }
    let bodies: BTreeSet<_> = seen.iter().filter_map(|(_, body)| body.as_ref()).collect();
    let challenges: BTreeSet<_> = seen.iter().map(|(challenge, _)| challenge.as_str()).collect();
    assert_eq!((bodies.len(), challenges), (1, BTreeSet::from(["Bearer error=\"invalid_token\""])), "{seen:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_good_token_is_taken_everywhere_and_reaches_what_no_token_reaches() {
    let (_world, gateway) = served().await;
    for request in everywhere(&gateway) {
        let answer = request.bearer_auth(good()).send().await.unwrap();
        let (status, url) = (answer.status().as_u16(), answer.url().clone());
        // `delete` of a row that is not there
        assert!(matches!(status, 200..=204 | 404), "{url}: {status}");
    }
    let hidden = |token: bool| {
        let request = http().get(gateway.url("/v1/tables/hidden"));
        if token { request.bearer_auth(good()) } else { request }.send()
    };
    let (with, without) = (said(hidden(true).await.unwrap()).await, said(hidden(false).await.unwrap()).await);
    assert_eq!(with, without);
    assert_eq!(with.0, 404);
    // who shows nothing is somebody, but for a ticket
    for request in everywhere(&gateway) {
        let answer = request.send().await.unwrap();
        // a stream has no end
        let (status, url) = (answer.status().as_u16(), answer.url().path().to_owned());
        if url == "/v1/tickets" {
            assert_eq!((status, answer.headers()["www-authenticate"].as_bytes()), (401, &b"Bearer"[..]));
        } else {
            assert!(matches!(status, 200..=204 | 404), "{url}: {status}");
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn without_keys_no_token_is_taken() {
    let world = World::new().await;
    world.run(TABLE).await;
    let gateway = world.gateway().await;
    for request in everywhere(&gateway) {
        assert_eq!(request.bearer_auth(good()).send().await.unwrap().status(), 401);
    }
    assert_eq!(reqwest::get(gateway.url("/v1/tables/t")).await.unwrap().status(), 200);
    let (mut socket, _) = Socket::connect(gateway.address, &[]).await.unwrap();
    socket.send(json!({ "type": "init", "token": good() })).await;
    assert_eq!(socket.closed().await, 4401);
    gateway.stop().await;
}

#[tokio::test]
async fn two_credentials_and_tokens_in_addresses_are_refused() {
    let (_world, gateway) = served().await;
    let get = |path: &str| http().get(gateway.url(path));
    let own = |request: RequestBuilder| request.header("sec-fetch-site", "same-origin");
    let cookie = || format!("rowcast_token={}", good());
    for (what, request) in [
        ("twice", get("/v1/tables/t").bearer_auth(good()).bearer_auth(good())),
        ("header and cookie", own(get("/v1/tables/t").bearer_auth(good()).header("cookie", cookie()))),
        ("two cookies", own(get("/v1/tables/t").header("cookie", format!("{}; {}", cookie(), cookie())))),
        ("header and ticket", get("/v1/stream?table=t&ticket=x").bearer_auth(good())),
        ("two tickets", get("/v1/changes?table=t&ticket=x&ticket=y")),
    ] {
        let (status, _, _, body) = said(request.send().await.unwrap()).await;
        assert_eq!((status, &body.unwrap()["code"]), (400, &json!("malformed-request")), "{what}");
    }
    let secret = good();
    for path in [
        "/v1/tables/t?token=",
        "/v1/tables/t/1?jwt=",
        "/v1/stream?table=t&access_token=",
        "/v1/changes?table=t&token=",
        "/v1/ws?token=",
        "/v1/ws?access_token=",
    ] {
        let request = get(&format!("{path}{secret}")).header("upgrade", "websocket").header("connection", "upgrade");
        let (status, _, _, body) = said(request.send().await.unwrap()).await;
        let text = body.unwrap().to_string();
        assert!(status == 400 && text.contains("POST /v1/tickets") && !text.contains(&secret[..20]), "{path}: {text}");
    }
    // a column of that name is filtered as any other
    let found: Value = get("/v1/tables/t?token=eq.a").send().await.unwrap().json().await.unwrap();
    assert_eq!(found[0]["id"], 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_cookie_counts_only_for_pages_that_may_connect() {
    let world = World::new().await;
    world.run(TABLE).await;
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            s.allowed_origins = vec!["https://app.example".to_owned()];
        })
        .await;
    let own = format!("http://{}", gateway.address);
    for (name, value, status) in [
        ("origin", "https://app.example", 200),
        ("origin", own.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "https://app.example.evil", 403),
        ("origin", "null", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("x-nothing", "", 403),
    ] {
        let ask = |token: String| {
            let request =
                http().get(gateway.url("/v1/changes?table=t")).header("cookie", format!("rowcast_token={token}"));
            request.header(name, value).send()
        };
        let answer = ask(token(60)).await.unwrap();
        assert_eq!(answer.status(), status, "{name}: {value}");
        if status == 200 {
            // it is looked at, and not passed over
            assert_eq!(ask("x".to_owned()).await.unwrap().status(), 401);
        }
    }
    // a WebSocket of an allowed page
    let cookie = format!("rowcast_token={}", token(60));
    let headers = [("cookie", cookie.as_str()), ("origin", "https://app.example")];
    let (mut socket, _) = Socket::connect(gateway.address, &headers).await.unwrap();
    socket.send(json!({ "type": "init" })).await;
    assert!(socket.until("ready").await["token_expires_in"].as_u64().is_some_and(|s| (50..=60).contains(&s)));
    let (mut socket, _) = Socket::connect(gateway.address, &headers).await.unwrap();
    socket.send(json!({ "type": "init", "token": token(60) })).await;
    assert_eq!(socket.closed().await, 4400, "two credentials");
    let error = Socket::connect(gateway.address, &[("cookie", cookie.as_str())]).await.err().unwrap();
    assert!(error.to_string().contains("403"), "{error}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_socket_is_for_one_subject_and_one_role() {
    let world = World::new().await;
    world.run(TABLE).await;
    let gateway = world.gateway_with(with_secret).await;
    let at = gateway.address;
    for (what, token) in bad().into_iter().filter(|(what, _)| {
        !matches!(*what, "another issuer" | "another audience" | "no audience" | "claims of 100 kB")
    }) {
        let (mut socket, _) = Socket::connect(at, &[]).await.unwrap();
        socket.send(json!({ "type": "init", "token": token })).await;
        let ended = socket.end().await;
        assert_eq!(
            ended,
            Ended::Closed(4401, "bad-token: the token is not accepted: get a new one".to_owned()),
            "{what}"
        );
        assert!(socket.seen.is_empty(), "{what}");
    }
    let sign = |subject: &str, role: &str| {
        shared(SECRET.as_bytes(), HS256, &json!({ "sub": subject, "role": role, "exp": now() + 600 }))
    };
    for (token, code) in [(sign("bob", "player"), 4403), (sign("ann", "admin"), 4403), ("x".to_owned(), 4401)] {
        let mut socket = Socket::ready_as(at, Some(&keys::token(60))).await;
        socket.send(json!({ "type": "auth", "token": token })).await;
        assert_eq!(socket.closed().await, code);
    }
    let mut socket = Socket::ready(at).await;
    socket.send(json!({ "type": "auth", "token": sign("ann", "player") })).await;
    assert_eq!(socket.closed().await, 4403, "from nobody to somebody");
    let mut socket = Socket::ready_as(at, Some(&keys::token(60))).await;
    socket.send(json!({ "type": "auth", "token": sign("ann", "player") })).await;
    let renewed = socket.until("auth").await;
    assert!(renewed["token_expires_in"].as_u64().is_some_and(|s| (590..=600).contains(&s)), "{renewed}");
    // the handshake's header is as good as `init`
    let bearer = format!("Bearer {}", keys::token(60));
    let (mut socket, _) = Socket::connect(at, &[("authorization", bearer.as_str())]).await.unwrap();
    socket.send(json!({ "type": "init" })).await;
    assert!(socket.until("ready").await["token_expires_in"].is_u64());
    gateway.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_is_each_callers_own() {
    let world = World::new().await;
    world.run(TABLE).await;
    let gateway = world.gateway_with(with_secret).await;
    let sign = |subject: Option<&str>| {
        shared(SECRET.as_bytes(), HS256, &json!({ "sub": subject.unwrap_or("x"), "exp": now() + 60 }))
    };
    let insert = |id: i32, token: Option<String>| {
        let request = http().post(gateway.url("/v1/tables/t")).header("idempotency-key", "k");
        let request = request.header("content-type", "application/json").body(json!({ "id": id }).to_string());
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
        .send()
    };
    for (id, token) in [(10, None), (11, Some(sign(Some("ann")))), (12, Some(sign(Some("anon"))))] {
        let first = insert(id, token.clone()).await.unwrap();
        assert_eq!((first.status().as_u16(), first.headers().get("idempotency-replayed")), (201, None), "{id}");
        let again = insert(id, token).await.unwrap();
        assert_eq!((again.status().as_u16(), again.headers()["idempotency-replayed"].as_bytes()), (201, &b"true"[..]));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn no_address_in_a_token_is_ever_asked() {
    let (_world, gateway) = served().await;
    let key = IssuerKey::new(ES256, "e");
    let evil = Issuer::start(Mood::Keys(vec![key.jwk()])).await;
    for name in ["jku", "x5u", "iss"] {
        let token = key.sign_as(&json!({ "alg": "ES256", "kid": "e", name: evil.url() }), &meant_for_us(claims(60)));
        let answer = http().get(gateway.url("/v1/tables/t")).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    assert_eq!(evil.asked(), 0);
    gateway.stop().await;
}
