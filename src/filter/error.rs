//! Why a filter was refused, in words that say what to write instead.
//!
//! Must not know: HTTP. Invariant: a message names only what the caller wrote and the type of a column
//! it may see; an unknown column and a hidden one read the same.

use std::fmt;

/// What is quoted of the caller's text, in characters: enough to find the place, too little to be a mirror.
const SHOWN_CHARS: usize = 64;

/// A filter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// No published column of that name.
    #[error(
        "unknown column {}; use a name that the table's rows show, and double-quote one that contains a dot",
        Shown(column)
    )]
    UnknownColumn {
        /// The name as written.
        column: String,
    },
    /// Not one of the operators.
    #[error(
        "unknown operator {} on column {}; use `eq`, `neq`, `gt`, `gte`, `lt`, `lte`, `in`, `is`, `like` or `ilike`, \
         with `not.` before it to negate",
        Shown(operator),
        Shown(column)
    )]
    UnknownOperator {
        /// The column it was written for.
        column: String,
        /// The operator as written.
        operator: String,
    },
    /// One of the caps was crossed.
    #[error("filter is too complex, it has more than {limit} {what}; {remedy}")]
    TooComplex {
        /// What was counted.
        what: &'static str,
        /// The cap.
        limit: usize,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A literal outside the syntax or the range of the column's type.
    #[error("invalid value {} for column {}; {expected}", Shown(value), Shown(column))]
    InvalidValue {
        /// The column it is compared with.
        column: String,
        /// The literal as written.
        value: String,
        /// What would have been right, with an example.
        expected: &'static str,
    },
    /// The operator means something on this column that the stream cannot reproduce exactly.
    #[error("operator `{operator}` is not exact on column {} of type `{type_sql}`; {reason}", Shown(column))]
    NotExact {
        /// The column.
        column: String,
        /// The column's type.
        type_sql: String,
        /// The operator.
        operator: &'static str,
        /// Why, and what works instead.
        reason: &'static str,
    },
    /// A claim that a rule's filter needs: it is told to nobody but the log.
    #[error("claim {} {why}", Shown(name))]
    Claim {
        /// The claim.
        name: String,
        /// What of it. Never its value.
        why: &'static str,
    },
    /// The text is not a filter.
    #[error("malformed filter at {}; {remedy}", Shown(near))]
    Malformed {
        /// The rest of the text where reading stopped.
        near: String,
        /// What was expected there.
        remedy: &'static str,
    },
}

impl FilterError {
    /// The stable slug of the fault, for problem documents and metric labels.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownColumn { .. } => "unknown-column",
            Self::UnknownOperator { .. } => "unknown-operator",
            Self::TooComplex { .. } => "filter-too-complex",
            Self::InvalidValue { .. } => "invalid-value",
            Self::NotExact { .. } => "operator-not-exact",
            Self::Claim { .. } => "claim",
            Self::Malformed { .. } => "malformed-filter",
        }
    }

    /// The column the fault is about, where there is one.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::UnknownColumn { column }
            | Self::UnknownOperator { column, .. }
            | Self::InvalidValue { column, .. }
            | Self::NotExact { column, .. } => Some(column),
            Self::TooComplex { .. } | Self::Claim { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// The caller's text in backticks, shortened, control characters made visible.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for (n, c) in self.0.chars().enumerate() {
            if n == SHOWN_CHARS {
                f.write_str("...")?;
                break;
            }
            if c.is_control() || c == '`' { write!(f, "{}", c.escape_unicode())? } else { write!(f, "{c}")? }
        }
        f.write_str("`")
    }
}
