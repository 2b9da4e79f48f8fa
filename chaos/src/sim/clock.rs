//! Time: one true line of it, and each machine's own clock, which is a little fast or slow.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use matriarch::model::Moment;

/// A point on the true line of time, in nanoseconds since the simulation began. No machine can read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(pub(crate) u64);

impl At {
    pub(crate) const fn seconds(seconds: u64) -> At {
        At(seconds * 1_000_000_000)
    }
}

impl Add<Duration> for At {
    type Output = At;

    fn add(self, span: Duration) -> At {
        At(self.0.saturating_add(span.as_nanos() as u64))
    }
}

impl Sub<Duration> for At {
    type Output = At;

    fn sub(self, span: Duration) -> At {
        At(self.0.saturating_sub(span.as_nanos() as u64))
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:3}.{:06}", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

/// How far a machine's clock may be off, in parts of a million: two clocks drift apart by less than the 1 % that the
/// lease allows for.
pub(crate) const DRIFT_MAX_PPM: i64 = 4_500;

/// A machine's `CLOCK_BOOTTIME`: it never stands still, also not while the machine is suspended.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    since: At,
    local: u64,
    ppm: i64,
}

impl Clock {
    /// A clock that shows `local` nanoseconds at the beginning.
    pub(crate) fn new(local: u64, ppm: i64) -> Clock {
        Clock { since: At(0), local, ppm }
    }

    /// What it shows.
    pub(crate) fn read(&self, now: At) -> Moment {
        let passed = i128::from(now.0 - self.since.0);
        Moment::from_nanos(self.local + (passed * i128::from(1_000_000 + self.ppm) / 1_000_000) as u64)
    }

    /// When it will show `moment`, at the earliest now.
    pub(crate) fn when(&self, moment: Moment, now: At) -> At {
        let ahead = i128::from(moment.as_nanos()) - i128::from(self.local);
        let passed = ahead * 1_000_000 / i128::from(1_000_000 + self.ppm) + 1;
        At((i128::from(self.since.0) + passed).clamp(i128::from(now.0), i128::from(u64::MAX)) as u64)
    }

    /// From now on it runs at another rate; what it shows does not jump.
    pub(crate) fn drift(&mut self, now: At, ppm: i64) {
        *self = Clock { since: now, local: self.read(now).as_nanos(), ppm };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_clock_is_read_and_predicted_alike() {
        let mut clock = Clock::new(5_000, 4_500);
        clock.drift(At::seconds(3), -4_500);
        let shown = clock.read(At::seconds(10));
        let due = clock.when(shown + Duration::from_secs(1), At::seconds(10));
        let late = clock.read(due).since(shown + Duration::from_secs(1));
        assert!(clock.read(due) >= shown + Duration::from_secs(1) && late < Duration::from_nanos(10));
        assert_eq!(clock.when(shown, At::seconds(20)), At::seconds(20));
    }
}
