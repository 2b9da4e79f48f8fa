//! Primaries without a fence: a supervisor that is ended in pause leaves its primary running, says so in etcd first,
//! and nobody is promoted beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::leadership::Leadership;
use super::ledgers::{Incoming, Leaving, UnfencedLedger};
use super::server::Server;
use super::stop;
use super::turn::Turn;
use crate::model::{
    Action, FailoverRequest, Lsn, MemberName, Reason, SqlFacts, Standby, Term, UnfencedKey, UnfencedPrimary,
    UnfencedReason, UnfencedWrite, WaitingOn,
};

/// Without the key in etcd by then the primary is stopped: it must not be left unfenced unknown to the others.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// A write that etcd does not show by then is sent again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// WAL that came in this lately comes from a primary that lives.
const LIVES_WITHIN: Duration = Duration::from_secs(2);

/// Why nobody may be promoted, by the key `unfenced`: a primary may run that nothing fences. Not in the way of an
/// operator's failover that says of each of them that it is down, and said so after it was left.
pub(super) fn bars(turn: &Turn<'_>, failover: Option<&FailoverRequest>) -> Option<Reason> {
    let cluster = turn.cluster()?;
    let left_at = cluster.unfenced.as_ref()?.mod_revision;
    let said_at = cluster.failover.as_ref().map_or(0, |key| key.mod_revision);
    let later = failover.filter(|_| left_at < said_at);
    let confirmed = |name: &MemberName| later.is_some_and(|request| request.confirmed_down.contains(name));
    let mut others = cluster.unfenced(Some(&turn.seen.me.name));
    let (member, left) = others.find(|(name, _)| !confirmed(name))?;
    Some(Reason::Unfenced(UnfencedReason::Bars { member: member.clone(), left: *left }))
}

/// Why I must not be promoted by myself: a primary lives, for WAL still comes in from it.
pub(super) fn lives(turn: &mut Turn<'_>, sql: &SqlFacts) -> Option<Reason> {
    let leaderless = turn.memory.leader_key.vacant_mut()?;
    let Some(received) = streamed(sql) else {
        leaderless.incoming = None;
        return None;
    };
    let advanced_at = match leaderless.incoming {
        Some(before) if before.received < received => Some(turn.now),
        Some(before) => before.advanced_at,
        None => None,
    };
    leaderless.incoming = Some(Incoming { received, advanced_at });
    let until = advanced_at.map(|at| at + LIVES_WITHIN).filter(|until| turn.now < *until)?;
    turn.wake_at(until, WaitingOn::Postgres);
    Some(Reason::Unfenced(UnfencedReason::Streams))
}

/// How far WAL has come in, while it does.
fn streamed(sql: &SqlFacts) -> Option<Lsn> {
    match sql.standby {
        Standby::Yes { received, .. } => sql.streams().then_some(received),
        Standby::No => None,
    }
}

/// I was asked to end in pause, and my primary goes on: etcd hears of it first. Where that cannot be, it is stopped.
/// `None`: nothing is left behind, or etcd knows of it.
pub(super) fn leave(turn: &mut Turn<'_>, leadership: &Leadership) -> Option<Reason> {
    let me = &turn.seen.me;
    let key = turn.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let mine = key.and_then(|key| key.primaries.get(&me.name));
    if !turn.seen.postgres.may_be_primary() || mine.is_some_and(|left| left.session == me.session) {
        return None;
    }
    let first = Leaving { asked_at: turn.now, sent_at: None };
    let Leaving { asked_at, sent_at } = *turn.memory.unfenced.leaving.get_or_insert(first);
    let sql = turn.seen.postgres.answering();
    if let (Leadership::Mine(term), Some(sql)) = (leadership, sql)
        && sent_at.is_none_or(|at| at + AGAIN_AFTER <= turn.now)
    {
        let mut primaries = key.map(|key| key.primaries.clone()).unwrap_or_default();
        let left = UnfencedPrimary {
            term: *term,
            position: sql.flushed,
            timeline: sql.timeline,
            session: me.session,
        };
        primaries.insert(me.name.clone(), left);
        turn.memory.unfenced.leaving = Some(Leaving { asked_at, sent_at: Some(turn.now) });
        write(turn, Some(*term), primaries);
    }
    if asked_at + WRITTEN_WITHIN <= turn.now {
        stop::cleanly(turn);
        return Some(Reason::Unfenced(UnfencedReason::NotLeft));
    }
    turn.wake_in(Duration::from_millis(100), WaitingOn::Lease);
    Some(Reason::Unfenced(UnfencedReason::Leaving))
}

/// Takes back what the key says of me, when a supervisor of mine looks after this PostgreSQL again; and all of it when
/// I lead: nobody could come to lead before an operator said that the others are down.
pub(super) fn clear(turn: &mut Turn<'_>, leadership: &Leadership, server: &Server<'_>) {
    let Some(key) = turn.cluster().and_then(|cluster| cluster.unfenced.as_ref()) else { return };
    let leads = matches!((leadership, server), (Leadership::Mine(_), Server::Primary(_)));
    let primaries = match (leads, is_back(turn, key, server)) {
        (true, _) => BTreeMap::new(),
        (false, true) => {
            let others = key.primaries.iter().filter(|(name, _)| **name != turn.seen.me.name);
            others.map(|(name, left)| (name.clone(), *left)).collect()
        }
        (false, false) => return,
    };
    let sent = turn.memory.unfenced.cleared;
    let due = sent.is_none_or(|(revision, at)| revision != key.mod_revision || at + AGAIN_AFTER <= turn.now);
    if !turn.ends() && due {
        turn.memory.unfenced.cleared = Some((key.mod_revision, turn.now));
        write(turn, None, primaries);
    }
}

/// A former supervisor of mine left its primary, and I know that it is none any more.
fn is_back(turn: &Turn<'_>, key: &UnfencedKey, server: &Server<'_>) -> bool {
    let me = &turn.seen.me;
    let known = match server {
        Server::Standby(_) | Server::Down(_) | Server::Empty => !turn.seen.postgres.may_be_primary(),
        Server::Primary(_)
        | Server::Silent
        | Server::Unknown
        | Server::HalfMade
        | Server::Inaccessible(_)
        | Server::Foreign(_) => false,
    };
    known && key.primaries.get(&me.name).is_some_and(|left| left.session != me.session)
}

/// Tells a store that is from before of the primaries that are remembered to have been left running.
pub(super) fn owed(turn: &mut Turn<'_>) {
    let Some(cluster) = turn.cluster() else { return };
    let mut primaries = cluster.unfenced.as_ref().map(|key| key.primaries.clone()).unwrap_or_default();
    let UnfencedLedger { owed, owed_sent_at: sent_at, .. } = &mut turn.memory.unfenced;
    owed.retain(|name, _| !primaries.contains_key(name) && *name != turn.seen.me.name);
    if owed.is_empty() || sent_at.is_some_and(|at| turn.now < at + AGAIN_AFTER) {
        return;
    }
    *sent_at = Some(turn.now);
    primaries.extend(owed.clone());
    write(turn, None, primaries);
}

fn write(turn: &mut Turn<'_>, term: Option<Term>, primaries: BTreeMap<MemberName, UnfencedPrimary>) {
    let key = turn.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let mod_revision = key.map_or(0, |key| key.mod_revision);
    turn.act(Action::PublishUnfenced(UnfencedWrite { term, primaries, mod_revision }));
    turn.wake_in(AGAIN_AFTER, WaitingOn::Lease);
}
