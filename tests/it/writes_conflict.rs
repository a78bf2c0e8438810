//! Writers that are too late: nobody's change is lost, and a batch with one stale version changes nothing.

use crate::support::writing::http;
use crate::support::{World, Writing};
use serde_json::{Value, json};

const CLIENTS: i64 = 50;

const COUNTER: &str =
    "create table counters (id int primary key, n bigint not null, by text); insert into counters values (1, 0, '');
    select rowcast.watch('counters', public => true); select rowcast.allow('counters', 'anon', write => true)";

#[tokio::test]
async fn fifty_clients_increment_one_counter() {
    let w = Writing::new(COUNTER).await;
    let url = w.gateway.url("/v1/tables/counters/1");
    let clients = (0..CLIENTS).map(|i| {
        let url = url.clone();
        tokio::spawn(async move {
            let http = http();
            // whoever knows nothing yet learns it from the refusal
            let (mut version, mut n, mut tries) = (1, 0, 0);
            loop {
                tries += 1;
                let answer = http
                    .patch(&url)
                    .header("content-type", "application/merge-patch+json")
                    .header("if-match", format!("\"{version}\""))
                    .body(json!({"n": n + 1, "by": i.to_string()}).to_string())
                    .send()
                    .await
                    .unwrap();
                let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
                match status {
                    200 => return tries,
                    412 => {
                        version = body["current"]["version"].as_i64().unwrap();
                        n = body["current"]["row"]["n"].as_i64().unwrap();
                    }
                    // many on one row: the pool's and the lock's limits
                    503 | 409 => {}
                    _ => panic!("{status} {body}"),
                }
            }
        })
    });
    let tries: i64 =
        futures_util::future::join_all(clients.collect::<Vec<_>>()).await.into_iter().map(|t| t.unwrap()).sum();
    assert_eq!(w.text("select n from counters").await, CLIENTS.to_string());
    assert!(tries >= 2 * CLIENTS, "each was refused at least once: {tries}");
    w.gateway.stop().await;
}

