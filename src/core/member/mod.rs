//! A member as a state machine: events in, effects out. [`decide`] is inside it.
//!
//! ```text
//!           events              levels (settings, view, lease, process …)
//!             │                    │
//!  waiting ───┴──► ask PostgreSQL ──┴─► read the data directory ──► decide ──► effects ──► waiting
//!                  (if it is up)        (if what is known is old)
//! ```
//!
//! An event says why the member wakes, or brings an answer. A level is what is so at this moment; the driver reads all
//! levels for each decision, so that none rests on an older lease or view than there is. Events that arrive while a
//! look is under way are decided on together when it is over. A look that hangs holds up nothing: after
//! three seconds each event is decided on at once, and PostgreSQL counts as one that does not answer.

mod event;
mod lanes;
mod look;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::event::{Decided, Levels, LookAnswer, MemberEffect, MemberEvent, Notice, Question};
use self::lanes::Lanes;
pub use self::look::{AskedPostgres, DATA_WITHIN, LOOK_WITHIN, LookId, PostgresTrouble, SETTLED_WITHIN};
use self::look::{LOOK_PATIENCE, Look, LookPlan, Looks};
use crate::decide::{Decision, Memory, decide};
use crate::model::{
    Action, Finished, Job, JobKind, LeaderBranch, Me, MemberName, Moment, Observation, PeerAnswer, Process,
    Reason, Request, RunningJob,
};

/// The member.
pub struct Member {
    me: Me,
    memory: Memory,
    looks: Looks,
    lanes: Lanes,
    peers: BTreeMap<MemberName, PeerAnswer>,
    leader_branch: Option<LeaderBranch>,
    finished: Vec<Finished>,
    requests: Vec<Request>,
    because: Option<Reason>,
    /// By the settings of the last decision.
    loop_wait: Duration,
    /// The look under way is made whatever the age of the last one.
    anew: bool,
    /// So is the next.
    look_anew: bool,
    /// Something ended, or was ordered, that the look under way may not show.
    outdated: bool,
    /// The last order to let clients in was not carried out.
    clients_stay_out: bool,
    /// Something arrived that no decision has seen.
    undecided: bool,
    /// As the last decision said.
    wake_at: Moment,
}

impl Member {
    /// Begins with this memory.
    pub fn new(me: Me, memory: Memory) -> Member {
        Member {
            me,
            memory,
            looks: Looks::default(),
            lanes: Lanes::default(),
            peers: BTreeMap::new(),
            leader_branch: None,
            finished: Vec::new(),
            requests: Vec::new(),
            because: None,
            loop_wait: Duration::ZERO,
            anew: false,
            look_anew: false,
            outdated: false,
            clients_stay_out: false,
            undecided: false,
            wake_at: Moment::default(),
        }
    }

    /// What is remembered from one decision to the next.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Why the last decision was what it was.
    pub fn because(&self) -> Option<&Reason> {
        self.because.as_ref()
    }

    /// The long action of PostgreSQL under way.
    pub fn job(&self) -> Option<&RunningJob> {
        self.lanes.postgres()
    }

    /// When PostgreSQL was asked for what is known of it.
    pub fn postgres_asked_at(&self) -> Option<Moment> {
        self.looks.asked_at()
    }

    /// A look is under way: a decision now rests on none.
    pub fn is_looking(&self) -> bool {
        !self.looks.is_over()
    }

    /// A statement was handed over that may not be over when the next look is made.
    pub fn statement_waits(&mut self) {
        self.looks.outdate();
    }

    /// When the newest look began that is over.
    pub fn looked_at(&self) -> Option<Moment> {
        self.looks.looked_at()
    }

    /// Who this is; the settings may change what it is reached by.
    pub fn me_mut(&mut self) -> &mut Me {
        &mut self.me
    }

    /// Takes events, all that have arrived, and says what comes next. `process`: the postmaster at this moment.
    pub fn handle(
        &mut self,
        events: impl IntoIterator<Item = MemberEvent>,
        process: &Process,
        now: Moment,
    ) -> MemberNext {
        for event in events {
            self.take(event, process, now);
        }
        // What another postmaster said does not count.
        let outdated = std::mem::take(&mut self.outdated);
        if outdated || self.looks.is_over() || self.looks.is_of_another(process) {
            self.looks.begin(process, now);
            self.anew = std::mem::take(&mut self.look_anew) || !self.finished.is_empty();
        }
        let question = match self.looks.next(&self.plan(now)) {
            Look::Prepare => Question::Prepare,
            Look::Ask { pending } => Question::AskPostgres { pending },
            Look::Read => Question::ReadDataDirectory,
            Look::Awaits if !self.undecided => return MemberNext::Await { until: self.wake_at },
            Look::Awaits => {
                let until = self.looks.patience_ends_at();
                return if now < until { MemberNext::Await { until } } else { MemberNext::Decide };
            }
            Look::Over => return MemberNext::Decide,
        };
        MemberNext::Ask(self.looks.id(), question)
    }

