//! Retention: the log is emptied under load, and nobody waits for it, misses a row, or is served in part.

use crate::support::{Client, Everyone, LongPoll, Sse, World, eventually, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SCORES: &str = "create table scores (id int primary key, home int);
    select rowcast.watch('scores', public => true)";

async fn rotate(sql: &tokio_postgres::Client, retention: &str) -> String {
    sql.query_one(&format!("select rowcast.rotate('{retention}')"), &[]).await.unwrap().get(0)
}

// 8 s
#[tokio::test]
async fn trap_39_rotation_under_load_empties_nothing_unread() {
    let world = World::new().await;
    world.run(SCORES).await;
    let seed = seed();
    let gateway = world.gateway().await;
    // keeps nothing in memory: everybody who comes back is served from the log
    let forgetful = world.gateway_with(|s| s.ring_bytes = 1).await;
    let mut live = Everyone::on(gateway.address, "table=scores").await;
    let mut back = Everyone::on(forgetful.address, "table=scores").await;
    let straggler = world.sql().await;
    straggler.batch_execute("begin; insert into scores values (1000000, 0)").await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..4_u64 {
        let (sql, over) = (world.sql().await, over.clone());
        writers.push(tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed + writer);
            while !over.load(Ordering::Relaxed) {
                let level = ["read committed", "repeatable read", "serializable"][random.random_range(0..3)];
                let id = random.random_range(0..50);
                let change = match random.random_range(0..4) {
                    0 => format!("delete from scores where id = {id}"),
                    1 => format!("update scores set home = home + 1 where id = {id}"),
                    _ => format!("insert into scores values ({id}, 0) on conflict (id) do update set home = scores.home + 1"),
                };
                let pause = random.random_range(0..20);
                let open = format!("begin isolation level {level}; select count(*) from scores; select pg_sleep({pause} / 1000.0); {change}; commit");
                if let Err(error) = sql.batch_execute(&open).await {
                    let code = error.code().map(|c| c.code().to_owned());
                    assert_eq!(code.as_deref(), Some("40001"), "a writer failed: {error:?}");
                    sql.batch_execute("rollback").await.unwrap();
                }
            }
        }));
    }
    let sql = world.sql().await;
    let (mut emptied, mut held) = (0, 0);
    let mut ended = false;
    while emptied < 5 {
        let did = rotate(&sql, "1 s").await;
        emptied += usize::from(did.starts_with("emptied"));
        held += usize::from(did.starts_with("held back"));
        if held > 3 && !ended {
            // its rows are in the table that is next
            straggler.batch_execute("commit").await.unwrap();
            ended = true;
        }
        let reading = async {
            live.until("the straggler", |r| !ended || r.row("1000000").is_some()).await;
            for client in live.0.iter_mut().chain(back.0.iter_mut()) {
                let _ = tokio::time::timeout(Duration::from_millis(10), client.advance()).await;
            }
        };
        reading.await;
        back.reconnect(forgetful.address).await;
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(ended, "the straggler held nothing back");
    live.until_equal(&world, "scores").await;
    back.until_equal(&world, "scores").await;
    live.assert_no_reset();
    gateway.stop().await;
    forgetful.stop().await;
}

#[tokio::test]
async fn trap_39_a_straggler_without_a_tick_holds_its_table() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    gateway.stop().await;
    let (straggler, sql) = (world.sql().await, world.sql().await);
    straggler.batch_execute("begin; insert into scores values (1, 0)").await.unwrap();
    eventually("the straggler is named", || async {
        let did = rotate(&sql, "1 ms").await;
        assert!(!did.starts_with("emptied log_0"), "{did}");
        did.starts_with("held back: log_0 is held by process")
    })
    .await;
    straggler.batch_execute("commit").await.unwrap();
    let did = rotate(&sql, "1 ms").await;
    assert!(did.starts_with("held back: no tick has passed everything in log_0"), "{did}");
    let gateway = world.gateway().await;
    everyone.reconnect(gateway.address).await;
    everyone.until("the straggler's row", |r| r.row("1").is_some()).await;
    eventually("its table is emptied", || async { rotate(&sql, "1 ms").await == "emptied log_0" }).await;
    everyone.assert_no_reset();
    gateway.stop().await;
}

