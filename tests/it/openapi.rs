//! The HTTP side held against its own description: Schemathesis reads `/openapi.json`, makes requests from it, good and
//! bad ones, and compares every answer.

use crate::support::World;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// The same requests every time; `ROWCAST_SEED` makes others.
const SEED: u64 = 42;

/// Requests for each operation and phase; `ROWCAST_EXAMPLES` makes more.
const EXAMPLES: u64 = 40;

/// It takes about a fifth of this on a quiet machine.
const TIME: Duration = Duration::from_secs(300);

const TABLES: &str = "
    create table scores (id int primary key, league text collate \"C\", home int not null default 0, away int not null default 0);
    insert into scores values (1, 'nfl', 3, 7), (2, 'nba', 88, 91);
    create table seats (block text, place int, taken_by text, primary key (block, place));
    insert into seats values ('a,b', 1, 'x'), ('x', 2, null);
    create table kinds (id bigint primary key, n numeric, f float8, at timestamptz, b bytea, j jsonb, a int[], u uuid, d date);
    insert into kinds values (9007199254740993, 1e400, 'NaN', now(), '\\xff', '{\"a\": [1, null]}', '{1,null}', gen_random_uuid(), 'infinity');
    create table hidden (id int primary key);
    select rowcast.watch('scores', public => true), rowcast.watch('seats', public => true),
        rowcast.watch('kinds', public => true), rowcast.watch('hidden')";

/// Where `scripts/setup.sh tests` puts it: below the directory cargo builds in.
fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_rowcast"));
    let places = built.ancestors().map(|dir| dir.join("schemathesis/bin/schemathesis"));
    places.into_iter().find(|p| p.is_file()).expect("`schemathesis` is not installed: run `scripts/setup.sh tests`")
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn answers_are_as_described() {
    let program = program();
    let world = World::new().await;
    world.run(TABLES).await;
    let gateway = world.gateway().await;
    let scratch = tempfile::tempdir().unwrap();
    let (seed, examples) = (number("ROWCAST_SEED", SEED), number("ROWCAST_EXAMPLES", EXAMPLES));
    let config = scratch.path().join("schemathesis.toml");
    let position = gateway.readyz().await["position"].as_str().unwrap().to_owned();
    std::fs::write(&config, include_str!("openapi.toml").replace("POSITION", &position)).unwrap();
    let mut command = Command::new(program);
    command.arg("--config-file").arg(&config).arg("run").arg(gateway.url("/openapi.json"));
    command.args(["--phases", "coverage,fuzzing", "--continue-on-failure", "--no-color", "--workers", "2"]);
    command.args([format!("--seed={seed}"), format!("--max-examples={examples}")]);
    // an error must be shown whole: the request as curl and what was wrong
    command.args(["--generation-database", "none", "--output-truncate", "false"]);
    let output = command.current_dir(scratch.path()).stdin(Stdio::null()).kill_on_drop(true).output();
    let output =
        tokio::time::timeout(TIME, output).await.unwrap_or_else(|_| panic!("not ready within {TIME:?}")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let also = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ROWCAST_SEED={seed}\n{said}\n{also}");
    assert!(said.contains("No issues found") || said.contains("passed"), "it ran: {said}");
    assert_eq!(gateway.readyz().await["ready"], true, "it still serves");
    gateway.stop().await;
}

#[tokio::test]
async fn the_document_is_served_as_it_is_printed() {
    let printed = Command::new(env!("CARGO_BIN_EXE_rowcast")).arg("openapi").output().await.unwrap();
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).unwrap();
    let gateway = World::new().await.gateway().await;
    let answer = reqwest::get(gateway.url("/openapi.json")).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].as_bytes()),
        (200, &b"application/json"[..])
    );
    let served = answer.text().await.unwrap();
    assert_eq!(served, printed.trim_end());
    let document: Value = serde_json::from_str(&served).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    gateway.stop().await;
}
