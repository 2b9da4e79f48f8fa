//! etcd's store went back in time, was emptied or replaced: what was read of it is void, and members compete by what
//! they hold.
//!
//! ```text
//!  contradiction ─► `generation` written, `leader` and `sync` deleted ─► race by positions ─► leader ─► settled
//! ```
//!
//! The member that notices first begins a generation; the others find another generation than the one they know, and
//! take it for the explanation of what they see.

use std::collections::BTreeSet;
use std::time::Duration;

use super::position::{Position, comparable};
use super::turn::Turn;
use crate::model::{
    Action, ClusterView, DataDirectory, GenerationWrite, JobKind, MemberName, Moment, Reason, StoreChange,
    StoreGeneration, StoreKeys, StoreReason, StoreSeen, SyncMode, Term, WaitingOn,
};

/// A write to `generation` that etcd does not show by then is sent again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Turn<'_> {
    /// Compares the view with what was seen before, and takes note of it. The contradiction that nobody has recorded
    /// yet: nothing that the view shows may be acted on.
    pub(super) fn remember_store(&mut self) -> Option<StoreChange> {
        let cluster = self.cluster()?;
        let change = match &self.seen.postgres.data {
            DataDirectory::Ready(control) if cluster.system_id().is_none_or(|id| id == control.system_id) => {
                self.memory.store.contradicts(cluster)
            }
            // What was seen counts for the data it was seen with. But no new cluster is made in place of the one that
            // was there.
            DataDirectory::Empty if cluster.system_id().is_none() => self.memory.store.contradicts(cluster),
            DataDirectory::Empty => None,
            DataDirectory::Ready(_)
            | DataDirectory::Unknown
            | DataDirectory::HalfMade { .. }
            | DataDirectory::Inaccessible { .. } => return None,
        };
        if let Some(change) = &change
            && !self.memory.store.explained_by(cluster)
        {
            self.memory.store.change = Some(change.clone());
            return Some(change.clone());
        }
        if change.is_some() {
            self.forget_store_of_before(cluster);
        }
        let keys = StoreKeys::of(cluster, &self.memory.store.keys, self.seen.settings.ttl);
        self.memory.store =
            StoreSeen { keys, revision: cluster.revision, listed: cluster.listed, change: None };
        None
    }

    fn forget_store_of_before(&mut self, cluster: &ClusterView) {
        // Whoever began the generation may not have known of them.
        let remembered = self.memory.store.unfenced_beside(cluster);
        self.memory.forget_numbers();
        (self.memory.unfenced.owed, self.memory.unfenced.owed_sent_at) = (remembered, None);
    }

    fn promised(&self) -> BTreeSet<MemberName> {
        let recorded = self.cluster().and_then(|cluster| cluster.unsettled());
        let recorded = recorded.map(|key| key.record.promised.clone()).unwrap_or_default();
        &recorded | &self.memory.store.keys.promised
    }

    /// Every other member that may hold what was acknowledged, as far as anybody remembers.
    fn may_hold_commits(&self) -> BTreeSet<MemberName> {
        let recorded = self.cluster().and_then(|cluster| cluster.unsettled());
        let mut all = &self.promised() | &self.memory.store.keys.members;
        all.extend(recorded.into_iter().flat_map(|key| key.record.members.iter().cloned()));
        all.retain(|name| !name.is_same(&self.seen.me.name));
        all
    }
}

/// Takes note of how far others have seen this store, before I first try to take the leader key. While its generation
/// is unsettled nobody's word counts: what others have seen may be of the store before.
pub(super) fn hear(turn: &mut Turn<'_>) {
    let vacant_at = turn.memory.vacant_at();
    if turn.is_unsettled() || turn.memory.store_heard.is_some_and(|(at, _)| at == vacant_at) {
        return;
    }
    let mine = turn.memory.store.keys.cluster_id;
    let marks = turn.peers.values().map(|answer| answer.store);
    let seen = marks.filter(|mark| mark.cluster_id == mine).map(|mark| mark.revision).max();
    turn.memory.store_heard = Some((vacant_at, seen.unwrap_or_default()));
}

/// The leader key was written before what another member had seen by then: I was away since before a snapshot that is
/// restored, and what I see does not contradict what I knew.
pub(super) fn denied(turn: &mut Turn<'_>, term: Term) -> Option<Reason> {
    let (_, before) = turn.memory.store_heard.filter(|(_, heard)| term.0 <= *heard)?;
    let change = StoreChange::RevisionFell { before, now: term.0 };
    turn.memory.store.change = Some(change.clone());
    Some(record(turn, change))
}

/// Records the contradiction: from then on it is the same for everybody.
pub(super) fn record(turn: &mut Turn<'_>, change: StoreChange) -> Reason {
    let due = turn.memory.generation_sent_at.is_none_or(|at| at + AGAIN_AFTER <= turn.now);
    let has_data = turn.seen.postgres.data != DataDirectory::Empty;
    if let (true, true, Some(cluster)) = (due, has_data, turn.cluster()) {
        let (before, now) = (turn.memory.store.revision, cluster.revision);
        let id = format!("{}-{}-{before}-{now}", turn.seen.me.name, turn.seen.wall.0);
        let write = GenerationWrite::begin(cluster, &turn.memory.store, &change, id);
        turn.memory.generation_sent_at = Some(turn.now);
        turn.act(Action::WriteGeneration(write));
    }
    if turn.seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Promote) {
        turn.act(Action::CancelJob);
    }
    turn.wake_in(AGAIN_AFTER, WaitingOn::Lease);
    Reason::Store(StoreReason::WentBack(change))
}

