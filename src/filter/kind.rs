//! Which types a filter can compare, and which operators are exact on them.
//!
//! Must not know: literals, images. Invariant: an operator is let through only where the in-process
//! meaning was proven equal to Postgres's by the differential test; all else is refused with a reason.

use crate::change::{Collation, Column};

/// The first oid that is not Postgres's own (`FirstNormalObjectId`).
const FIRST_USER_OID: u32 = 16_384;

/// The types the matcher tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Numeric,
    Float4,
    Float8,
    /// `text` and `varchar`: one meaning.
    Text,
    Name,
    /// `char(n)`: trailing spaces count in `like` and nowhere else.
    Bpchar,
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Bytea,
    Enum,
    /// A type of Postgres that is only tested for null, and whose image is `null` only when it is.
    Opaque,
    /// `json`, `jsonb` and types that may bring their own cast to json: a value that is not null can
    /// still show as `null` in the image.
    SelfShown,
}

/// What an operator asks of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Equality,
    Order,
    Like,
    Ilike,
    /// `is.true`, `is.false`, `is.unknown`.
    Truth,
}

impl Kind {
    pub(super) fn of(column: &Column) -> Self {
        if column.is_enum {
            return Self::Enum;
        }
        // Oids of `pg_type.dat`; they never change.
        match column.type_oid {
            16 => Self::Bool,
            17 => Self::Bytea,
            19 => Self::Name,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 | 1043 => Self::Text,
            26 => Self::Oid,
            700 => Self::Float4,
            701 => Self::Float8,
            1042 => Self::Bpchar,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::Timestamptz,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            114 | 3802 => Self::SelfShown,
            oid if oid < FIRST_USER_OID => Self::Opaque,
            _ => Self::SelfShown,
        }
    }

    /// The type a literal is cast to in SQL. Never with a length or a precision: a cast to `varchar(3)`
    /// would shorten the literal and make it equal to something else. Enums and names are compared as
    /// text, because an unknown label is an error and a long name is cut.
    pub(super) fn sql_type(self) -> &'static str {
        match self {
            Self::Bool => "pg_catalog.bool",
            Self::Int2 => "pg_catalog.int2",
            Self::Int4 => "pg_catalog.int4",
            Self::Int8 => "pg_catalog.int8",
            Self::Oid => "pg_catalog.oid",
            Self::Numeric => "pg_catalog.numeric",
            Self::Float4 => "pg_catalog.float4",
            Self::Float8 => "pg_catalog.float8",
            Self::Bpchar => "pg_catalog.bpchar",
            Self::Uuid => "pg_catalog.uuid",
            Self::Date => "pg_catalog.date",
            Self::Time => "pg_catalog.time",
            Self::Timestamp => "pg_catalog.timestamp",
            Self::Timestamptz => "pg_catalog.timestamptz",
            Self::Bytea => "pg_catalog.bytea",
            Self::Text | Self::Name | Self::Enum | Self::Opaque | Self::SelfShown => "pg_catalog.text",
        }
    }

    pub(super) fn is_textual(self) -> bool {
        matches!(self, Self::Text | Self::Name | Self::Bpchar)
    }

    /// Why `demand` is refused on a column of this type and collation, or `None` when it is exact.
    pub(super) fn refuses(self, collation: Collation, demand: Demand) -> Option<&'static str> {
        if matches!(self, Self::Opaque | Self::SelfShown) {
            return Some(
                "values of this type are compared by rules only Postgres has; only `is.null` and `not.is.null` work on it",
            );
        }
        match demand {
            Demand::Truth if self == Self::Bool => None,
            Demand::Truth => {
                Some("`is.true`, `is.false` and `is.unknown` need a bool column; use `is.null` or a comparison")
            }
            Demand::Like | Demand::Ilike if !self.is_textual() => {
                Some("patterns match text columns only; use a comparison")
            }
            Demand::Order if self == Self::Enum => {
                Some("the order of an enum is known to Postgres only; list the labels with `in.(...)`")
            }
            _ if self.is_textual() => refuses_text(collation, demand),
            _ => None,
        }
    }
}

fn refuses_text(collation: Collation, demand: Demand) -> Option<&'static str> {
    match (collation, demand) {
        (Collation::C, _) | (Collation::Deterministic, Demand::Equality | Demand::Like) => None,
        (Collation::Deterministic, Demand::Ilike) => Some(
            "upper and lower case of this collation are known to Postgres only; use `like`, or give the column the collation `C`",
        ),
        (Collation::Deterministic, _) => Some(
            "the order of this collation is known to Postgres only; use `eq` or `in`, or give the column the collation `C`",
        ),
        (Collation::Nondeterministic | Collation::None, _) => Some(
            "what counts as equal in this collation is known to Postgres only; only `is.null` works, or give the column \
             a deterministic collation",
        ),
    }
}
