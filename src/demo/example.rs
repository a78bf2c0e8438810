//! The example's tables: made before the games, removed after them when the database is not ours alone.
//!
//! Must not know: who writes or reads them. Invariant: tables that were there before are refused, not replaced.

use tokio_postgres::{Client, NoTls};

use super::DemoError;
use super::error::database;

const SCHEMA: &str = include_str!("../../demo/schema.sql");
const DROP: &str = include_str!("../../demo/drop.sql");

/// The first table with one of the example's names, unless the example made it in an earlier run.
const FOREIGN: &str = "select c.relname::text from pg_catalog.pg_class c \
    where c.relnamespace = 'public'::regnamespace \
      and c.relname in ('games', 'leaderboard', 'leagues', 'picks', 'standings', 'team_stats') \
      and not exists (select from pg_catalog.pg_class l \
        where l.relnamespace = c.relnamespace and l.relname = 'leagues' \
          and pg_catalog.obj_description(l.oid, 'pg_class') = 'example of rowcast demo') \
    order by 1 limit 1";

/// Makes the example's tables and has them watched. The migrations are in place.
pub(super) async fn load(url: &str) -> Result<(), DemoError> {
    with_client(url, async |client| {
        if let Some(row) = client.query_opt(FOREIGN, &[]).await.map_err(database("look at the database"))? {
            return Err(DemoError::Occupied(row.get(0)));
        }
        client.batch_execute(DROP).await.map_err(database("remove the example of an earlier run"))?;
        client.batch_execute(SCHEMA).await.map_err(database("load the example (`demo/schema.sql`)"))
    })
    .await
}

/// Removes the example's tables from a database that is not ours alone.
pub(super) async fn unload(url: &str) -> Result<(), DemoError> {
    with_client(url, async |client| client.batch_execute(DROP).await.map_err(database("remove the example"))).await
}

/// Runs some work on a connection of its own, which lives exactly as long.
pub(super) async fn with_client<T>(
    url: &str,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, DemoError>,
) -> Result<T, DemoError> {
    let (mut client, connection) =
        tokio_postgres::connect(url, NoTls).await.map_err(database("connect to the database"))?;
    let work = async {
        let result = work(&mut client).await;
        drop(client);
        result
    };
    let (result, closed) = tokio::join!(work, connection);
    let value = result?;
    closed.map_err(database("close the connection"))?;
    Ok(value)
}
