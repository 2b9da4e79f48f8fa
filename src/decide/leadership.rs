//! The current leadership, combined from the lease of this member and the cluster view.

use serde::{Deserialize, Serialize};

use crate::model::{ClusterView, LeaderKey, Leading, LeaseTiming, Moment, Observation, Term};

/// The leader, as far as I can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leadership {
    /// My lease holds the leader key, with time to spare.
    Mine(Term),
    /// My lease holds the leader key, but renewals have failed for so long that a primary must stop.
    Expiring(Term),
    /// The view shows the key under my lease; the renewal that confirms it is under way.
    Unconfirmed,
    /// My name under a lease that is not mine: a previous incarnation of this member.
    FormerSelf(LeaderKey),
    /// Another member.
    Other(LeaderKey),
    /// No member.
    Nobody,
    /// etcd has not been read yet.
    Unknown,
}

impl Leadership {
    /// Combines my lease with the view by revision. A view that is older than my term does not count.
    pub fn of(seen: &Observation, now: Moment) -> Leadership {
        let view = seen.view.as_ref().map(|view| &view.cluster);
        let Leading::Yes(term) = seen.lease.leading else {
            let by_view = |cluster: &ClusterView| Leadership::by_key(seen, cluster.leader.as_ref());
            return view.map_or(Leadership::Unknown, by_view);
        };
        let newer = view.filter(|cluster| term.0 <= cluster.revision);
        match newer.map(|cluster| cluster.leader.as_ref()) {
            Some(Some(key)) if key.lease == seen.lease.lease => Leadership::held(seen, key.term, now),
            Some(key) => Leadership::by_key(seen, key),
            None => Leadership::held(seen, term, now),
        }
    }

    /// The term in which I lead, with time to spare.
    pub(super) fn mine(&self) -> Option<Term> {
        match self {
            Leadership::Mine(term) => Some(*term),
            Leadership::Expiring(_)
            | Leadership::Unconfirmed
            | Leadership::FormerSelf(_)
            | Leadership::Other(_)
            | Leadership::Nobody
            | Leadership::Unknown => None,
        }
    }

    /// The term in which the leader key hangs on my lease, whether or not a primary must stop.
    pub(super) fn held_term(&self) -> Option<Term> {
        match self {
            Leadership::Mine(term) | Leadership::Expiring(term) => Some(*term),
            Leadership::Unconfirmed
            | Leadership::FormerSelf(_)
            | Leadership::Other(_)
            | Leadership::Nobody
            | Leadership::Unknown => None,
        }
    }

    /// Another member that leads.
    pub(super) fn other(&self) -> Option<&LeaderKey> {
        match self {
            Leadership::Other(leader) => Some(leader),
            Leadership::Mine(_)
            | Leadership::Expiring(_)
            | Leadership::Unconfirmed
            | Leadership::FormerSelf(_)
            | Leadership::Nobody
            | Leadership::Unknown => None,
        }
    }

    fn by_key(seen: &Observation, key: Option<&LeaderKey>) -> Leadership {
        match key {
            None => Leadership::Nobody,
            Some(key) if key.lease.is_some_and(|lease| seen.lease.owns(lease)) => Leadership::Unconfirmed,
            // The view is older than the read that showed no leader key.
            Some(key) if key.lease.is_some() && key.lease == seen.lease.vanished => Leadership::Unconfirmed,
            Some(key) if key.name == seen.me.name => Leadership::FormerSelf(key.clone()),
            Some(key) => Leadership::Other(key.clone()),
        }
    }

    fn held(seen: &Observation, term: Term, now: Moment) -> Leadership {
        let timing = LeaseTiming { ttl: seen.lease.ttl };
        match seen.lease.covered_until() {
            Some(deadline) if now < timing.stop_at(deadline) => Leadership::Mine(term),
            Some(_) | None => Leadership::Expiring(term),
        }
    }
}
