//! One standby: the real decisions, its PostgreSQL, and what it says to the others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use matriarch::decide::{Memory, SlotLedger, decide};
use matriarch::model::{
    Action, Job, LeaderHearing, MemberName, Outcome, RecruitWrite, Suspicion, TakeLeadershipPreconditions,
};

use super::Mutation;
use super::etcd::Etcd;
use super::interned::{Interned, Interner};
use super::leader::LeaderView;
use super::observation::{at, observe};
use super::state::Kind;

pub(super) fn name(index: usize) -> MemberName {
    MemberName::new(["b", "a", "c"][index]).expect("a valid name")
}

fn slots() -> SlotLedger {
    SlotLedger { inherited: true, ..SlotLedger::default() }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Standby {
    pub(super) memory: Interned<Memory>,
    pub(super) lease: i64,
    pub(super) view: Interned<Etcd>,
    pub(super) hearing: Hearing,
    /// The others were asked, and what each of them said.
    pub(super) asks: bool,
    pub(super) answers: [Option<Answer>; 3],
    /// The leader was asked for its history, and told it then.
    pub(super) asks_history: bool,
    pub(super) told_at: Option<u8>,
    pub(super) postgres: Postgres,
    /// Its PostgreSQL is to have the leader for its source, or none.
    pub(super) ordered: Option<bool>,
    pub(super) writing: Option<Write>,
    pub(super) finished: Option<Interned<Outcome>>,
}

/// Heartbeats of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hearing {
    Unknown,
    Heard,
    Silent,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Postgres {
    /// The leader is its source.
    pub(super) source: bool,
    /// A receiver is connected to the leader.
    pub(super) receives: bool,
    /// How many commits its WAL has.
    pub(super) wal: u8,
    /// The names that were last set for its own promotion.
    pub(super) names: Option<Interned<Option<String>>>,
}

/// A transaction to take the leader key under way, with its outcome once etcd has carried it out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) by: Interned<TakeLeadershipPreconditions>,
    pub(super) lease: i64,
    pub(super) outcome: Option<Interned<Outcome>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    pub(super) at: u8,
    pub(super) reachable: bool,
    pub(super) is_primary: bool,
    pub(super) wal: u8,
    pub(super) receives: bool,
    /// It suspects the leader, or it hears it.
    pub(super) suspects: Option<bool>,
    pub(super) recruited: Option<i64>,
}

/// Everything that states hold by number, and all decisions so far.
pub(super) struct Tables {
    pub(super) etcds: Interner<Etcd>,
    pub(super) names: Interner<matriarch::model::SyncNames>,
    pub(super) records: Interner<matriarch::model::SyncRecord>,
    pub(super) writes: Interner<RecruitWrite>,
    pub(super) takes: Interner<TakeLeadershipPreconditions>,
    pub(super) outcomes: Interner<Outcome>,
    pub(super) views: Interner<LeaderView>,
    memories: Interner<Memory>,
    texts: Interner<Option<String>>,
    decided: Mutex<HashMap<Asked, Decided>>,
}

/// Which standby at which time.
type Asked = (usize, u8, Kind, Standby);
/// One decision.
#[derive(Clone)]
pub(super) struct Decided {
    /// What becomes of the standby.
    pub(super) standby: Standby,
    /// What it answers from now on.
    pub(super) says: Answer,
    /// Its writes to the key `recruit`.
    pub(super) writes: Vec<Interned<RecruitWrite>>,
}

impl Tables {
    pub(super) fn new() -> Tables {
        Tables {
            etcds: Interner::new(),
            names: Interner::new(),
            records: Interner::new(),
            writes: Interner::new(),
            takes: Interner::new(),
            outcomes: Interner::new(),
            views: Interner::new(),
            memories: Interner::new(),
            texts: Interner::new(),
            decided: Mutex::default(),
        }
    }

    /// A standby that follows the leader, and has just come to suspect it.
    pub(super) fn begin(&self, index: usize, kind: Kind, etcd: &Interned<Etcd>, wal: u8) -> Standby {
        let mut memory = Memory { slots: slots(), ..Memory::default() };
        memory.failsafe.is_free = true;
        let mut standby = Standby {
            memory: self.memories.intern(memory),
            lease: index as i64 + 1,
            view: etcd.clone(),
            hearing: Hearing::Heard,
            asks: false,
            answers: [None; 3],
            asks_history: false,
            told_at: None,
            postgres: Postgres { source: true, receives: true, wal, names: None },
            ordered: None,
            writing: None,
            finished: None,
        };
        for hearing in [Hearing::Heard, Hearing::Heard, Hearing::Silent] {
            standby.hearing = hearing;
            standby = self.tick(index, 0, kind, None, &standby).standby;
            // It follows the leader as its history was told long ago.
            (standby.ordered, standby.told_at) = (None, Some(0));
        }
        (standby.asks_history, standby.told_at) = (false, None);
        standby
    }

