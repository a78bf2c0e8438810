//! What capture must not do to the session it runs in, the writer's.

use crate::support::World;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use tokio_postgres::{AsyncMessage, NoTls};

/// A plan that is made for the first, huge statement of a session is kept for the one-row statements after it. Compiled,
/// each of those takes half a second.
#[tokio::test]
async fn capture_is_never_compiled_in_the_writers_session() {
    let world = World::new().await;
    world.run("create table plain (id int primary key, n int)").await;
    world.run("create table watched (id int primary key, n int); select rowcast.watch('watched')").await;
    let (client, mut connection) = tokio_postgres::connect(&world.url, NoTls).await.unwrap();
    let plans: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = plans.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message {
                noted.lock().unwrap().push(notice.message().to_owned());
            }
        }
    });
    let available: bool = client.query_one("select pg_jit_available()", &[]).await.unwrap().get(0);
    if !available {
        eprintln!("this server is built without JIT: nothing to prove");
        return;
    }
    let explain = "load 'auto_explain'; set auto_explain.log_nested_statements = on; set auto_explain.log_analyze = on; \
         set auto_explain.log_min_duration = 0; set client_min_messages = log; set jit = on; set jit_above_cost = 0";
    client.batch_execute(explain).await.unwrap();
    for table in ["plain", "watched"] {
        for statement in
            ["insert into T select i, i from generate_series(1, 50) as i", "update T set n = n + 1", "delete from T"]
        {
            client.batch_execute(&statement.replace('T', table)).await.unwrap();
        }
    }
    let plans = plans.lock().unwrap();
    let compiled = |plan: &&String| plan.contains("JIT:");
    assert!(plans.iter().any(|plan| compiled(&plan)), "the writer's own statements are compiled: {plans:#?}");
    let ours: Vec<&String> = plans.iter().filter(|plan| plan.contains("rowcast.log_")).collect();
    assert!(ours.len() >= 3, "{plans:#?}");
    assert_eq!(ours.into_iter().find(compiled), None);
}
