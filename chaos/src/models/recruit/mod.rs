//! Recruiting: a standby replaces a leader that nobody hears before its lease ends. May an acknowledged commit be
//! missing then, or may the former leader acknowledge another?
//!
//! ```text
//!  a, c: decide ─► key recruit ─► leave b, promise ─► depose ──► etcd ── at once, late, or twice
//!  b:    alive all the time: commits, acknowledges, changes the key sync and its names by the product's machine
//! ```
//!
//! Both standbys decide with the product's `decide`, from a view, answers of others and heartbeats that may each be
//! old. They may both be candidates. All transactions are the product's, and so is the machine that changes the
//! synchronous standbys of the leader: which of them it finds connected is not determined. A standby's PostgreSQL
//! leaves its source only some time after it was told to. Supervisors are started again without their memory, lose
//! their lease, hear the leader again; answers are lost, requests arrive twice; and all of them wait for so long that
//! every deadline of an attempt passes. Each of these is a fault, and a life has at most one of them.
//! A member that does nothing any more is frozen or dead.
//!
//! States hold what is large by number (`interned`), and equal questions are decided once (`standby`). The leader's WAL
//! is there from the beginning, with a commit that waits: later is the same as not yet received. A life ends for a
//! standby when it sees the next leader: its promotion is an ordinary one. That etcd's answers are new enough, and that
//! a guard is in time, is assumed here: the world `lease` visits that.
//! Deliberately absent: what comes after a deposal, standbys whose PostgreSQL restarts, a restart of the old leader's
//! supervisor, and more than two standbys.

mod display;
mod etcd;
mod following;
mod interned;
mod leader;
mod observation;
mod standby;
mod state;

use clap::ValueEnum;
use matriarch::model::{SyncNames, SyncRecord};
use stateright::{Model, Property};

use super::check::{self, Report, Size};
use etcd::Etcd;
use leader::{COMMITS, OldLeader};
use standby::{Answer, Hearing, name};
use state::{Kind, Laws, State};

/// A way to break it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mutation {
    /// The deposal does not compare the revision of `sync`.
    DeposedOverOldSync,
    /// The deposal does not compare the attempt: one that was withdrawn may still succeed.
    DeposedWithoutAttempt,
    /// A standby says that it has promised before its receiver is gone.
    PromisedBeforeLeaving,
    /// A supervisor that starts does not see that its predecessor may have promised.
    FormerPromiseForgotten,
    /// Promises for an older attempt count.
    AnyAttemptCounts,
    /// One promise too few is enough.
    OneVoterTooFew,
    /// Promises of standbys that are ahead of the candidate count.
    AheadCounts,
    /// The candidate does not wait until it has left the leader itself.
    CandidateStays,
    /// An attempt is never withdrawn.
    NeverWithdrawn,
}

/// What goes wrong in a life, each as often as it is listed, at any time or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// The leader changes the key `sync`.
    SyncWrite,
    /// A standby hears the leader again.
    Heard,
    /// The supervisor of a standby is started again, without its memory.
    Restart,
    /// So long that every deadline of an attempt passes.
    Pause,
    /// The answer to a deposal is lost; it may arrive later.
    LostAnswer,
    /// A request arrives twice.
    Twice,
    /// The lease of a standby ends.
    Lease,
    /// The lease of the leader ends.
    LeaderLease,
}

/// Visits it.
pub(super) fn visit(mutation: Option<Mutation>, size: Size) -> Report {
    let wals: &[[u8; 2]] = match size {
        Size::Small => &[[1, 0]],
        Size::Full => &[[0, 0], [1, 0], [0, 1], [1, 1]],
    };
    check::visit("recruit", mutation, Recruit { lives: lives(size), wals, laws: Laws::new(mutation) })
}

type Life = (Kind, Vec<Fault>);

fn life(candidates: usize, faults: &[Fault]) -> Life {
    let names_change = faults.contains(&Fault::SyncWrite);
    (Kind { is_quorum: true, one_candidate: candidates == 1, names_change }, faults.to_vec())
}

fn in_mode_on((kind, faults): Life) -> Life {
    (Kind { is_quorum: false, ..kind }, faults)
}

fn lives(size: Size) -> Vec<Life> {
    use Fault::{Heard, LeaderLease, Lease, LostAnswer, Pause, Restart, SyncWrite, Twice};
    match size {
        Size::Small => vec![life(2, &[]), life(1, &[Restart]), in_mode_on(life(2, &[SyncWrite]))],
        Size::Full => vec![
            life(2, &[]),
            life(1, &[SyncWrite]),
            life(1, &[Restart]),
            life(1, &[LostAnswer]),
            life(1, &[Twice]),
            life(1, &[Pause]),
            life(1, &[Heard]),
            life(1, &[Lease]),
            life(1, &[LeaderLease]),
            in_mode_on(life(2, &[SyncWrite])),
        ],
    }
}

