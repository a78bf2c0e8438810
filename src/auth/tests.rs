//! Tokens of every kind against keys of every kind.

use super::*;
use crate::tasks::Tasks;
use jsonwebtoken::Algorithm::{self, ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, RS256};
use keys::{IssuerKey, SECRET, claims, now, shared, unsigned};
use serde_json::{Value, json};

#[path = "../../tests/it/support/keys.rs"]
#[expect(dead_code, unreachable_pub, reason = "the integration tests need more of it")]
mod keys;

fn with_secret() -> AuthOptions {
    AuthOptions { secret: Some(Secret::from(SECRET.to_owned())), ..AuthOptions::default() }
}

fn with_key(pem: &str) -> (tempfile::TempDir, AuthOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    std::fs::write(&path, pem).unwrap();
    (dir, AuthOptions { public_key_file: Some(path), ..AuthOptions::default() })
}

fn start(options: &AuthOptions) -> Result<Verifier, AuthError> {
    Verifier::start(options, &Tasks::here())
}

async fn judge(options: &AuthOptions, token: &str) -> Result<String, Rejected> {
    start(options).unwrap().verify(token).await.map(|caller| caller.role.to_string())
}

fn rejected(fault: Fault) -> Result<String, Rejected> {
    Err(Rejected::Token(fault))
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_taken() {
    for algorithm in [HS256, HS384, HS512] {
        let token = shared(SECRET.as_bytes(), algorithm, &claims(60));
        assert_eq!(judge(&with_secret(), &token).await.unwrap(), "player", "{algorithm:?}");
        let token = shared(b"another secret, and a long one as well", algorithm, &claims(60));
        assert_eq!(judge(&with_secret(), &token).await, rejected(Fault::Signature));
    }
    for algorithm in [RS256, PS256, ES256, ES384, EdDSA] {
        let (key, other) = (IssuerKey::new(algorithm, "a"), IssuerKey::new(algorithm, "a"));
        let (_dir, options) = with_key(&key.pem());
        assert_eq!(judge(&options, &key.sign(&claims(60))).await.unwrap(), "player", "{algorithm:?}");
        assert_eq!(judge(&options, &other.sign(&claims(60))).await, rejected(Fault::Signature), "{algorithm:?}");
    }
}

#[tokio::test]
async fn the_algorithm_is_the_keys_and_not_the_headers() {
    let key = IssuerKey::new(RS256, "a");
    let (_dir, options) = with_key(&key.pem());
    let body = claims(60);
    // the public key, which everybody has, as a shared secret: as the file has it, and without the last line's end
    for secret in [key.pem(), key.pem().trim_end().to_owned()] {
        for algorithm in [HS256, HS384, HS512] {
            let token = shared(secret.as_bytes(), algorithm, &body);
            assert_eq!(judge(&options, &token).await, rejected(Fault::UnknownKey));
        }
    }
    // RS256 said to be PS256, and all others
    for name in ["PS256", "ES256", "EdDSA", "HS256"] {
        let token = key.sign_as(&json!({ "alg": name }), &body);
        assert!(judge(&options, &token).await.is_err(), "{name}");
    }
    for name in ["none", "None", "NONE", "RS512", "ES256K", ""] {
        let header = json!({ "alg": name });
        for token in [key.sign_as(&header, &body), format!("{}.", unsigned(&header, &body))] {
            assert_eq!(judge(&options, &token).await, rejected(Fault::Algorithm), "{name}");
        }
    }
    // no signature at all
    let bare = format!("{}.", unsigned(&json!({ "alg": "RS256" }), &body));
    assert_eq!(judge(&options, &bare).await, rejected(Fault::Signature));
    // a shared secret takes none of an issuer
    assert_eq!(judge(&with_secret(), &key.sign(&body)).await, rejected(Fault::UnknownKey));
    // with both, each has its own
    let both = AuthOptions { secret: with_secret().secret, ..options };
    assert!(judge(&both, &key.sign(&body)).await.is_ok());
    assert!(judge(&both, &shared(SECRET.as_bytes(), HS256, &body)).await.is_ok());
    assert_eq!(judge(&both, &shared(key.pem().as_bytes(), HS256, &body)).await, rejected(Fault::Signature));
}

#[tokio::test]
async fn what_is_changed_after_signing_is_refused() {
    let token = shared(SECRET.as_bytes(), HS256, &claims(60));
    let parts: Vec<&str> = token.split('.').collect();
    let forged = unsigned(&json!({ "alg": "HS256" }), &json!({ "role": "admin", "exp": now() + 60 }));
    let forged = format!("{forged}.{}", parts[2]);
    assert_eq!(judge(&with_secret(), &forged).await, rejected(Fault::Signature));
    // every single character
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(judge(&with_secret(), &changed).await.is_err(), "{at}: {changed}");
    }
}

#[tokio::test]
async fn a_header_cannot_bring_its_own_key() {
    let (mine, evil) = (IssuerKey::new(ES256, "a"), IssuerKey::new(ES256, "a"));
    let (_dir, options) = with_key(&mine.pem());
    for header in [
        json!({ "alg": "ES256", "jwk": evil.jwk() }),
        json!({ "alg": "ES256", "jku": "https://evil.example/jwks", "kid": "a" }),
        json!({ "alg": "ES256", "x5u": "https://evil.example/cert" }),
        json!({ "alg": "ES256", "x5c": ["AAAA"] }),
    ] {
        assert_eq!(judge(&options, &evil.sign_as(&header, &claims(60))).await, rejected(Fault::Signature), "{header}");
    }
    let critical = mine.sign_as(&json!({ "alg": "ES256", "crit": ["b64"], "b64": false }), &claims(60));
    assert_eq!(judge(&options, &critical).await, rejected(Fault::Critical));
}

