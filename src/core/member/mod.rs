//! A member as a state machine: events in, effects out. [`decide`] is inside it.
//!
//! ```text
//!           events              levels (settings, view, lease, process …)
//!             │                    │
//!  waiting ───┴──► ask PostgreSQL ──┴─► read the data directory ──► decide ──► effects ──► waiting
//!                  (if it is up)        (if what is known is old)
//! ```
//!
//! An event is the reason why the member wakes, or an answer. A level is a state at this moment. The driver reads all
//! levels for each decision, so no decision rests on an outdated lease or view. Events that arrive during a look are
//! decided on together when it ends. A look that hangs delays nothing: after three seconds, or when PostgreSQL is seen
//! to be stopped, each event is decided on at once, and PostgreSQL counts as not answering.

mod event;
mod lanes;
mod look;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::event::{Decided, Levels, LookAnswer, MemberEffect, MemberEvent, Notice, Question};
use self::lanes::Lanes;
pub use self::look::{AskedPostgres, DATA_WITHIN, LOOK_WITHIN, LookId, PostgresTrouble, SETTLED_WITHIN};
use self::look::{LOOK_PATIENCE, Look, LookPlan, Looks};
use crate::core::journal::Journal;
use crate::decide::{Decision, Memory, decide};
use crate::model::{
    Action, Finished, Job, JobKind, LeaderBranch, LeaderSlots, LivenessVerdict, Me, MemberName, Moment,
    Observation, PeerAnswer, Process, Reason, Request, RunningJob,
};

/// The member.
pub struct Member {
    me: Me,
    memory: Memory,
    journal: Journal,
    looks: Looks,
    lanes: Lanes,
    peers: BTreeMap<MemberName, PeerAnswer>,
    leader_branch: Option<LeaderBranch>,
    leader_slots: Option<LeaderSlots>,
    finished: Vec<Finished>,
    requests: Vec<Request>,
    because: Option<Reason>,
    /// From the settings of the last decision.
    loop_wait: Duration,
    /// The present look is made whatever the age of the last one.
    anew: bool,
    /// The next look is, too.
    look_anew: bool,
    /// The present look may miss the end of an action, or an order.
    outdated: bool,
    /// The last order to let clients in was not carried out.
    clients_stay_out: bool,
    /// An event arrived that no decision has seen.
    undecided: bool,
    /// From the last decision.
    wake_at: Moment,
}

