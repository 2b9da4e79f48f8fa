//! The hand-over: a primary stops, proves that its candidate holds everything, and moves the leader key to it in one
//! transaction. May two members write, or an acknowledged write be lost?
//!
//! ```text
//!  a: decide ─► Stop ─► ask b ─► HandOver ──► etcd ── at once, late, or twice; its answer may be lost
//!  b: decide ◄─ sees the key, renews ─► Promote
//! ```
//!
//! Both members decide with the product's `decide`, from a view, a renewal and an answer that may each be old. The rest
//! of a member is in `member`, etcd and its transactions are in `etcd`. Members crash, are started again without their
//! memory, lose their lease; and all of them wait for so long that every deadline of a hand-over passes. Each of these
//! is a fault, and a life has a few of them. That nobody writes without its lease is assumed here: the world `lease`
//! visits that.
//! Deliberately absent: more than one switchover, and how the old primary comes back behind the new one.

mod etcd;
mod member;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use matriarch::model::{
    Action as Order, Finished, Job, JobKind, LeaseFacts, LeaseId, Moment, Outcome, StopMode, Term,
};
use stateright::{Model, Property};

use super::check::{self, Report, Size};
use etcd::Keys;
use member::{Member, PROMOTION, Postgres, SHUTDOWN, Write, confirmed};

const START: Moment = Moment::from_millis(1_000_000);
/// Longer than every deadline of a hand-over.
const LONG: Duration = Duration::from_secs(70);
const COMMITS_MAX: u8 = 1;

/// A way to break it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mutation {
    /// The transaction that moves the key does not compare term and lease.
    MovedWithoutCompare,
    /// A write whose end is unknown counts as one that failed.
    UnknownMeansFailed,
    /// Reclaiming the key leaves it in its term.
    ReclaimedInTheSameTerm,
    /// The candidate is believed to have replayed everything.
    NotProved,
    /// A postmaster that crashed counts as one that was stopped cleanly.
    CrashLooksClean,
}

/// Visits it.
pub(super) fn visit(mutation: Option<Mutation>, size: Size) -> Report {
    let faults = match size {
        Size::Small => std::env::var("F").map_or(1, |f| f.parse().unwrap_or(1)),
        Size::Full => std::env::var("F").map_or(1, |f| f.parse().unwrap_or(1)),
    };
    check::visit("hand-over", mutation, HandOver { faults, mutation })
}

struct HandOver {
    faults: u8,
    mutation: Option<Mutation>,
}

#[derive(Clone)]
struct State {
    now: Moment,
    faults_left: u8,
    keys: Keys,
    members: [Kept; 2],
    /// Requests that nobody waits for any more and that may still arrive.
    stragglers: Vec<(usize, Write)>,
    acknowledged: u8,
    /// Of the newest writer.
    term: Term,
    /// A writer came in an older term.
    went_back: bool,
}

/// A member with its fingerprint.
#[derive(Clone)]
struct Kept {
    member: Arc<Member>,
    fingerprint: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    See(usize),
    Renew(usize),
    Answer(usize),
    EndJob(usize),
    BecomePrimary(usize),
    EtcdWrites(usize),
    HearOfWrite(usize),
    LoseAnswer(usize),
    StragglerArrives(usize),
    Commit(usize),
    Stream,
    Crash(usize),
    LoseLease(usize),
    Restart(usize),
    LongPause,
}

