//! Everything at one moment, and what may happen next.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use matriarch::model::{Finished, Job, JobKind, LeaseFacts, LeaseId, Moment, Outcome, StopMode, Term};

use super::etcd::Keys;
use super::member::{Member, PROMOTION, Postgres, SHUTDOWN, Write, confirmed};
use super::{Action, COMMITS_MAX, Fault};

#[derive(Clone)]
pub(super) struct State {
    pub(super) now: Moment,
    pub(super) faults_left: Vec<Fault>,
    pub(super) keys: Keys,
    pub(super) members: [Kept; 2],
    /// Requests that nobody waits for any more and that may still arrive.
    pub(super) stragglers: Vec<(usize, Write)>,
    pub(super) acknowledged: u8,
    /// Of the newest writer.
    pub(super) term: Term,
    /// A writer came in an older term.
    pub(super) went_back: bool,
}

/// A member with its fingerprint.
#[derive(Clone)]
pub(super) struct Kept {
    member: Arc<Member>,
    fingerprint: u64,
}

impl Kept {
    pub(super) fn new(member: Member) -> Kept {
        let fingerprint = member.fingerprint();
        Kept { member: Arc::new(member), fingerprint }
    }
}

impl State {
    pub(super) fn member(&self, index: usize) -> &Member {
        &self.members[index].member
    }

    /// One member serves, nothing is on its way, and the other cannot write.
    pub(super) fn is_over(&self) -> bool {
        let quiet = |index: usize| self.member(index).writing.is_none() && self.member(index).job.is_none();
        let serves = |index: usize| {
            let fresh = self.member(index).view == (self.keys, self.primaries());
            fresh && self.writes(index) && !self.member(1 - index).may_be_primary()
        };
        let asked = self.keys.failover.is_some();
        let one_serves = (serves(0) && !asked) || serves(1);
        one_serves && quiet(0) && quiet(1) && self.stragglers.is_empty()
    }

    pub(super) fn writes(&self, index: usize) -> bool {
        self.member(index).postgres == Postgres::Primary
    }

    pub(super) fn change(&mut self, index: usize, change: impl FnOnce(&mut Member)) {
        let mut member = self.member(index).clone();
        change(&mut member);
        self.members[index] = Kept::new(member);
    }

    pub(super) fn may(&self, fault: Fault) -> bool {
        self.faults_left.contains(&fault)
    }

    pub(super) fn spend(&mut self, fault: Fault) {
        let which = self.faults_left.iter().position(|left| *left == fault);
        which.map(|which| self.faults_left.remove(which));
    }

    /// What a member, its Postgres and its requests can do next.
    pub(super) fn of_member(&self, index: usize, actions: &mut Vec<Action>) {
        let member = self.member(index);
        if !self.lives(index) || member.facts != confirmed(&self.keys, self.keys.leases[index], self.now) {
            actions.push(Action::Renew(index));
        }
        if member.view != (self.keys, self.primaries()) {
            actions.push(Action::See(index));
        }
        if member.asking && member.answer != Some(self.member(1 - index).says(self.now)) {
            actions.push(Action::Answer(index));
        }
        let begun = matches!(
            (&member.job, member.postgres),
            (Some(Job::Promote { .. }), Postgres::Promoting)
                | (Some(Job::StartPrimary { .. }), Postgres::Starting)
        );
        if member.job.is_some() && !begun {
            actions.push(Action::EndJob(index));
        }
        match &member.writing {
            Some(Write { outcome: None, .. }) => actions.push(Action::EtcdWrites(index)),
            Some(Write { outcome: Some(_), .. }) => actions.push(Action::HearOfWrite(index)),
            None => {}
        }
        match member.postgres {
            Postgres::Promoting | Postgres::Starting => actions.push(Action::BecomePrimary(index)),
            Postgres::Primary if self.acknowledged < COMMITS_MAX => actions.push(Action::Commit(index)),
            Postgres::Primary | Postgres::Standby | Postgres::Stopped | Postgres::Crashed => {}
        }
        self.of_faults(index, actions);
    }

    fn of_faults(&self, index: usize, actions: &mut Vec<Action>) {
        let member = self.member(index);
        if self.may(Fault::LostAnswer) && member.writing.is_some() && self.stragglers.is_empty() {
            actions.push(Action::LoseAnswer(index));
        }
        if self.may(Fault::Restart) && index == 0 {
            actions.push(Action::Restart(index));
        }
        if self.may(Fault::Crash) && index == 0 && member.may_be_primary() {
            actions.push(Action::Crash(index));
        }
        if self.may(Fault::LostLease) && self.lives(index) {
            actions.push(Action::LoseLease(index));
        }
    }

    pub(super) fn primaries(&self) -> [bool; 2] {
        [0, 1].map(|index| self.member(index).postgres == Postgres::Primary)
    }

    /// The lease of this member lives.
    pub(super) fn lives(&self, index: usize) -> bool {
        let lease = self.member(index).facts.lease;
        lease.is_some() && self.keys.leases[index] == lease
    }

    /// A renewal is confirmed, or finds the lease gone and takes another.
    pub(super) fn renew(&mut self, index: usize) {
        if !self.lives(index) {
            self.keys.grant(index);
        }
        let facts = confirmed(&self.keys, self.keys.leases[index], self.now);
        self.change(index, |member| member.facts = facts);
    }

