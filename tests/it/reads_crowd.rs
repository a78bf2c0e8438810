//! Many reads and slow ones: neither the log's rotation nor the readers of other tables pay for them.

use crate::support::{Proxy, ReadClient, World, proxy::Mode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lists that are read again and again over a slow network: while one travels the log must be free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_rotates_under_continuous_misses() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, n int); insert into t select i, 0 from generate_series(1, 100) as i;
             select rowcast.watch('t', public => true, ttl => '0')",
        )
        .await;
    let (slow, through) = Proxy::postgres(&world.url).await;
    let gateway = world.gateway_through(through, |_| ()).await;
    slow.set(Mode::Delay(30));
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (1..=12)
        .map(|limit| {
            let (client, stop, reads) = (ReadClient::at(gateway.address), stop.clone(), reads.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let list = client.get(&format!("/v1/tables/t?limit={limit}")).await;
                    assert_eq!(list.rows().len(), limit);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let sql = world.sql().await;
    let (mut emptied, mut held, mut seen) = (0, 0, Vec::new());
    let began = Instant::now();
    while emptied < 6 || reads.load(Ordering::Relaxed) < 24 {
        // so that there is something to empty
        sql.batch_execute("update t set n = n + 1 where id = 1").await.unwrap();
        let row = sql.query_one("select rowcast.rotate('1 ms')", &[]).await.unwrap();
        let did: String = row.get(0);
        emptied += usize::from(did.starts_with("emptied"));
        held += usize::from(did.contains("is held by"));
        seen.push(did);
        assert!(began.elapsed() < Duration::from_secs(20), "{emptied} emptied, {held} held back: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let reads = reads.load(Ordering::Relaxed);
    eprintln!("{emptied} emptied, {held} times held back, {reads} reads, {:?}", began.elapsed());
    assert!(held <= emptied, "the log was hardly ever free: {seen:?}");
    gateway.stop().await;
}

/// Slow lists of one table, as many as come: those of another wait for none of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lists_of_one_table_harm_no_other() {
    let world = World::new().await;
    world
        .run(
            "create table slow (id int primary key, pad text collate \"C\");
             insert into slow select i, md5(i::text) from generate_series(1, 150000) as i;
             create table quick (id int primary key); insert into quick values (1);
             select rowcast.watch('slow', public => true), rowcast.watch('quick', public => true)",
        )
        .await;
    let gateway = world.gateway().await;
    let client = ReadClient::at(gateway.address);
    let began = Instant::now();
    let slow: Vec<_> = (0..400)
        .map(|i| {
            let client = client.clone();
            let path = format!("/v1/tables/slow?offset={}&order=pad.desc&limit=1", 140_000 + i);
            tokio::spawn(async move {
                let asked = Instant::now();
                let answer = client.get(&path).await;
                (answer.status, answer.header("retry-after").to_owned(), asked.elapsed())
            })
        })
        .collect();
    let mut worst = Duration::ZERO;
    let mut quick = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let answer = client.get(&format!("/v1/tables/quick?limit={}", quick % 100 + 1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        worst = worst.max(asked.elapsed());
        quick += 1;
    }
    let (mut served, mut refused, mut at_once) = (0, 0, 0);
    for answer in slow {
        let (status, retry, took) = answer.await.unwrap();
        match status {
            200 => served += 1,
            503 => {
                assert!(!retry.is_empty());
                refused += 1;
                at_once += usize::from(took < Duration::from_secs(4));
            }
            other => panic!("{other}"),
        }
    }
    eprintln!(
        "{quick} quick lists, {worst:?} at most; of 400 slow ones {served} served, {refused} refused, {at_once} at once"
    );
    assert!(served > 0 && at_once > 0, "{served} served, {refused} refused, {at_once} at once");
    assert!(quick > 3 && worst < Duration::from_millis(2500), "{quick} lists, the slowest {worst:?}");
    gateway.stop().await;
}
