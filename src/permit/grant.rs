//! By what right something is shown, and what tells one extent of it from another.
//!
//! Must not know: claims. Invariants: a grant holds as long as the rule that counts for its role shows what it showed, and not when it
//! only comes to allow writing; a mark is the same on every gateway.

use super::rule;
use crate::change::{Mark, Rule, Table};
use crate::filter::Filter;
use xxhash_rust::xxh3::Xxh3;

/// A role, and what of the rule that counted for it decides what is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Of the caller, which may have no rule of its own: when it gets one, that counts. None: the operator.
    role: Option<Box<str>>,
    digest: u64,
}

impl Grant {
    pub(super) fn of(role: &str, rule: &Rule) -> Grant {
        let mut hash = Xxh3::new();
        put(&mut hash, rule.filter.as_deref());
        for column in rule.columns.iter().flatten() {
            put(&mut hash, Some(column));
        }
        put(&mut hash, rule.columns.is_none().then_some("*"));
        Grant { role: Some(role.into()), digest: hash.digest() }
    }

    /// Do both show the same, to whatever callers, without a look at their claims? A rule for those without a token has none.
    pub(super) fn shows_what(&self, other: &Grant) -> bool {
        self.digest == other.digest && other.role.is_some()
    }

    /// Of the operator, whom no rule binds.
    #[must_use]
    pub fn operator() -> Grant {
        Grant { role: None, digest: 0 }
    }

    /// Does the table's rule still say the same to this role?
    #[must_use]
    pub fn holds(&self, table: &Table) -> bool {
        self.role.as_ref().is_none_or(|role| rule(table, role).is_some_and(|rule| Grant::of(role, rule) == *self))
    }
}

/// What tells these rows and columns from others. By the table's name: the same on every gateway.
pub(super) fn mark(table: &Table, filter: &Filter, columns: Option<&[String]>) -> Mark {
    Mark::new(digest(table, filter, columns), filter.is_everything() && columns.is_none())
}

/// All of the digest of [`mark`], for where there is room for it.
pub(super) fn digest(table: &Table, filter: &Filter, columns: Option<&[String]>) -> u64 {
    let mut hash = Xxh3::new();
    put(&mut hash, Some(&table.wire_name()));
    put(&mut hash, Some(filter.canonical()));
    for column in columns.into_iter().flatten() {
        put(&mut hash, Some(column));
    }
    put(&mut hash, columns.is_none().then_some("*"));
    hash.digest()
}

pub(super) fn digest_of_columns(columns: &[String]) -> u32 {
    let mut hash = Xxh3::new();
    columns.iter().for_each(|column| put(&mut hash, Some(column)));
    u32::try_from(hash.digest() >> 32).unwrap_or_default()
}

/// With its length, so that no two lists of texts run into one; nothing is told from an empty text.
fn put(hash: &mut Xxh3, text: Option<&str>) {
    hash.update(&text.map_or(u64::MAX, |text| text.len() as u64).to_le_bytes());
    hash.update(text.unwrap_or_default().as_bytes());
}