#[tokio::test]
async fn the_same_in_plain_sql() {
    let world = World::new().await;
    world.run(COUNTER).await;
    let clients = (0..CLIENTS).map(|_| {
        let url = world.url.clone();
        tokio::spawn(async move {
            let sql = crate::support::world::connect(&url).await;
            loop {
                let row = sql.query_one("select n, row_version from counters", &[]).await.unwrap();
                let (n, version): (i64, i64) = (row.get(0), row.get(1));
                match sql
                    .execute("update counters set n = $1, row_version = $2 where id = 1", &[&(n + 1), &version])
                    .await
                {
                    Ok(1) => return,
                    Ok(n) => panic!("{n} rows"),
                    Err(error) => assert_eq!(error.code().unwrap().code(), "RC409", "{error:?}"),
                }
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let n: i64 = world.sql().await.query_one("select n from counters", &[]).await.unwrap().get(0);
    assert_eq!(n, CLIENTS);
}

#[tokio::test]
async fn one_stale_version_and_the_batch_changes_nothing() {
    let w = Writing::new(
        "create table picks (id int primary key, slot text not null unique, n int check (n < 100));
         insert into picks values (1, 'a', 0), (2, 'b', 0), (3, 'c', 0);
         select rowcast.watch('picks', public => true); select rowcast.allow('picks', 'anon', write => true)",
    )
    .await;
    let state = "select string_agg(concat_ws(':', id, slot, n, row_version), ' ' order by id) from picks";
    let before = w.text(state).await;
    let version =
        async |id: i32| w.text(&format!("select row_version from picks where id = {id}")).await.parse::<i64>().unwrap();
    let (one, two) = (version(1).await, version(2).await);
    let update = |id: i32, version: i64, set: Value| json!({"op": "update", "table": "picks", "key": id.to_string(), "version": version, "set": set});
    for (last, status, code) in [
        (update(2, two + 1, json!({"n": 1})), 412, "version-conflict"),
        (update(2, two, json!({"slot": "a"})), 409, "conflict"),
        (update(2, two, json!({"n": 100})), 422, "constraint-violation"),
        (update(2, two, json!({"n": "x"})), 422, "invalid-value"),
        (update(9, two, json!({"n": 1})), 404, "not-found"),
    ] {
        let ops = json!({"ops": [update(1, one, json!({"n": 5})), {"op": "delete", "table": "picks", "key": "3", "version": version(3).await}, last]});
        let problem = w.json("POST", "/v1/batch", &[], &ops.to_string()).await.refused(status, code);
        assert_eq!(
            (&problem["errors"][0]["op"], &problem["errors"][0]["code"]),
            (&json!(2), &json!(code)),
            "{problem}"
        );
        assert_eq!(problem["current"].is_object(), status == 412, "{problem}");
        if status == 412 {
            assert_eq!((&problem["current"]["key"], &problem["current"]["version"]), (&json!("2"), &json!(two)));
        }
        assert_eq!(w.text(state).await, before, "{ops}");
    }
    // the same row twice: the second is based on what the first made of it, which nobody can know
    let twice = json!({"ops": [update(1, one, json!({"n": 5})), update(1, one, json!({"n": 6}))]});
    let problem = w.json("POST", "/v1/batch", &[], &twice.to_string()).await.refused(412, "version-conflict");
    // what it made of it is undone, and not told
    assert_eq!(
        problem["current"],
        json!({"key": "1", "version": one, "row": {"id": 1, "slot": "a", "n": 0, "row_version": one}})
    );
    let gone = json!({"ops": [{"op": "delete", "table": "picks", "key": "1", "version": one},
        {"op": "insert", "table": "picks", "row": {"id": 1, "slot": "z", "n": 7}}, update(1, one, json!({"n": 6}))]});
    let answer = w.json("POST", "/v1/batch", &[], &gone.to_string()).await;
    let problem = answer.refused(412, "version-conflict");
    assert_eq!(
        (&problem["current"]["row"]["slot"], answer.header("etag")),
        (&json!("a"), Some(&*format!("\"{one}\"")))
    );
    let new = json!({"ops": [{"op": "insert", "table": "picks", "row": {"id": 5, "slot": "z"}},
        {"op": "update", "table": "picks", "key": "5", "version": 1, "set": {"n": 6}}]});
    let answer = w.json("POST", "/v1/batch", &[], &new.to_string()).await;
    let problem = answer.refused(412, "version-conflict");
    assert!(problem["current"].is_null() && answer.header("etag").is_none(), "never committed: {problem}");
    assert_eq!(w.text(state).await, before);
    w.gateway.stop().await;
}

/// What is returned is what is committed: the row as the last trigger left it.
#[tokio::test]
async fn the_version_returned_is_the_one_committed() {
    let w = Writing::new(
        "create table t (id int primary key, n int, touched int default 0);
         create function touch() returns trigger language plpgsql as $$ begin
           if pg_trigger_depth() = 1 then update t set touched = touched + 1 where id = new.id; end if; return null; end $$;
         create trigger touch after insert or update on t for each row execute function touch();
         create constraint trigger late after update on t deferrable initially deferred for each row execute function touch();
         select rowcast.watch('t', public => true); select rowcast.allow('t', 'anon', write => true)",
    )
    .await;
    let answer = w.json("POST", "/v1/tables/t", &[], r#"{"id": 1}"#).await;
    answer.ok(201);
    let answer = w.patch("/v1/tables/t/1", answer.header("etag").unwrap(), r#"{"n": 1}"#).await;
    answer.ok(200);
    let row: String = w.text("select to_json(t.*) from t").await;
    assert_eq!(answer.value(), serde_json::from_str::<Value>(&row).unwrap());
    w.patch("/v1/tables/t/1", answer.header("etag").unwrap(), r#"{"n": 2}"#).await.ok(200);
    w.gateway.stop().await;
}
