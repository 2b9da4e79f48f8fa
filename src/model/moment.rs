//! Points in time, as plain numbers that can be printed, written in a scenario and replayed.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time since this machine booted, counting suspends (`CLOCK_BOOTTIME`). Only `os::clock` makes one from the
/// real clock; comparing moments of two machines is meaningless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment {
    nanos: u64,
}

impl Moment {
    /// The moment `nanos` after boot.
    pub const fn from_nanos(nanos: u64) -> Moment {
        Moment { nanos }
    }

    /// The moment `millis` after boot.
    pub const fn from_millis(millis: u64) -> Moment {
        Moment { nanos: millis * 1_000_000 }
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// Time passed since `earlier`; zero when `earlier` lies ahead.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Time left until `later`; zero when it has passed.
    pub fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, span: Duration) -> Moment {
        Moment { nanos: self.nanos.saturating_add(span.as_nanos() as u64) }
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, span: Duration) -> Moment {
        Moment { nanos: self.nanos.saturating_sub(span.as_nanos() as u64) }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.nanos / 1_000_000_000, self.nanos / 1_000_000 % 1000)
    }
}

/// Milliseconds since the Unix epoch, for schedules that people set. Never used for safety.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub i64);

impl fmt::Display for WallTime {
    /// RFC 3339 in UTC, as in `2026-11-22T21:52:27.031+00:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let seconds = millis / 1000;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:", seconds / 3600)?;
        write!(f, "{:02}:{:02}.{:03}+00:00", seconds / 60 % 60, seconds % 60, millis % 1000)
    }
}

/// Year, month and day of a count of days since 1970-01-01 (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_as_rfc_3339() {
        let text = |millis| WallTime(millis).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(text(1_795_384_347_031), "2026-11-22T21:52:27.031+00:00");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999+00:00");
    }
}