#[tokio::test]
async fn claims_are_held_against_settings_and_clock() {
    let sign = |claims: Value| shared(SECRET.as_bytes(), HS256, &claims);
    let options = AuthOptions { issuer: Some("me".into()), audience: Some("rowcast".into()), ..with_secret() };
    let good = json!({ "iss": "me", "aud": ["rowcast", "x"], "exp": now() + 60 });
    assert_eq!(judge(&options, &sign(good.clone())).await.unwrap(), "authenticated");
    for (name, value, fault) in [
        ("iss", json!("you"), Fault::Foreign("iss")),
        ("aud", json!("you"), Fault::Foreign("aud")),
        ("exp", json!(now() - 31), Fault::Expired),
        ("exp", json!((now() + 60).to_string()), Fault::Claim("exp")),
        ("exp", Value::Null, Fault::Claim("exp")),
        ("nbf", json!(now() + 60), Fault::Early),
        ("role", json!("x".repeat(100)), Fault::Claim("role")),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(judge(&options, &sign(claims)).await, rejected(fault), "{name}");
    }
    // what is signed is what the caller has, to the letter
    let verifier = start(&with_secret()).unwrap();
    let text = json!({ "exp": now() + 60, "n": 1.5, "sub": "ann", "jti": "t" });
    let caller = verifier.verify(&sign(text.clone())).await.unwrap();
    assert_eq!(caller.claims.get(), text.to_string());
    assert_eq!((caller.subject.as_deref(), caller.token_id.as_deref()), (Some("ann"), Some("t")));
    // the clock is the one that was given
    verifier.clock().jump(120_000);
    assert!(caller.is_over(verifier.clock()));
    assert_eq!(verifier.verify(&sign(text)).await.unwrap_err(), Fault::Expired.into());
}

#[tokio::test]
async fn keys_that_are_none_stop_the_start_with_the_remedy() {
    let short = AuthOptions { secret: Some(Secret::from("x".repeat(31))), ..AuthOptions::default() };
    let says = start(&short).unwrap_err().to_string();
    assert!(says.contains("31 bytes") && says.contains("openssl rand"), "{says}");
    assert!(sign(&short.secret.unwrap(), &serde_json::Map::new()).is_err());
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (pem, wanted) in [(private, "private key"), ("nonsense", "no public key"), ("", "no public key")] {
        let (_dir, options) = with_key(pem);
        let says = start(&options).unwrap_err().to_string();
        assert!(says.contains(wanted) && says.contains("key.pem"), "{says}");
    }
    let missing = AuthOptions { public_key_file: Some("/nowhere/key.pem".into()), ..AuthOptions::default() };
    assert!(start(&missing).unwrap_err().to_string().contains("/nowhere/key.pem"));
    let plain = AuthOptions { jwks_url: Some("http://id.example/jwks".into()), ..AuthOptions::default() };
    assert!(start(&plain).unwrap_err().to_string().contains("https://"));
    let path = AuthOptions { role_claim: Some("a..b".into()), ..AuthOptions::default() };
    assert!(start(&path).unwrap_err().to_string().contains("jwt_role_claim"));
    let nothing = AuthOptions::default();
    assert_eq!(judge(&nothing, &shared(SECRET.as_bytes(), HS256, &claims(60))).await, rejected(Fault::NotConfigured));
}

#[test]
fn no_secret_is_printed() {
    let key = key::Key::shared(&Secret::from(SECRET.to_owned())).unwrap();
    let printed = format!("{:?} {key:?}", with_secret());
    assert!(!printed.contains("long enough"), "{printed}");
}

#[test]
fn keys_of_a_set_are_those_for_signatures() {
    let key = |jwk: Value| key::Key::jwk(&serde_json::value::to_raw_value(&jwk).unwrap());
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let (rsa, ec) = (IssuerKey::new(RS256, "r").jwk(), IssuerKey::new(ES256, "e").jwk());
    let fits = |jwk: &Value, algorithm: Algorithm| key(jwk.clone()).is_some_and(|key| key.fits(algorithm));
    assert!(fits(&rsa, RS256) && fits(&ec, ES256) && !fits(&ec, ES384) && !fits(&ec, HS256));
    // pinned to one of what its kind can
    assert!(!fits(&with(rsa.clone(), "alg", json!("PS256")), RS256));
    assert!(fits(&with(rsa.clone(), "alg", json!("PS256")), PS256));
    for (name, value) in [
        ("alg", json!("RS512")),
        ("alg", json!("HS256")),
        ("alg", json!("RSA-OAEP")),
        ("use", json!("enc")),
        ("key_ops", json!(["encrypt"])),
        ("kty", json!("oct")),
        ("n", json!("AQAB")),
        ("n", json!(7)),
    ] {
        assert!(key(with(rsa.clone(), name, value.clone())).is_none(), "{name}: {value}");
    }
    assert!(key(json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0" })).is_none());
    assert!(key(json!({ "kty": "OKP", "crv": "X25519", "x": "AAAA" })).is_none());
    assert!(key(json!({ "kty": "new", "kid": "n" })).is_none());
    assert!(key(json!("text")).is_none());
}
