//! What goes wrong.

use std::time::Duration;

use super::clock::At;
use super::world::Sim;

impl Sim {
    /// Faults until then; after it everything is mended.
    pub(crate) fn begin_faults(&self, end: At) {
        let sim = self.clone();
        self.nature(async move {
            sim.exec.sleep(Duration::from_secs(12)).await;
            while sim.now() + Duration::from_secs(2) < end {
                let pause = sim.exec.chance(|chance| chance.millis(500, 12_000));
                sim.exec.sleep(pause).await;
                let members = sim.world().options.members as u64;
                let member = sim.exec.chance(|chance| chance.below(members)) as usize;
                sim.note(|| format!("fault: postgres of {member} is killed"));
                sim.kill_server(member);
            }
        });
    }
}
