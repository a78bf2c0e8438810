//! `--once`: subscribe as a browser does, watch for a few seconds, and compare with the database.
//!
//! Must not know: the gateway's insides; it has a socket and a connection. Invariant: success means that every subscription
//! had its snapshot, that changes of several tables came in rising versions, and that in the end the subscriber held exactly
//! the rows the database has.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{Instant, timeout_at};

use super::DemoError;
use super::error::database;
use super::example::with_client;
use super::page::SUBSCRIPTIONS;
use super::replica::Replica;
use super::sse::{EventStream, status};
use super::writer::Writer;

/// How many tables must have moved; standings move only when a game ends.
const MOVED_MIN: usize = 3;

/// How long the last changes may take to arrive after the writers stopped. Seconds, for a machine that is busy; a change
/// usually takes milliseconds.
const SETTLE: Duration = Duration::from_secs(10);

/// The gateway is ready in well under a second; a busy machine may take longer.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Between two looks at `/readyz`.
const READY_POLL: Duration = Duration::from_millis(20);

/// What `encodeURIComponent` leaves alone.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a subscriber would hold of each subscription, as versions.
const TRUTH: [(&str, &str); 4] = [
    ("games", "select row_version from games where status in ('live', 'final')"),
    ("board", "select row_version from leaderboard"),
    ("picks", "select row_version from picks"),
    ("standings", "select row_version from standings"),
];

/// What was seen.
#[derive(Debug)]
pub(super) struct Report {
    /// Rows, snapshots and changes per subscription.
    pub(super) subs: Vec<(String, usize, u64, u64)>,
    pub(super) ticks: u64,
    /// Milliseconds from a tick to the subscriber: median and 99th percentile.
    pub(super) fresh_ms: (u64, u64),
}

/// The path of a stream with the page's subscriptions.
pub(super) fn stream_path() -> String {
    let subs: Vec<String> =
        SUBSCRIPTIONS.iter().map(|sub| format!("sub={}", utf8_percent_encode(sub, COMPONENT))).collect();
    format!("/v1/stream?{}", subs.join("&"))
}

/// Waits until the gateway has seen the database and its tables.
pub(super) async fn wait_ready(address: SocketAddr) -> Result<(), DemoError> {
    let until = Instant::now() + READY_WITHIN;
    while status(address, "/readyz").await? != 200 {
        if Instant::now() >= until {
            let seconds = READY_WITHIN.as_secs();
            return Err(DemoError::Check(format!("the gateway was not ready within {seconds} s; `/readyz` says why")));
        }
        tokio::time::sleep(READY_POLL).await;
    }
    Ok(())
}

/// Watches while the games are played, stops them, and compares.
pub(super) async fn run(
    address: SocketAddr,
    url: &str,
    writer: &mut Writer,
    play: Duration,
) -> Result<Report, DemoError> {
    let mut stream = EventStream::open(address, &stream_path()).await?;
    let mut replica = Replica::default();
    let mut fresh = Vec::new();
    let until = Instant::now() + play;
    tokio::select! {
        error = writer.failed() => return Err(error),
        watched = watch(&mut stream, &mut replica, &mut fresh, until, &[]) => watched?,
    };
    writer.stop().await?;
    let truth = truth(url).await?;
    if !watch(&mut stream, &mut replica, &mut fresh, Instant::now() + SETTLE, &truth).await? {
        return Err(DemoError::Check(difference(&replica, &truth)));
    }
    let moved = replica.subs.values().filter(|held| held.changes > 0).count();
    if moved < MOVED_MIN {
        return Err(DemoError::Check(format!("changes of only {moved} tables arrived in {} s", play.as_secs())));
    }
    fresh.sort_unstable();
    let at = |share: usize| fresh.get(fresh.len().saturating_sub(1) * share / 100).copied().unwrap_or(0);
    let subs = replica.subs.iter().map(|(id, held)| (id.clone(), held.versions().len(), held.snapshots, held.changes));
    Ok(Report { subs: subs.collect(), ticks: replica.ticks, fresh_ms: (at(50), at(99)) })
}

/// Applies events until the time is up (false) or exactly `truth` is held (true).
async fn watch(
    stream: &mut EventStream,
    replica: &mut Replica,
    fresh: &mut Vec<u64>,
    until: Instant,
    truth: &[(&str, Vec<i64>)],
) -> Result<bool, DemoError> {
    loop {
        if !truth.is_empty() && truth.iter().all(|(id, rows)| holds(replica, id, rows)) {
            return Ok(true);
        }
        let Ok(event) = timeout_at(until, stream.next()).await else { return Ok(false) };
        let event = event?.ok_or_else(|| DemoError::Check("the gateway closed the stream".into()))?;
        if let Some(at) = replica.apply(&event).map_err(DemoError::Check)? {
            fresh.extend(millis(&at).map(|at| now().saturating_sub(at)));
        }
    }
}

fn holds(replica: &Replica, id: &str, rows: &[i64]) -> bool {
    replica.subs.get(id).is_some_and(|held| held.snapshots > 0 && held.versions() == rows)
}

async fn truth(url: &str) -> Result<Vec<(&'static str, Vec<i64>)>, DemoError> {
    with_client(url, async |client| {
        let mut truth = Vec::new();
        for (id, sql) in TRUTH {
            let rows = client.query(sql, &[]).await.map_err(database("read the final state"))?;
            let mut versions: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
            versions.sort_unstable();
            truth.push((id, versions));
        }
        Ok(truth)
    })
    .await
}

fn difference(replica: &Replica, truth: &[(&str, Vec<i64>)]) -> String {
    let wrong: Vec<String> = truth
        .iter()
        .filter(|(id, rows)| !holds(replica, id, rows))
        .map(|(id, rows)| {
            let held = replica.subs.get(*id).map(|held| held.versions()).unwrap_or_default();
            let missing = rows.iter().filter(|version| !held.contains(version)).count();
            let extra = held.iter().filter(|version| !rows.contains(version)).count();
            format!("`{id}` misses {missing} of {} row versions and holds {extra} others", rows.len())
        })
        .collect();
    format!(
        "{} s after the last write the subscriber differs from the database: {}",
        SETTLE.as_secs(),
        wrong.join("; ")
    )
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// An `at` as milliseconds since 1970.
fn millis(at: &str) -> Option<u64> {
    let at: jiff::Timestamp = at.parse().ok()?;
    at.as_millisecond().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_row_is_named() {
        let mut replica = Replica::default();
        let data = r#"{"type":"snapshot","sub":"g","rows":[{"key":"1","version":4,"row":{}}],"more":false}"#;
        replica.apply(&super::super::sse::Event { data: data.into(), ..Default::default() }).unwrap();
        assert!(holds(&replica, "g", &[4]) && !holds(&replica, "g", &[4, 6]) && !holds(&replica, "other", &[]));
        let text = difference(&replica, &[("g", vec![4, 6])]);
        assert!(text.contains("`g` misses 1 of 2 row versions and holds 0 others"), "{text}");
    }

    #[test]
    fn every_subscription_is_compared_with_the_database() {
        let ids: Vec<&str> = SUBSCRIPTIONS.iter().filter_map(|sub| sub.split('~').next()).collect();
        assert_eq!(ids, TRUTH.map(|(id, _)| id));
        assert!(stream_path().starts_with("/v1/stream?sub=games~games%3Fstatus%3Din.%28live%2Cfinal%29&sub=board"));
    }
}
