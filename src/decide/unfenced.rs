//! Primaries without a fence. A supervisor that is ended during pause leaves its primary running. It writes that to
//! etcd first, and then no other member is promoted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::leadership::Leadership;
use super::ledgers::{Incoming, Leaving, UnfencedLedger};
use super::server::Server;
use super::stop;
use super::tick::Tick;
use crate::model::{
    Action, FailoverRequest, Lsn, MemberName, Reason, SqlFacts, Standby, Term, UnfencedKey, UnfencedPrimary,
    UnfencedReason, UnfencedWrite, WaitingOn,
};

/// If etcd does not have the key by then, the primary is stopped: it must not be unfenced without the other members'
/// knowledge.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// A write that etcd does not show by then is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// WAL that arrived this recently comes from a primary that still runs.
const LIVES_WITHIN: Duration = Duration::from_secs(2);

/// Why no member may be promoted, by the key `unfenced`: an unfenced primary may run. It does not bar an operator's
/// failover that confirms each of them to be down, and was requested after they were left.
pub(super) fn bars(tick: &Tick<'_>, failover: Option<&FailoverRequest>) -> Option<Reason> {
    let cluster = tick.cluster()?;
    let left_at = cluster.unfenced.as_ref()?.mod_revision;
    let said_at = cluster.failover.as_ref().map_or(0, |key| key.mod_revision);
    let later = failover.filter(|_| left_at < said_at);
    let confirmed = |name: &MemberName| later.is_some_and(|request| request.confirmed_down.contains(name));
    let mut others = cluster.unfenced(Some(&tick.seen.me.name));
    let (member, left) = others.find(|(name, _)| !confirmed(name))?;
    Some(Reason::Unfenced(UnfencedReason::Bars { member: member.clone(), left: *left }))
}

/// Why I must not be promoted by myself: WAL still arrives from a running primary.
pub(super) fn lives(tick: &mut Tick<'_>, sql: &SqlFacts) -> Option<Reason> {
    let leaderless = tick.memory.leader_key.vacant_mut()?;
    let Some(received) = streamed(sql) else {
        leaderless.incoming = None;
        return None;
    };
    let advanced_at = match leaderless.incoming {
        Some(before) if before.received < received => Some(tick.now),
        Some(before) => before.advanced_at,
        None => None,
    };
    leaderless.incoming = Some(Incoming { received, advanced_at });
    let until = advanced_at.map(|at| at + LIVES_WITHIN).filter(|until| tick.now < *until)?;
    tick.wake_at(until, WaitingOn::Postgres);
    Some(Reason::Unfenced(UnfencedReason::Streams))
}

/// The received position, while WAL arrives.
fn streamed(sql: &SqlFacts) -> Option<Lsn> {
    match sql.standby {
        Standby::Yes { received, .. } => sql.streams().then_some(received),
        Standby::No => None,
    }
}

/// I was asked to end in pause, and my primary keeps running: etcd records that first. Where etcd cannot, the primary
/// is stopped. `None`: no primary is left behind, or etcd has the record.
pub(super) fn leave(tick: &mut Tick<'_>, leadership: &Leadership) -> Option<Reason> {
    let me = &tick.seen.me;
    let key = tick.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let mine = key.and_then(|key| key.primaries.get(&me.name));
    if !tick.seen.postgres.may_be_primary() || mine.is_some_and(|left| left.session == me.session) {
        return None;
    }
    let first = Leaving { asked_at: tick.now, sent_at: None };
    let Leaving { asked_at, sent_at } = *tick.memory.unfenced.leaving.get_or_insert(first);
    let sql = tick.seen.postgres.answering();
    if let (Leadership::Mine(term), Some(sql)) = (leadership, sql)
        && sent_at.is_none_or(|at| at + AGAIN_AFTER <= tick.now)
    {
        let mut primaries = key.map(|key| key.primaries.clone()).unwrap_or_default();
        let left = UnfencedPrimary {
            term: *term,
            position: sql.flushed,
            timeline: sql.timeline,
            session: me.session,
        };
        primaries.insert(me.name.clone(), left);
        tick.memory.unfenced.leaving = Some(Leaving { asked_at, sent_at: Some(tick.now) });
        write(tick, Some(*term), primaries);
    }
    if asked_at + WRITTEN_WITHIN <= tick.now {
        stop::cleanly(tick);
        return Some(Reason::Unfenced(UnfencedReason::NotLeft));
    }
    tick.wake_in(Duration::from_millis(100), WaitingOn::Lease);
    Some(Reason::Unfenced(UnfencedReason::Leaving))
}

/// Removes my entry from the key when a supervisor of this member cares for this PostgreSQL again. Removes all entries
/// when I lead: a member can lead only after an operator confirmed that the others are down.
pub(super) fn clear(tick: &mut Tick<'_>, leadership: &Leadership, server: &Server<'_>) {
    let Some(key) = tick.cluster().and_then(|cluster| cluster.unfenced.as_ref()) else { return };
    let leads = matches!((leadership, server), (Leadership::Mine(_), Server::Primary(_)));
    let primaries = match (leads, is_back(tick, key, server)) {
        (true, _) => BTreeMap::new(),
        (false, true) => {
            let others = key.primaries.iter().filter(|(name, _)| **name != tick.seen.me.name);
            others.map(|(name, left)| (name.clone(), *left)).collect()
        }
        (false, false) => return,
    };
    let sent = tick.memory.unfenced.cleared;
    let due = sent.is_none_or(|(revision, at)| revision != key.mod_revision || at + AGAIN_AFTER <= tick.now);
    if !tick.ends() && due {
        tick.memory.unfenced.cleared = Some((key.mod_revision, tick.now));
        write(tick, None, primaries);
    }
}

/// Whether an earlier supervisor of mine left its primary, and this Postgres certainly is no primary any more.
fn is_back(tick: &Tick<'_>, key: &UnfencedKey, server: &Server<'_>) -> bool {
    let me = &tick.seen.me;
    let known = match server {
        Server::Standby(_) | Server::Down(_) | Server::Empty => !tick.seen.postgres.may_be_primary(),
        Server::Primary(_)
        | Server::Silent
        | Server::Unknown
        | Server::HalfMade
        | Server::Inaccessible(_)
        | Server::Foreign(_) => false,
    };
    known && key.primaries.get(&me.name).is_some_and(|left| left.session != me.session)
}

/// Adds the remembered unfenced primaries to a restored store.
pub(super) fn owed(tick: &mut Tick<'_>) {
    let Some(cluster) = tick.cluster() else { return };
    let mut primaries = cluster.unfenced.as_ref().map(|key| key.primaries.clone()).unwrap_or_default();
    let UnfencedLedger { owed, owed_sent_at: sent_at, .. } = &mut tick.memory.unfenced;
    owed.retain(|name, _| !primaries.contains_key(name) && *name != tick.seen.me.name);
    if owed.is_empty() || sent_at.is_some_and(|at| tick.now < at + AGAIN_AFTER) {
        return;
    }
    *sent_at = Some(tick.now);
    primaries.extend(owed.clone());
    write(tick, None, primaries);
}

fn write(tick: &mut Tick<'_>, term: Option<Term>, primaries: BTreeMap<MemberName, UnfencedPrimary>) {
    let key = tick.cluster().and_then(|cluster| cluster.unfenced.as_ref());
    let mod_revision = key.map_or(0, |key| key.mod_revision);
    tick.act(Action::PublishUnfenced(UnfencedWrite { term, primaries, mod_revision }));
    tick.wake_in(AGAIN_AFTER, WaitingOn::Lease);
}
