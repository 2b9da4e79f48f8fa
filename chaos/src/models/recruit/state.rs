//! Everything at one moment, and what may happen next.

use matriarch::decide::SyncStep;
use matriarch::model::{LeaderKey, RecruitWrite, TakeLeadershipPreconditions};

use super::etcd::Etcd;
use super::interned::Interned;
use super::leader::{COMMITS, OldLeader, SyncWrite};
use super::standby::{Answer, Decided, Hearing, Standby, Tables, Write};
use super::{Action, Fault, Mutation};

/// Which standbys the leader may find connected.
pub(super) const CONNECTED: [&[usize]; 4] = [&[], &[1], &[2], &[1, 2]];

/// What stays as it is for a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// The mode is quorum, and both standbys are synchronous; otherwise it is on, and only `a` is.
    pub(super) is_quorum: bool,
    /// Only `a` may lead.
    pub(super) one_candidate: bool,
    /// The leader changes its synchronous standbys.
    pub(super) names_change: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) kind: Kind,
    pub(super) time: u8,
    pub(super) faults_left: Vec<Fault>,
    pub(super) etcd: Interned<Etcd>,
    pub(super) leader: OldLeader,
    pub(super) standbys: [Standby; 2],
    /// Requests to etcd for whose answer nobody waits.
    pub(super) sent: Vec<Sent>,
    /// The attempt to which each standby has answered that it has promised, while that attempt may succeed or has
    /// succeeded.
    pub(super) promised: [Option<i64>; 2],
    /// The attempt that has succeeded.
    pub(super) deposed_by: Option<i64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) by: usize,
    lease: i64,
    request: Request,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Request {
    Recruit(Interned<RecruitWrite>),
    Take(Interned<TakeLeadershipPreconditions>),
}

/// What all states have in common.
pub(super) struct Laws {
    pub(super) tables: Tables,
    pub(super) mutation: Option<Mutation>,
}

impl Laws {
    pub(super) fn new(mutation: Option<Mutation>) -> Laws {
        Laws { tables: Tables::new(), mutation }
    }
}

impl State {
    pub(super) fn standby(&self, index: usize) -> &Standby {
        &self.standbys[index - 1]
    }

    pub(super) fn standby_mut(&mut self, index: usize) -> &mut Standby {
        &mut self.standbys[index - 1]
    }

    pub(super) fn has(&self) -> [u8; 2] {
        [1, 2].map(|index| self.standby(index).postgres.wal)
    }

    pub(super) fn receives(&self) -> [bool; 2] {
        [1, 2].map(|index| self.standby(index).postgres.receives)
    }

    /// The leader key as etcd has it.
    pub(super) fn leader_key(&self) -> Option<&LeaderKey> {
        self.etcd.cluster.leader.as_ref()
    }

    pub(super) fn may(&self, fault: Fault) -> bool {
        self.faults_left.contains(&fault)
    }

    pub(super) fn spend(&mut self, fault: Fault) {
        let which = self.faults_left.iter().position(|left| *left == fault);
        which.map(|which| self.faults_left.remove(which));
    }

    /// The standby decides; what it answers from now on.
    pub(super) fn tick(&mut self, laws: &Laws, index: usize) -> Answer {
        let Decided { mut standby, says, writes } =
            laws.tables.tick(index, self.time, self.kind, laws.mutation, self.standby(index));
        if !self.may(Fault::Restart) {
            // Nothing comes between the order and the act, as its supervisor is not started again.
            standby.postgres.source = standby.ordered.take().unwrap_or(standby.postgres.source);
        }
        let lease = standby.lease;
        *self.standby_mut(index) = standby;
        for write in writes {
            let dropped = laws.mutation == Some(Mutation::NeverWithdrawn)
                && matches!(*write, RecruitWrite::Withdraw { .. });
            let sent = Sent { by: index, lease, request: Request::Recruit(write) };
            if !dropped && !self.sent.contains(&sent) {
                self.sent.push(sent);
            }
        }
        self.settle();
        says
    }

    /// Forgets promises to attempts, and requests, that never succeed any more.
    fn settle(&mut self) {
        let [attempt, deposed_by] = [self.etcd.attempt(), self.deposed_by];
        for promised in &mut self.promised {
            *promised = promised.filter(|it| [attempt, deposed_by].contains(&Some(*it)));
        }
        let etcd = self.etcd.clone();
        self.sent.retain(|sent| match &sent.request {
            Request::Recruit(write) => etcd.may_do(write),
            Request::Take(_) => true,
        });
    }