    /// The guard is in time: Postgres is gone before the lease is.
    pub(super) fn lose_lease(&mut self, index: usize) {
        let now = self.now;
        let lease = self.member(index).facts.lease;
        self.spend(Fault::LostLease);
        self.change(index, |member| {
            member.facts.deadline = Some(now);
            if member.may_be_primary() {
                member.postgres = Postgres::Crashed;
            }
        });
        if let Some(lease) = lease {
            self.keys.end(lease);
        }
    }

    /// A supervisor that finds its Postgres running goes on with its former lease; otherwise it takes another.
    pub(super) fn restart(&mut self, index: usize) {
        let facts = match (self.member(index).is_up(), self.member(index).facts.lease) {
            (true, Some(lease)) if self.lives(index) => {
                LeaseFacts { lease: Some(lease), ttl: Duration::from_secs(10), ..LeaseFacts::default() }
            }
            _ => {
                let lease: LeaseId = self.keys.grant(index);
                LeaseFacts { lease: Some(lease), ttl: Duration::from_secs(10), ..LeaseFacts::default() }
            }
        };
        let write = self.member(index).writing.clone();
        self.spend(Fault::Restart);
        self.change(index, |member| member.forget(facts));
        self.stragglers.extend(write.map(|write| (index, Write { outcome: None, ..write })));
    }

    pub(super) fn start(&mut self, index: usize, job: Job) {
        let lease = self.member(index).facts.lease;
        self.change(index, |member| match (job.kind(), lease) {
            (
                JobKind::TakeLeadership
                | JobKind::HandOver
                | JobKind::ReleaseLeadership
                | JobKind::ReclaimLeadership,
                Some(lease),
            ) => member.writing = Some(Write { job, lease, outcome: None }),
            _ => member.job = Some(job),
        });
    }

    /// What a long action comes to.
    pub(super) fn end_job(&mut self, index: usize) {
        let now = self.now;
        let Some(job) = self.member(index).job.clone() else { return };
        let kind = job.kind();
        if let Job::Promote { term, .. } = job
            && self.member(index).postgres == Postgres::Standby
            && self.member(index).facts.allows_promotion(term, now)
        {
            // It ends when Postgres is primary.
            let promoting =
                |member: &mut Member| (member.postgres, member.term) = (Postgres::Promoting, term);
            return self.change(index, promoting);
        }
        if let Job::StartPrimary { term, .. } = job
            && !self.member(index).is_up()
            && self.member(index).facts.allows_promotion(term, now)
        {
            let starting = |member: &mut Member| (member.postgres, member.term) = (Postgres::Starting, term);
            return self.change(index, starting);
        }
        let mut delivered = None;
        self.change(index, |member| {
            let mut outcome = Outcome::Done;
            match job {
                Job::Stop { mode: StopMode::Fast, .. } if member.postgres == Postgres::Primary => {
                    let before = member.wal.clone();
                    member.wal.push(SHUTDOWN);
                    member.postgres = Postgres::Stopped;
                    delivered = Some((before, member.wal.clone()));
                }
                Job::Stop { .. } => member.postgres = Postgres::Crashed,
                Job::StartStandby { .. } => member.postgres = Postgres::Standby,
                Job::Promote { .. } | Job::StartPrimary { .. } if member.postgres != Postgres::Primary => {
                    outcome = Outcome::Failed("not allowed any more".to_owned());
                }
                _ => {}
            }
            member.job = None;
            member.finished.push(Finished { job: kind, outcome });
        });
        // A standby that had everything gets the shutdown checkpoint as well; one that lags gets no more.
        if let Some((before, after)) = delivered
            && self.member(1 - index).postgres == Postgres::Standby
            && self.member(1 - index).wal == before
        {
            self.change(1 - index, |member| member.wal = after);
        }
    }

    pub(super) fn become_primary(&mut self, index: usize) {
        let term = self.member(index).term;
        self.went_back |= term < self.term;
        self.term = term;
        self.change(index, |member| {
            member.timeline += u32::from(member.postgres == Postgres::Promoting);
            member.postgres = Postgres::Primary;
            member.wal.push(PROMOTION);
            let begun =
                member.job.take_if(|job| matches!(job, Job::Promote { .. } | Job::StartPrimary { .. }));
            if let Some(job) = begun {
                member.finished.push(Finished { job: job.kind(), outcome: Outcome::Done });
            }
        });
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        let of = |state: &State| {
            let mut hasher = std::hash::DefaultHasher::new();
            state.hash(&mut hasher);
            hasher.finish()
        };
        of(self) == of(other)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.now, self.keys, self.acknowledged, self.term, self.went_back).hash(hasher);
        self.faults_left.hash(hasher);
        self.members[0].fingerprint.hash(hasher);
        self.members[1].fingerprint.hash(hasher);
        for (index, Write { job, lease, .. }) in &self.stragglers {
            (index, lease, format!("{job:?}")).hash(hasher);
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.keys.leader {
            Some(leader) => write!(f, "{} leads in term {}", ["a", "b"][leader.owner], leader.term)?,
            None => write!(f, "nobody leads")?,
        }
        for index in 0..2 {
            let Member { facts, postgres, wal, job, writing, .. } = self.member(index);
            write!(f, "; {} {postgres:?} {wal:?} {:?}", ["a", "b"][index], facts.leading)?;
            if let Some(job) = job.as_ref().or(writing.as_ref().map(|write| &write.job)) {
                write!(f, " {}", job.kind())?;
            }
        }
        match self.stragglers.len() {
            0 => Ok(()),
            stragglers => write!(f, "; {stragglers} on the way"),
        }
    }
}
