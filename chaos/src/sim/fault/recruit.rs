//! Faults in the moment in which a leader is being replaced: a candidate or a standby that has promised dies or freezes
//! between two steps, and the leader is there again.

use std::time::Duration;

use matriarch::model::RecruitKey;

use crate::sim::clock::At;
#[cfg(test)]
use crate::sim::network::Host;
use crate::sim::world::{Sim, index_of};

/// By then a sender that freezes is frozen.
pub(crate) const DEPOSAL_DELAYED: Duration = Duration::from_millis(4);

impl Sim {
    /// Until then, most attempts meet one.
    pub(crate) fn begin_recruit_faults(&self, end: At) {
        let sim = self.clone();
        self.spawn_environment(async move {
            let mut met = 0;
            while sim.now() < end {
                let pause = sim.exec.rng(|rng| rng.millis(5, 15));
                sim.exec.sleep(pause).await;
                let Some(key) = sim.world().attempt().filter(|key| key.attempt != met) else { continue };
                met = key.attempt;
                let (strikes, delay) = sim.exec.rng(|rng| (rng.permille(700), rng.millis(0, 150)));
                sim.exec.sleep(delay).await;
                if strikes && sim.now() < end {
                    sim.strike_attempt(&key);
                }
            }
        });
    }

    /// A deposal is about to be sent. True where its sender freezes right there: meanwhile the leader is there again,
    /// and the others follow what they know.
    pub(crate) fn strikes_deposal(&self, candidate: usize) -> bool {
        let faults_end = self.world().faults_end;
        let (strikes, kills, brief, long) = self
            .exec
            .rng(|rng| (rng.permille(300), rng.permille(500), rng.millis(5, 60), rng.millis(300, 2_600)));
        if !strikes || faults_end <= self.now() {
            return false;
        }
        self.note(|| format!("fault: the deposal by {candidate} is delayed by {long:?}"));
        self.world().network.heal();
        self.exec.thaw_all(true);
        let sim = self.clone();
        self.spawn_environment(async move {
            sim.exec.sleep(DEPOSAL_DELAYED / 2).await;
            sim.exec.thaw_all(false);
            sim.freeze_supervisor_for(candidate, long);
            if kills {
                sim.kill_supervisors_but(candidate, brief);
            }
        });
        true
    }

    /// The leader's links are cut, and stay so.
    #[cfg(test)]
    pub(crate) fn pull_cable(&self) -> Option<usize> {
        let leader = self.leader()?;
        let me = Host::Member(leader);
        let others: Vec<Host> = self.world().network.hosts().filter(|host| *host != me).collect();
        self.cut_links(&others.iter().flat_map(|other| [(me, *other), (*other, me)]).collect::<Vec<_>>());
        Some(leader)
    }

    fn kill_supervisors_but(&self, candidate: usize, lasts: Duration) {
        let members = self.world().options.members;
        let others = (0..members).filter(|member| *member != candidate);
        others.for_each(|member| self.kill_supervisor_for(member, lasts));
    }

    fn strike_attempt(&self, key: &RecruitKey) {
        let Some(candidate) = index_of(key.candidate.as_str()) else { return };
        let members = self.world().options.members as u64;
        let (kind, another, brief, long) = self.exec.rng(|rng| {
            (rng.below(8), rng.below(members) as usize, rng.millis(5, 60), rng.millis(200, 2_600))
        });
        self.note(|| format!("fault: attempt {} of {candidate} meets {kind}", key.attempt));
        match kind {
            // The others forget what is not on their disks, and the leader is there again.
            0..=2 => {
                self.freeze_supervisor_for(candidate, long);
                self.world().network.heal();
                self.kill_supervisors_but(candidate, brief);
            }
            3 => self.kill_supervisor_for(candidate, brief),
            4 => self.freeze_supervisor_for(candidate, long * 3),
            5 => self.world().network.heal(),
            6 => self.kill_server(another),
            _ => self.network_fault(),
        }
    }
}
