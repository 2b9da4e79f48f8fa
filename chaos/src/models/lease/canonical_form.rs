//! What matters of a state: how far moments are from now, and which leases and terms are the same.

use std::time::Duration;

use matriarch::model::{Leading, LeaseFacts, LeaseId, Moment, Term};

use super::member::{Asking, KILL_TAKES, Member, Moving};
use super::{GRID, LONG, START, State};

/// Numbers that are equal for two states exactly if nothing that can follow tells them apart.
pub(super) type CanonicalForm = Vec<i32>;

struct Writer {
    numbers: Vec<i32>,
    leases: Vec<LeaseId>,
    terms: Vec<Term>,
    raft_term: u64,
}

impl State {
    pub(super) fn canonical_form(&self) -> CanonicalForm {
        let forth: Vec<usize> = (0..self.members.len()).collect();
        let back: Vec<usize> = forth.iter().rev().copied().collect();
        self.in_order(&forth).min(self.in_order(&back))
    }

    fn in_order(&self, order: &[usize]) -> CanonicalForm {
        let mut out = Writer {
            numbers: Vec::with_capacity(64),
            leases: self.leases(order),
            terms: self.terms(),
            raft_term: self.etcd.raft_term,
        };
        out.number((self.now.since(START).as_millis() % GRID.as_millis()) as u64);
        out.number(u64::from(self.etcd.deposed));
        for index in 0..out.leases.len() {
            // A lease that has ended is known by name only.
            let life = self.etcd.leases.get(&out.leases[index]);
            out.ahead(life.map(|lease| lease.ends_at), self.now);
            out.number(life.map_or(0, |lease| lease.ttl.as_secs()));
        }
        out.leader(self.etcd.leader);
        for index in order {
            out.number(u64::from(self.etcd.owner() == Some(*index)));
            out.member(&self.members[*index], Member::clock(*index, self.now));
        }
        out.numbers
    }

    /// Every lease that something depends on, in the order in which the members name them: one that nobody knows, and
    /// that does not lead, is no matter.
    fn leases(&self, order: &[usize]) -> Vec<LeaseId> {
        let mut all: Vec<LeaseId> = Vec::new();
        for member in order.iter().map(|index| &self.members[*index]) {
            all.extend(member.renewal.facts().lease);
            all.extend(member.shown.lease);
            all.extend(member.leader_reads().map(|(lease, _)| lease));
            if let Asking::Answered(answer) = &member.asking {
                all.push(answer.lease);
            }
            match member.moving {
                Moving::Nothing => {}
                Moving::Granted { lease, .. } | Moving::Shortened { lease } | Moving::Moved { lease, .. } => {
                    all.push(lease)
                }
            }
        }
        all.extend(self.etcd.leader.iter().map(|(lease, _)| *lease));
        let mut known = Vec::new();
        for lease in all {
            if !known.contains(&lease) {
                known.push(lease);
            }
        }
        known
    }

    fn terms(&self) -> Vec<Term> {
        let mut all: Vec<Term> = self.etcd.leader.iter().map(|(_, term)| *term).collect();
        for member in &self.members {
            for facts in [member.renewal.facts(), &member.shown] {
                if let Leading::Yes(term) = facts.leading {
                    all.push(term);
                }
            }
            all.extend(member.leader_reads().map(|(_, term)| term));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Member {
    fn leader_reads(&self) -> impl Iterator<Item = (LeaseId, Term)> {
        let moved = match self.moving {
            Moving::Moved { read, .. } => read.leader,
            Moving::Nothing | Moving::Granted { .. } | Moving::Shortened { .. } => None,
        };
        moved.into_iter()
    }
}

impl Writer {
    fn number(&mut self, number: u64) {
        self.numbers.push(number as i32);
    }

    fn lease(&mut self, lease: Option<LeaseId>) {
        let rank = lease.and_then(|lease| self.leases.iter().position(|known| *known == lease));
        self.numbers.push(rank.map_or(-1, |rank| rank as i32));
    }

    fn term(&mut self, term: Term) {
        self.numbers.push(self.terms.binary_search(&term).map_or(-1, |rank| rank as i32));
    }

    fn leader(&mut self, leader: Option<(LeaseId, Term)>) {
        self.lease(leader.map(|(lease, _)| lease));
        if let Some((_, term)) = leader {
            self.term(term);
        }
    }

    /// A deadline that has passed is as good as any other that has.
    fn ahead(&mut self, moment: Option<Moment>, clock: Moment) {
        self.numbers.push(moment.map_or(-1, |moment| clock.until(moment).as_millis() as i32));
    }

    /// A renewal that was sent before the longest TTL is as good as none.
    fn ago(&mut self, moment: Moment, clock: Moment) {
        self.number(clock.since(moment).min(LONG).as_millis() as u64);
    }

    fn facts(&mut self, facts: &LeaseFacts, clock: Moment) {
        self.lease(facts.lease);
        self.ahead(facts.deadline, clock);
        match facts.leading {
            Leading::Unknown => self.number(0),
            Leading::No => self.number(1),
            Leading::Yes(term) => {
                self.number(2);
                self.term(term);
            }
        }
        self.number(facts.ttl.as_secs());
    }

    fn member(&mut self, member: &Member, clock: Moment) {
        self.facts(member.renewal.facts(), clock);
        self.facts(&member.shown, clock);
        self.number(member.ttl.as_secs());
        self.number(member.postgres as u64 * 2 + u64::from(member.arming.is_wanted()));
        // The guard is behind its deadline for as long as the kill takes.
        self.ahead(member.kill_at().map(|at| at + KILL_TAKES + Duration::from_millis(1)), clock);
        match &member.asking {
            Asking::Nothing => self.number(0),
            Asking::NotFound => self.number(1),
            Asking::Answered(answer) => {
                self.number(2);
                self.lease(Some(answer.lease));
                self.ago(answer.sent_at, clock);
                self.number(answer.ttl.as_secs());
                // The read is to come, with the present raft term.
                self.number(u64::from(answer.raft_term == self.raft_term));
            }
        }
        match member.moving {
            Moving::Nothing => self.number(0),
            Moving::Granted { lease, sent_at } => {
                self.number(1);
                self.lease(Some(lease));
                self.ago(sent_at, clock);
            }
            Moving::Shortened { lease } => {
                self.number(2);
                self.lease(Some(lease));
            }
            Moving::Moved { lease, read } => {
                self.number(3);
                self.lease(Some(lease));
                self.leader(read.leader);
            }
        }
    }
}
