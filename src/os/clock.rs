//! The only source of the current time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::model::{Moment, WallTime};

/// The time of `CLOCK_BOOTTIME`. Unlike `std::time::Instant` it includes suspends, so that a lease which expired during
/// a suspend is seen as expired.
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

/// Sleeps until `at`. A suspend may delay the end, but it is never early.
pub async fn sleep_until(at: Moment) {
    loop {
        let left = now().until(at);
        if left.is_zero() {
            return;
        }
        // tokio's timer stops during a suspend, so long sleeps are split.
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}

/// Sleeps until then; for ever without a moment.
pub async fn sleep_until_some(at: Option<Moment>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
