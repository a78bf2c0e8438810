//! `rowcast token`, the settings of tokens, and that no secret is ever shown.

use crate::support::keys::{IssuerKey, SECRET, now, token};
use crate::support::{World, with_secret};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm::ES256;
use serde_json::Value;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

fn rowcast(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowcast"));
    command
        .args(args)
        .envs(environment.iter().copied())
        .env_remove("ROWCAST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = rowcast(args, environment).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn claims_of(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_that_was_printed_is_taken() {
    let secret = ("ROWCAST_JWT_SECRET", SECRET);
    let args = [
        "token",
        "--role",
        "player",
        "--subject",
        "ann",
        "--claim",
        "team=7",
        "--claim",
        "leagues=[\"nfl\"]",
        "--expires",
        "1h",
    ];
    let more = [
        secret,
        ("ROWCAST_JWT_ISSUER", "me"),
        ("ROWCAST_JWT_AUDIENCE", "rowcast"),
        ("ROWCAST_JWT_ROLE_CLAIM", "app.role"),
    ];
    let (code, token, said) = run(&args, &more).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let (token, claims) = (token.trim_end(), claims_of(&token));
    assert_eq!(
        (&claims["team"], &claims["leagues"][0], &claims["app"]["role"]),
        (&7.into(), &"nfl".into(), &"player".into())
    );
    assert_eq!((&claims["sub"], &claims["iss"], &claims["aud"]), (&"ann".into(), &"me".into(), &"rowcast".into()));
    assert!((now() + 3590..=now() + 3600).contains(&claims["exp"].as_i64().unwrap()));
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = world
        .gateway_with(|s| {
            with_secret(s);
            s.auth.issuer = Some("me".to_owned());
            s.auth.audience = Some("rowcast".to_owned());
            s.auth.role_claim = Some("app.role".to_owned());
        })
        .await;
    let answer = reqwest::Client::new().get(gateway.url("/v1/tables/t")).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_said() {
    let (code, printed, said) = run(&["token"], &[]).await;
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(said.contains("ROWCAST_JWT_SECRET"), "{said}");
    let (code, _, said) = run(&["token"], &[("ROWCAST_JWT_SECRET", "hunter2")]).await;
    assert!(
        code == Some(2) && said.contains("at least 32") && said.contains("openssl") && !said.contains("hunter2"),
        "{said}"
    );
    for args in [["token", "--expires", "never"], ["token", "--claim", "exp=1"], ["token", "--claim", "x"]] {
        let (code, _, said) = run(&args, &[("ROWCAST_JWT_SECRET", SECRET)]).await;
        assert!(code == Some(2) && !said.contains(SECRET), "{said}");
    }
    // a gateway does not start with what it cannot use
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    std::fs::write(&path, "nonsense").unwrap();
    let url = ("DATABASE_URL", "postgres://localhost:1/x");
    for (environment, wanted) in [
        (("ROWCAST_JWT_SECRET", "hunter2"), "at least 32"),
        (("ROWCAST_JWKS_URL", "http://id.example/jwks"), "https://"),
        (("ROWCAST_JWT_PUBLIC_KEY_FILE", path.to_str().unwrap()), "no public key"),
        (("ROWCAST_JWT_ROLE_CLAIM", "a..b"), "jwt_role_claim"),
    ] {
        let (code, _, said) = run(&["serve", "--listen", "127.0.0.1:0"], &[url, environment]).await;
        assert!(code == Some(2) && said.contains(wanted) && !said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn help_shows_settings_and_no_secret() {
    for command in ["serve", "token", "tail"] {
        let environment = [("ROWCAST_JWT_SECRET", SECRET), ("ROWCAST_JWKS_URL", "https://u:hunter2@id.example/")];
        let (code, printed, _) = run(&[command, "--help"], &environment).await;
        assert_eq!(code, Some(0));
        assert!(printed.contains("--jwks-url") && printed.contains("ROWCAST_JWT_SECRET"), "{command}");
        assert!(!printed.contains(SECRET) && !printed.contains("hunter2"), "{command}: {printed}");
    }
}

#[tokio::test]
async fn nothing_secret_is_logged_at_any_level() {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let environment =
        [("DATABASE_URL", world.url.as_str()), ("ROWCAST_LISTEN", "127.0.0.1:0"), ("ROWCAST_JWT_SECRET", SECRET)];
    let mut command = rowcast(&["serve", "--log-json"], &environment);
    let mut child = command.env("ROWCAST_LOG", "trace").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let (mut log, mut line) = (String::new(), String::new());
    let address = loop {
        line.clear();
        assert!(lines.read_line(&mut line).await.unwrap() > 0, "{log}");
        log.push_str(&line);
        let json: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = json["fields"]["address"].as_str() {
            break address.to_owned();
        }
    };
    let rest = tokio::spawn(async move {
        let mut rest = String::new();
        lines.read_to_string(&mut rest).await.unwrap();
        rest
    });
    let http = reqwest::Client::new();
    let url = |path: &str| format!("http://{address}{path}");
    crate::support::eventually("it is ready", || async {
        reqwest::get(url("/readyz")).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let (good, forged) = (token(60), IssuerKey::new(ES256, "k").sign(&crate::support::keys::claims(60)));
    for token in [&good, &forged] {
        http.get(url("/v1/tables/t")).bearer_auth(token).send().await.unwrap();
        let cookie = format!("rowcast_token={token}");
        http.get(url("/v1/tables/t"))
            .header("cookie", cookie)
            .header("sec-fetch-site", "same-origin")
            .send()
            .await
            .unwrap();
        http.get(url(&format!("/v1/tables/t?token={token}"))).send().await.unwrap();
        http.get(url(&format!("/v1/changes?table=t&ticket={token}"))).send().await.unwrap();
    }
    let given: Value = http.post(url("/v1/tickets")).bearer_auth(&good).send().await.unwrap().json().await.unwrap();
    let ticket = given["ticket"].as_str().unwrap();
    for status in [200, 401] {
        let answer = http.get(url(&format!("/v1/changes?table=t&ticket={ticket}"))).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    child.start_kill().unwrap();
    log.push_str(&rest.await.unwrap());
    assert!(log.contains("a token was refused"), "the level is low enough");
    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    for secret in [SECRET.to_owned(), signature(&good), signature(&forged), ticket.to_owned()] {
        let shown = log.lines().find(|line| line.contains(&secret));
        assert!(shown.is_none(), "{}", shown.unwrap());
    }
}
