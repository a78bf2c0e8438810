//! A position in the stream: the id and nonce of a tick. The resume token of every transport.
//!
//! Must not know: how ticks are made or stored. Invariant: text -> `Position` -> text is the identity, and
//! everything else is refused, so a token cannot be half understood.

use std::fmt;
use std::str::FromStr;

/// A tick's name, the same on every gateway: `4711-9f3a2c`.
///
/// The nonce tells apart two ticks of one number from different histories (a restored backup, a failover that
/// lost its tail), so ids alone are never compared to decide whether a position is *known*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// `rowcast.tick.id`, rising along one history.
    pub tick: i64,
    /// `rowcast.tick.nonce`, 24 random bits.
    pub nonce: u32,
}

/// The text is not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed position: expected `<tick>-<6 hex digits>` as sent in an `id:` line or a `Rowcast-Position` header")]
pub struct MalformedPosition;

/// Longest text that can be a position: 19 digits, a dash, 6 hex digits.
const MAX_LEN: usize = 26;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:06x}", self.tick, self.nonce)
    }
}

impl FromStr for Position {
    type Err = MalformedPosition;

    fn from_str(text: &str) -> Result<Self, MalformedPosition> {
        if text.len() > MAX_LEN {
            return Err(MalformedPosition);
        }
        let (tick, nonce) = text.split_once('-').ok_or(MalformedPosition)?;
        let digits = |s: &str, ok: fn(&u8) -> bool| !s.is_empty() && s.bytes().all(|b| ok(&b));
        let canonical = digits(tick, u8::is_ascii_digit) && !(tick.len() > 1 && tick.starts_with('0'));
        let hex = nonce.len() == 6 && digits(nonce, |b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical || !hex {
            return Err(MalformedPosition);
        }
        Ok(Position {
            tick: tick.parse().map_err(|_| MalformedPosition)?,
            nonce: u32::from_str_radix(nonce, 16).map_err(|_| MalformedPosition)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(tick in 0..=i64::MAX, nonce in 0u32..1 << 24) {
            let p = Position { tick, nonce };
            prop_assert_eq!(p.to_string().parse(), Ok(p));
        }

        #[test]
        fn whatever_parses_prints_the_same(text in "[0-9]{0,21}-?[0-9a-fA-F+ -]{0,8}") {
            if let Ok(p) = text.parse::<Position>() {
                prop_assert_eq!(p.to_string(), text);
            }
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = text.parse::<Position>();
        }
    }

    #[test]
    fn near_misses_are_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-9f3a2c",
            "01-9f3a2c",
            "1-9F3A2C",
            "1-9f3a2",
            "1-9f3a2c0",
            "+1-9f3a2c",
            "9223372036854775808-000000",
            "1-9f3a2c ",
            "1\n-9f3a2c",
            "4711-9f3a2c-1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(MalformedPosition), "{text:?}");
        }
    }
}
