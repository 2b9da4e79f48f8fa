//! Which of Patroni's callbacks is due, from one observation to the next.

use crate::model::{Callback, CallbackEvent, JobKind, Leading, Observation, Process, Role};

/// What the scripts were told last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Callbacks {
    role: Option<Role>,
    /// The postmaster that they were told of; `None` after its end.
    postmaster: Option<i32>,
    /// It was ordered to stop.
    stopping: bool,
    /// It ended for a restart, and the new postmaster was not told of yet.
    restarting: bool,
}

impl Callbacks {
    /// The call that is due after a decision; `restarting`: a restart is under way. A member that makes the cluster
    /// calls nothing.
    pub fn due(&mut self, seen: &Observation, restarting: bool) -> Option<Callback> {
        let job = seen.job.as_ref().map(|running| running.job.kind());
        if job == Some(JobKind::Bootstrap) {
            return None;
        }
        self.stopping |= job == Some(JobKind::Stop);
        match seen.postgres.process {
            Process::Down { .. } => self.ended(seen, restarting && !seen.shutting_down),
            Process::Up { pid, .. } => self.runs(seen, job, pid, restarting),
        }
    }

    /// The call that is due after PostgreSQL has read new parameters.
    pub fn reloaded(&self) -> Option<Callback> {
        let role = self.role.filter(|_| self.postmaster.is_some())?;
        Some(Callback { event: CallbackEvent::Reload, role })
    }

    fn ended(&mut self, seen: &Observation, restarting: bool) -> Option<Callback> {
        self.postmaster.take()?;
        self.restarting = restarting;
        let just_stopped = seen.finished.iter().any(|finished| finished.job == JobKind::Stop);
        let stopped = std::mem::take(&mut self.stopping) || just_stopped;
        let role = self.role.filter(|_| stopped && !self.restarting)?;
        Some(Callback { event: CallbackEvent::Stop, role })
    }

    fn runs(
        &mut self,
        seen: &Observation,
        job: Option<JobKind>,
        pid: i32,
        restarting: bool,
    ) -> Option<Callback> {
        let role = role(seen, self.role)?;
        let is_new = self.postmaster != Some(pid);
        if !is_new && self.role == Some(role) {
            return None;
        }
        // Each primary is started as a standby, and promoted: that is one start. So is the first one of a new cluster.
        let leads = matches!(seen.lease.leading, Leading::Yes(_)) || job == Some(JobKind::Promote);
        let nobody_leads = seen.view.as_ref().is_some_and(|view| view.cluster.leader.is_none());
        let may_become_primary = leads || (nobody_leads && self.role.is_none());
        if is_new && role == Role::Replica && may_become_primary && !seen.settings.pause {
            return None;
        }
        let restarted = is_new && (std::mem::take(&mut self.restarting) || restarting);
        let event = match self.role {
            None => CallbackEvent::Start,
            Some(before) if before != role => CallbackEvent::RoleChange,
            Some(_) if restarted => CallbackEvent::Restart,
            Some(_) => CallbackEvent::Start,
        };
        (self.role, self.postmaster, self.stopping) = (Some(role), Some(pid), false);
        Some(Callback { event, role })
    }
}

/// The role in which PostgreSQL runs, once it answers. While it is unknown whether this member leads, it stays.
fn role(seen: &Observation, before: Option<Role>) -> Option<Role> {
    let leads = match seen.lease.leading {
        Leading::Yes(_) => true,
        Leading::No => false,
        Leading::Unknown => before == Some(Role::StandbyLeader),
    };
    let leads_standby_cluster = leads && seen.settings.standby_cluster.is_some();
    Some(match (seen.postgres.answering()?.is_primary(), leads_standby_cluster) {
        (true, _) => Role::Primary,
        (false, true) => Role::StandbyLeader,
        (false, false) => Role::Replica,
    })
}
