//! The demo, run as a user runs it: its own check passes, and what was there before is there after it.

use std::future::pending;

use rowcast::demo::{DemoArgs, DemoError, demo};
use rowcast::localpg::{Environment, LocalPg, LocalPgOptions};
use tokio_postgres::{Client, NoTls};

fn environment() -> Environment {
    Environment::read(|name| std::env::var_os(name))
}

fn once(url: &str) -> DemoArgs {
    DemoArgs { once: true, seconds: Some(3), database_url: Some(url.to_owned()), ..DemoArgs::default() }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn tables(client: &Client) -> Vec<String> {
    let sql = "select tablename::text from pg_tables where schemaname = 'public' order by 1";
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_subscriber_holds_what_the_database_has_and_nothing_is_left() {
    let pg = LocalPg::start(LocalPgOptions { environment: environment(), ..LocalPgOptions::default() }).await.unwrap();
    let client = connect(&pg.url("postgres")).await;
    for run in 1..=2 {
        demo(once(&pg.url("postgres")), environment(), pending()).await.unwrap();
        assert_eq!(tables(&client).await, [""; 0], "after run {run}");
    }
}

#[tokio::test]
async fn tables_of_somebody_else_are_not_touched() {
    let pg = LocalPg::start(LocalPgOptions { environment: environment(), ..LocalPgOptions::default() }).await.unwrap();
    let client = connect(&pg.url("postgres")).await;
    client.batch_execute("create table games (id int); insert into games values (7)").await.unwrap();
    let error = demo(once(&pg.url("postgres")), environment(), pending()).await.unwrap_err();
    assert!(matches!(&error, DemoError::Occupied(table) if table == "games"), "{}", error.with_causes());
    assert_eq!(client.query_one("select id from games", &[]).await.unwrap().get::<_, i32>(0), 7);
    assert_eq!(tables(&client).await, ["games"]);
}

#[tokio::test]
async fn told_to_stop_in_the_middle_it_cleans_up() {
    let pg = LocalPg::start(LocalPgOptions { environment: environment(), ..LocalPgOptions::default() }).await.unwrap();
    let client = connect(&pg.url("postgres")).await;
    let args = DemoArgs { once: false, no_open: true, port: Some(0), ..once(&pg.url("postgres")) };
    let args = DemoArgs { seconds: None, ..args };
    let games_are_on = async {
        let playing = "select to_regclass('public.games') is not null";
        while !client.query_one(playing, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::task::yield_now().await;
        }
        while client.query_one("select count(*) from games", &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    demo(args, environment(), games_are_on).await.unwrap();
    assert_eq!(tables(&client).await, [""; 0]);
}
