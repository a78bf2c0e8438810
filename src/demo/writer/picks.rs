//! Survivor picks: two users want the same slot. Both read it, both write the version they read; one of them is told.
//!
//! Must not know: Rowcast, beyond the column `row_version` and SQLSTATE `RC409`, as an application would. Invariant: a slot
//! is never overwritten by somebody who has not seen who holds it.

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Tally, pause};
use crate::demo::DemoError;
use crate::demo::error::database;
use crate::demo::example::with_client;

/// The gateway's answer to a write based on an old version.
const CONFLICT: &str = "RC409";

/// Who races.
const USERS: [&str; 4] = ["Otter", "Heron", "Badger", "Lynx"];

const OPEN: &str = "select slot, row_version from picks where taken_by is null order by slot limit 1";
/// The version read goes along with the write; the database refuses it when the row has moved on.
const TAKE: &str = "update picks set taken_by = $2, row_version = $3 where slot = $1";
/// The loser has read the answer and the row as it is now, and only says that it was there.
const LOST: &str = "update picks set beaten = $2 where slot = $1 and taken_by <> $2";
const CLEAR: &str = "update picks set taken_by = null, beaten = null";

/// Two users race for one slot after the other until told to stop; when all are taken a new week begins.
pub(super) async fn race(url: &str, stop: &CancellationToken, tally: &Tally) -> Result<(), DemoError> {
    with_client(url, async |one| {
        with_client(url, async |two| {
            while pause(stop, rand::random_range(700..1_500)).await {
                round(one, two, tally).await.map_err(database("race for a slot"))?;
            }
            Ok(())
        })
        .await
    })
    .await
}

async fn round(one: &Client, two: &Client, tally: &Tally) -> Result<(), tokio_postgres::Error> {
    let first = rand::random_range(0..USERS.len());
    let second = (first + rand::random_range(1..USERS.len())) % USERS.len();
    // Both look before either writes: the race an application cannot see.
    let (seen, also_seen) = tokio::try_join!(one.query_opt(OPEN, &[]), two.query_opt(OPEN, &[]))?;
    let (Some(seen), Some(also_seen)) = (seen, also_seen) else {
        one.execute(CLEAR, &[]).await?;
        tally.committed();
        return Ok(());
    };
    let (slot, version): (i32, i64) = (seen.get(0), seen.get(1));
    let (also_slot, also_version): (i32, i64) = (also_seen.get(0), also_seen.get(1));
    let (taken, also_taken) =
        tokio::join!(async { one.execute(TAKE, &[&slot, &USERS[first], &version]).await }, async {
            two.execute(TAKE, &[&also_slot, &USERS[second], &also_version]).await
        });
    for (user, result) in [(first, taken), (second, also_taken)] {
        match result {
            Ok(_) => tally.committed(),
            Err(error) if error.code().is_some_and(|state| state.code() == CONFLICT) => {
                tally.refused.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                one.execute(LOST, &[&slot, &USERS[user]]).await?;
                tally.committed();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
