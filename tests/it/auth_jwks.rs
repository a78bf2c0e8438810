//! F40: an issuer that rotates its keys, is away, slow, or talks nonsense; and tokens that nobody knows, by the hundred.

use crate::support::issuer::{Issuer, Mood};
use crate::support::keys::{IssuerKey, claims, now};
use crate::support::{Sse, TestGateway, World, eventually};
use futures_util::future::join_all;
use jsonwebtoken::Algorithm::{ES256, EdDSA, RS256};
use std::time::{Duration, Instant};

async fn served(issuer: &Issuer) -> (World, TestGateway) {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway_with(|s| s.auth.jwks_url = Some(issuer.url())).await;
    (world, gateway)
}

thread_local! {
    /// One for a test: to make one reads all certificates of the system, and a crowd makes hundreds of requests at once.
    static HTTP: reqwest::Client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
}

async fn status(gateway: &TestGateway, key: &IssuerKey) -> u16 {
    let request = HTTP.with(Clone::clone).get(gateway.url("/v1/tables/t")).bearer_auth(key.sign(&claims(60)));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn keys_come_and_go_with_the_set() {
    let (old, new, other) =
        (IssuerKey::new(ES256, "old"), IssuerKey::new(RS256, "new"), IssuerKey::new(EdDSA, "other"));
    let issuer = Issuer::start(Mood::Keys(vec![old.jwk()])).await;
    let (_world, gateway) = served(&issuer).await;
    assert_eq!(status(&gateway, &old).await, 200);
    assert_eq!((status(&gateway, &new).await, issuer.asked()), (401, 1), "the set was just fetched");
    issuer.becomes(Mood::Keys(vec![old.jwk(), new.jwk()]));
    // within ten seconds of the last fetch; the old one goes on all the time
    eventually("the new key is known", || async {
        assert_eq!(status(&gateway, &old).await, 200);
        status(&gateway, &new).await == 200
    })
    .await;
    assert_eq!(issuer.asked(), 2);
    issuer.becomes(Mood::Keys(vec![new.jwk()]));
    eventually("the old key is gone", || async {
        assert_eq!(status(&gateway, &new).await, 200);
        // what nobody knows makes the gateway look
        status(&gateway, &other).await;
        status(&gateway, &old).await == 401
    })
    .await;
    assert_eq!(issuer.asked(), 3);
    // another key under a known name
    assert_eq!(status(&gateway, &IssuerKey::new(RS256, "new")).await, 401);
    gateway.stop().await;
}

#[tokio::test]
async fn a_crowd_of_unknown_keys_asks_the_issuer_once() {
    let known = IssuerKey::new(ES256, "known");
    let issuer = Issuer::start(Mood::Keys(vec![known.jwk()])).await;
    let (_world, gateway) = served(&issuer).await;
    assert_eq!(status(&gateway, &known).await, 200);
    let strangers: Vec<IssuerKey> = (0..200).map(|i| IssuerKey::new(EdDSA, &format!("stranger {i}"))).collect();
    let began = Instant::now();
    let crowd = || async {
        let all = join_all(strangers.iter().map(|key| status(&gateway, key))).await;
        assert!(all.iter().all(|status| *status == 401), "{all:?}");
    };
    // for long enough that it may ask again, and no more
    let mut asked = vec![began];
    while asked.len() < 3 {
        crowd().await;
        assert_eq!(status(&gateway, &known).await, 200);
        if issuer.asked() > asked.len() {
            asked.push(Instant::now());
        }
        assert_eq!(issuer.asked(), asked.len(), "one at a time");
        assert!(began.elapsed() < Duration::from_secs(90), "it never asks again");
    }
    // as they were seen: a crowd takes a moment
    assert!(asked[2] - asked[1] >= Duration::from_secs(8), "every ten seconds: {:?}", asked[2] - asked[1]);
    // what is over anyway, and what no issuer signs with, is not asked for at all
    let asked = issuer.asked();
    let over = strangers[0].sign(&serde_json::json!({ "exp": now() - 60 }));
    reqwest::Client::new().get(gateway.url("/v1/tables/t")).bearer_auth(over).send().await.unwrap();
    assert_eq!(issuer.asked(), asked);
    gateway.stop().await;
}

#[tokio::test]
async fn keys_stay_while_the_issuer_cannot_be_asked() {
    let moods = [
        Mood::Status(500, String::new()),
        Mood::Status(302, "http://127.0.0.1:9/".to_owned()),
        Mood::Says(b"<html>".to_vec()),
        Mood::Says(b"{\"keys\":{}}".to_vec()),
        Mood::Says([b"{\"keys\":[]," as &[u8], &vec![b' '; 300 * 1024], b"\"x\":1}"].concat()),
        Mood::Hangs,
    ];
    join_all(moods.map(async |mood| {
        let (known, stranger) = (IssuerKey::new(ES256, "known"), IssuerKey::new(EdDSA, "stranger"));
        let issuer = Issuer::start(Mood::Keys(vec![known.jwk()])).await;
        let (_world, gateway) = served(&issuer).await;
        assert_eq!(status(&gateway, &known).await, 200);
        issuer.becomes(mood.clone());
        eventually("it is asked", || async {
            assert_eq!(status(&gateway, &stranger).await, 401, "{mood:?}");
            issuer.asked() >= 2
        })
        .await;
        let began = Instant::now();
        assert_eq!(status(&gateway, &known).await, 200, "{mood:?}");
        assert!(began.elapsed() < Duration::from_secs(4), "who is known does not wait: {mood:?}");
        // it comes back by itself, and without anybody's asking
        issuer.becomes(Mood::Keys(vec![known.jwk(), stranger.jwk()]));
        eventually("the new key is known", || async { status(&gateway, &stranger).await == 200 }).await;
        gateway.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_not_the_clients_fault() {
    let key = IssuerKey::new(ES256, "k");
    let issuer = Issuer::start(Mood::Status(503, String::new())).await;
    let (_world, gateway) = served(&issuer).await;
    assert_eq!(status(&gateway, &key).await, 503);
    // who shows no token is served, and an event stream comes back by itself
    assert_eq!(reqwest::get(gateway.url("/v1/tables/t")).await.unwrap().status(), 200);
    let mut sse = Sse::open_as(gateway.address, "table=t", Some(&key.sign(&claims(60)))).await;
    let bye = sse.event().await.unwrap();
    assert!(bye.event == "bye" && bye.data.contains("not-ready"), "{bye:?}");
    issuer.becomes(Mood::Keys(vec![key.jwk()]));
    eventually("the keys are fetched", || async { status(&gateway, &key).await == 200 }).await;
    gateway.stop().await;
}