impl Member {
    /// A member with this memory.
    pub fn new(me: Me, memory: Memory) -> Member {
        Member {
            me,
            memory,
            journal: Journal::default(),
            looks: Looks::default(),
            lanes: Lanes::default(),
            peers: BTreeMap::new(),
            leader_branch: None,
            leader_slots: None,
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

    /// The memory between decisions.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The reason of the last decision.
    pub fn because(&self) -> Option<&Reason> {
        self.because.as_ref()
    }

    /// The long action of PostgreSQL under way.
    pub fn job(&self) -> Option<&RunningJob> {
        self.lanes.postgres()
    }

    /// When PostgreSQL was queried for the present facts.
    pub fn postgres_asked_at(&self) -> Option<Moment> {
        self.looks.asked_at()
    }

    /// Whether a look is under way, so that a decision now has no complete facts.
    pub fn is_looking(&self) -> bool {
        !self.looks.is_over()
    }

    /// Records a statement that may still run at the next look.
    pub fn statement_waits(&mut self) {
        self.looks.outdate();
    }

    /// When the newest finished look began.
    pub fn looked_at(&self) -> Option<Moment> {
        self.looks.looked_at()
    }

    /// This member's own configuration.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The same; settings may change its addresses.
    pub fn me_mut(&mut self) -> &mut Me {
        &mut self.me
    }

    /// Handles all events that have arrived, and returns the next step. `process`: the postmaster at this moment.
    /// `verdict`: no decision waits for the answer of a PostgreSQL that is stopped.
    pub fn handle(
        &mut self,
        events: impl IntoIterator<Item = MemberEvent>,
        process: &Process,
        verdict: &LivenessVerdict,
        now: Moment,
    ) -> MemberNext {
        for event in events {
            self.take(event, process, now);
        }
        // Answers of another postmaster do not count.
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
            Look::Awaits if verdict.is_stopped_whole() => return MemberNext::Decide,
            Look::Awaits => {
                let until = self.looks.patience_ends_at();
                return if now < until { MemberNext::Await { until } } else { MemberNext::Decide };
            }
            Look::Over => return MemberNext::Decide,
        };
        MemberNext::Ask(self.looks.id(), question)
    }

    /// Decides on all facts and on the levels of this moment.
    pub fn decide(&mut self, levels: &Levels, now: Moment) -> Decided {
        let seen = self.observation(levels);
        let decision = decide(&self.memory, &seen, now);
        self.decided(decision, seen, levels, now)
    }

    /// As [`Member::decide`]; `distort` can change the memory and the observation behind the decision. The simulation
    /// breaks the member with it, to show that it notices.
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

    /// While an action has just ended or runs, the less urgent queries are left for later.
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
            MemberEvent::PeerAnswered(name, answer) => {
                // An answer that was delayed does not replace one to a later question.
                let known = self.peers.get(&name).filter(|known| answer.asked_at < known.asked_at);
                if known.is_none() {
                    self.peers.insert(name, answer);
                }
            }
            MemberEvent::LeaderBranchTold(told) => {
                // The same.
                let known = self.leader_branch.take().filter(|known| told.asked_at < known.asked_at);
                self.leader_branch = known.or(Some(told));
            }
            MemberEvent::LeaderSlotsTold(told) => self.leader_slots = Some(told),
            MemberEvent::SlotsBroken(slots) => self.memory.slots.logical.broken.extend(slots),
            MemberEvent::StatusNotPublished => self.memory.status = None,
            MemberEvent::NotFollowed => self.memory.following = None,
            MemberEvent::ClientsNotLetIn => self.clients_stay_out = true,
            MemberEvent::Asked(request) => self.requests.push(request),
        }
    }

    /// The journal, with the newest decisions.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn decided(&mut self, decision: Decision, seen: Observation, levels: &Levels, now: Moment) -> Decided {
        let records = self.journal.note(&seen, &decision, self.wake_at, now);
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
        effects.extend(records.into_iter().map(|record| MemberEffect::KeepRecord(Box::new(record))));
        let again = self.look_anew || self.looks.is_of_another(&levels.process);
        self.wake_at = match self.looks.is_over() {
            true if again => now,
            true => wake.0,
            // The answer wakes the member. A wake-up that is due already would give the same decision.
            false if wake.0 <= now => now + LOOK_PATIENCE,
            false => wake.0,
        };
        self.undecided = false;
        Decided { effects, seen, wake_at: self.wake_at }
    }

    /// All facts, collected once.
    fn observation(&mut self, levels: &Levels) -> Observation {
        let mut postgres = self.looks.facts(levels);
        postgres.clients_locked_out |= self.clients_stay_out;
        Observation {
            me: self.me.clone(),
            settings: levels.settings.clone(),
            view: levels.view.clone(),
            lease: levels.lease.clone(),
            hearing: levels.hearing,
            postgres,
            peers: self.peers.clone(),
            leader_branch: self.leader_branch.clone(),
            leader_slots: self.leader_slots.clone(),
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

    /// The reports of a decision to operators.
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
        let safe =
            decided.slots.logical.safe.difference(&before.slots.logical.safe).cloned().collect::<Vec<_>>();
        let safe = (!safe.is_empty()).then_some(Notice::SafeSlots(safe));
        let doubtful = &decided.slots.logical.doubtful;
        let is_news = !doubtful.is_empty() && *doubtful != before.slots.logical.doubtful;
        let doubtful = is_news.then(|| Notice::UnsafeSlots(doubtful.clone()));
        let changed = (self.because.as_ref() != Some(because)).then(|| Notice::Decided(because.clone()));
        idle.into_iter().chain(safe).chain(doubtful).chain(cancelled).chain(changed).collect()
    }

    /// The guard is armed while PostgreSQL may be a primary. It is disarmed once PostgreSQL certainly is none and is
    /// not being promoted.
    fn fence(&self, seen: &Observation, levels: &Levels, now: Moment) -> Option<MemberEffect> {
        let kind = seen.job.as_ref().map(|running| running.job.kind());
        match (seen.postgres.may_be_primary(), kind) {
            (true, _) => levels.lease.leading_at(now).map(|_| MemberEffect::Fence),
            (false, None) => Some(MemberEffect::Unfence),
            (false, Some(_)) => None,
        }
    }
}

/// The driver's next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberNext {
    /// Answer this question, with the look that it belongs to.
    Ask(LookId, Question),
    /// Wait for an answer, an event or this moment.
    Await {
        /// The latest time.
        until: Moment,
    },
    /// Read the levels and let the member decide.
    Decide,
}

/// Whether an earlier answer of PostgreSQL may not show this action.
fn changes_postgres(action: &Action) -> bool {
    match action {
        Action::SetSyncNames(_)
        | Action::SetClientLockout { .. }
        | Action::Follow(_)
        | Action::SetSlots(_)
        | Action::ResumeReplay => true,
        Action::Start(job) => !writes_leader_key(job),
        Action::CancelJob
        | Action::AskPeers { .. }
        | Action::AskLeaderBranch { .. }
        | Action::SetLogicalSlots(_)
        | Action::AskLeaderSlots(_)
        | Action::RenewLease
        | Action::RevokeLease { .. }
        | Action::SuspendLivenessCheck { .. }
        | Action::PublishMember(_)
        | Action::PublishStatus { .. }
        | Action::PublishHistory { .. }
        | Action::PublishSync { .. }
        | Action::PublishFailsafe { .. }
        | Action::PlanFailsafe(_)
        | Action::PublishUnfenced(_)
        | Action::RestoreInitialize { .. }
        | Action::RestoreConfig { .. }
        | Action::ClearFailover { .. }
        | Action::WriteGeneration(_)
        | Action::WriteRecruit(_)
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
        | JobKind::UndoClone
        | JobKind::StartStandby
        | JobKind::StartPrimary
        | JobKind::Stop
        | JobKind::Checkpoint
        | JobKind::PrePromote
        | JobKind::Promote
        | JobKind::CrashRecovery
        | JobKind::Rewind
        | JobKind::CheckpointAfterPromotion => false,
    }
}

#[cfg(test)]
mod tests;
