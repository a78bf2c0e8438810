//! What was seen at one gateway is not older at another.

use crate::support::{ReadClient, World, eventually};
use std::time::Instant;

#[tokio::test]
async fn a_position_of_one_gateway_holds_at_another() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int); insert into t values (1, 0), (2, 0);
             select rowcast.watch('t', public => true, ttl => '1 h')",
        )
        .await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    let (here, there) = (ReadClient::at(one.address), ReadClient::at(two.address));
    let sql = world.sql().await;
    let n = |reading: &crate::support::Reading| reading.rows()[0]["n"].as_i64().unwrap();
    let mut late = 0;
    for round in 1..=60_i32 {
        sql.execute("update t set n = $1", &[&round]).await.unwrap();
        let (writer, reader) = if round % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let mut seen = writer.get("/v1/tables/t?id=eq.1").await;
        while n(&seen) < i64::from(round) {
            seen = writer.get("/v1/tables/t?id=eq.1").await;
        }
        let position = seen.position().to_owned();
        let began = Instant::now();
        let (list, row) = (
            reader.get_from("/v1/tables/t?order=id.desc", &position).await,
            reader.get_from("/v1/tables/t/2", &position).await,
        );
        late += u32::from(began.elapsed().as_millis() > 1000);
        assert!(n(&list) >= i64::from(round), "round {round}: {} at {} after {position}", list.text(), list.position());
        assert!(row.json()["n"].as_i64().unwrap() >= i64::from(round), "round {round}: {}", row.text());
        assert!(
            list.tick() >= seen.tick() && row.tick() >= seen.tick(),
            "{} {} {position}",
            list.position(),
            row.position()
        );
    }
    eprintln!("{late} of 60 reads waited longer than a second for a position that exists");
    assert!(late < 30, "who names a position waits for its tick, not for a timeout: {late} of 60");

    // tags are the same everywhere
    let path = "/v1/tables/t?order=n.desc";
    eventually("both have the last word", || async { here.get(path).await.body == there.get(path).await.body }).await;
    assert_eq!(here.get(path).await.header("etag"), there.get(path).await.header("etag"));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn positions_that_cannot_be_waited_for() {
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    let now = client.get("/v1/tables/t").await;
    let (tick, nonce) = now.position().split_once('-').unwrap();
    let nonce = u32::from_str_radix(nonce, 16).unwrap();
    for path in ["/v1/tables/t", "/v1/tables/t/1"] {
        for text in ["", "x", "1", "1-zz", "now", "-1-000000", "1-000000~", "99999999999999999999-000000"] {
            let answer = client.get_from(path, text).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid-position"), "{text}");
        }
        let other = format!("{tick}-{:06x}", nonce ^ 1);
        let answer = client.get_from(path, &other).await;
        assert_eq!((answer.status, answer.code().as_str()), (410, "position-expired"), "of another history");
    }
    let began = Instant::now();
    let future = format!("{}-{nonce:06x}", tick.parse::<i64>().unwrap() + 1000);
    let answer = client.get_from("/v1/tables/t", &future).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "position-not-reached"));
    assert!(!answer.header("retry-after").is_empty() && began.elapsed().as_secs() < 10);

    // a position from before this gateway began is the database's to know
    let old = now.position().to_owned();
    for i in 0..5 {
        world.run(&format!("insert into t values ({i})")).await;
    }
    gateway.stop().await;
    let gateway = world.gateway().await;
    let answer = ReadClient::at(gateway.address).get_from("/v1/tables/t", &old).await;
    assert_eq!(answer.rows().len(), 5);
    gateway.stop().await;
}
