//! Entity tags and the conditions built on them (RFC 9110 sections 8.8.3, 13.1).
//!
//! Must not know: rows, the database. Invariant: text that is not a list of entity tags is an error, never "no
//! condition".

use super::Problem;

/// One entity tag: `"42"`, `W/"9f3a"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntityTag {
    /// `W/` stands before it.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: String,
}

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// `*`: any representation at all.
    Any,
    /// One of these.
    Tags(Vec<EntityTag>),
}

/// Tags in one header. More is no honest client, and each is compared.
const MAX_TAGS: usize = 64;

impl EntityTag {
    /// The tag of a row: its version. `columns`: which are shown, where that is not all: `42-9f3a2c11`. A row of one version is not
    /// the same to two who are shown different columns of it.
    pub(super) fn of_row(version: i64, columns: Option<u32>) -> EntityTag {
        let columns = columns.map(|columns| format!("-{columns:08x}")).unwrap_or_default();
        EntityTag { weak: false, opaque: format!("{version}{columns}") }
    }

    /// The version a strong tag names; none for a weak one (it cannot be written back with) and for text that is no
    /// version. Whichever columns it is of: a write is based on the row.
    pub(super) fn version(&self) -> Option<i64> {
        let version = match self.opaque.split_once('-') {
            Some((version, columns)) if columns.len() == 8 && columns.bytes().all(|b| b.is_ascii_hexdigit()) => version,
            Some(_) => return None,
            None => &self.opaque,
        };
        let canonical = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
        if self.weak || !canonical { None } else { version.parse().ok() }
    }
}

impl std::fmt::Display for EntityTag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\"{}\"", if self.weak { "W/" } else { "" }, self.opaque)
    }
}

impl Condition {
    /// Reads the header `name`.
    ///
    /// # Errors
    /// 400 with what would be right.
    pub(super) fn parse(name: &str, text: &str) -> Result<Condition, Problem> {
        let wrong = || {
            let detail = format!("`{name}` is `*` or a list of entity tags such as `\"42\"`, quotes included");
            Problem::new(400, "malformed-request", detail)
        };
        let mut rest = text.trim();
        if rest == "*" {
            return Ok(Condition::Any);
        }
        let mut tags = Vec::new();
        loop {
            let (weak, tail) = rest.strip_prefix("W/").map_or((false, rest), |tail| (true, tail));
            let tail = tail.strip_prefix('"').ok_or_else(wrong)?;
            let (opaque, tail) = tail.split_once('"').ok_or_else(wrong)?;
            if opaque.bytes().any(|b| b <= b' ' || b == 0x7f) || tags.len() == MAX_TAGS {
                return Err(wrong());
            }
            tags.push(EntityTag { weak, opaque: opaque.to_owned() });
            let tail = tail.trim_start();
            if tail.is_empty() {
                return Ok(Condition::Tags(tags));
            }
            rest = tail.strip_prefix(',').ok_or_else(wrong)?.trim_start();
        }
    }

    /// Weak comparison, as `If-None-Match` wants it: is this the representation, however marked?
    pub(super) fn names(&self, tag: &EntityTag) -> bool {
        match self {
            Condition::Any => true,
            Condition::Tags(tags) => tags.iter().any(|t| t.opaque == tag.opaque),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(weak: bool, opaque: &str) -> EntityTag {
        EntityTag { weak, opaque: opaque.to_owned() }
    }

    #[test]
    fn lists_are_read() {
        let read = |text| Condition::parse("If-Match", text).unwrap();
        assert_eq!(read("\"42\""), Condition::Tags(vec![tag(false, "42")]));
        assert_eq!(read(" W/\"a,b\" ,\"c\""), Condition::Tags(vec![tag(true, "a,b"), tag(false, "c")]));
        assert_eq!(read("*"), Condition::Any);
        assert!(
            read("W/\"7\"").names(&EntityTag::of_row(7, None)) && !read("\"8\"").names(&EntityTag::of_row(7, None))
        );
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for text in ["", "42", "\"42", "'42'", "\"a\"\"b\"", "\"a\",", "w/\"a\"", "\"a b\"", "*, \"a\""] {
            assert_eq!(Condition::parse("If-Match", text).unwrap_err().code(), "malformed-request", "{text}");
        }
    }

    #[test]
    fn only_a_strong_canonical_tag_is_a_version() {
        assert_eq!(tag(false, "42").version(), Some(42));
        let narrow = EntityTag::of_row(42, Some(0x9f));
        assert_eq!((narrow.to_string(), narrow.version()), ("\"42-0000009f\"".to_owned(), Some(42)));
        for (weak, text) in [
            (true, "42"),
            (false, "42-9f"),
            (false, "42-0000009f-0000009f"),
            (false, "-0000009f"),
            (false, "+42"),
            (false, "x"),
            (false, ""),
            (false, "99999999999999999999"),
        ] {
            assert_eq!(tag(weak, text).version(), None);
        }
    }
}
