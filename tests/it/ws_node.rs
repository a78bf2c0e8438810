//! A real client: the npm package `ws`, which half of all WebSocket programs are written with. What it does is in `ws_node.js`.

use crate::support::{PATIENCE, World, eventually};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Where `scripts/setup.sh tests` puts it: below the directory cargo builds in.
fn modules() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_rowcast"));
    let places = built.ancestors().map(|dir| dir.join("node/node_modules"));
    places.into_iter().find(|p| p.join("ws").is_dir()).expect("`ws` is not installed: run `scripts/setup.sh tests`")
}

#[tokio::test]
async fn the_client_of_npm() {
    let world = World::new().await;
    world
        .run(
            "create table items (id int primary key, n int, pad text);
             insert into items select i, 0, repeat('é', 2000) from generate_series(1, 200) as i;
             select rowcast.watch('items', public => true); select rowcast.allow('items', 'anon', write => true)",
        )
        .await;
    let gateway = world.gateway_with(|s| s.ping = Duration::from_millis(200)).await;
    let mut node = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/ws_node.js"))
        .arg(format!("ws://{}/v1/ws", gateway.address))
        .env("NODE_PATH", modules())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("`node` runs: `scripts/setup.sh tests` installs it");
    let (mut input, mut output) = (node.stdin.take().unwrap(), BufReader::new(node.stdout.take().unwrap()).lines());
    let mut said = Vec::new();
    while let Some(word) = tokio::time::timeout(PATIENCE, output.next_line()).await.expect("a word").unwrap() {
        match word.as_str() {
            "change" => {
                let parked = || gateway.gateway().core().hub.parked();
                eventually("it rides", || async { parked() == 1 }).await;
                world.run("update items set n = 1 where id = 1").await;
            }
            "gone" => world.run("update items set n = 3 where id = 3").await,
            "back" => world.run("delete from items where id = 3").await,
            _ => {}
        }
        said.push(word);
        // it has gone after its last word
        let _ = input.write_all(b"\n").await;
    }
    assert!(node.wait().await.unwrap().success(), "it came as far as {said:?}");
    assert_eq!(said, ["change", "gone", "back", "done"]);
    gateway.stop().await;
}