    pub(super) fn change(&mut self, laws: &Laws, etcd: Option<Etcd>) {
        if let Some(etcd) = etcd {
            self.etcd = laws.tables.etcds.intern(etcd);
            self.settle();
        }
    }

    /// The standby looks at etcd. Without a lease it takes another first.
    pub(super) fn see(&mut self, laws: &Laws, index: usize) {
        if !self.etcd.lives(self.standby(index).lease) {
            let (etcd, lease) = self.etcd.grant(index);
            self.change(laws, Some(etcd));
            self.standby_mut(index).lease = lease;
        }
        let etcd = self.etcd.clone();
        self.standby_mut(index).view = etcd;
        if self.standby(index).has_successor() {
            self.abandon_write(index);
            *self.standby_mut(index) = laws.tables.retire(self.standby(index));
        }
    }

    /// A transaction to take the leader key arrives; its outcome.
    fn take(
        &mut self,
        laws: &Laws,
        by: (usize, i64),
        take: TakeLeadershipPreconditions,
    ) -> matriarch::model::Outcome {
        let attempt = take.deposes.map(|deposes| deposes.attempt);
        let (etcd, outcome) = self.etcd.take(by, take, laws.mutation);
        if etcd.is_some() {
            self.deposed_by = attempt;
        }
        self.change(laws, etcd);
        outcome
    }

    pub(super) fn carry_out(&mut self, laws: &Laws, index: usize) {
        let Some(write) = self.standby(index).writing.clone() else { return };
        let outcome = self.take(laws, (index, write.lease), *write.by);
        let outcome = Some(laws.tables.outcomes.intern(outcome));
        self.standby_mut(index).writing = Some(Write { outcome, ..write });
    }

