//! What the database side is doing, for `/readyz` and people.
//!
//! Invariant: every condition that keeps the gateway from serving is named here with its reason.

use std::sync::{Mutex, PoisonError};

/// Part of this gateway in making ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Not connected yet.
    #[default]
    None,
    /// Makes ticks.
    Leader,
    /// Reads the ticks another one makes.
    Follower,
}

impl Role {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::None => "none",
            Role::Leader => "leader",
            Role::Follower => "follower",
        }
    }
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its name.
    pub name: &'static str,
    /// None when it holds; otherwise why not.
    pub problem: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    role: Role,
    problem: Option<String>,
}

/// Shared by the ticker, which writes it, and whoever asks.
#[derive(Debug)]
pub struct Status(Mutex<Inner>);

impl Default for Status {
    fn default() -> Status {
        Status(Mutex::new(Inner { role: Role::None, problem: Some("not connected yet".to_owned()) }))
    }
}

impl Status {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn connected(&self, role: Role) {
        self.with(|s| *s = Inner { role, problem: None });
    }

    pub(super) fn lost(&self, why: &str) {
        self.with(|s| *s = Inner { role: Role::None, problem: Some(why.to_owned()) });
    }

    /// Leader or follower.
    #[must_use]
    pub fn role(&self) -> Role {
        self.with(|s| s.role)
    }

    /// Whether the feed of changes runs.
    #[must_use]
    pub fn feed(&self) -> Condition {
        Condition { name: "database", problem: self.with(|s| s.problem.clone()) }
    }
}
