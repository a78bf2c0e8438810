//! Turns to read: the pool's connections, shared among tables.
//!
//! Must not know: what is read. Invariants: whoever waits is counted, and beyond a number nobody waits; one table never
//! has all the turns, so that its slow lists do not stop the reads of others.

use crate::hub::SourceError;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest wait for the turn to read: behind so many others that an honest "not now" is better.
const TURN: Duration = Duration::from_secs(5);

/// Reads that wait. At 5 ms a read and two turns those behind so many wait for 0.6 s; slower, they would hardly get
/// their turn in time, and each holds some kilobytes.
const WAITING: usize = 256;

/// Of them, of one table: those of others still find a place.
const OF_TABLE: usize = 128;

/// See the module.
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// At a time of one table.
    each: usize,
    /// Reads that wait.
    most: usize,
    /// Of them, of one table.
    of_table: usize,
    waiting: AtomicUsize,
    /// Held to find a table's line. The lines of tables with nobody in them are dropped.
    tables: Mutex<HashMap<u32, Arc<Line>>>,
}

struct Line {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// May read as long as it is held.
#[derive(Debug)]
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _table: OwnedSemaphorePermit,
}

/// One more who waits; one less when dropped, also when whoever waited has left.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn among(count: &AtomicUsize, most: usize) -> Option<Waiting<'_>> {
        let waiting = Waiting(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn crowded() -> SourceError {
    let detail = "too many reads wait for the database: ask again a little later".to_owned();
    SourceError { code: "unavailable", detail, retry: true }
}

impl Turns {
    /// So many at a time, whatever they are of; `waiting` may wait.
    pub(super) fn of_any(turns: usize, waiting: usize) -> Turns {
        Turns { each: turns, most: waiting, of_table: waiting, ..Turns::new(turns) }
    }

    /// So many at a time; all but one of them may be of one table.
    pub(super) fn new(turns: usize) -> Turns {
        Turns {
            all: Arc::new(Semaphore::new(turns)),
            each: turns.saturating_sub(1).max(1),
            most: WAITING,
            of_table: OF_TABLE,
            waiting: AtomicUsize::new(0),
            tables: Mutex::default(),
        }
    }

    fn line(&self, table: u32) -> Arc<Line> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        // an empty line is nobody's but ours: whoever waits or reads holds it, or its permit does
        tables.retain(|relid, line| {
            *relid == table || Arc::strong_count(line) > 1 || line.turns.available_permits() < self.each
        });
        let line = || Line { turns: Arc::new(Semaphore::new(self.each)), waiting: AtomicUsize::new(0) };
        tables.entry(table).or_insert_with(|| Arc::new(line())).clone()
    }

    /// Waits for the turn to read `table`.
    ///
    /// # Errors
    /// Too many wait already, or it took too long.
    pub(super) async fn take(&self, table: u32) -> Result<Turn, SourceError> {
        let line = self.line(table);
        let _in_line = Waiting::among(&line.waiting, self.of_table).ok_or_else(crowded)?;
        let _waiting = Waiting::among(&self.waiting, self.most).ok_or_else(crowded)?;
        let turn = async {
            // the table's first: nobody has a turn of all and waits for one of its table
            let table = line.turns.clone().acquire_owned().await.map_err(|_| crowded())?;
            let all = self.all.clone().acquire_owned().await.map_err(|_| crowded())?;
            Ok(Turn { _all: all, _table: table })
        };
        tokio::time::timeout(TURN, turn).await.unwrap_or_else(|_| Err(crowded()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, future::join_all};

    #[tokio::test]
    async fn one_table_leaves_a_turn_to_the_others() {
        let turns = Turns::new(3);
        let (one, two) = (turns.take(1).await.unwrap(), turns.take(1).await.unwrap());
        assert!(turns.take(1).now_or_never().is_none());
        let other = turns.take(2).now_or_never().expect("at once").unwrap();
        assert!(turns.take(3).now_or_never().is_none(), "three at a time");
        drop((one, other));
        assert!(turns.take(1).now_or_never().is_some_and(|turn| turn.is_ok()));
        drop(two);
        assert!(turns.take(9).now_or_never().is_some_and(|turn| turn.is_ok()));
        assert_eq!(turns.tables.lock().unwrap().len(), 1, "lines of nobody are dropped");
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
        let single = Turns::new(1);
        assert!(single.take(1).now_or_never().is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test]
    async fn nobody_waits_behind_too_many() {
        let turns = Turns::new(2);
        let _first = turns.take(1).await.unwrap();
        let crowd = join_all((0..OF_TABLE + 10).map(|_| turns.take(1)));
        let refused = crowd.now_or_never();
        assert!(refused.is_none());
        let mut waiting: Vec<_> = (0..OF_TABLE).map(|_| Box::pin(turns.take(1))).collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        let error = turns.take(1).now_or_never().expect("at once").unwrap_err();
        assert!(error.code == "unavailable" && error.retry);
        assert!(turns.take(2).now_or_never().is_some_and(|turn| turn.is_ok()), "another table's");
        let second = turns.take(2).await.unwrap();
        let mut others: Vec<_> = (0..WAITING - OF_TABLE).map(|_| Box::pin(turns.take(3))).collect();
        for wait in &mut others {
            assert!(wait.now_or_never().is_none());
        }
        assert!(turns.take(4).now_or_never().expect("at once").is_err());
        // whoever leaves makes room
        drop(others);
        drop(second);
        assert!(turns.take(4).now_or_never().is_some_and(|turn| turn.is_ok()));
        let began = tokio::time::Instant::now();
        assert!(waiting.remove(0).await.is_err());
        assert!(began.elapsed() <= TURN + Duration::from_secs(1));
    }
}