    pub(super) fn arrive(&mut self, laws: &Laws, sent: &Sent) {
        match &sent.request {
            Request::Recruit(write) => {
                let etcd = self.etcd.recruit((sent.by, sent.lease), write);
                self.change(laws, etcd);
            }
            Request::Take(by) => {
                let _nobody_hears = self.take(laws, (sent.by, sent.lease), **by);
            }
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon_write(&mut self, index: usize) {
        if let Some(Write { by, lease, .. }) = self.standby_mut(index).writing.take() {
            self.sent.push(Sent { by: index, lease, request: Request::Take(by) });
        }
    }

    /// One standby looks anew, and answers the other.
    pub(super) fn answer(&mut self, laws: &Laws, from: usize, to: usize) {
        let says = self.tick(laws, from);
        self.promised[from - 1] = says.recruited.or(self.promised[from - 1]);
        self.standby_mut(to).answers[from] = Some(says);
    }

    pub(super) fn leader_answers(&mut self, to: usize) {
        let (at, wal) = (self.time, COMMITS);
        let says = Answer { at, reachable: true, is_primary: true, wal, ..Answer::default() };
        self.standby_mut(to).answers[0] = Some(says);
    }

    pub(super) fn leader_steps(&mut self, laws: &Laws, connected: usize) {
        let step = self.leader.step(self.kind.is_quorum, CONNECTED[connected], self.has());
        let over = self.leader.sync_revision();
        match step {
            Some(SyncStep::Name(names)) => {
                self.leader.names = laws.tables.names.intern(names);
                self.leader.from = self.leader.acknowledged;
            }
            Some(SyncStep::Promise(record)) => {
                self.spend(Fault::SyncWrite);
                let record = laws.tables.records.intern(record);
                self.leader.writing = Some(SyncWrite { record, over, arrived: false });
            }
            Some(SyncStep::LookAgain) | None => {}
        }
    }

    pub(super) fn sync_arrives(&mut self, laws: &Laws) {
        let Some(write) = self.leader.writing.as_mut().filter(|write| !write.arrived) else { return };
        write.arrived = true;
        let Some(term) = self.leader.view.term else { return };
        let (record, over) = (write.record.clone(), write.over);
        let etcd = self.etcd.sync(term, Some(&*record), over);
        self.change(laws, etcd);
    }

    /// Where names do not change, all that can be acknowledged is so at once: later is the lesser harm.
    pub(super) fn acknowledge(&mut self) {
        while !self.kind.names_change && self.leader.may_acknowledge(self.has()) {
            self.leader.acknowledged += 1;
        }
    }

    fn of_leader(&self, actions: &mut Vec<Action>, laws: &Laws) {
        let leader = &self.leader;
        if !leader.runs {
            return;
        }
        if leader.may_acknowledge(self.has()) && self.kind.names_change {
            actions.push(Action::Acknowledge);
        }
        if leader.view != laws.tables.views.intern(self.etcd.seen_by_leader()) {
            actions.push(Action::LeaderSees);
        }
        if leader.writing.as_ref().is_some_and(|write| !write.arrived) {
            actions.push(Action::SyncArrives);
        }
        let mut steps: Vec<SyncStep> = Vec::new();
        for (which, connected) in CONNECTED.iter().enumerate().filter(|_| self.kind.names_change) {
            let step = leader.step(self.kind.is_quorum, connected, self.has());
            let is_allowed = |step: &SyncStep| match step {
                SyncStep::Promise(_) => self.may(Fault::SyncWrite),
                SyncStep::Name(names) => *names != *leader.names,
                SyncStep::LookAgain => false,
            };
            if let Some(step) = step.filter(is_allowed)
                && !steps.contains(&step)
            {
                steps.push(step);
                actions.push(Action::LeaderSteps(which));
            }
        }
        if self.may(Fault::LeaderLease) && self.etcd.is_led_by(0) {
            actions.push(Action::LeaderLeaseEnds);
        }
    }

    pub(super) fn next(&self, actions: &mut Vec<Action>, laws: &Laws) {
        for index in 1..3 {
            self.of_postgres(index, actions);
            if !self.standby(index).has_successor() {
                self.of_standby(index, actions, laws);
                self.of_faults(index, actions);
            }
        }
        self.of_leader(actions, laws);
        for which in 0..self.sent.len() {
            actions.push(Action::Arrives(which));
            if self.may(Fault::Twice) {
                actions.push(Action::ArrivesAndStays(which));
            }
        }
        if self.may(Fault::Pause) {
            actions.push(Action::TimePasses);
        }
    }

    fn of_postgres(&self, index: usize, actions: &mut Vec<Action>) {
        let Standby { postgres, ordered, .. } = self.standby(index);
        if ordered.is_some() {
            actions.push(Action::Obey(index));
        }
        if postgres.receives && !postgres.source {
            actions.push(Action::ReceiverEnds(index));
        }
        if postgres.source && !postgres.receives && self.leader.runs {
            actions.push(Action::ReceiverStarts(index));
        }
        if postgres.receives && self.leader.runs && postgres.wal < COMMITS {
            actions.push(Action::Stream(index));
        }
    }

    fn of_standby(&self, index: usize, actions: &mut Vec<Action>, laws: &Laws) {
        let (standby, other) = (self.standby(index), 3 - index);
        match &standby.writing {
            Some(Write { outcome: None, .. }) => actions.push(Action::EtcdWrites(index)),
            Some(Write { outcome: Some(_), .. }) if standby.is_awake() => {
                actions.push(Action::HearOfWrite(index));
            }
            Some(_) | None => {}
        }
        if !standby.is_awake() {
            return;
        }
        let mut after = self.clone();
        after.tick(laws, index);
        if after != *self {
            actions.push(Action::Tick(index));
        }
        if standby.view != self.etcd {
            actions.push(Action::See(index));
        }
        if standby.asks && self.standby(other).is_awake() {
            let mut after = self.clone();
            after.answer(laws, other, index);
            if after.standby(index).answers != standby.answers {
                actions.push(Action::Answer(index));
            }
        }
        if standby.asks_history && self.leader.runs && standby.told_at != Some(self.time) {
            actions.push(Action::Tell(index));
        }
        if standby.hearing == Hearing::Heard {
            actions.push(Action::FallSilent(index));
        }
    }

    fn of_faults(&self, index: usize, actions: &mut Vec<Action>) {
        let standby = self.standby(index);
        if self.may(Fault::Heard) && standby.is_awake() && self.leader.runs && standby.view.is_led_by(0) {
            if standby.hearing != Hearing::Heard {
                actions.push(Action::Hear(index));
            }
            if standby.asks {
                actions.push(Action::LeaderAnswers(index));
            }
        }
        if self.may(Fault::LostAnswer) && standby.writing.is_some() && standby.is_awake() {
            actions.push(Action::LoseAnswer(index));
        }
        if self.may(Fault::Restart) {
            actions.push(Action::Restart(index));
        }
        if self.may(Fault::Lease) && self.etcd.lives(standby.lease) {
            actions.push(Action::LeaseEnds(index));
        }
    }
}
