//! A row's key as it stands on the wire and in a URL.
//!
//! Must not know: column types. Invariant: two keys are equal exactly when all their columns' texts are.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fmt;
use std::sync::Arc;

/// RFC 3986 "unreserved" stays readable; everything else, the joining comma above all, is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The key columns' text, percent-encoded, joined with `,`. Safe in a JSON string, a URL path and a log line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// From the log's key text: the column's text itself, or for a composite key the columns' texts with `%` and
    /// `,` escaped, joined with `,` (`rowcast.key_sql`).
    #[must_use]
    pub fn from_log(text: &str, composite: bool) -> Key {
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')) {
            return Key(text.into());
        }
        if !composite {
            return Key(utf8_percent_encode(text, ENCODED).to_string().into());
        }
        let columns: Vec<String> = text
            .split(',')
            .map(|column| {
                let plain = percent_decode_str(column).decode_utf8_lossy();
                utf8_percent_encode(&plain, ENCODED).to_string()
            })
            .collect();
        Key(columns.join(",").into())
    }

    /// The wire text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What `rowcast.key_sql` makes of the columns' texts.
    fn log_text(columns: &[String]) -> String {
        columns.iter().map(|c| c.replace('%', "%25").replace(',', "%2C")).collect::<Vec<_>>().join(",")
    }

    proptest! {
        #[test]
        fn composite_keys_decode_to_their_columns(columns in proptest::collection::vec(".*", 2..4)) {
            let key = Key::from_log(&log_text(&columns), true);
            let back: Vec<String> =
                key.as_str().split(',').map(|c| percent_decode_str(c).decode_utf8().unwrap().into_owned()).collect();
            prop_assert_eq!(back, columns);
        }

        #[test]
        fn single_keys_decode_to_their_text(text in ".*") {
            let key = Key::from_log(&text, false);
            prop_assert_eq!(percent_decode_str(key.as_str()).decode_utf8().unwrap(), text);
            prop_assert!(key.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"\",\\/".contains(&b)));
        }
    }
}
