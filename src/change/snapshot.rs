//! A `pg_snapshot`: which transactions a state of the database contains.
//!
//! Must not know: where snapshots come from. Invariant: `xip` is sorted and lies in `xmin..xmax`.
//! Source: <https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT>

use std::fmt;
use std::str::FromStr;

/// `xmin:xmax:xip,...` over 64-bit transaction ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    xip: Vec<u64>,
}

/// The text is not a `pg_snapshot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed snapshot: expected `xmin:xmax:xip,...`")]
pub struct MalformedSnapshot;

impl Snapshot {
    /// From this transaction id on nothing is seen.
    #[must_use]
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// Was `xid` finished, as this snapshot sees it?
    #[must_use]
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmin || (xid < self.xmax && self.xip.binary_search(&xid).is_err())
    }

    /// Does this snapshot see everything that `other` sees?
    ///
    /// True for every snapshot taken later on the same server, and then a state at `self` contains the state at
    /// `other`.
    #[must_use]
    pub fn covers(&self, other: &Snapshot) -> bool {
        self.xmax >= other.xmax && self.xip.iter().all(|&xid| !other.sees(xid))
    }
}

impl FromStr for Snapshot {
    type Err = MalformedSnapshot;

    fn from_str(text: &str) -> Result<Self, MalformedSnapshot> {
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(xip), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(MalformedSnapshot);
        };
        let number = |s: &str| s.parse::<u64>().map_err(|_| MalformedSnapshot);
        let (xmin, xmax) = (number(xmin)?, number(xmax)?);
        let xip = if xip.is_empty() { Vec::new() } else { xip.split(',').map(number).collect::<Result<_, _>>()? };
        let sorted = xip.windows(2).all(|w| w[0] < w[1]);
        let inside = xip.first().is_none_or(|&x| x >= xmin) && xip.last().is_none_or(|&x| x < xmax);
        if xmin > xmax || !sorted || !inside {
            return Err(MalformedSnapshot);
        }
        Ok(Snapshot { xmin, xmax, xip })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.xip.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A history: transactions 3.. in which each finishes at a moment of its own; a snapshot at each moment.
    fn snapshot_at(moment: u64, finishes: &[u64]) -> Snapshot {
        let running: Vec<u64> = finishes
            .iter()
            .enumerate()
            .filter(|&(i, &f)| i as u64 <= moment && f > moment)
            .map(|(i, _)| i as u64 + 3)
            .collect();
        let done =
            finishes.iter().enumerate().filter(|&(i, &f)| i as u64 <= moment && f <= moment).map(|(i, _)| i as u64 + 3);
        let xmax = done.max().map_or(3, |x| x + 1);
        let xip: Vec<u64> = running.iter().copied().filter(|&x| x < xmax).collect();
        Snapshot { xmin: xip.first().copied().unwrap_or(xmax), xmax, xip }
    }

    proptest! {
        #[test]
        fn text_round_trips(moment in 0u64..30, finishes in proptest::collection::vec(0u64..40, 0..30)) {
            let s = snapshot_at(moment, &finishes);
            prop_assert_eq!(s.to_string().parse(), Ok(s));
        }

        #[test]
        fn later_covers_earlier_and_covers_means_sees(
            a in 0u64..30, b in 0u64..30, lens in proptest::collection::vec(0u64..12, 1..30),
        ) {
            let finishes: Vec<u64> = lens.iter().enumerate().map(|(i, l)| i as u64 + l).collect();
            let (early, late) = (snapshot_at(a.min(b), &finishes), snapshot_at(a.max(b), &finishes));
            prop_assert!(late.covers(&early));
            let contained = (3..60).all(|x| !late.sees(x) || early.sees(x));
            prop_assert_eq!(early.covers(&late), contained);
        }

        #[test]
        fn any_text_is_answered(text in "[0-9:, ]*") {
            if let Ok(s) = text.parse::<Snapshot>() {
                prop_assert_eq!(s.to_string().parse(), Ok(s));
            }
        }
    }

    #[test]
    fn the_manuals_example() {
        let s: Snapshot = "10:20:10,14,15".parse().unwrap();
        assert!(s.sees(9) && !s.sees(10) && s.sees(11) && !s.sees(14) && s.sees(19) && !s.sees(20));
        for text in ["", "1:2", "1:2:3:4", "5:3:", "1:5:9", "1:5:3,2", "a:b:"] {
            assert_eq!(text.parse::<Snapshot>(), Err(MalformedSnapshot), "{text}");
        }
    }
}
