//! F12, F13: clients that are gone without a word, or in the middle of a snapshot.

use crate::support::stalled::Stalled;
use crate::support::{GatewayProcess, World, eventually};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;

async fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().await.map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

/// A network of its own, joined to ours by a cable that can be pulled.
struct Network(String);

impl Network {
    async fn new() -> Result<Network, String> {
        let name = format!("rowcast{}", std::process::id() % 10_000);
        ip(&format!("netns add {name}")).await?;
        let network = Network(name.clone());
        ip(&format!("link add {name}a type veth peer name {name}b netns {name}")).await?;
        ip(&format!("address add 10.213.77.1/30 dev {name}a")).await?;
        ip(&format!("link set {name}a up")).await?;
        ip(&format!("-n {name} address add 10.213.77.2/30 dev {name}b")).await?;
        ip(&format!("-n {name} link set {name}b up")).await?;
        Ok(network)
    }

    async fn pull(&self) {
        ip(&format!("-n {0} link set {0}b down", self.0)).await.unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.0]).status();
        let _ = std::process::Command::new("ip")
            .args(["link", "delete", &format!("{}a", self.0)])
            .stderr(Stdio::null())
            .status();
    }
}

/// 20 to 35 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_a_client_whose_network_is_gone_is_noticed() {
    let network = match Network::new().await {
        Ok(network) => network,
        Err(why) => {
            return eprintln!("SKIPPED: network namespaces cannot be made here, which needs root and `ip`: {why}");
        }
    };
    let world = World::new().await;
    world.run("create table t (id int primary key); select rowcast.watch('t', public => true)").await;
    let gateway = GatewayProcess::start(&world.url, &[("ROWCAST_LISTEN", "0.0.0.0:0")]).await;
    let port = gateway.address.port();
    let script = format!(
        "exec 3<>/dev/tcp/10.213.77.1/{port}; printf 'GET /v1/stream?table=t HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n' >&3; exec cat <&3"
    );
    let mut client = Command::new("ip");
    client.args(["netns", "exec", &network.0, "bash", "-c", &script]).stdout(Stdio::null()).kill_on_drop(true);
    let client = client.spawn().unwrap();
    eventually("it is there", || async { gateway.readyz().await["subscriptions"] == 1 }).await;
    network.pull().await;
    let pulled = Instant::now();
    while gateway.readyz().await["subscriptions"] != 0 {
        assert!(pulled.elapsed() < Duration::from_secs(36), "it is still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eprintln!("noticed after {:?}", pulled.elapsed());
    assert!(pulled.elapsed() > Duration::from_secs(1), "the cable was not pulled");
    drop(client);
}

/// The rows are read for nobody any more: the database stops, and the memory is not held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_client_that_vanishes_in_the_middle_of_a_snapshot() {
    let world = World::new().await;
    world
        .run(
            "create table t (id int primary key, v text not null);
             insert into t select i, repeat('x', 40) from generate_series(1, 1000000) as i;
             select rowcast.watch('t', public => true)",
        )
        .await;
    let gateway = GatewayProcess::start(&world.url, &[]).await;
    let sql = world.sql().await;
    let reading = "select count(*) from pg_stat_activity where state <> 'idle' and backend_xmin is not null \
                   and datname = current_database() and pid <> pg_backend_pid() and query like '%from \"public\".\"t\"%'";
    let readers = || async { sql.query_one(reading, &[]).await.unwrap().get::<_, i64>(0) };
    let (mut memory, mut lead) = (Vec::new(), Duration::ZERO);
    for round in 0..8 {
        // each a shape of its own, so that nothing is shared
        let client = Stalled::open(gateway.address, &format!("table=t&id=gt.{round}")).await;
        eventually("the rows are being read", || async { readers().await == 1 }).await;
        let before = gateway.memory();
        let began = Instant::now();
        // what was given back is used again: only the first time it shows
        eventually("some have arrived", || async {
            let arrived = if round == 0 { gateway.memory() > before + (8 << 20) } else { began.elapsed() >= lead };
            arrived || readers().await == 0
        })
        .await;
        lead = began.elapsed().max(lead);
        assert_eq!(readers().await, 1, "in the middle");
        client.vanishes();
        let gone = Instant::now();
        eventually("the read is over", || async { readers().await == 0 }).await;
        let took = gone.elapsed();
        eventually("nobody is subscribed", || async { gateway.readyz().await["subscriptions"] == 0 }).await;
        memory.push(gateway.memory() >> 20);
        eprintln!("round {round}: the read ended after {took:?}, {} MB resident", memory[round]);
        assert!(took < Duration::from_millis(1500), "{took:?}");
    }
    assert!(memory[7] <= memory[4] + 24, "memory is held: {memory:?} MB");
    // the gateway is well, and a large snapshot is read whole
    let mut client = Stalled::open(gateway.address, "table=t&id=lte.1000").await;
    assert!(client.reads_until("\"more\":false").await);
}
