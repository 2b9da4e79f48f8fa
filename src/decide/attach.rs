//! The choice of the WAL source. No other module configures a member to stream from another.
//!
//! A receiver begins with the position that its standby has replayed, rounded down to the beginning of a segment, and
//! a walsender accepts that also where the histories parted within the segment. What is reported as flushed then counts
//! as a confirmation, although it is something else. So a directory gets a source only when the whole of its history,
//! as far as it can reach, was compared with what the leader said of its own in this term; and anew in every term.

use std::time::Duration;

use super::history;
use super::memory::Following;
use super::tick::{REMOTE_TERM, Tick};
use crate::model::{
    Action, Branch, Divergence, FollowTarget, LeaderKey, Lsn, SqlFacts, Standby, Term, Timeline, WaitingOn,
};

/// While no WAL comes in, etcd has to be heard of this often.
const HEAR_ETCD_EVERY: Duration = Duration::from_secs(1);
/// It answers within this time, or cannot be reached.
const ETCD_ANSWERS_WITHIN: Duration = Duration::from_millis(200);
/// A receiver needs no longer to connect.
const CONNECTS_WITHIN: Duration = Duration::from_secs(1);

/// A copy that has not reached consistency on its own by then may need the leader's WAL for it.
pub(super) const CONSISTENT_WITHIN: Duration = Duration::from_secs(5);

/// What the comparison came to.
pub(super) enum AttachSource {
    /// All that lies here is the leader's: this is where more may come from.
    Proved(FollowTarget),
    /// Beyond this position of this timeline lies something that is not the leader's.
    Parted(Timeline, Lsn),
    /// Something may lie here that is not the leader's: what is certain is not all.
    Unproved,
    /// There is no source: the tag `nostream`, a member that says no address, or a promise to receive nothing.
    Nobody,
}

/// Compares what lies here with the history that `leader` told in this term. Where it is the leader's, the source is
/// taken for this Postgres's from now on.
pub(super) fn source(tick: &mut Tick<'_>, leader: &LeaderKey, theirs: &Branch) -> AttachSource {
    if tick.bound_by().is_some() {
        return AttachSource::Nobody;
    }
    let source = compare(tick, leader, theirs);
    if let AttachSource::Proved(target) = &source {
        tick.memory.following = Some(Following::Source { term: leader.term, target: target.clone() });
        tick.memory.not_streaming_since = Some(tick.now);
        tick.memory.rejoin.leave_at = Some(tick.now + CONNECTS_WITHIN);
        tick.memory.rejoin.alone_since = None;
    }
    source
}

/// Takes the remote primary of a standby cluster for the source although it does not tell its history: it may admit
/// this member to replication only. PostgreSQL itself compares system identifiers and timelines, and no commit here
/// waits for this member.
pub(super) fn to_untold_remote(tick: &mut Tick<'_>, leader: &LeaderKey) -> Option<FollowTarget> {
    if !tick.is_remote(&leader.name) || !history::is_untold(tick) {
        return None;
    }
    let target = tick.follow_target(&leader.name)?;
    tick.memory.following = Some(Following::Source { term: leader.term, target: target.clone() });
    tick.memory.not_streaming_since = Some(tick.now);
    tick.memory.rejoin.alone_since = None;
    Some(target)
}

/// What [`source`] would come to.
pub(super) fn compare(tick: &Tick<'_>, leader: &LeaderKey, theirs: &Branch) -> AttachSource {
    let postgres = &tick.seen.postgres;
    match postgres.branch().map(|certain| certain.divergence_from(&theirs.open())) {
        Some(Divergence::Forked { timeline, at }) => return AttachSource::Parted(timeline, at),
        Some(Divergence::None) => {}
        None => return AttachSource::Unproved,
    }
    let all = postgres.branch_at_most();
    if all.is_none_or(|all| all.divergence_from(theirs) != Divergence::None) || more_may_come(tick, theirs) {
        return AttachSource::Unproved;
    }
    tick.follow_target(&leader.name).map_or(AttachSource::Nobody, AttachSource::Proved)
}

