//! The machine with answers from a list, and with an etcd that keeps leases, whose client is frozen or killed.

mod order;
mod promises;
mod stopped;

use super::*;
use crate::core::store::Keys;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(6);
const MINE: LeaseId = LeaseId(7);
const OTHER: LeaseId = LeaseId(8);

fn keys() -> Keys {
    Keys::new("/service/test")
}

fn rounds(resumed: Option<LeaseId>) -> LeaseRounds {
    LeaseRounds::new(keys(), LONG, resumed)
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn woke(ttl: Duration) -> LeaseAnswer {
    LeaseAnswer::Woke { ttl, withheld: None }
}

fn renewed(lease: LeaseId, ttl: Duration, sent_at: u64) -> LeaseAnswer {
    LeaseAnswer::Renewed(KeepAliveAnswer { lease, ttl, sent_at: at(sent_at), raft_term: 2 })
}

fn leader(lease: LeaseId, term: i64) -> LeaseAnswer {
    LeaseAnswer::Leader(LeaderRead { raft_term: 2, leader: Some((lease, Term(term))) })
}

fn nobody() -> LeaseAnswer {
    LeaseAnswer::Leader(LeaderRead { raft_term: 2, leader: None })
}

fn unknown() -> LeaseAnswer {
    LeaseAnswer::Failed(WriteError::Unknown("no answer".to_owned()))
}
