//! The main road, over every transport: a committed write arrives, a client resumes.

use crate::support::client::{TRANSPORTS, Transport, subscribe};
use crate::support::{Sse, World};
use serde_json::json;

const SCORES: &str = "create table scores (id int primary key, league text, home int);
    select rowcast.watch('scores', public => true)";

#[tokio::test]
async fn a_committed_write_arrives() {
    let world = World::new().await;
    world.run(SCORES).await;
    world.run("insert into scores values (1, 'nfl', 0), (2, 'nba', 0)").await;
    let gateway = world.gateway().await;
    for (i, transport) in TRANSPORTS.into_iter().enumerate() {
        let mut client = subscribe(transport, gateway.address, "table=scores&league=eq.nfl").await;
        client.until("the first row", |r| r.row("1").is_some() && r.rows("1").len() == 1).await;
        world.run("update scores set home = home + 1").await;
        client.until("the change", |r| r.row("1").is_some_and(|row| row["home"] == i + 1)).await;
        world.run("update scores set league = 'nfl' where id = 2").await;
        client.until("a row that came into the filter", |r| r.row("2").is_some()).await;
        world.run("update scores set league = 'nba' where id = 2").await;
        client.until("a row that left the filter", |r| r.row("2").is_none()).await;
        assert!(client.replica().resets.is_empty());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_resumes_on_another_gateway() {
    let world = World::new().await;
    world.run(SCORES).await;
    let (one, two) = (world.gateway().await, world.gateway().await);
    for transport in TRANSPORTS {
        world.run("truncate scores; insert into scores values (1, 'nfl', 0), (2, 'nfl', 0)").await;
        let mut client = subscribe(transport, one.address, "table=scores").await;
        client
            .until("both rows", |r| {
                r.row("1").is_some_and(|row| row["home"] == 0) && r.row("2").is_some() && r.position.is_some()
            })
            .await;
        let resets = client.replica().resets.len();
        if transport != Transport::LongPoll {
            // the old connection must be seen to end before the writes, or it would still deliver them
            client.reconnect(two.address).await;
        }
        world.run("update scores set home = 7 where id = 1; delete from scores where id = 2; insert into scores values (3, 'x', 1)").await;
        client.reconnect(two.address).await;
        client.until("what was missed", |r| r.row("3").is_some()).await;
        assert_eq!(client.replica().row("1").unwrap()["home"], json!(7));
        assert!(client.replica().row("2").is_none());
        assert_eq!(client.replica().resets.len(), resets, "{transport:?}: resumed, not reset");
        client.reconnect(one.address).await;
        world.run("update scores set home = 8 where id = 1").await;
        client.until("live again", |r| r.row("1").is_some_and(|row| row["home"] == 8)).await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn several_subscriptions_on_one_connection_share_one_position() {
    let world = World::new().await;
    world.run(SCORES).await;
    world
        .run("create table teams (name text primary key, wins int); select rowcast.watch('teams', public => true)")
        .await;
    let gateway = world.gateway().await;
    let mut sse = Sse::open(gateway.address, "sub=s~scores%3Fleague%3Deq.nfl&sub=t~teams").await;
    let client: &mut dyn crate::support::Client = &mut sse;
    client.until("a position", |r| r.position.is_some()).await;
    world.run("begin; insert into scores values (1, 'nfl', 1); insert into teams values ('a b', 1); commit").await;
    client.until("both tables", |r| r.rows("s").len() == 1 && r.rows("t").len() == 1).await;
    let data: Vec<_> = sse.events.iter().filter(|e| e.data.contains("\"changes\"")).collect();
    assert_eq!(data.len(), 2);
    assert!(data[0].id.is_none() && data[1].id.is_some(), "the id stands where the tick ends: {data:#?}");
    assert!(sse.replica.subs["t"].rows.contains_key("a%20b"), "keys are percent-encoded");
    gateway.stop().await;
}