/// True if WAL may come in that was not compared. A receiver that was told to end still flushes what it has, and one
/// that PostgreSQL has not ended yet, because it replays, goes on receiving. Only one that receives the leader's own
/// timeline can bring nothing but what is the leader's.
pub(super) fn more_may_come(tick: &Tick<'_>, theirs: &Branch) -> bool {
    // One that waits for the next timeline has flushed all it had, and receives from nobody.
    let receives = |sql: &&SqlFacts| match &sql.standby {
        Standby::Yes { receiver, .. } => receiver.as_ref().is_some_and(|it| it.status != "waiting"),
        Standby::No => false,
    };
    let Some(sql) = tick.seen.postgres.answering().filter(receives) else { return false };
    let its_own = theirs.end.is_none() && sql.timeline == Some(theirs.timeline);
    !its_own || matches!(tick.memory.following, Some(Following::Nobody { .. }))
}

/// True if the source was found right in this term.
pub(super) fn is_attached(tick: &Tick<'_>, term: Term) -> bool {
    matches!(&tick.memory.following, Some(Following::Source { term: then, .. }) if *then == term)
}

/// True if it is `target`, and was found right in this term.
pub(super) fn is_attached_to(tick: &Tick<'_>, term: Term, target: &FollowTarget) -> bool {
    let now = Following::Source { term, target: target.clone() };
    tick.memory.following.as_ref() == Some(&now)
}

/// True if WAL may come from somebody else than `target`.
pub(super) fn is_elsewhere(tick: &Tick<'_>, target: &FollowTarget, sql: &SqlFacts) -> bool {
    match &tick.memory.following {
        Some(Following::Nobody { .. }) => false,
        Some(Following::Source { target: source, .. }) => source.name != target.name,
        // The supervisor was restarted.
        None => match &sql.standby {
            Standby::Yes { receiver: Some(receiver), .. } => {
                let (host, port) = (receiver.host.as_deref().unwrap_or_default(), receiver.port);
                !target.conn_url.contains(&format!("{host}:{}", port.unwrap_or_default()))
            }
            Standby::Yes { receiver: None, .. } => true,
            Standby::No => false,
        },
    }
}

/// No member leads. Takes a standby that receives nothing off its source, unless it was pointed there just now:
/// PostgreSQL would connect to that member as soon as it is promoted, which may have been rewound behind another
/// meanwhile, before their histories are compared (simulation, seed 1291). Takes it off the remote primary of a former
/// standby cluster, too.
pub(super) fn leave_stale_source(tick: &mut Tick<'_>, sql: &SqlFacts) {
    let is_silent = matches!(sql.standby, Standby::Yes { receiver: None, .. });
    let connects_by = tick.memory.rejoin.leave_at.filter(|at| tick.now < *at);
    match (is_attached(tick, REMOTE_TERM), &tick.memory.following) {
        // WAL that arrives from there is no sign of a primary of this cluster.
        (true, _) if !tick.in_standby_cluster() => let_go(tick),
        (false, None) if is_silent => let_go(tick),
        (false, Some(_)) if is_silent && !tick.seen.settings.pause => match connects_by {
            Some(at) => tick.wake_at(at, WaitingOn::Lease),
            None => let_go(tick),
        },
        (_, _) => {}
    }
}

/// No WAL comes in. PostgreSQL asks the same source again by itself, which may have been rewound behind another and
/// promoted again meanwhile: while etcd does not say that the term goes on, the standby is taken off its source, and
/// compared with what that says of its history.
pub(super) fn doubt(tick: &mut Tick<'_>, receives: bool) {
    let has_none = matches!(tick.memory.following, Some(Following::Nobody { .. }));
    if receives || has_none || tick.seen.lease.renewed_since(tick.now - HEAR_ETCD_EVERY) {
        tick.memory.rejoin.leave_at = None;
        return;
    }
    let leave_at = *tick.memory.rejoin.leave_at.get_or_insert(tick.now + ETCD_ANSWERS_WITHIN);
    if leave_at <= tick.now {
        let_go(tick);
    }
    tick.act(Action::RenewLease);
    tick.wake_at(leave_at.max(tick.now + ETCD_ANSWERS_WITHIN), WaitingOn::Lease);
}

/// Takes a running standby off its source.
pub(super) fn let_go(tick: &mut Tick<'_>) {
    if !matches!(tick.memory.following, Some(Following::Nobody { .. })) {
        to_nobody(tick);
        tick.act(Action::Follow(None));
    }
}

/// This Postgres is about to be started without a source.
pub(super) fn to_nobody(tick: &mut Tick<'_>) {
    tick.memory.following = Some(Following::Nobody { since: tick.now });
    tick.memory.rejoin.alone_since.get_or_insert(tick.now);
}
