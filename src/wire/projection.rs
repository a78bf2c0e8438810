//! What of a row is sent: which columns, in which order, and wide numbers as strings.
//!
//! Must not know: where rows come from; snapshots and changes pass through the same code. Invariant: bytes that are
//! kept are Postgres's own.

use crate::change::Seen;
use crate::filter::{Image, ImageError};
use bytes::{BufMut, Bytes, BytesMut};

/// `pg_type.oid` of the types whose values may not fit a double: int8 and numeric.
const WIDE: [u32; 2] = [20, 1700];

/// A choice of columns.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Projection {
    /// Column and whether its number is sent as a string; empty means the whole row as it is.
    columns: Vec<(String, bool)>,
}

impl Projection {
    /// `select` as written in the request (`id,home,away`; none or `*` for all that the caller is shown).
    ///
    /// # Errors
    /// The first name that is not one of the columns.
    pub fn parse<'t>(
        select: Option<&str>,
        wide_as_strings: bool,
        seen: impl Into<Seen<'t>>,
    ) -> Result<Projection, String> {
        let seen = seen.into();
        let select = select.filter(|s| !s.is_empty() && *s != "*");
        if select.is_none() && !wide_as_strings && seen.is_whole() {
            return Ok(Projection::default());
        }
        let names: Vec<&str> = match select {
            Some(list) => list.split(',').map(str::trim).collect(),
            None => seen.columns().map(|(_, c)| c.name.as_str()).collect(),
        };
        let mut columns: Vec<(String, bool)> = Vec::with_capacity(names.len());
        for name in names {
            let (_, column) = seen.column(name).ok_or_else(|| name.to_owned())?;
            if !columns.iter().any(|(seen, _)| seen == name) {
                columns.push((name.to_owned(), wide_as_strings && WIDE.contains(&column.type_oid)));
            }
        }
        Ok(Projection { columns })
    }

    /// Is the row sent as it is?
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.columns.is_empty()
    }

    /// Bytes it takes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.columns.iter().map(|column| size_of_val(column) + column.0.len()).sum()
    }

    /// The part of the row that is sent. `json` is the text that `image` was parsed from.
    ///
    /// # Errors
    /// The row has no such column: it was renamed or dropped since. Null would be a lie.
    pub fn apply(&self, json: &Bytes, image: &Image<'_>) -> Result<Bytes, ImageError> {
        if self.is_whole() {
            return Ok(json.clone());
        }
        let mut out = BytesMut::with_capacity(json.len());
        for (name, quoted) in &self.columns {
            let value = image.get(name).ok_or_else(|| ImageError::Missing { column: name.clone() })?;
            out.put_slice(if out.is_empty() { b"{" } else { b"," });
            out.put_slice(serde_json::to_string(name).unwrap_or_default().as_bytes());
            out.put_slice(b":");
            // NaN and Infinity already are strings
            let quote: &[u8] =
                if *quoted && value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) { b"\"" } else { b"" };
            out.put_slice(quote);
            out.put_slice(value.as_bytes());
            out.put_slice(quote);
        }
        out.put_slice(b"}");
        Ok(out.freeze())
    }
}
