//! The only source of the current time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::model::{Moment, WallTime};

/// Now, on `CLOCK_BOOTTIME`: unlike `std::time::Instant` it goes on while the machine is suspended, so a lease that
/// expired during a suspend is seen as expired.
///
/// # Panics
/// If the kernel has no `CLOCK_BOOTTIME` (Linux has it since 2.6.39).
pub fn now() -> Moment {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    Moment::from_nanos(Duration::from(time).as_nanos() as u64)
}

/// The time of day, for schedules and display only.
pub fn wall() -> WallTime {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(since_epoch.as_millis() as i64)
}

/// Sleeps until `at`. Wakes late by a suspend at most, never early.
pub async fn sleep_until(at: Moment) {
    loop {
        let left = now().until(at);
        if left.is_zero() {
            return;
        }
        // tokio's timer stands still in a suspend, so long sleeps are cut into pieces.
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}

/// Sleeps until then; for ever where there is no such moment.
pub async fn sleep_until_some(at: Option<Moment>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
