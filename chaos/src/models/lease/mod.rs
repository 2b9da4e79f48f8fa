//! The lease: may two members write at a time, or one without its lease?
//!
//! ```text
//!  supervisor ── keepalive, then a read ──► etcd ── its leader changes; a deposed one still answers keepalives
//!      │ confirmed: arm                       │
//!    guard ── kill_at ──► Postgres            └── a lease ends, and the leader key with it
//! ```
//!
//! The arithmetic is the product's: `Renewal` judges the answers, `LeaseFacts` says whether a promotion is
//! allowed, `LeaseTiming` when the guard kills. The rest of a member is in `member`, and etcd in `etcd`.
//!
//! Time goes from second to second, and stops between them wherever a guard kills or a lease ends. What a supervisor
//! does need not happen: it may freeze anywhere, answers may be late or lost. Only the guard is in time, and etcd's
//! clock, which is as fast as the drift allowance assumes. States that differ by their place in time, by the names of
//! leases and terms, or by which member is which, are one: so time has no end here. There are two beginnings: two
//! members, and one member alone that changes to a shorter TTL, which moves the leader key to another lease.
//! Deliberately absent: who is the best candidate, and what the WAL holds.

mod canonical_form;
mod etcd;
mod member;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use clap::ValueEnum;
use matriarch::core::guard::Guard;
use matriarch::core::lease::KeepAliveAnswer;
use matriarch::model::{Leading, Moment};
use stateright::{Model, Property};

use super::check::{self, Report};
use etcd::Etcd;
use member::{Asking, KILL_TAKES, Member, Moving, Postgres};

const LONG: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(3);
/// Supervisors and etcd do something only then; guards and ends of leases are exact.
const GRID: Duration = Duration::from_secs(1);
const START: Moment = Moment::from_millis(1_000_000);

/// A way to break it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mutation {
    /// The deadline counts from the answer, not from the moment the renewal was sent.
    DeadlineFromAnswer,
    /// The read after the keepalive may come from another raft term.
    RaftTermsNotCompared,
    /// No guard is armed.
    NoGuard,
    /// The guard is armed with the first renewal after the promotion, not before it.
    GuardAfterPromotion,
    /// The guard kills at the lease's deadline, not before it.
    KillAtTheDeadline,
    /// A supervisor that starts takes the guard's orders back.
    DisarmedAtRestart,
    /// The leader key is taken whoever has it.
    TakenWithoutCompare,
    /// A lease that is gone on with is changed for a shorter one before its first confirmed renewal.
    MovedBeforeConfirmed,
    /// A shorter lease keeps the deadline of the longer one.
    OldDeadlineAfterMove,
    /// The shorter deadline is shown to the rest of the supervisor only after the move.
    MoveShownLate,
}

/// Visits it.
pub(super) fn visit(mutation: Option<Mutation>) -> Report {
    check::visit("lease", mutation, Lease { mutation })
}

struct Lease {
    mutation: Option<Mutation>,
}

