//! What somebody may see and write of a table: the rule of a caller's role, with the caller's claims in it.
//!
//! Must not know: tokens, HTTP, SQL, clocks. Invariants: no rule, no permit; a rule that is not wholly understood, or that needs a
//! claim which is not there or does not fit, gives nothing; of two callers with equal permits nobody can tell which is which.

mod claims;
mod grant;

pub use grant::Grant;

use crate::change::{Mark, Rule, Seen, Table};
use crate::filter::{Claims, Filter, FilterError};
use std::sync::Arc;

/// The role of whoever shows no token.
pub const ANON: &str = "anon";

/// What somebody may see and write of a table.
#[derive(Clone, Debug)]
pub struct Permit {
    /// Which rows.
    pub filter: Filter,
    /// Which columns, in the order of the table; none: all.
    columns: Option<Arc<[String]>>,
    /// May write them.
    pub write: bool,
    /// Must name the version a write is based on.
    pub version_required: bool,
    /// By what right.
    pub grant: Grant,
    /// Whose, and as declared.
    said: Option<(Box<str>, Rule)>,
}

/// Why there is no permit. For the log: a caller is told that there is no such table.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// Neither the role nor `anon` has a rule.
    #[error("no rule for the role")]
    NoRule,
    /// The rule does not fit the table, or the claims not the rule.
    #[error("the rule gives nothing: {0}")]
    Filter(#[from] FilterError),
}

/// The rule that counts for a role: its own, else that of `anon`, whose rows and columns everybody has who leaves the token away.
#[must_use]
pub fn rule<'t>(table: &'t Table, role: &str) -> Option<&'t Rule> {
    let of = |role: &str| table.rules.iter().find(|rule| rule.role == role);
    of(role).or_else(|| of(ANON))
}

impl Permit {
    /// What a caller may, by role and claims (a JSON object).
    ///
    /// # Errors
    /// Nothing.
    pub fn of(table: &Table, role: &str, claims: &str) -> Result<Permit, Denied> {
        let rule = rule(table, role).ok_or(Denied::NoRule)?;
        let filter = match &rule.filter {
            None => Filter::everything(),
            Some(text) => {
                // what everybody has who leaves the token away follows from no token
                let claims = if rule.role == ANON { "{}" } else { claims };
                let value = |name: &str| claims::value(claims, name);
                let list = |name: &str| claims::list(claims, name);
                Filter::of_rule(text, table, &Claims::Of { value: &value, list: &list })?
            }
        };
        Ok(Permit {
            filter,
            columns: rule.columns.as_deref().map(|named| shown(table, named)),
            write: rule.write,
            version_required: rule.version_required,
            grant: Grant::of(role, rule),
            said: Some((role.into(), rule.clone())),
        })
    }

    /// Everything of it: for the operator, who has the database's password anyway.
    #[must_use]
    pub fn operator() -> Permit {
        let (filter, grant) = (Filter::everything(), Grant::operator());
        Permit { filter, columns: None, write: false, version_required: true, grant, said: None }
    }

    /// The caller's role and the rule that counts for it: to ask the database whether it still does. None: the operator.
    #[must_use]
    pub fn said(&self) -> Option<(&str, &Rule)> {
        self.said.as_ref().map(|(role, rule)| (&**role, rule))
    }

    /// The table as this permit shows it.
    #[must_use]
    pub fn seen<'t>(&'t self, table: &'t Table) -> Seen<'t> {
        Seen::new(table, self.columns.as_deref())
    }

    /// Is everybody shown this who has no token? Then anybody may keep it.
    #[must_use]
    pub fn is_for_anybody(&self, table: &Table) -> bool {
        rule(table, ANON).is_some_and(|rule| Grant::of(ANON, rule).shows_what(&self.grant))
    }

    /// Which columns are shown, if not all: in entity tags, as two who are shown different columns of one version are shown different
    /// representations.
    #[must_use]
    pub fn columns_tag(&self) -> Option<u32> {
        self.columns.as_deref().map(grant::digest_of_columns)
    }

    /// What tells these rows and columns from others, for resume points.
    #[must_use]
    pub fn mark(&self, table: &Table) -> Mark {
        grant::mark(table, &self.filter, self.columns.as_deref())
    }

    /// What tells these rows, whichever of their columns, from others: for what is kept, where no two are to be taken for one.
    #[must_use]
    pub fn rows_digest(&self, table: &Table) -> u64 {
        grant::digest(table, &self.filter, None)
    }
}

/// The columns of a rule: with the key and the version, without which no row can be told from another.
fn shown(table: &Table, named: &[String]) -> Arc<[String]> {
    let names = table.columns.iter().map(|column| &column.name);
    names.filter(|name| named.contains(name) || table.key.contains(name) || *name == "row_version").cloned().collect()
}

#[cfg(test)]
mod tests;
