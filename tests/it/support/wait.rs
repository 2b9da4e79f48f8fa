//! Waits for a level (a condition that holds) with a deadline; never for an edge and never for a fixed time.

use std::time::{Duration, Instant};

/// The interval between two looks: short compared with every state that a test waits for.
const PAUSE: Duration = Duration::from_millis(50);

/// The deadline of a wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// A deadline after this time.
    pub(crate) fn after(span: Duration) -> Deadline {
        Deadline(Instant::now() + span)
    }

    /// Whether it has passed.
    pub(crate) fn passed(self) -> bool {
        Instant::now() >= self.0
    }
}

/// Looks until `level` returns a value; `None` when `within` has passed.
pub(crate) async fn until<T>(within: Duration, mut level: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(value) = level().await {
            return Some(value);
        }
        if deadline.passed() {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn a_level_is_seen_and_a_deadline_ends_the_wait() {
    let mut looks = 0;
    let seen = until(Duration::from_secs(5), async || {
        looks += 1;
        (looks == 3).then_some(looks)
    });
    assert_eq!(seen.await, Some(3));
    assert_eq!(until(Duration::from_millis(60), async || None::<()>).await, None);
}