    /// Decides on everything that was seen and on the levels of this moment.
    pub fn decide(&mut self, levels: &Levels, now: Moment) -> Decided {
        let seen = self.observation(levels);
        let decision = decide(&self.memory, &seen, now);
        self.decided(decision, seen, levels, now)
    }

    /// As [`Member::decide`]; `distort` sees what the decision will rest on, and the memory. The simulation breaks the
    /// member by it, to show that it notices.
    pub fn decide_distorted(
        &mut self,
        levels: &Levels,
        now: Moment,
        distort: impl FnOnce(&mut Memory, &mut Observation),
    ) -> Decided {
        let seen = self.observation(levels);
        let mut distorted = seen.clone();
        distort(&mut self.memory, &mut distorted);
        let decision = decide(&self.memory, &distorted, now);
        self.decided(decision, seen, levels, now)
    }

    /// When something ended, or is under way, what can wait is left for the next time.
    fn plan(&self, now: Moment) -> LookPlan {
        LookPlan {
            job: self.lanes.job_kind(),
            anew: self.anew,
            hurry: !self.finished.is_empty() || self.lanes.any(),
            pending_every: self.loop_wait,
            now,
        }
    }

    fn take(&mut self, event: MemberEvent, process: &Process, now: Moment) {
        self.undecided |= !matches!(event, MemberEvent::Answered(..));
        match event {
            MemberEvent::Woke | MemberEvent::LevelChanged => {}
            MemberEvent::LookWanted => self.look_anew = true,
            MemberEvent::Answered(look, answer) => self.looks.take(look, answer, process, now),
            MemberEvent::JobFinished(finished) => {
                self.lanes.finished(finished.job);
                self.looks.forget_data();
                self.outdated |= !self.looks.is_over();
                self.finished.push(finished);
            }
            MemberEvent::PeerAnswered(name, answer) => drop(self.peers.insert(name, answer)),
            MemberEvent::LeaderBranchTold(told) => {
                // An answer that was long on its way does not replace the answer to a later question.
                let known = self.leader_branch.take().filter(|known| told.asked_at < known.asked_at);
                self.leader_branch = known.or(Some(told));
            }
            MemberEvent::StatusNotPublished => self.memory.status = None,
            MemberEvent::NotFollowed => self.memory.following = None,
            MemberEvent::ClientsNotLetIn => self.clients_stay_out = true,
            MemberEvent::Asked(request) => self.requests.push(request),
        }
    }

    fn decided(&mut self, decision: Decision, seen: Observation, levels: &Levels, now: Moment) -> Decided {
        let Decision { memory, actions, pod, route, because, wake } = decision;
        self.loop_wait = levels.settings.loop_wait;
        let mut effects: Vec<MemberEffect> =
            self.notices(&memory, &because).into_iter().map(MemberEffect::Say).collect();
        (self.memory, self.because) = (memory, Some(because));
        effects.extend([MemberEffect::KeepStore, MemberEffect::Route(route), MemberEffect::Label(pod)]);
        effects.extend(self.fence(&seen, levels, now));
        for action in actions {
            self.outdated |= changes_postgres(&action) && !self.looks.is_over();
            self.clients_stay_out &= !matches!(action, Action::SetClientLockout { .. });
            effects.push(self.lanes.admit(action, now));
        }
        let again = self.look_anew || self.looks.is_of_another(&levels.process);
        self.wake_at = match self.looks.is_over() {
            true if again => now,
            true => wake.0,
            // The answer wakes it; what is overdue already can only be decided as now.
            false if wake.0 <= now => now + LOOK_PATIENCE,
            false => wake.0,
        };
        self.undecided = false;
        Decided { effects, seen, wake_at: self.wake_at }
    }

