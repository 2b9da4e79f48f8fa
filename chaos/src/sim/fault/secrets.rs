//! Secrets: an operator replaces the password of the roles, and the file of each pod follows at a moment of its own.

use std::time::Duration;

use crate::rng::Rng;
use crate::sim::clock::At;
use crate::sim::world::Sim;

/// The password with this number.
pub(crate) fn password(number: u64) -> String {
    format!("secret {number}")
}

impl Sim {
    /// Up to three times in a story. Drawn apart, so that stories without it stay as they are.
    pub(crate) fn begin_secrets(&self, mut rng: Rng, end: At) {
        let sim = self.clone();
        self.spawn_environment(async move {
            for number in 1..=rng.between(1, 3) {
                let pause = rng.millis(1_000, 60_000);
                sim.exec.sleep(pause).await;
                if end <= sim.now() {
                    return;
                }
                sim.note(|| format!("fault: secret {number} replaces the one before it"));
                sim.world().secret = number;
                let members = sim.world().options.members;
                (0..members).for_each(|member| sim.bring_secret(&mut rng, member, number, end));
            }
        });
    }

    /// A file takes up to a minute. Some files change only long after the last fault: until then its member knows a
    /// password that the others regard as the former one.
    fn bring_secret(&self, rng: &mut Rng, member: usize, number: u64, end: At) {
        let late = end + Duration::from_secs(60);
        let at = match rng.below(10) {
            0 => late,
            1..=3 => self.now() + rng.millis(5_000, 60_000),
            _ => self.now() + rng.millis(100, 8_000),
        };
        let (sim, at) = (self.clone(), at.min(late));
        self.spawn_environment(async move {
            sim.exec.sleep_until(at).await;
            let machine = &mut sim.world().machines[member];
            machine.secret = machine.secret.max(number);
        });
    }
}
