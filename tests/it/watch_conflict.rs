//! The row version as an optimistic lock, from plain SQL: SQLSTATE RC409 and everything around it.

use crate::support::World;
use tokio_postgres::{Client, SimpleQueryMessage};

async fn prepared() -> (World, Client) {
    let world = World::new().await;
    world
        .run(
            "create schema app; create table app.picks (id int primary key, slot text);
             select rowcast.watch('app.picks');
             insert into app.picks values (1, 'a'), (2, 'b')",
        )
        .await;
    let sql = world.sql().await;
    (world, sql)
}

async fn version(sql: &Client, id: i32) -> i64 {
    sql.query_one("select row_version from app.picks where id = $1", &[&id]).await.unwrap().get(0)
}

async fn touched(sql: &Client, statement: &str) -> u64 {
    let answers = sql.simple_query(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    answers.iter().find_map(|a| if let SimpleQueryMessage::CommandComplete(n) = a { Some(*n) } else { None }).unwrap()
}

#[tokio::test]
async fn a_stale_version_is_refused_with_everything_a_caller_needs() {
    let (_world, sql) = prepared().await;
    let read = version(&sql, 1).await;
    sql.batch_execute("update app.picks set slot = 'faster' where id = 1").await.unwrap();
    let now = version(&sql, 1).await;
    assert!(now > read && now % 2 == 0);
    for stale in [read, 0, now + 2, i64::MAX, -1] {
        let error = sql
            .batch_execute(&format!("update app.picks set slot = 'mine', row_version = {stale} where id = 1"))
            .await
            .unwrap_err();
        let db = error.as_db_error().unwrap();
        assert_eq!(db.code().code(), "RC409", "not 40001, which retry layers would repeat");
        assert_eq!(db.message(), "the row was changed since it was read");
        assert_eq!(db.detail().unwrap(), format!("the write is based on row_version {stale}, the row has {now}"));
        assert_eq!((db.schema(), db.table(), db.column()), (Some("app"), Some("picks"), Some("row_version")));
        assert!(db.hint().unwrap().contains("read the row again"), "{db:?}");
    }
    assert_eq!(version(&sql, 1).await, now, "nothing was written");
}

#[tokio::test]
async fn the_version_read_or_none_lets_the_write_through() {
    let (_world, sql) = prepared().await;
    let mut last = version(&sql, 1).await;
    for statement in [
        "update app.picks set slot = 'x', row_version = VERSION where id = 1",
        "update app.picks set slot = 'y', row_version = null where id = 1",
        "update app.picks set slot = 'z' where id = 1",
        "update app.picks set slot = 'w', row_version = row_version where id = 1",
        "update app.picks set slot = 'v' where id = 1 and row_version = VERSION",
        "insert into app.picks as p values (1, 'u') on conflict (id) do update set slot = excluded.slot",
        "insert into app.picks as p values (1, 'u') on conflict (id) do update set slot = excluded.slot, row_version = p.row_version",
    ] {
        let statement = statement.replace("VERSION", &last.to_string());
        assert_eq!(touched(&sql, &statement).await, 1, "{statement}");
        let now = version(&sql, 1).await;
        assert!(now > last && now % 2 == 0, "{statement}: {now} after {last}");
        last = now;
    }
    let stale = last - 2;
    assert_eq!(
        touched(&sql, &format!("update app.picks set slot = 'no' where id = 1 and row_version = {stale}")).await,
        0
    );
    assert_eq!(touched(&sql, &format!("delete from app.picks where id = 1 and row_version = {stale}")).await, 0);
    assert_eq!(version(&sql, 1).await, last, "nobody drew a version");
}

#[tokio::test]
async fn of_two_who_read_the_same_one_wins() {
    let (world, one) = prepared().await;
    let two = world.sql().await;
    let read = version(&one, 2).await;
    let attempt = |n: i32| format!("update app.picks set slot = 's{n}', row_version = {read} where id = 2");
    one.batch_execute(&format!("begin; {}", attempt(1))).await.unwrap();
    let pid = crate::support::mirror::pid(&two).await;
    let second = attempt(2);
    let (lost, ()) = tokio::join!(two.batch_execute(&second), async {
        crate::support::mirror::blocked(&one, pid).await;
        one.batch_execute("commit").await.unwrap();
    });
    assert_eq!(lost.unwrap_err().code().unwrap().code(), "RC409");
    let row = one.query_one("select slot from app.picks where id = 2", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), "s1");
}

#[tokio::test]
async fn versions_rise_over_delete_and_insert_and_cannot_be_chosen() {
    let (_world, sql) = prepared().await;
    let mut last = version(&sql, 1).await;
    for statement in [
        "delete from app.picks where id = 1; insert into app.picks values (1, 'again')",
        "delete from app.picks where id = 1; insert into app.picks (id, slot, row_version) values (1, 'chosen', 0)",
        "delete from app.picks where id = 1; insert into app.picks (id, slot, row_version) values (1, 'chosen', 9000000000000000000)",
        "delete from app.picks where id = 1; insert into app.picks (id, slot, row_version) values (1, 'chosen', null)",
        "truncate app.picks; insert into app.picks values (1, 'again')",
        "begin; update app.picks set id = 7; insert into app.picks values (1, 'again'); commit",
    ] {
        sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        let now = version(&sql, 1).await;
        assert!(now > last + 1 && now < 10_000, "{statement}: {now} after {last} and its tombstone");
        last = now;
    }
    // kept over unwatch, so that whoever held a version still knows an older one
    sql.batch_execute(
        "select rowcast.unwatch('app.picks'); select rowcast.watch('app.picks'); update app.picks set slot = 'x'",
    )
    .await
    .unwrap();
    assert!(version(&sql, 1).await > last);
    sql.batch_execute("select rowcast.unwatch('app.picks', drop_version => true)").await.unwrap();
    assert!(sql.query("select row_version from app.picks", &[]).await.is_err());
}
