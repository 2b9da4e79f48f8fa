//! Two lanes of long actions, one at a time in each.

use super::{MemberEffect, Notice, writes_leader_key};
use crate::model::{Action, Job, JobKind, Moment, RunningJob};

/// The running actions.
#[derive(Default)]
pub(super) struct Lanes {
    postgres: Option<RunningJob>,
    leader_key: Option<RunningJob>,
}

impl Lanes {
    /// The long action of PostgreSQL.
    pub(super) fn postgres(&self) -> Option<&RunningJob> {
        self.postgres.as_ref()
    }

    pub(super) fn job_kind(&self) -> Option<JobKind> {
        self.postgres.as_ref().map(|running| running.job.kind())
    }

    /// The write to the leader key.
    pub(super) fn leader_key(&self) -> Option<&RunningJob> {
        self.leader_key.as_ref()
    }

    pub(super) fn any(&self) -> bool {
        self.postgres.is_some() || self.leader_key.is_some()
    }

    /// Puts a job into its lane. If one runs there already, which no decision asks for, the job is not started.
    pub(super) fn admit(&mut self, action: Action, now: Moment) -> MemberEffect {
        let Action::Start(job) = action else { return MemberEffect::Act(action) };
        let lane = self.lane(&job);
        if let Some(running) = lane {
            return MemberEffect::Say(Notice::TwoJobs { asked: job.kind(), runs: running.job.kind() });
        }
        *lane = Some(RunningJob { job: job.clone(), since: now });
        MemberEffect::Act(Action::Start(job))
    }

    fn lane(&mut self, job: &Job) -> &mut Option<RunningJob> {
        if writes_leader_key(job) { &mut self.leader_key } else { &mut self.postgres }
    }

    pub(super) fn finished(&mut self, kind: JobKind) {
        for lane in [&mut self.postgres, &mut self.leader_key] {
            lane.take_if(|running| running.job.kind() == kind);
        }
    }
}
