//! Requests this worker has understood lately, by their text: who polls asks the same again and again, and to read
//! path, filter and order took a fifth of a cached answer's time.
//!
//! Must not know: the database, answers. Invariant: what is remembered was resolved against the very catalog that is
//! given, so it is what reading the text again would say.

use super::Problem;
use super::representation::Told;
use crate::cache::Query;
use crate::hub::Tables;
use crate::permit::Permit;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Texts remembered per worker. Above it all are forgotten: a crowd that never asks the same twice gains nothing.
const MOST: usize = 512;

/// Longest text remembered; with [`MOST`] half a megabyte a worker.
const LONGEST: usize = 1024;

/// A request for rows.
#[derive(Debug)]
pub(super) struct Understood {
    /// Which rows.
    pub query: Query,
    /// Where the next page of a list begins, when there can be one.
    pub next: Option<u64>,
    /// What of it may be seen.
    pub permit: Permit,
    /// What the last answer's headers were.
    pub told: Told,
}

impl Understood {
    pub(super) fn new(query: Query, permit: Permit, next: Option<u64>) -> Understood {
        Understood { query, next, permit, told: Told::default() }
    }
}

#[derive(Default)]
struct Remembered {
    tables: Arc<Tables>,
    known: HashMap<Box<str>, Rc<Understood>>,
}

thread_local! {
    static REMEMBERED: RefCell<Remembered> = RefCell::default();
}

/// What `target` asks for, read by `read` unless it is remembered.
///
/// # Errors
/// Those of `read`, which are not remembered.
pub(super) fn recall(
    tables: &Arc<Tables>,
    target: &str,
    read: impl FnOnce(&Tables) -> Result<Understood, Problem>,
) -> Result<Rc<Understood>, Problem> {
    let known = REMEMBERED.with_borrow_mut(|remembered| {
        if !Arc::ptr_eq(&remembered.tables, tables) {
            *remembered = Remembered { tables: tables.clone(), known: HashMap::new() };
        }
        remembered.known.get(target).cloned()
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let understood = Rc::new(read(tables)?);
    if target.len() <= LONGEST {
        REMEMBERED.with_borrow_mut(|remembered| {
            if remembered.known.len() >= MOST {
                remembered.known.clear();
            }
            remembered.known.insert(target.into(), understood.clone());
        });
    }
    Ok(understood)
}
