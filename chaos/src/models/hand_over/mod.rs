//! The hand-over: a primary stops, proves that its candidate holds everything, and moves the leader key to it in one
//! transaction. May two members write, or an acknowledged write be lost?
//!
//! ```text
//!  a: decide ─► Stop ─► ask b ─► HandOver ──► etcd ── at once, late, or twice; its answer may be lost
//!  b: decide ◄─ sees the key, renews ─► Promote
//! ```
//!
//! Both members decide with the product's `decide`, from a view, a renewal and an answer that may each be old. The rest
//! of a member is in `member`, etcd and its transactions in `etcd`, what may happen next in `state`. Members crash, are
//! started again without their memory, lose their lease; and all of them wait for so long that every deadline of a
//! hand-over passes. Each of these is a fault, and a life has one or two of them. That nobody writes without its lease
//! is assumed here: the world `lease` visits that.
//! Deliberately absent: more than one switchover, and how the old primary comes back behind the new one.

mod etcd;
mod member;
mod state;

use std::time::Duration;

use clap::ValueEnum;
use matriarch::model::{
    Action as Order, Finished, Job, JobKind, Moment, Outcome, TakeLeadershipPreconditions, Term,
};
use stateright::{Model, Property};

use super::check::{self, Report, Size};
use etcd::Keys;
use member::{Member, Postgres, SHUTDOWN, Write, confirmed};
use state::{Kept, State};

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
    /// Reclaiming the key leaves it in its term, and that is good enough.
    ReclaimedInTheSameTerm,
    /// The candidate is believed to have replayed everything.
    NotProved,
    /// A postmaster that crashed counts as one that was stopped cleanly.
    CrashLooksClean,
}

/// What goes wrong in a life, each as often as it is listed, at any time or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    /// The answer to a write to the leader key is lost; the write may arrive later, or once more.
    LostAnswer,
    /// Postgres of `a`.
    Crash,
    /// Of either member.
    LostLease,
    /// The supervisor of `a`, without its memory.
    Restart,
    /// So long that every deadline of a hand-over passes.
    Pause,
}

/// Visits it.
pub(super) fn visit(mutation: Option<Mutation>, size: Size) -> Report {
    check::visit("hand-over", mutation, HandOver { lives: lives(size), mutation })
}

fn lives(size: Size) -> Vec<Vec<Fault>> {
    use Fault::{Crash, LostAnswer, LostLease, Pause, Restart};
    match size {
        Size::Small => vec![vec![LostAnswer], vec![Crash], vec![Restart]],
        Size::Full => vec![
            vec![LostAnswer, Pause],
            vec![LostAnswer, Restart],
            vec![Crash, Pause],
            vec![Crash, Restart],
            vec![Restart, Restart],
            vec![Restart, Pause],
            vec![LostLease],
        ],
    }
}

struct HandOver {
    lives: Vec<Vec<Fault>>,
    mutation: Option<Mutation>,
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
        let _taken = keys.carry_out(
            0,
            leases[0],
            &Job::TakeLeadership {
                by: TakeLeadershipPreconditions {
                    sync: 0,
                    unfenced: 0,
                    failsafe: 0,
                    unlocked: 0,
                    deposes: None,
                },
            },
            None,
        );
        let of = |index: usize, postgres| {
            // The request is news to both.
            let seen = Keys { failover: None, ..keys };
            Kept::new(Member::new(seen, confirmed(&keys, Some(leases[index]), START), postgres))
        };
        let members = [of(0, Postgres::Primary), of(1, Postgres::Standby)];
        let term = keys.leader.map_or(Term(0), |leader| leader.term);
        let with = |faults: &Vec<Fault>| State {
            now: START,
            faults_left: faults.clone(),
            keys,
            members: members.clone(),
            stragglers: Vec::new(),
            acknowledged: 0,
            term,
            went_back: false,
        };
        self.lives.iter().map(with).collect()
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
        if state.may(Fault::Pause) {
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
            Action::Crash(index) => {
                state.spend(Fault::Crash);
                state.change(index, |member| member.postgres = Postgres::Crashed);
            }
            Action::LoseLease(index) => state.lose_lease(index),
            Action::Restart(index) => state.restart(index),
            Action::LongPause => {
                state.spend(Fault::Pause);
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
                if job == JobKind::ReclaimLeadership
                    && self.mutation == Some(Mutation::ReclaimedInTheSameTerm)
                {
                    member.forget_the_write();
                }
                member.finished.extend(write.outcome.map(|outcome| Finished { job, outcome }));
            }),
            _ => {
                let outcome = Outcome::Unknown(String::new());
                state.spend(Fault::LostAnswer);
                state.change(index, |member| {
                    member.writing = None;
                    member.finished.push(Finished { job, outcome });
                });
                // It was sent to two endpoints: also one that was carried out may arrive again.
                state.stragglers.push((index, Write { outcome: None, ..write }));
            }
        }
    }
}
