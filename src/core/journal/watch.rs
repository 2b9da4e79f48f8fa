//! The leader before: what a member knows of it while it leads.

use super::Note;
use crate::model::{
    FailoverKey, FormerLeader, LeaderHearing, LeaderKey, LeaseId, Lsn, MemberName, MemberState, Moment, Term,
    Timeline, WallTime,
};

/// A leader under watch.
#[derive(Debug)]
pub(super) struct WatchedLeader {
    pub(super) name: MemberName,
    pub(super) term: Term,
    pub(super) lease: Option<LeaseId>,
    /// When its last heartbeat arrived, as far as the ticks show.
    pub(super) heard_at: Option<Moment>,
    pub(super) is_silent: bool,
    pub(super) state: Option<MemberState>,
    position: Option<Lsn>,
    timeline: Option<Timeline>,
    /// The last request that stood in etcd, and when.
    pub(super) request: Option<(FailoverKey, WallTime)>,
}

impl WatchedLeader {
    pub(super) fn of(leader: &LeaderKey, before: Option<WatchedLeader>, note: &Note<'_>) -> WatchedLeader {
        let cluster = note.seen.view.as_ref().map(|view| &view.cluster);
        let record = cluster.and_then(|cluster| Some(&cluster.members.get(&leader.name)?.record));
        let heard_before = before.as_ref().and_then(|before| before.heard_at);
        let (heard_at, is_silent) = match note.seen.hearing {
            LeaderHearing::Heard { term } if term == leader.term => (Some(note.now), false),
            LeaderHearing::Silent { term, last } if term == leader.term => (Some(last), true),
            LeaderHearing::Heard { .. }
            | LeaderHearing::Silent { .. }
            | LeaderHearing::Unknown
            | LeaderHearing::Unheard => (heard_before, false),
        };
        let asked = cluster.and_then(|cluster| cluster.failover.as_ref());
        let asked = asked.map(|key| (key.clone(), note.seen.wall));
        WatchedLeader {
            name: leader.name.clone(),
            term: leader.term,
            lease: leader.lease,
            heard_at,
            is_silent,
            state: record.map(|record| record.state).or(before.as_ref().and_then(|before| before.state)),
            position: cluster.and_then(|cluster| cluster.known_end()),
            timeline: record.and_then(|record| record.timeline),
            request: asked.or_else(|| before.and_then(|before| before.request)),
        }
    }

    /// The leader before was this member.
    pub(super) fn myself(term: Term, note: &Note<'_>, position: Lsn) -> WatchedLeader {
        WatchedLeader {
            name: note.seen.me.name.clone(),
            term,
            lease: note.seen.lease.lease,
            heard_at: None,
            is_silent: false,
            state: None,
            position: Some(position).filter(|position| position.is_known()),
            timeline: None,
            request: None,
        }
    }

    pub(super) fn former(&self) -> FormerLeader {
        FormerLeader {
            name: self.name.clone(),
            term: self.term,
            timeline: self.timeline,
            position: self.position,
        }
    }
}