impl Model for HandOver {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut keys = Keys::new();
        let leases = [keys.grant(0), keys.grant(1)];
        let _taken = keys.carry_out(0, leases[0], &Job::TakeLeadership { by_sync: None }, None);
        let of = |index: usize, postgres| {
            // The request is news to both.
            let seen = Keys { failover: None, ..keys };
            Kept::new(Member::new(seen, confirmed(&keys, Some(leases[index]), START), postgres))
        };
        let members = [of(0, Postgres::Primary), of(1, Postgres::Standby)];
        let term = keys.leader.map_or(Term(0), |leader| leader.term);
        vec![State {
            now: START,
            faults_left: self.faults,
            keys,
            members,
            stragglers: Vec::new(),
            acknowledged: 0,
            term,
            went_back: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_over() {
            return;
        }
        for index in 0..2 {
            state.of_member(index, actions);
        }
        actions.extend((0..state.stragglers.len()).map(Action::StragglerArrives));
        let [a, b] = [state.member(0), state.member(1)];
        let streams = a.postgres == Postgres::Primary && b.postgres == Postgres::Standby;
        if streams && b.wal.len() < a.wal.len() && a.wal.starts_with(&b.wal) {
            actions.push(Action::Stream);
        }
        if 0 < state.faults_left {
            actions.push(Action::LongPause);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::See(index) => {
                let view = (state.keys, state.primaries());
                state.change(index, |member| member.view = view);
            }
            Action::Renew(index) => state.renew(index),
            Action::Answer(index) => {
                let says = state.member(1 - index).says(state.now);
                let says = if self.mutation == Some(Mutation::NotProved) { says.all() } else { says };
                state.change(index, |member| member.answer = Some(says));
            }
            Action::EndJob(index) => state.end_job(index),
            Action::BecomePrimary(index) => state.become_primary(index),
            Action::EtcdWrites(_) | Action::HearOfWrite(_) | Action::LoseAnswer(_) => {
                self.write(&mut state, action);
            }
            Action::StragglerArrives(which) => {
                let (index, Write { job, lease, .. }) = state.stragglers.remove(which);
                let _nobody_hears = state.keys.carry_out(index, lease, &job, self.mutation);
            }
            Action::Commit(index) => {
                state.acknowledged += 1;
                let commit = state.acknowledged;
                state.change(index, |member| member.wal.push(commit));
            }
            Action::Stream => {
                let next = state.member(0).wal[state.member(1).wal.len()];
                state.change(1, |member| member.wal.push(next));
            }
            Action::Crash(index) => state.fault(index, |member| member.postgres = Postgres::Crashed),
            Action::LoseLease(index) => state.lose_lease(index),
            Action::Restart(index) => state.restart(index),
            Action::LongPause => {
                state.faults_left -= 1;
                state.now = state.now + LONG;
                // Whoever has a lease goes on renewing it.
                (0..2).filter(|index| state.lives(*index)).collect::<Vec<_>>().iter().for_each(|index| {
                    state.renew(*index);
                });
            }
        }
        // Whatever a member hears of, it decides at once: a freeze is that it hears of nothing.
        for index in action.wakes() {
            self.tick(&mut state, index);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<HandOver>> {
        vec![
            Property::always("at most one member writes", |_, state: &State| {
                !(state.writes(0) && state.writes(1))
            }),
            Property::always("a writer has the leader key", |_, state: &State| {
                let owner = state.keys.leader.map(|leader| leader.owner);
                (0..2).all(|index| !state.writes(index) || owner == Some(index))
            }),
            Property::always("terms of writers grow", |_, state: &State| !state.went_back),
            Property::always("no acknowledged write is lost by a hand-over", |_, state: &State| {
                state.keys.leader.is_none_or(|leader| {
                    let wal = &state.member(leader.owner).wal;
                    !leader.handed || (1..=state.acknowledged).all(|commit| wal.contains(&commit))
                })
            }),
            Property::sometimes("a switchover completes", |_, state: &State| {
                state.writes(1) && state.keys.leader.is_some_and(|leader| leader.handed)
            }),
            Property::sometimes("an aborted one leaves the old primary serving", |_, state: &State| {
                let stopped = state.member(0).wal.contains(&SHUTDOWN);
                stopped && state.writes(0) && state.member(0).was_refused()
            }),
            Property::sometimes("a failover", |_, state: &State| {
                state.writes(1) && state.keys.leader.is_some_and(|leader| !leader.handed)
            }),
        ]
    }
}

impl Action {
    fn wakes(self) -> Vec<usize> {
        match self {
            Action::See(index)
            | Action::Renew(index)
            | Action::Answer(index)
            | Action::EndJob(index)
            | Action::BecomePrimary(index)
            | Action::HearOfWrite(index)
            | Action::LoseAnswer(index)
            | Action::Crash(index)
            | Action::Restart(index) => vec![index],
            Action::LongPause => vec![0, 1],
            Action::EtcdWrites(_)
            | Action::StragglerArrives(_)
            | Action::Commit(_)
            | Action::Stream
            | Action::LoseLease(_) => Vec::new(),
        }
    }
}

impl HandOver {
    fn tick(&self, state: &mut State, index: usize) {
        let (now, clean) = (state.now, self.mutation == Some(Mutation::CrashLooksClean));
        let mut orders = Vec::new();
        state.change(index, |member| {
            orders = member.tick(index, now, clean);
            if self.mutation == Some(Mutation::UnknownMeansFailed) && member.writing.is_none() {
                member.forget_the_write();
            }
        });
        for order in orders {
            match order {
                Order::Start(job) => state.start(index, job),
                Order::CancelJob => state.change(index, |member| {
                    if let Some(job) = member.job.take() {
                        member.finished.push(Finished { job: job.kind(), outcome: Outcome::Cancelled });
                    }
                }),
                Order::AskPeers { .. } => state.change(index, |member| member.asking = true),
                Order::RevokeLease { lease } => state.keys.end(lease),
                Order::ClearFailover { mod_revision } if state.keys.failover == Some(mod_revision) => {
                    state.keys.failover = None;
                }
                // Records, slots and the way back; renewals come by themselves.
                _ => {}
            }
        }
    }

    fn write(&self, state: &mut State, action: Action) {
        let (Action::EtcdWrites(index) | Action::HearOfWrite(index) | Action::LoseAnswer(index)) = action
        else {
            return;
        };
        let Some(write) = state.member(index).writing.clone() else { return };
        let job = write.job.kind();
        match action {
            Action::EtcdWrites(_) => {
                let outcome = state.keys.carry_out(index, write.lease, &write.job, self.mutation);
                state
                    .change(index, |member| member.writing = Some(Write { outcome: Some(outcome), ..write }));
            }
            Action::HearOfWrite(_) => state.change(index, |member| {
                member.writing = None;
                member.finished.extend(write.outcome.map(|outcome| Finished { job, outcome }));
            }),
            _ => {
                let outcome = Outcome::Unknown(String::new());
                state.fault(index, |member| {
                    member.writing = None;
                    member.finished.push(Finished { job, outcome });
                });
                // It was sent to two endpoints: also one that was carried out may arrive again.
                state.stragglers.push((index, Write { outcome: None, ..write }));
            }
        }
    }
}

impl Kept {
    fn new(member: Member) -> Kept {
        let fingerprint = member.fingerprint();
        Kept { member: Arc::new(member), fingerprint }
    }
}

impl State {
    fn member(&self, index: usize) -> &Member {
        &self.members[index].member
    }

    /// One member serves, nothing is on its way, and the other cannot write.
    fn is_over(&self) -> bool {
        let quiet = |index: usize| self.member(index).writing.is_none() && self.member(index).job.is_none();
        let serves = |index: usize| {
            let fresh = self.member(index).view == (self.keys, self.primaries());
            fresh && self.writes(index) && !self.member(1 - index).may_be_primary()
        };
        let asked = self.keys.failover.is_some();
        let one_serves = (serves(0) && !asked) || serves(1);
        one_serves && quiet(0) && quiet(1) && self.stragglers.is_empty()
    }

    fn writes(&self, index: usize) -> bool {
        self.member(index).postgres == Postgres::Primary
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Member)) {
        let mut member = self.member(index).clone();
        change(&mut member);
        self.members[index] = Kept::new(member);
    }

    fn fault(&mut self, index: usize, change: impl FnOnce(&mut Member)) {
        self.faults_left -= 1;
        self.change(index, change);
    }

    /// What a member, its Postgres and its requests can do next.
    fn of_member(&self, index: usize, actions: &mut Vec<Action>) {
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
        let promotes = matches!(member.job, Some(Job::Promote { .. }));
        if member.job.is_some() && !(promotes && member.postgres == Postgres::Promoting) {
            actions.push(Action::EndJob(index));
        }
        match &member.writing {
            Some(Write { outcome: None, .. }) => actions.push(Action::EtcdWrites(index)),
            Some(Write { outcome: Some(_), .. }) => actions.push(Action::HearOfWrite(index)),
            None => {}
        }
        match member.postgres {
            Postgres::Promoting => actions.push(Action::BecomePrimary(index)),
            Postgres::Primary if self.acknowledged < COMMITS_MAX => actions.push(Action::Commit(index)),
            Postgres::Primary | Postgres::Standby | Postgres::Stopped | Postgres::Crashed => {}
        }
        if self.faults_left == 0 {
            return;
        }
        if member.writing.is_some() && self.stragglers.is_empty() {
            actions.push(Action::LoseAnswer(index));
        }
        if index == 0 {
            actions.push(Action::Restart(index));
            if member.may_be_primary() {
                actions.push(Action::Crash(index));
            }
        }
        if self.lives(index) {
            actions.push(Action::LoseLease(index));
        }
    }

    fn primaries(&self) -> [bool; 2] {
        [0, 1].map(|index| self.member(index).postgres == Postgres::Primary)
    }

    /// The lease of this member lives.
    fn lives(&self, index: usize) -> bool {
        let lease = self.member(index).facts.lease;
        lease.is_some() && self.keys.leases[index] == lease
    }

    /// A renewal is confirmed, or finds the lease gone and takes another.
    fn renew(&mut self, index: usize) {
        if !self.lives(index) {
            self.keys.grant(index);
        }
        let facts = confirmed(&self.keys, self.keys.leases[index], self.now);
        self.change(index, |member| member.facts = facts);
    }

    /// The guard is in time: Postgres is gone before the lease is.
    fn lose_lease(&mut self, index: usize) {
        let now = self.now;
        let lease = self.member(index).facts.lease;
        self.fault(index, |member| {
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
    fn restart(&mut self, index: usize) {
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
        self.fault(index, |member| member.forget(facts));
        self.stragglers.extend(write.map(|write| (index, Write { outcome: None, ..write })));
    }

    fn start(&mut self, index: usize, job: Job) {
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
    fn end_job(&mut self, index: usize) {
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
                Job::Promote { .. } if member.postgres != Postgres::Primary => {
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

    fn become_primary(&mut self, index: usize) {
        let term = self.member(index).term;
        self.went_back |= term < self.term;
        self.term = term;
        self.change(index, |member| {
            member.postgres = Postgres::Primary;
            member.timeline += 1;
            member.wal.push(PROMOTION);
            if let Some(Job::Promote { .. }) = member.job {
                member.job = None;
                member.finished.push(Finished { job: JobKind::Promote, outcome: Outcome::Done });
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
        (self.now, self.faults_left, self.keys, self.acknowledged, self.term, self.went_back).hash(hasher);
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
