//! Where a stream goes on, and for whom: a position with the marks of what was shown.
//!
//! Must not know: rules, roles. Invariant: whoever comes back with it is only taken for one who holds the rows of the position when
//! what is shown now is what was shown then.

use super::{MalformedPosition, Position};
use std::fmt;
use std::str::FromStr;

/// Which rows and columns of a table somebody is shown, in 24 bits.
///
/// Not a secret and no protection: whoever makes one up is shown what he may see, without being told to forget what he held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    bits: u32,
    whole: bool,
}

impl Mark {
    /// From a digest; `whole`: everything is shown.
    #[must_use]
    pub fn new(digest: u64, whole: bool) -> Mark {
        Mark { bits: u32::try_from(digest & 0x00ff_ffff).unwrap_or_default(), whole }
    }

    /// As a number.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.bits
    }
}

/// Marks that one resume point has room for. With more tables than that, each shown in part, a client that comes back begins some of
/// them anew.
const MOST: usize = 8;

/// What was shown: a set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks {
    bits: [u32; MOST],
    len: usize,
    /// Something was not shown whole. Otherwise the marks are left out.
    partly: bool,
}

impl Marks {
    /// Adds one.
    pub fn add(&mut self, mark: Mark) {
        self.partly |= !mark.whole;
        self.put(mark.bits);
    }

    fn put(&mut self, bits: u32) {
        if self.len < MOST && !self.bits[..self.len].contains(&bits) {
            self.bits[self.len] = bits;
            self.len += 1;
        }
    }

    /// Was this shown?
    #[must_use]
    pub fn have(&self, mark: Mark) -> bool {
        if self.partly { self.bits[..self.len].contains(&mark.bits) } else { mark.whole }
    }
}

impl FromIterator<Mark> for Marks {
    fn from_iter<I: IntoIterator<Item = Mark>>(all: I) -> Marks {
        let mut marks = Marks::default();
        all.into_iter().for_each(|mark| marks.add(mark));
        marks
    }
}

impl From<Mark> for Marks {
    fn from(mark: Mark) -> Marks {
        Marks::from_iter([mark])
    }
}

/// A resume point: `4711-9f3a2c`, or `4711-9f3a2c.1b2c3d` where not everything is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// Of the state.
    pub position: Position,
    /// What was shown of it.
    pub marks: Marks,
}

impl From<Position> for Resume {
    fn from(position: Position) -> Resume {
        Resume { position, marks: Marks::default() }
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.position)?;
        let marks = &self.marks;
        marks.bits[..if marks.partly { marks.len } else { 0 }].iter().try_for_each(|bits| write!(f, ".{bits:06x}"))
    }
}

impl FromStr for Resume {
    type Err = MalformedPosition;

    fn from_str(text: &str) -> Result<Resume, MalformedPosition> {
        let mut parts = text.split('.');
        let mut resume = Resume::from(parts.next().unwrap_or_default().parse::<Position>()?);
        for part in parts {
            let hex = part.len() == 6 && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !hex || resume.marks.len == MOST {
                return Err(MalformedPosition);
            }
            resume.marks.put(u32::from_str_radix(part, 16).map_err(|_| MalformedPosition)?);
            resume.marks.partly = true;
        }
        Ok(resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "7-9f3a2c";

    fn resume(text: &str) -> Result<Resume, MalformedPosition> {
        text.parse()
    }

    #[test]
    fn what_is_shown_whole_needs_no_mark() {
        let whole = [Mark::new(1, true), Mark::new(2, true)];
        let point = Resume { position: AT.parse().unwrap(), marks: whole.into_iter().collect() };
        assert_eq!(point.to_string(), AT);
        let back = resume(AT).unwrap().marks;
        assert!(back.have(whole[0]) && back.have(Mark::new(3, true)) && !back.have(Mark::new(1, false)));
    }

    #[test]
    fn beside_something_shown_in_part_every_mark_is_said() {
        let marks = [Mark::new(1, true), Mark::new(0xff00_00a2, false), Mark::new(0xa2, false)];
        let point = Resume { position: AT.parse().unwrap(), marks: marks.into_iter().collect() };
        assert_eq!(point.to_string(), format!("{AT}.000001.0000a2"));
        let back = resume(&point.to_string()).unwrap();
        assert_eq!(back.to_string(), point.to_string());
        assert!(marks.iter().all(|mark| back.marks.have(*mark)));
        // wider or narrower, it is another
        assert!(!back.marks.have(Mark::new(2, true)) && !back.marks.have(Mark::new(3, false)));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let marks: Marks = (0..20).map(|n| Mark::new(n, false)).collect();
        let text = Resume { position: AT.parse().unwrap(), marks }.to_string();
        let back = resume(&text).unwrap().marks;
        assert!(back.have(Mark::new(7, false)) && !back.have(Mark::new(8, false)));
        assert!(resume(&format!("{text}.123456")).is_err());
    }

    #[test]
    fn near_misses_are_refused() {
        for tail in [".", ".12345", ".1234567", ".12345G", ".12345A", ".123456.", "..123456", ".+23456", ".123456~"] {
            assert!(resume(&format!("{AT}{tail}")).is_err(), "{tail}");
        }
    }
}
