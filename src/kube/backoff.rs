//! The delays between tries: none, short, then longer and longer.

use std::time::Duration;

use super::failure::KubeFailure;
use crate::model::{Moment, PodFailure};

const FIRST: Duration = Duration::from_millis(100);
/// Rare enough for an API server in trouble, and often enough for a late label.
const LONGEST: Duration = Duration::from_secs(5);
/// An unreachable server is not slowed down by attempts; this way its return is noticed within half a second.
const LONGEST_UNREACHABLE: Duration = Duration::from_millis(350);
/// The pause after a 429 without a time from the server.
const TOO_MANY: Duration = Duration::from_secs(1);
/// This many conflicts in a row are retried at once.
const CONFLICTS: u32 = 5;
/// The longest pause that the server can ask for.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// The pauses after failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    not_before: Option<Moment>,
    /// The server asked for the pause: nothing shortens it.
    asked: bool,
}

impl Backoff {
    /// The earliest time of the next attempt.
    pub(super) fn not_before(&self) -> Option<Moment> {
        self.not_before
    }

    pub(super) fn succeeded(&mut self) {
        *self = Backoff::default();
    }

    /// There is new work: it is tried now, unless the server asked for a pause.
    pub(super) fn hurry(&mut self) {
        if !self.asked {
            *self = Backoff::default();
        }
    }

    pub(super) fn failed(&mut self, failure: &KubeFailure, now: Moment) {
        let pause = match failure.kind {
            // A newly read token or list will do.
            PodFailure::Unauthorized | PodFailure::Gone if self.failures == 0 => Duration::ZERO,
            // Another writer changes the pod, and the API server is well.
            PodFailure::Conflict if self.failures < CONFLICTS => Duration::ZERO,
            PodFailure::Conflict => FIRST,
            PodFailure::TooMany => failure.retry_after.unwrap_or(TOO_MANY).min(ASKED_MAX),
            // It waits for a renewal of the lease, not for the API.
            PodFailure::NewerTerm => FIRST,
            PodFailure::Unreachable => {
                let pause = spread(self.grown().min(LONGEST_UNREACHABLE), now);
                // After its return it is a server that has just started.
                self.failures = self.failures.min(1);
                pause
            }
            PodFailure::Unconfigured
            | PodFailure::Silent
            | PodFailure::Unauthorized
            | PodFailure::Forbidden
            | PodFailure::NotFound
            | PodFailure::OtherPod
            | PodFailure::Gone
            | PodFailure::Server
            | PodFailure::Other => spread(self.grown().min(LONGEST), now),
        };
        self.failures += 1;
        self.asked = failure.kind == PodFailure::TooMany;
        self.not_before = Some(now + pause);
    }

    fn grown(&self) -> Duration {
        FIRST * 2u32.saturating_pow(self.failures.min(16))
    }
}

/// Members that fail at the same moment do not retry at the same moment.
fn spread(pause: Duration, now: Moment) -> Duration {
    pause + pause.mul_f64((now.as_nanos() % 1000) as f64 / 4000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1_000);

    fn pauses(kinds: &[PodFailure]) -> Vec<u128> {
        let mut backoff = Backoff::default();
        let pause = |kind: &PodFailure| {
            backoff.failed(&KubeFailure::new(*kind, ""), NOW);
            NOW.until(backoff.not_before().expect("it failed")).as_millis()
        };
        kinds.iter().map(pause).collect()
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_a_refused_token_is_read_again_at_once() {
        assert_eq!(pauses(&[PodFailure::Server; 8]), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses(&[PodFailure::Unauthorized; 3]), [0, 200, 400]);
        assert_eq!(pauses(&[PodFailure::Unreachable; 4]), [100, 200, 350, 350]);
        let returns = [[PodFailure::Unreachable; 4], [PodFailure::Server; 4]].concat();
        assert_eq!(pauses(&returns)[4..], [400, 800, 1600, 3200]);
        assert_eq!(pauses(&[PodFailure::TooMany; 2]), [1000, 1000]);
        assert_eq!(pauses(&[PodFailure::Conflict; 7]), [0, 0, 0, 0, 0, 100, 100]);
    }

    #[test]
    fn a_pause_that_the_server_asked_for_is_not_shortened() {
        let mut backoff = Backoff::default();
        let asked = KubeFailure {
            retry_after: Some(Duration::from_secs(7)),
            ..KubeFailure::new(PodFailure::TooMany, "")
        };
        backoff.failed(&asked, NOW);
        backoff.hurry();
        assert_eq!(backoff.not_before(), Some(NOW + Duration::from_secs(7)));
        backoff.failed(&KubeFailure::new(PodFailure::Server, ""), NOW);
        backoff.hurry();
        assert_eq!(backoff.not_before(), None);
    }
}
