//! Points in time, as plain numbers that can be printed, written in a scenario and replayed.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Time since this machine booted, including suspends (`CLOCK_BOOTTIME`). Only `os::clock` makes one from the real
/// clock. Moments of two machines cannot be compared.
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
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{}", at.strftime("%Y-%m-%dT%H:%M:%S%.3f+00:00")),
            Err(_) => write!(f, "{}", self.0),
        }
    }
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
