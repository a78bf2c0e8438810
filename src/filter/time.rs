//! Dates and times as Postgres counts them, read from literals and from row images alike.
//!
//! Must not know: the clock, any time zone but fixed offsets. Invariant: numbers are Postgres's own
//! (days and microseconds since 2000-01-01, `infinity` at the ends of `i64`), so they compare alike.

/// `-infinity` of every kind here.
pub(super) const MINUS_INFINITY: i64 = i64::MIN;
/// `infinity` of every kind here.
pub(super) const INFINITY: i64 = i64::MAX;

const DAY: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_SHIFT: i64 = 10_957;
/// Day zero of the Julian count, 4714-11-24 BC: the first day Postgres takes.
const FIRST_DAY: i64 = -2_451_545;
/// 5874897-12-31, the last day Postgres takes.
const LAST_DAY: i64 = 2_145_031_948;
/// 294277-01-01, the first instant past the range of a timestamp.
const END_OF_TIME: i64 = 9_223_371_331_200_000_000;

/// Whether a timestamp carries an offset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    /// `timestamp`: none, and none is taken (Postgres would ignore it).
    Without,
    /// `timestamptz`: always; without one the meaning would hang on a setting.
    With,
}

/// Days of `2026-11-21`, `0044-03-15 BC`, `infinity`, `-infinity`.
pub(super) fn date(text: &str) -> Option<i64> {
    if let Some(end) = infinity(text) {
        return Some(end);
    }
    let (text, bc) = era(text);
    let mut input = Input(text.as_bytes());
    let days = input.day(bc)?;
    (input.is_empty() && (FIRST_DAY..=LAST_DAY).contains(&days)).then_some(days)
}

/// Microseconds of `2026-11-21T20:12:17.265`, with an offset (`Z`, `+02`, `-03:30`) as `zone` says.
pub(super) fn timestamp(text: &str, zone: Zone) -> Option<i64> {
    if let Some(end) = infinity(text) {
        return Some(end);
    }
    let (text, bc) = era(text);
    let mut input = Input(text.as_bytes());
    let days = input.day(bc)?;
    if input.is_empty() {
        // Midnight; only without a zone, because midnight where?
        return if zone == Zone::Without { in_range(days.checked_mul(DAY)?) } else { None };
    }
    if !input.eat(b'T') && !input.eat(b' ') {
        return None;
    }
    let clock = input.clock()?;
    if clock >= DAY {
        return None;
    }
    let offset = if zone == Zone::With { input.offset()? } else { 0 };
    if !input.is_empty() {
        return None;
    }
    let local = i128::from(days) * i128::from(DAY) + i128::from(clock);
    in_range(i64::try_from(local - i128::from(offset)).ok()?)
}

fn in_range(micros: i64) -> Option<i64> {
    (FIRST_DAY * DAY..END_OF_TIME).contains(&micros).then_some(micros)
}

/// Microseconds since midnight of `20:12` or `20:12:17.265`; `24:00:00` is the end of the day.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut input = Input(text.as_bytes());
    let clock = input.clock()?;
    input.is_empty().then_some(clock)
}

fn infinity(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(INFINITY),
        "-infinity" => Some(MINUS_INFINITY),
        _ => None,
    }
}

fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |rest| (rest, true))
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    /// All digits that follow, at least `min` and at most `max` of them.
    fn number(&mut self, min: usize, max: usize) -> Option<i64> {
        let count = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        if count < min || count > max {
            return None;
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    }

    fn day(&mut self, bc: bool) -> Option<i64> {
        let year = self.number(4, 7)?;
        let month = self.eat(b'-').then(|| self.number(2, 2))??;
        let day = self.eat(b'-').then(|| self.number(2, 2))??;
        if year == 0 {
            return None;
        }
        // There is no year zero: 1 BC comes before 1 AD, and counts as 0 in what follows.
        let year = if bc { 1 - year } else { year };
        if !(1..=12).contains(&month) || day < 1 || day > month_length(year, month) {
            return None;
        }
        Some(days_from_civil(year, month, day))
    }

    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2, 2)?;
        let minute = self.eat(b':').then(|| self.number(2, 2))??;
        let mut second = 0;
        let mut micros = 0;
        if self.eat(b':') {
            second = self.number(2, 2)?;
            if self.eat(b'.') {
                let before = self.0.len();
                micros = self.number(1, 6)?;
                for _ in before - self.0.len()..6 {
                    micros *= 10;
                }
            }
        }
        let clock = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros;
        (minute < 60 && second < 60 && clock <= DAY).then_some(clock)
    }

    /// Microseconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.eat(b'Z') {
            return Some(0);
        }
        let sign = if self.eat(b'-') {
            -1
        } else if self.eat(b'+') {
            1
        } else {
            return None;
        };
        let hour = self.number(2, 2)?;
        let minute = if self.eat(b':') { self.number(2, 2)? } else { 0 };
        let second = if self.eat(b':') { self.number(2, 2)? } else { 0 };
        (hour < 16 && minute < 60 && second < 60).then_some(sign * ((hour * 60 + minute) * 60 + second) * 1_000_000)
    }
}

fn is_leap(year: i64) -> bool {
    year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0)
}

fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 2000-01-01 of a day of the proleptic Gregorian calendar. Years are counted from March, so
/// that the leap day is a year's last, in eras of 400 years, all of which have 146,097 days.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - EPOCH_SHIFT
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_SHIFT + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A date as Postgres writes it in ISO style.
pub(super) fn date_text(days: i64) -> String {
    infinity_text(days).unwrap_or_else(|| {
        let (day, bc) = day_text(days);
        format!("{day}{bc}")
    })
}

/// A timestamp as Postgres writes it in ISO style, in UTC when it has a zone.
pub(super) fn timestamp_text(micros: i64, zone: Zone) -> String {
    infinity_text(micros).unwrap_or_else(|| {
        let (day, bc) = day_text(micros.div_euclid(DAY));
        let offset = if zone == Zone::With { "+00" } else { "" };
        format!("{day} {}{offset}{bc}", time_text(micros.rem_euclid(DAY)))
    })
}

/// A time of day as Postgres writes it.
pub(super) fn time_text(clock: i64) -> String {
    let (seconds, micros) = (clock / 1_000_000, clock % 1_000_000);
    let text = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if micros == 0 { text } else { format!("{text}.{micros:06}").trim_end_matches('0').to_owned() }
}

fn infinity_text(number: i64) -> Option<String> {
    match number {
        INFINITY => Some("infinity".to_owned()),
        MINUS_INFINITY => Some("-infinity".to_owned()),
        _ => None,
    }
}

fn day_text(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil_from_days(days);
    let (year, bc) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), bc)
}
