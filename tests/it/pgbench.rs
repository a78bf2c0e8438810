//! pgbench's tables under pgbench's load, while the gateway is killed twice.
//!
//! Some 15 s in the suite. The full run is a command of its own:
//! `ROWCAST_PGBENCH_SECONDS=60 ROWCAST_PGBENCH_SCALE=5 cargo test --test it pgbench -- --nocapture`.

use crate::support::client::TRANSPORTS;
use crate::support::witness::finish;
use crate::support::{GatewayProcess, Manner, Oracle, Replica, View, Watched, World, postgres, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::watch;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The program beside the server's.
async fn pgbench() -> Command {
    // `postgres` on the path may be a link to where the rest is
    let server = postgres::shared().await.binaries().bin.join("postgres").canonicalize().unwrap();
    let program = server.with_file_name("pgbench");
    assert!(
        program.is_file(),
        "no `{}`: it comes with the server's package (Debian: postgresql-15, others: postgresql-contrib)",
        program.display()
    );
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Every transaction adds one amount to an account, a teller and a branch.
fn tellers_and_branches_agree(replica: &Replica) {
    let sum = |sub: &str, column: &str| replica.rows(sub).iter().map(|row| row[column].as_i64().unwrap()).sum::<i64>();
    assert_eq!(sum("t", "tbalance"), sum("b", "bbalance"), "half a transaction at {:?}", replica.position);
}

/// The view with a hundred thousand rows.
const LARGE: usize = 2;

fn views() -> Vec<View> {
    let accounts = "pgbench_accounts";
    vec![
        View::new("table=pgbench_branches", "pgbench_branches", "bid", "true"),
        View::new("table=pgbench_tellers", "pgbench_tellers", "tid", "true"),
        View::of_columns(
            "table=pgbench_accounts&bid=eq.1&select=aid,bid,abalance",
            accounts,
            "aid",
            "bid = 1",
            "t.aid, t.bid, t.abalance",
        ),
        View::new("table=pgbench_accounts&aid=lt.1000", accounts, "aid", "aid < 1000"),
        View::new("table=pgbench_accounts&abalance=gt.2000", accounts, "aid", "abalance > 2000"),
        View::of_columns(
            "table=pgbench_accounts&abalance=lt.0&select=aid,abalance",
            accounts,
            "aid",
            "abalance < 0",
            "t.aid, t.abalance",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_survive_a_killed_gateway_under_pgbench() {
    let (seconds, scale) = (number("ROWCAST_PGBENCH_SECONDS", 8), number("ROWCAST_PGBENCH_SCALE", 1));
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::new().await;
    let made = pgbench().await.args(["-i", "-q", "-s", &scale.to_string(), &world.url]).output().await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    world
        .run(
            "select rowcast.watch(t, public => true)
             from unnest(array['pgbench_accounts', 'pgbench_tellers', 'pgbench_branches']::regclass[]) as t",
        )
        .await;
    let refused = world.sql().await.batch_execute("select rowcast.watch('pgbench_history')").await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("has no primary key"), "{refused:?}");

    let gateway = GatewayProcess::start(&world.url, &[]).await;
    let address = gateway.address;
    let (_keep, gateways) = watch::channel(vec![address]);
    let tables = ["pgbench_accounts", "pgbench_tellers", "pgbench_branches"];
    let mut oracle = Oracle::new(&world.url, &tables, views()).await.at_pace_of(address);
    let plan = |transport, views: Vec<(&'static str, usize)>, query: String, invariant, seed| Manner {
        transport,
        views,
        query,
        roams: None,
        at_leader: true,
        invariant,
        seed,
    };
    let mut clients = Vec::new();
    for (i, view) in views().iter().enumerate() {
        let transport = TRANSPORTS[i % TRANSPORTS.len()];
        let plan = plan(transport, vec![("1", i)], view.query.clone(), None, rng.random());
        clients.push(Watched::start(plan, gateways.clone()));
    }
    for transport in TRANSPORTS {
        let query = "sub=b~pgbench_branches&sub=t~pgbench_tellers&sub=a~pgbench_accounts%3Faid%3Dlt.1000".to_owned();
        let views = vec![("b", 0), ("t", 1), ("a", 3)];
        let invariant = Some(tellers_and_branches_agree as fn(&Replica));
        clients.push(Watched::start(plan(transport, views, query, invariant, rng.random()), gateways.clone()));
    }

    let bench = pgbench()
        .await
        .args(["-n", "-c", "8", "-j", "2", "-T", &seconds.to_string(), &world.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let third = Duration::from_secs(seconds) / 3;
    let away = [1, 2].map(|_| Duration::from_millis(rng.random_range(50..800)));
    let url = world.url.clone();
    let kills = tokio::spawn(async move {
        let mut gateway = gateway;
        for away in away {
            tokio::time::sleep(third).await;
            gateway.kill().await;
            // the writers do not notice
            tokio::time::sleep(away).await;
            gateway = GatewayProcess::start(&url, &[("ROWCAST_LISTEN", &address.to_string())]).await;
        }
        gateway
    });
    let mut sampled = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..200))).await;
        // the hundred thousand rows of a branch are compared now and then
        let large: &[usize] = if sampled % 8 == 4 { &[] } else { &[LARGE] };
        let truth = oracle.tick_without(large).await;
        sampled += 1;
        if !clients.iter().all(|client| client.tell(&truth)) {
            break;
        }
    }
    let gateway = kills.await.unwrap();
    let bench = bench.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&bench.stdout).into_owned();
    assert!(bench.status.success(), "{said}{}", String::from_utf8_lossy(&bench.stderr));
    let truth = oracle.tick().await;
    clients.iter().for_each(|client| {
        client.tell(&truth);
    });
    let reports = finish(clients).await;

    said.lines().filter(|l| l.contains("processed") || l.contains("tps")).for_each(|line| eprintln!("{line}"));
    reports.iter().for_each(|report| eprintln!("{report:?}"));
    let (checked, rows) = reports.iter().fold((0, 0), |(c, r), report| (c + report.checked, r + report.rows_checked));
    eprintln!(
        "{sampled} ticks sampled ({} lost to the leader), {checked} states of clients checked ({rows} rows), 0 inconsistent",
        oracle.late
    );
    for (i, report) in reports.iter().enumerate() {
        assert!(report.resets.is_empty(), "a client was reset: {report:?}");
        // the hundred thousand rows may be on their way for so long that they meet one kill only
        let kills = if i == LARGE { 1 } else { 2 };
        assert!(report.reconnects >= kills, "the kills were noticed: {report:?}");
        assert!(report.checked > 0, "{report:?}");
    }
    gateway.kill().await;
}