// 3 s
#[tokio::test]
async fn trap_40_writers_never_wait_beside_a_dump() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("insert into scores values (1, 0)").await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let dump = world.sql().await;
    dump.batch_execute(
        "begin isolation level repeatable read read only;
        lock table rowcast.log_0, rowcast.log_1, rowcast.log_2, rowcast.tick, rowcast.rotation, scores in access share mode",
    )
    .await
    .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for id in 10..14 {
        let (sql, over) = (world.sql().await, over.clone());
        writers.push(tokio::spawn(async move {
            sql.batch_execute("set lock_timeout = '100 ms'").await.unwrap();
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let write = format!(
                    "insert into scores values ({id}, 0) on conflict (id) do update set home = scores.home + 1"
                );
                sql.batch_execute(&write).await.expect("a writer does not wait");
                count += 1;
            }
            count
        }));
    }
    // more than once round the three tables, then again and again against the lock
    let sql = world.sql().await;
    // the rotation does not wait either
    sql.batch_execute("set lock_timeout = '2 s'").await.unwrap();
    let mut held = 0;
    while held < 300 {
        let did = rotate(&sql, "1 ms").await;
        assert!(!did.starts_with("emptied"), "{did}");
        assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer waited");
        if did.starts_with("held back: log_") {
            assert!(did.contains("process"), "{did}");
            held += 1;
        }
    }
    let gone = everyone.until("changes meanwhile", |r| (10..14).all(|id| r.row(&id.to_string()).is_some()));
    gone.await;
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 0);
    }
    dump.batch_execute("commit").await.unwrap();
    eventually("the rotation goes on", || async { rotate(&sql, "1 ms").await.starts_with("emptied") }).await;
    everyone.until_equal(&world, "scores").await;
    everyone.assert_no_reset();
    gateway.stop().await;
}

/// The position of the newest tick.
async fn newest(sql: &tokio_postgres::Client) -> String {
    let sql = sql
        .query_one("select id || '-' || lpad(to_hex(nonce), 6, '0') from rowcast.tick order by id desc limit 1", &[])
        .await;
    sql.unwrap().get(0)
}

#[tokio::test]
async fn trap_41_a_position_older_than_the_log_is_refused_and_the_oldest_known_is_served_whole() {
    let world = World::new().await;
    world.run(SCORES).await;
    let gateway = world.gateway().await;
    let mut everyone = Everyone::on(gateway.address, "table=scores").await;
    let sql = world.sql().await;
    // a position after each row
    let mut positions = vec![newest(&sql).await];
    for id in 1..=6 {
        world.run(&format!("insert into scores values ({id}, {id})")).await;
        everyone.until("the row", |r| r.row(&id.to_string()).is_some()).await;
        positions.push(newest(&sql).await);
        if id == 3 {
            eventually("the log moves on", || async { rotate(&sql, "1 ms").await.starts_with("moved") }).await;
        }
    }
    // rows 1 to 3 are in one table, 4 to 6 in another; the first is emptied
    eventually("the first table is emptied", || async { rotate(&sql, "1 ms").await == "emptied log_0" }).await;
    let oldest: i64 = sql.query_one("select min(id) from rowcast.tick", &[]).await.unwrap().get(0);
    let tick = |position: &str| crate::support::replica::tick_of(position);
    assert_eq!(oldest, tick(&positions[3]), "the oldest position has seen all that was emptied, and nothing more");
    gateway.stop().await;
    // a gateway that has nothing in memory
    let fresh = world.gateway().await;
    for (seen, position) in positions.iter().enumerate() {
        let known = seen >= 3;
        let url = fresh.url(&format!("/v1/changes?table=scores&since={position}"));
        let answer = reqwest::get(&url).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        match (known, seen) {
            (false, _) => assert!(status == 410 && text.contains("position-expired"), "{seen}: {status} {text}"),
            (true, 6) => assert_eq!(status, 204, "{text}"),
            (true, _) => {
                let inserts = text.matches(r#""op":"insert""#).count();
                assert!(status == 200 && inserts == 6 - seen, "{seen}: {status} {text}");
            }
        }
        let mut sse = Sse::open(fresh.address, &format!("table=scores&since={position}")).await;
        if known {
            sse.replica.adopt("1");
        }
        let first_kind = {
            let client: &mut dyn Client = &mut sse;
            client.until("everything it has not seen", |r| r.rows("1").len() == if known { 6 - seen } else { 6 }).await;
            client.until("a position", |r| r.position.is_some()).await;
            sse.events[0].event.clone()
        };
        let resets: &[String] = &sse.replica.resets;
        if known {
            assert!(resets.is_empty() && sse.replica.snapshots == 0, "{seen}: {resets:?}");
        } else {
            assert_eq!((resets, first_kind.as_str()), (&["position-expired".to_owned()][..], "reset"), "{seen}");
            assert_eq!((sse.replica.snapshots, sse.replica.changes), (1, 0), "{seen}: a snapshot, never a part");
        }
    }
    // right id, wrong nonce: a tick of another history
    let (id, nonce) = positions[5].split_once('-').unwrap();
    let forged = format!("{id}-{:06x}", u32::from_str_radix(nonce, 16).unwrap() ^ 1);
    let answer = reqwest::get(fresh.url(&format!("/v1/changes?table=scores&since={forged}"))).await.unwrap();
    assert_eq!(answer.status(), 410);
    let mut poll = LongPoll::new(fresh.address, "table=scores");
    poll.replica.position = Some(positions[0].clone());
    let client: &mut dyn Client = &mut poll;
    client.until("all rows after the refusal", |r| r.rows("1").len() == 6).await;
    assert_eq!(client.replica().resets, ["410"]);
    fresh.stop().await;
}