#[derive(Clone, Debug)]
struct State {
    now: Moment,
    etcd: Etcd,
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    TimePasses,
    EtcdElects,
    Grant(usize),
    KeepAlive(usize),
    KeepAliveByDeposed(usize),
    ReadAndHear(usize),
    GiveUp(usize),
    Take(usize),
    AllowPromotion(usize),
    BecomePrimary(usize),
    KeepFence(usize),
    Stop(usize),
    Restart(usize),
    GrantShorter(usize),
    Shorten(usize),
    EtcdMoves(usize),
    HearMoved(usize),
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let start = |count: usize, ttl: Duration| {
            let mut etcd = Etcd::default();
            let members = (0..count).map(|index| Member::new(etcd.grant(index, START, ttl), ttl)).collect();
            State { now: START, etcd, members }
        };
        vec![start(2, SHORT), start(1, LONG)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::TimePasses);
        if !state.is_on_grid() {
            return;
        }
        if !state.etcd.deposed {
            actions.push(Action::EtcdElects);
        }
        for index in 0..state.members.len() {
            self.of_lease(state, index, actions);
            self.of_postgres(state, index, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::TimePasses => state.pass(),
            Action::EtcdElects => state.etcd.elect(state.now),
            Action::Grant(index)
            | Action::KeepAlive(index)
            | Action::KeepAliveByDeposed(index)
            | Action::ReadAndHear(index)
            | Action::GiveUp(index) => self.renew(&mut state, index, action),
            Action::GrantShorter(index)
            | Action::Shorten(index)
            | Action::EtcdMoves(index)
            | Action::HearMoved(index) => self.shorten(&mut state, index, action),
            Action::Take(index)
            | Action::AllowPromotion(index)
            | Action::BecomePrimary(index)
            | Action::KeepFence(index)
            | Action::Stop(index)
            | Action::Restart(index) => self.lead(&mut state, index, action),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Lease>> {
        vec![
            Property::always("at most one member writes", |_, state: &State| state.writers().count() <= 1),
            Property::always("a writer's lease lives and holds the leader key", |_, state: &State| {
                state.writers().all(|index| state.etcd.owner() == Some(index))
            }),
            Property::always("a writer's guard is armed", |_, state: &State| {
                state.writers().all(|index| state.members[index].guard.armed().is_some())
            }),
            Property::sometimes("a failover that the former leader has not noticed", |_, state: &State| {
                let thinks = |index: usize| matches!(state.members[index].shown.leading, Leading::Yes(_));
                (0..state.members.len()).filter(|index| thinks(*index)).count() == 2
                    && state.writers().count() == 1
            }),
            Property::sometimes("a writer with a shorter lease", |_, state: &State| {
                state.members.len() == 1
                    && state.writers().any(|index| state.members[index].shown.ttl == SHORT)
            }),
        ]
    }
}

impl Lease {
    /// What the lease's thread and etcd can do next.
    fn of_lease(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let member = &state.members[index];
        let facts = member.renewal.facts();
        match (&member.asking, member.moving, facts.lease) {
            (Asking::Nothing, Moving::Nothing, None) => actions.push(Action::Grant(index)),
            (Asking::Nothing, Moving::Nothing, Some(_)) => {
                actions.push(Action::KeepAlive(index));
                if state.etcd.deposed {
                    actions.push(Action::KeepAliveByDeposed(index));
                }
                let confirmed = facts.deadline.is_some();
                if member.ttl == LONG && (confirmed || self.mutation == Some(Mutation::MovedBeforeConfirmed))
                {
                    actions.push(Action::GrantShorter(index));
                }
            }
            (Asking::Nothing, Moving::Granted { .. }, _) => actions.push(Action::Shorten(index)),
            (Asking::Nothing, Moving::Shortened { .. }, _) => actions.push(Action::EtcdMoves(index)),
            (Asking::Nothing, Moving::Moved { .. }, _) => actions.push(Action::HearMoved(index)),
            (Asking::Answered(_) | Asking::NotFound, _, _) => {
                actions.extend([Action::ReadAndHear(index), Action::GiveUp(index)]);
            }
        }
    }

    /// What the loop and Postgres can do next.
    fn of_postgres(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let member = &state.members[index];
        let free = state.etcd.leader.is_none() || self.mutation == Some(Mutation::TakenWithoutCompare);
        match member.postgres {
            Postgres::Standby => {
                if allows(member, Member::clock(index, state.now)) {
                    actions.push(Action::AllowPromotion(index));
                }
                if free && member.renewal.facts().lease.is_some() {
                    actions.push(Action::Take(index));
                }
            }
            Postgres::Allowed => actions.push(Action::BecomePrimary(index)),
            Postgres::Primary => {
                actions.extend([Action::Stop(index), Action::Restart(index)]);
                if member.shown.leading_at(Member::clock(index, state.now)).is_some() {
                    actions.push(Action::KeepFence(index));
                }
            }
        }
    }

    fn renew(&self, state: &mut State, index: usize, action: Action) {
        let (now, clock) = (state.now, Member::clock(index, state.now));
        let State { etcd, members, .. } = state;
        let member = &mut members[index];
        let facts = member.renewal.facts().clone();
        match (action, facts.lease) {
            (Action::Grant(_), _) => {
                member.renewal.granted(etcd.grant(index, now, member.ttl), member.ttl);
                member.shown = member.renewal.facts().clone();
            }
            (Action::KeepAlive(_) | Action::KeepAliveByDeposed(_), Some(lease)) => {
                let (ttl, raft_term) = match action {
                    Action::KeepAliveByDeposed(_) => (Some(member.ttl), etcd.raft_term - 1),
                    _ => (etcd.keep_alive(now, lease), etcd.raft_term),
                };
                member.asking = ttl.map_or(Asking::NotFound, |ttl| {
                    Asking::Answered(KeepAliveAnswer { lease, sent_at: clock, ttl, raft_term })
                });
            }
            (Action::ReadAndHear(_), _) => member.hear(etcd.read(), clock, self.mutation),
            (_, _) => member.asking = Asking::Nothing,
        }
    }

    fn shorten(&self, state: &mut State, index: usize, action: Action) {
        let (now, clock) = (state.now, Member::clock(index, state.now));
        let State { etcd, members, .. } = state;
        let member = &mut members[index];
        match (action, member.moving) {
            (Action::GrantShorter(_), _) => {
                member.moving = Moving::Granted { lease: etcd.grant(index, now, SHORT), sent_at: clock };
            }
            (Action::Shorten(_), Moving::Granted { lease, sent_at }) => {
                member.shorten((lease, sent_at), SHORT, clock, self.mutation);
            }
            (Action::EtcdMoves(_), Moving::Shortened { lease }) => {
                let old = member.renewal.facts().lease;
                if !etcd.leases.contains_key(&lease) {
                    // Lease not found: the old one stays.
                    member.moving = Moving::Nothing;
                } else {
                    if etcd.leader.is_some_and(|(owner, _)| Some(owner) == old) {
                        etcd.put_leader(lease);
                    }
                    member.moving = Moving::Moved { lease, read: etcd.read() };
                }
            }
            (Action::HearMoved(_), Moving::Moved { lease, read }) => member.hear_moved(lease, read, SHORT),
            (_, _) => {}
        }
    }

    fn lead(&self, state: &mut State, index: usize, action: Action) {
        let clock = Member::clock(index, state.now);
        let State { etcd, members, .. } = state;
        let member = &mut members[index];
        match action {
            Action::Take(_) => {
                if let Some(lease) = member.renewal.facts().lease {
                    etcd.put_leader(lease);
                }
            }
            Action::AllowPromotion(_) => {
                let late = self.mutation == Some(Mutation::GuardAfterPromotion);
                let mutation = if late { Some(Mutation::NoGuard) } else { self.mutation };
                member.want(clock, mutation);
                member.postgres = Postgres::Allowed;
            }
            Action::BecomePrimary(_) => member.postgres = Postgres::Primary,
            // With every tick of the loop.
            Action::KeepFence(_) => member.want(clock, self.mutation),
            Action::Stop(_) => member.dies(),
            Action::Restart(_) => {
                let former = etcd.leader.filter(|_| etcd.owner() == Some(index)).map(|(lease, _)| lease);
                member.restart(former);
                if self.mutation == Some(Mutation::DisarmedAtRestart) {
                    member.guard = Guard::default();
                }
            }
            _ => {}
        }
    }
}

/// As a promotion asks it.
fn allows(member: &Member, clock: Moment) -> bool {
    match member.shown.leading {
        Leading::Yes(term) => member.shown.allows_promotion(term, clock),
        Leading::No | Leading::Unknown => false,
    }
}

impl State {
    fn is_on_grid(&self) -> bool {
        self.now.since(START).as_millis().is_multiple_of(GRID.as_millis())
    }

    fn writers(&self) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(|index| self.members[*index].postgres == Postgres::Primary)
    }

    /// To the next moment at which something may happen, and what happens then by itself.
    fn pass(&mut self) {
        let past = Duration::from_millis((self.now.since(START).as_millis() % GRID.as_millis()) as u64);
        let next = self.now + (GRID - past);
        let lease = self.etcd.leases.iter().map(|(name, lease)| (lease.ends_at, *name)).min();
        let kill = |(index, member): (usize, &Member)| {
            Some((Member::truly(index, member.kill_at()?) + KILL_TAKES, index))
        };
        let kill = self.members.iter().enumerate().filter_map(kill).min();
        match (lease, kill) {
            (Some((at, lease)), kill) if at <= next && kill.is_none_or(|(kill_at, _)| at <= kill_at) => {
                self.now = self.now.max(at);
                self.etcd.expire(lease);
            }
            (_, Some((at, index))) if at <= next => {
                self.now = self.now.max(at);
                self.members[index].dies();
            }
            (_, _) => self.now = next,
        }
    }
}

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        self.canonical_form() == other.canonical_form()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.canonical_form().hash(hasher);
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |moment: Moment| moment.since(START).as_secs_f64();
        write!(f, "{:.2} s, raft term {}", seconds(self.now), self.etcd.raft_term)?;
        if let Some((lease, _)) = self.etcd.leader {
            let end = self.etcd.leases.get(&lease).map_or(0.0, |lease| seconds(lease.ends_at));
            write!(f, ", lease {lease} leads until {end:.2}")?;
        }
        for (index, member) in self.members.iter().enumerate() {
            let facts = member.renewal.facts();
            write!(f, "; {index} {:?}, {:?}", member.postgres, facts.leading)?;
            if let Some(lease) = facts.lease {
                write!(f, " by lease {lease}")?;
            }
            if let Some(armed) = member.kill_at() {
                write!(f, ", kill at {:.2}", seconds(Member::truly(index, armed)))?;
            }
        }
        Ok(())
    }
}