struct Recruit {
    lives: Vec<Life>,
    /// What the standbys may have at the beginning.
    wals: &'static [[u8; 2]],
    laws: Laws,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Tick(usize),
    See(usize),
    Hear(usize),
    FallSilent(usize),
    /// It hears what the other standby says.
    Answer(usize),
    LeaderAnswers(usize),
    Tell(usize),
    Obey(usize),
    ReceiverStarts(usize),
    ReceiverEnds(usize),
    Stream(usize),
    EtcdWrites(usize),
    HearOfWrite(usize),
    LoseAnswer(usize),
    Arrives(usize),
    ArrivesAndStays(usize),
    Restart(usize),
    LeaseEnds(usize),
    LeaderLeaseEnds,
    TimePasses,
    Acknowledge,
    LeaderSees,
    LeaderSteps(usize),
    SyncArrives,
}

impl Model for Recruit {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut states = Vec::new();
        for (kind, faults) in &self.lives {
            for wal in self.wals {
                let state = self.begin(*kind, faults, *wal);
                if faults.is_empty() {
                    states.push(after_an_attempt(state.clone()));
                }
                states.push(state);
            }
        }
        states
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.next(actions, &self.laws);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        self.carry_out(&mut state, action);
        state.acknowledge();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Recruit>> {
        vec![
            Property::always("the next leader has every acknowledged commit", |_, state: &State| {
                let acknowledged = state.leader.acknowledged;
                (1..3).all(|index| {
                    !state.etcd.is_led_by(index) || acknowledged <= state.standby(index).postgres.wal
                })
            }),
            Property::always(
                "no standby receives from a leader that it has promised to leave",
                |_, state: &State| {
                    (0..2).all(|which| state.promised[which].is_none() || !state.receives()[which])
                },
            ),
            Property::always("a leader that was replaced acknowledges nothing more", |_, state: &State| {
                state.leader_key().is_some_and(|leader| leader.name == name(0))
                    || !state.leader.can_go_on(state.receives())
            }),
            Property::always(
                "a standby can follow a leader that was not replaced",
                |model, state: &State| {
                    let can = |index: usize| following::can_follow(state, &model.laws, index);
                    !state.leader.runs || (1..3).all(can)
                },
            ),
            Property::sometimes(
                "a leader that lives is replaced, and a commit waits there",
                |_, state: &State| {
                    let leader = &state.leader;
                    state.deposed_by.is_some() && leader.runs && leader.acknowledged < COMMITS
                },
            ),
            Property::sometimes("a supervisor keeps the promise of its predecessor", |_, state: &State| {
                let keeps = |index: usize| {
                    let standby = state.standby(index);
                    let recalls = standby.memory.recruit.promise.is_some();
                    standby.hearing == Hearing::Unknown && recalls && state.promised[index - 1].is_some()
                };
                (1..3).any(keeps)
            }),
            Property::sometimes(
                "after an attempt that failed a standby streams again",
                |_, state: &State| {
                    let streams = |index: usize| {
                        let standby = state.standby(index);
                        0 < standby.memory.recruit.failures
                            && standby.postgres.receives
                            && standby.postgres.source
                    };
                    state.etcd.is_led_by(0) && state.etcd.attempt().is_none() && (1..3).any(streams)
                },
            ),
            Property::sometimes("a deposal fails", |_, state: &State| {
                (1..3).any(|index| state.standby(index).memory.recruit.deposal_failed)
            }),
        ]
    }
}

/// An attempt has failed before, and each standby still has the other's answer that it had promised.
fn after_an_attempt(mut state: State) -> State {
    for index in 1..3 {
        let (at, wal) = (state.time, state.standby(index).postgres.wal);
        let says = Answer { at, reachable: true, wal, suspects: Some(true), ..Answer::default() };
        state.standby_mut(3 - index).answers[index] = Some(Answer { recruited: Some(1), ..says });
    }
    state
}