/// By then no primary can live under a lease of the store before.
fn old_leases_end(turn: &Turn<'_>) -> Moment {
    let since = turn.memory.answers_since.unwrap_or(turn.now);
    since + turn.seen.settings.ttl.max(turn.memory.store.keys.ttl)
}

/// Why even a member that an operator wants to lead, whatever is lost, must not yet: the former primary may be frozen,
/// and write once more.
pub(super) fn bars(turn: &mut Turn<'_>) -> Option<Reason> {
    let end = old_leases_end(turn);
    if !turn.is_unsettled() || end <= turn.now {
        return None;
    }
    turn.wake_at(end, WaitingOn::Lease);
    Some(Reason::Store(StoreReason::OldLeases))
}

/// Why I must not lead by what I hold, while the store's generation is unsettled. Members that may hold acknowledged
/// commits have to answer where commits wait for standbys; where they do not, a member that is silent for a TTL is not
/// waited for any longer, and no lease of the store before can last longer. `too_old` says how far I am behind the
/// last leader: that bars me only while somebody who may hold more is silent.
pub(super) fn unproved(turn: &mut Turn<'_>, mine: Position, too_old: Option<Reason>) -> Option<Reason> {
    turn.cluster()?.unsettled()?;
    let members = turn.may_hold_commits();
    let lost = lost(turn, &members);
    let mut missing = Vec::new();
    for member in members.difference(&lost).cloned() {
        match shown(turn, mine, &member) {
            Shown::Less => {}
            Shown::More(reason) => return Some(reason),
            Shown::Nothing => missing.push(member),
        }
    }
    if missing.is_empty() {
        return None;
    }
    match waits_for_silent(turn) {
        true => Some(Reason::Store(StoreReason::Unsettled { missing })),
        false => too_old,
    }
}

/// Whether members that do not say what they hold keep everybody from leading.
fn waits_for_silent(turn: &Turn<'_>) -> bool {
    // The settings may be old, too.
    let synchronous = turn.seen.settings.sync.mode != SyncMode::Off || !turn.promised().is_empty();
    synchronous || turn.now < old_leases_end(turn)
}

/// What a member that may hold acknowledged commits has shown of them.
enum Shown {
    /// It holds nothing that I lack.
    Less,
    /// It leads, or holds more.
    More(Reason),
    /// Not all that it holds.
    Nothing,
}

fn shown(turn: &Turn<'_>, mine: Position, member: &MemberName) -> Shown {
    let answer = turn.answer_of(member).filter(|answer| answer.reachable);
    let Some(answer) = answer else { return Shown::Nothing };
    if !answer.in_recovery {
        return Shown::More(Reason::PrimaryStillAlive { member: member.clone() });
    }
    if comparable(mine) < comparable((answer.timeline, answer.lsn)) {
        let bytes = answer.lsn.bytes_since(mine.1);
        return Shown::More(Reason::MemberAhead { member: member.clone(), bytes });
    }
    // What comes in after the answer does not count as asked for.
    let all = answer.exact && !answer.receives && answer.timeline.is_some();
    if all { Shown::Less } else { Shown::Nothing }
}

/// Members that found no data: what they may have held is gone, and nobody waits for it. Where commits wait for
/// standbys that is one of them at most, for another holds it all, too.
fn lost(turn: &Turn<'_>, members: &BTreeSet<MemberName>) -> BTreeSet<MemberName> {
    let empty = |name: &&MemberName| turn.answer_of(name).is_some_and(|answer| answer.no_data);
    let promised = turn.promised();
    let lost: BTreeSet<MemberName> = members.iter().filter(empty).cloned().collect();
    let of_promised = (&lost & &promised).len();
    match of_promised == 0 || (of_promised == 1 && 1 < promised.len()) {
        true => lost,
        false => &lost - &promised,
    }
}

/// I lead and serve, proved to be the newest: the generation is confirmed. Where commits wait for standbys, the record
/// of synchronous replication comes first: if I died between the two, nobody would know whom to wait for.
pub(super) fn settle(turn: &mut Turn<'_>, term: Term) {
    let Some(key) = turn.cluster().and_then(|cluster| cluster.generation.as_ref()) else { return };
    let due = turn.memory.generation_sent_at.is_none_or(|at| at + AGAIN_AFTER <= turn.now);
    let me = &turn.seen.me.name;
    let recorded = turn.sync_record().is_some_and(|record| record.is_leader(me));
    let unrecorded = turn.seen.settings.sync.mode != SyncMode::Off && !recorded;
    if key.record.settled || !due || unrecorded {
        return;
    }
    turn.memory.generation_sent_at = Some(turn.now);
    let record = StoreGeneration { settled: true, ..key.record.clone() };
    turn.act(Action::WriteGeneration(GenerationWrite::Settle { term, over: key.mod_revision, record }));
}
