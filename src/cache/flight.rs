//! Reads of the database that are under way: however many ask for the same, it is asked once.
//!
//! Must not know: SQL. Invariants: at most one flight per key; its result is stored before the flight is over, both
//! under one lock, so nobody finds neither; a flight goes on when whoever started it is gone.

use super::entry::Entry;
use super::source::QueryKey;
use crate::hub::SourceError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

pub(super) type Landed = Result<Arc<Entry>, SourceError>;

/// Flights under way.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<QueryKey, Flight>>>);

/// Waits for a flight's end.
#[derive(Clone)]
pub(super) struct Flight(watch::Receiver<Option<Landed>>);

/// The pilot's side. Dropped without landing, the flight is over all the same.
pub(super) struct Pilot {
    flights: Flights,
    key: QueryKey,
    sender: watch::Sender<Option<Landed>>,
}

/// What somebody who needs a read gets.
pub(super) enum Boarding {
    /// Another read ended in between.
    Landed(Arc<Entry>),
    /// One is under way.
    Joined(Flight),
    /// It is for the caller to read.
    Started(Pilot, Flight),
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<QueryKey, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a flight or starts one, unless `landed` finds what a flight has stored meanwhile.
    pub(super) fn board(&self, key: &QueryKey, landed: impl FnOnce() -> Option<Arc<Entry>>) -> Boarding {
        let mut flights = self.lock();
        if let Some(entry) = landed() {
            return Boarding::Landed(entry);
        }
        if let Some(flight) = flights.get(key) {
            return Boarding::Joined(flight.clone());
        }
        let (sender, receiver) = watch::channel(None);
        let flight = Flight(receiver);
        flights.insert(key.clone(), flight.clone());
        Boarding::Started(Pilot { flights: self.clone(), key: key.clone(), sender }, flight)
    }
}

impl Flight {
    /// The result.
    pub(super) async fn landed(mut self) -> Landed {
        let gone = || {
            let detail = "the gateway is shutting down".to_owned();
            SourceError { code: "shutting-down", detail, retry: false }
        };
        self.0.wait_for(Option::is_some).await.map_err(|_| gone())?.clone().ok_or_else(gone)?
    }
}

impl Pilot {
    /// Ends the flight; `store` keeps the result.
    pub(super) fn land(self, landed: Landed, store: impl FnOnce(&QueryKey, &Arc<Entry>)) {
        {
            let mut flights = self.flights.lock();
            if let Ok(entry) = &landed {
                store(&self.key, entry);
            }
            flights.remove(&self.key);
        }
        // told after unlocking: the woken take the same lock
        self.sender.send_replace(Some(landed));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            self.flights.lock().remove(&self.key);
        }
    }
}
