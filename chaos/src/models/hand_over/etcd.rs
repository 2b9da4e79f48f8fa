//! What etcd holds, and the writes to the leader key as `etcd::write` makes them.

use matriarch::model::{Job, LeaseId, Outcome, Term};

use super::Mutation;

/// The leader key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    pub(super) owner: usize,
    pub(super) lease: LeaseId,
    pub(super) term: Term,
    /// It was handed over, not taken.
    pub(super) handed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Keys {
    pub(super) revision: i64,
    pub(super) leader: Option<Leader>,
    /// The lease of each member's key, while it lives.
    pub(super) leases: [Option<LeaseId>; 2],
    pub(super) granted: [i64; 2],
    /// The switchover that was asked for.
    pub(super) failover: Option<i64>,
}

impl Keys {
    /// Two members; a switchover is asked for.
    pub(super) fn new() -> Keys {
        Keys { revision: 1, leader: None, leases: [None; 2], granted: [0; 2], failover: Some(1) }
    }

    pub(super) fn grant(&mut self, member: usize) -> LeaseId {
        self.granted[member] += 1;
        let lease = LeaseId(100 * (member as i64 + 1) + self.granted[member]);
        self.leases[member] = Some(lease);
        lease
    }

    /// A lease ends, with every key on it.
    pub(super) fn end(&mut self, lease: LeaseId) {
        self.leader = self.leader.filter(|leader| leader.lease != lease);
        for kept in &mut self.leases {
            *kept = kept.filter(|kept| *kept != lease);
        }
    }

    fn put(&mut self, owner: usize, lease: LeaseId, handed: bool) -> Outcome {
        self.revision += 1;
        self.leader = Some(Leader { owner, lease, term: Term(self.revision), handed });
        Outcome::Done
    }

    /// A transaction of `member` arrives, sent under `lease`.
    pub(super) fn carry_out(
        &mut self,
        member: usize,
        lease: LeaseId,
        job: &Job,
        mutation: Option<Mutation>,
    ) -> Outcome {
        let now = self.leader;
        let lives = |keys: &Keys, lease| keys.leases.contains(&Some(lease));
        let as_leader = |term: Term| now.is_some_and(|now| now.lease == lease && now.term == term);
        // What a failed comparison reads back: whether an earlier try of the same change was carried out.
        let so_already = |is: bool| if is { Outcome::Done } else { Outcome::Lost };
        let owned_by = |lease: LeaseId| so_already(now.is_some_and(|now| now.lease == lease));
        match job {
            Job::TakeLeadership { .. } if now.is_some() => owned_by(lease),
            Job::TakeLeadership { .. } if !lives(self, lease) => {
                Outcome::Unknown("lease not found".to_owned())
            }
            Job::TakeLeadership { .. } => self.put(member, lease, false),
            Job::HandOver { term, to_lease, .. } => {
                let compared = as_leader(*term) || mutation == Some(Mutation::MovedWithoutCompare);
                match compared && self.leases[1 - member] == Some(*to_lease) {
                    true => self.put(1 - member, *to_lease, true),
                    false => owned_by(*to_lease),
                }
            }
            Job::ReleaseLeadership { term, .. } if as_leader(*term) => {
                self.leader = None;
                Outcome::Done
            }
            Job::ReleaseLeadership { .. } => so_already(now.is_none()),
            Job::ReclaimLeadership { term } if as_leader(*term) => {
                if mutation != Some(Mutation::ReclaimedInTheSameTerm) {
                    self.put(member, lease, now.is_some_and(|now| now.handed));
                }
                Outcome::Done
            }
            Job::ReclaimLeadership { .. } => owned_by(lease),
            _ => Outcome::Failed("not a write".to_owned()),
        }
    }
}
