//! A driver with a fault: what a mutation makes of events on their way to the member, and of effects on their way from
//! it.

use matriarch::core::member::{MemberEffect, MemberEvent};
use matriarch::model::{Action, Finished, Job, RunningJob};

use crate::sim::mutation::Mutation;

/// What a faulty driver remembers.
#[derive(Default)]
pub(super) struct DriverFaults {
    /// The outcome that was delivered last.
    outcome: Option<Finished>,
}

impl DriverFaults {
    /// `job` is the one that runs as far as the member knows.
    pub(super) fn deliver(
        &mut self,
        mutation: Option<Mutation>,
        job: Option<&RunningJob>,
        arrived: &mut Vec<MemberEvent>,
    ) {
        match mutation {
            Some(Mutation::HistoryIgnored) => {
                arrived.retain(|event| !matches!(event, MemberEvent::LeaderBranchTold(_)));
            }
            Some(Mutation::OutcomeTwice) => {
                let newest = arrived.iter().rev().find_map(|event| match event {
                    MemberEvent::JobFinished(finished) => Some(finished.clone()),
                    _other => None,
                });
                let again = self.outcome.take_if(|last| job.is_some_and(|job| job.job.kind() == last.job));
                arrived.extend(again.map(MemberEvent::JobFinished));
                self.outcome = newest.or(self.outcome.take());
            }
            _other => {}
        }
    }
}

/// The effects that are carried out.
pub(super) fn carried_out(mutation: Option<Mutation>, mut effects: Vec<MemberEffect>) -> Vec<MemberEffect> {
    if mutation == Some(Mutation::StopDropped) {
        let stops = |effect: &MemberEffect| {
            matches!(effect, MemberEffect::Act(Action::Start(Job::Stop { mode: _, within: _ })))
        };
        effects.retain(|effect| !stops(effect));
    }
    effects
}
