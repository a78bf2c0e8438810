//! A row image, cut into columns once and read by many filters.
//!
//! Must not know: filters, tables. Invariant: values are handed out as the bytes Postgres wrote, so
//! that no digit is lost; parsing allocates one list and no value.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Columns a list is made for at first; more only grow it.
const USUAL_COLUMNS: usize = 16;

/// An image that cannot be read. It comes from the change log, so this is a fault, not a caller's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Not a JSON object in UTF-8.
    #[error("row image is not a json object: {0}")]
    NotAnObject(String),
    /// A column the filter needs is not there.
    #[error("row image has no column `{column}`; the table changed since the filter was made")]
    Missing {
        /// The column.
        column: String,
    },
    /// A value is not what the column's type looks like.
    #[error(
        "row image holds no value of the filter's type in column `{column}`; the table changed since the filter was made"
    )]
    Unreadable {
        /// The column.
        column: String,
    },
}

/// A parsed row image: what `row_to_json` wrote.
#[derive(Clone, Debug, Default)]
pub struct Image<'a> {
    columns: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Image<'a> {
    /// Cuts an image into columns.
    ///
    /// # Errors
    /// When it is not a JSON object in UTF-8.
    pub fn parse(json: &'a [u8]) -> Result<Self, ImageError> {
        let text = std::str::from_utf8(json).map_err(|e| ImageError::NotAnObject(e.to_string()))?;
        serde_json::from_str(text).map_err(|e| ImageError::NotAnObject(e.to_string()))
    }

    /// The raw JSON text of a column: `null`, `12.50`, `"x"`.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&'a str> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, raw)| *raw)
    }

    /// The columns in the order they were written.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.columns.iter().map(|(name, raw)| (&**name, *raw))
    }

    /// [`Image::get`] with a guess where the column is; a wrong guess costs a search.
    pub(super) fn get_near(&self, position: usize, column: &str) -> Option<&'a str> {
        match self.columns.get(position) {
            Some((name, raw)) if name == column => Some(raw),
            _ => self.get(column),
        }
    }
}

/// The text of a JSON string; borrowed unless something in it is escaped.
pub(super) fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The text of a JSON number, or of a string that stands for one (`"NaN"`); nothing in it is escaped.
pub(super) fn bare(raw: &str) -> &str {
    raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw)
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Image<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Columns).map(|columns| Image { columns })
    }
}

struct Columns;

impl<'de> Visitor<'de> for Columns {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a json object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut columns = Vec::with_capacity(USUAL_COLUMNS);
        while let Some(Name(name)) = map.next_key()? {
            columns.push((name, map.next_value::<&'de RawValue>()?.get()));
        }
        Ok(columns)
    }
}