impl Recruit {
    /// The leader has just gone silent, and the standbys have this much of its WAL.
    fn begin(&self, kind: Kind, faults: &[Fault], wal: [u8; 2]) -> State {
        let (tables, is_quorum) = (&self.laws.tables, kind.is_quorum);
        let named = if is_quorum { [1, 2].map(name).into() } else { [name(1)].into() };
        let quorum = usize::from(is_quorum);
        let record = SyncRecord { leader: Some(name(0)), quorum, voters: named };
        let names = SyncNames { any: is_quorum, count: 1, names: record.voters.clone(), wildcard: false };
        let etcd = tables.etcds.intern(Etcd::new(&record));
        State {
            kind,
            time: 1,
            faults_left: faults.to_vec(),
            leader: OldLeader {
                runs: true,
                acknowledged: 0,
                names: tables.names.intern(names),
                from: 0,
                view: tables.views.intern(etcd.seen_by_leader()),
                writing: None,
            },
            standbys: [1, 2].map(|index| tables.begin(index, kind, &etcd, wal[index - 1])),
            etcd,
            sent: Vec::new(),
            promised: [None; 2],
            deposed_by: None,
        }
    }

    fn carry_out(&self, state: &mut State, action: Action) {
        match action {
            Action::Tick(_) => {}
            Action::See(index) => state.see(&self.laws, index),
            Action::Hear(index) => {
                state.spend(Fault::Heard);
                state.standby_mut(index).hearing = Hearing::Heard;
            }
            Action::FallSilent(index) => state.standby_mut(index).hearing = Hearing::Silent,
            Action::Answer(index) => state.answer(&self.laws, 3 - index, index),
            Action::LeaderAnswers(index) => {
                state.spend(Fault::Heard);
                state.leader_answers(index);
            }
            Action::Tell(index) => state.standby_mut(index).told_at = Some(state.time),
            Action::EtcdWrites(index) => state.carry_out(&self.laws, index),
            Action::HearOfWrite(index) => {
                let standby = state.standby_mut(index);
                standby.finished = standby.writing.take().and_then(|write| write.outcome);
            }
            Action::LoseAnswer(index) => {
                state.spend(Fault::LostAnswer);
                state.abandon_write(index);
                let outcome = matriarch::model::Outcome::Unknown(String::new());
                state.standby_mut(index).finished = Some(self.laws.tables.outcomes.intern(outcome));
            }
            Action::Restart(index) => {
                state.spend(Fault::Restart);
                state.abandon_write(index);
                *state.standby_mut(index) =
                    self.laws.tables.restart(state.standby(index), self.laws.mutation);
            }
            _ => self.happen(state, action),
        }
        if let Some(index) = action.wakes()
            && !state.standby(index).has_successor()
        {
            let _nobody_asked = state.tick(&self.laws, index);
        }
    }

    /// What no supervisor of a standby notices at once.
    fn happen(&self, state: &mut State, action: Action) {
        match action {
            Action::Obey(index) => {
                let standby = state.standby_mut(index);
                standby.postgres.source = standby.ordered.take().unwrap_or(standby.postgres.source);
            }
            Action::ReceiverStarts(index) => state.standby_mut(index).postgres.receives = true,
            Action::ReceiverEnds(index) => state.standby_mut(index).postgres.receives = false,
            Action::Stream(index) => state.standby_mut(index).postgres.wal += 1,
            Action::Arrives(which) => {
                let sent = state.sent.remove(which);
                state.arrive(&self.laws, &sent);
            }
            Action::ArrivesAndStays(which) => {
                state.spend(Fault::Twice);
                let sent = state.sent[which].clone();
                state.arrive(&self.laws, &sent);
            }
            Action::LeaseEnds(index) => {
                state.spend(Fault::Lease);
                let etcd = state.etcd.end(state.standby(index).lease);
                state.change(&self.laws, Some(etcd));
            }
            Action::LeaderLeaseEnds => {
                // The guard is in time.
                state.spend(Fault::LeaderLease);
                state.leader.runs = false;
                let etcd = state.etcd.end(1);
                state.change(&self.laws, Some(etcd));
            }
            Action::TimePasses => {
                state.spend(Fault::Pause);
                state.time += 1;
            }
            Action::Acknowledge => state.leader.acknowledged += 1,
            Action::LeaderSees => {
                let view = state.etcd.seen_by_leader();
                state.leader.see(self.laws.tables.views.intern(view));
            }
            Action::LeaderSteps(connected) => state.leader_steps(&self.laws, connected),
            Action::SyncArrives => state.sync_arrives(&self.laws),
            _ => {}
        }
    }
}

impl Action {
    /// Whatever a standby hears of, it decides at once: a freeze is that it hears of nothing.
    fn wakes(self) -> Option<usize> {
        match self {
            Action::Tick(index)
            | Action::See(index)
            | Action::Hear(index)
            | Action::FallSilent(index)
            | Action::Answer(index)
            | Action::LeaderAnswers(index)
            | Action::Tell(index)
            | Action::HearOfWrite(index)
            | Action::LoseAnswer(index) => Some(index),
            _ => None,
        }
    }
}