    /// The supervisor is started again: it remembers nothing.
    pub(super) fn restart(&self, standby: &Standby, mutation: Option<Mutation>) -> Standby {
        let mut memory = Memory::default();
        memory.recruit.has_looked = mutation == Some(Mutation::FormerPromiseForgotten);
        Standby {
            memory: self.memories.intern(memory),
            hearing: Hearing::Unknown,
            asks: false,
            answers: [None; 3],
            asks_history: false,
            told_at: None,
            ordered: None,
            writing: None,
            finished: None,
            ..standby.clone()
        }
    }

    /// It has seen the next leader: what it remembers matters no more.
    pub(super) fn retire(&self, standby: &Standby) -> Standby {
        let postgres = Postgres { names: None, ..standby.postgres.clone() };
        let retired = Standby { hearing: Hearing::Silent, postgres, ..self.restart(standby, None) };
        Standby { ordered: standby.ordered, ..retired }
    }

    /// One tick of the real decision.
    pub(super) fn tick(
        &self,
        index: usize,
        time: u8,
        kind: Kind,
        mutation: Option<Mutation>,
        standby: &Standby,
    ) -> Decided {
        let lock = || self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = (index, time, kind, standby.clone());
        if let Some(decided) = lock().get(&asked) {
            return decided.clone();
        }
        let decided = self.decide(index, time, kind, mutation, standby);
        lock().insert(asked, decided.clone());
        decided
    }

    fn decide(
        &self,
        index: usize,
        time: u8,
        kind: Kind,
        mutation: Option<Mutation>,
        before: &Standby,
    ) -> Decided {
        let now = at(time);
        let seen = observe(index, time, kind, mutation, before);
        let decision = decide(&before.memory, &seen, now);
        let mut memory = decision.memory;
        let recruited = match mutation {
            Some(Mutation::PromisedBeforeLeaving) => memory.recruit.promise.as_ref().map(|it| it.attempt),
            _ => memory.recruited(&seen),
        };
        let suspects = match memory.suspicion(seen.hearing) {
            Suspicion::Unknown => None,
            Suspicion::Hears(_) => Some(false),
            Suspicion::Suspects(_) => Some(true),
        };
        // What was published matters to nobody here.
        (memory.published, memory.status, memory.failures.last) = (None, None, None);
        memory.slots = slots();
        let mut standby = Standby { finished: None, memory: self.memories.intern(memory), ..before.clone() };
        let Postgres { wal, receives, .. } = before.postgres;
        let says =
            Answer { at: time, reachable: true, is_primary: false, wal, receives, suspects, recruited };
        let mut writes = Vec::new();
        for action in decision.actions {
            self.perform(&mut standby, &mut writes, action);
        }
        Decided { standby, says, writes }
    }

    fn perform(&self, standby: &mut Standby, writes: &mut Vec<Interned<RecruitWrite>>, action: Action) {
        match action {
            Action::Follow(target) => standby.ordered = Some(target.is_some()),
            Action::AskPeers { .. } => standby.asks = true,
            Action::AskLeaderBranch { .. } => standby.asks_history = true,
            Action::SetSyncNames(names) => standby.postgres.names = Some(self.texts.intern(names)),
            Action::WriteRecruit(write) => writes.push(self.writes.intern(write)),
            Action::Start(Job::TakeLeadership { by }) => {
                let (by, lease) = (self.takes.intern(by), standby.lease);
                standby.writing = Some(Write { by, lease, outcome: None });
            }
            // Records, slots and the like.
            _ => {}
        }
    }
}

impl Standby {
    /// It can decide: what it was told to do with its source is done first.
    pub(super) fn is_awake(&self) -> bool {
        self.ordered.is_none() && !self.has_successor()
    }

    /// It knows of the next leader, and what follows is an ordinary promotion.
    pub(super) fn has_successor(&self) -> bool {
        self.view.cluster.leader.is_some() && !self.view.is_led_by(0)
    }

    pub(super) fn hears(&self) -> LeaderHearing {
        let Some(term) = self.view.cluster.leader.as_ref().map(|leader| leader.term) else {
            return LeaderHearing::Unknown;
        };
        match self.hearing {
            Hearing::Unknown => LeaderHearing::Unknown,
            Hearing::Heard => LeaderHearing::Heard { term },
            Hearing::Silent => LeaderHearing::Silent { term, last: at(0) },
        }
    }
}