    /// Everything that was seen, once.
    fn observation(&mut self, levels: &Levels) -> Observation {
        let mut postgres = self.looks.facts(levels);
        postgres.clients_locked_out |= self.clients_stay_out;
        Observation {
            me: self.me.clone(),
            settings: levels.settings.clone(),
            view: levels.view.clone(),
            lease: levels.lease.clone(),
            postgres,
            peers: self.peers.clone(),
            leader_branch: self.leader_branch.clone(),
            clone_progress: levels.clone_progress,
            job: self.lanes.postgres().cloned(),
            writing: self.lanes.leader_key().cloned(),
            finished: std::mem::take(&mut self.finished),
            requests: std::mem::take(&mut self.requests),
            shutting_down: levels.shutting_down,
            watchdog_failed: levels.watchdog_failed,
            pod_end: levels.pod_end,
            pod_trouble: levels.pod_trouble.clone(),
            writes: levels.writes.clone(),
            wall: levels.wall,
        }
    }

    /// What operators are told of a decision, besides its consequences.
    fn notices(&self, decided: &Memory, because: &Reason) -> Vec<Notice> {
        let before = &self.memory;
        let more = decided.slots.idle.keys().filter(|slot| !before.slots.idle.contains_key(*slot));
        let slots: Vec<String> = more.cloned().collect();
        let cancelled = decided.sync.cancelled;
        let idle = (!slots.is_empty()).then_some(Notice::IdleSlots(slots));
        let cancelled = (before.sync.cancelled < cancelled).then(|| Notice::SyncWaitsCancelled {
            more: cancelled - before.sync.cancelled,
            total: cancelled,
        });
        let changed = (self.because.as_ref() != Some(because)).then(|| Notice::Decided(because.clone()));
        idle.into_iter().chain(cancelled).chain(changed).collect()
    }

    /// The guard is armed while PostgreSQL may be a primary. Once it is proved to be none, and none is being made,
    /// there is nothing to fence.
    fn fence(&self, seen: &Observation, levels: &Levels, now: Moment) -> Option<MemberEffect> {
        let kind = seen.job.as_ref().map(|running| running.job.kind());
        match (seen.postgres.may_be_primary(), kind) {
            (true, _) => levels.lease.leading_at(now).map(|_| MemberEffect::Fence),
            (false, None) => Some(MemberEffect::Unfence),
            (false, Some(_)) => None,
        }
    }
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberNext {
    /// Find the answer to this, and hand it over with the look that it belongs to.
    Ask(LookId, Question),
    /// Nothing before an answer or another event is there, or this moment has come.
    Await {
        /// At the latest.
        until: Moment,
    },
    /// Read the levels and let the member decide.
    Decide,
}

/// An answer of PostgreSQL that was asked for before may not show it.
fn changes_postgres(action: &Action) -> bool {
    match action {
        Action::SetSyncNames(_)
        | Action::SetClientLockout { .. }
        | Action::Follow(_)
        | Action::SetSlots { .. }
        | Action::ResumeReplay => true,
        Action::Start(job) => !writes_leader_key(job),
        Action::CancelJob
        | Action::AskPeers { .. }
        | Action::AskLeaderBranch { .. }
        | Action::RenewLease
        | Action::RevokeLease { .. }
        | Action::SuspendLivenessCheck { .. }
        | Action::PublishMember(_)
        | Action::PublishStatus { .. }
        | Action::PublishHistory { .. }
        | Action::PublishSync { .. }
        | Action::PublishUnfenced(_)
        | Action::RestoreInitialize { .. }
        | Action::RestoreConfig { .. }
        | Action::ClearFailover { .. }
        | Action::WriteGeneration(_)
        | Action::CheckpointAfterPromotion { .. }
        | Action::Answer { .. }
        | Action::Exit(_) => false,
    }
}

/// The leader key is written in a lane of its own: a long action of PostgreSQL must not delay it.
fn writes_leader_key(job: &Job) -> bool {
    match job.kind() {
        JobKind::TakeLeadership
        | JobKind::HandOver
        | JobKind::ReleaseLeadership
        | JobKind::ReclaimLeadership => true,
        JobKind::Bootstrap
        | JobKind::Clone
        | JobKind::StartStandby
        | JobKind::Stop
        | JobKind::Checkpoint
        | JobKind::Promote
        | JobKind::CrashRecovery
        | JobKind::Rewind
        | JobKind::CheckpointAfterPromotion => false,
    }
}

#[cfg(test)]
mod tests;
