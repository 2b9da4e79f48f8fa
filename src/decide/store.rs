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
use super::tick::Tick;
use crate::model::{
    Action, ClusterView, DataDirectory, GenerationWrite, JobKind, MemberName, Moment, Reason, StoreChange,
    StoreGeneration, StoreKeys, StoreReason, StoreSeen, SyncMode, Term, WaitingOn,
};

/// A write to `generation` that etcd does not show by then is sent again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Tick<'_> {
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
pub(super) fn hear(tick: &mut Tick<'_>) {
    let vacant_at = tick.memory.vacant_at();
    if tick.is_unsettled() || tick.memory.store_heard.is_some_and(|(at, _)| at == vacant_at) {
        return;
    }
    let mine = tick.memory.store.keys.cluster_id;
    let marks = tick.peers.values().map(|answer| answer.store);
    let seen = marks.filter(|mark| mark.cluster_id == mine).map(|mark| mark.revision).max();
    tick.memory.store_heard = Some((vacant_at, seen.unwrap_or_default()));
}

/// The leader key was written before what another member had seen by then: I was away since before a snapshot that is
/// restored, and what I see does not contradict what I knew.
pub(super) fn denied(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    let (_, before) = tick.memory.store_heard.filter(|(_, heard)| term.0 <= *heard)?;
    let change = StoreChange::RevisionFell { before, now: term.0 };
    tick.memory.store.change = Some(change.clone());
    Some(record(tick, change))
}

/// Records the contradiction: from then on it is the same for everybody.
pub(super) fn record(tick: &mut Tick<'_>, change: StoreChange) -> Reason {
    let due = tick.memory.generation_sent_at.is_none_or(|at| at + AGAIN_AFTER <= tick.now);
    let has_data = tick.seen.postgres.data != DataDirectory::Empty;
    if let (true, true, Some(cluster)) = (due, has_data, tick.cluster()) {
        let (before, now) = (tick.memory.store.revision, cluster.revision);
        let id = format!("{}-{}-{before}-{now}", tick.seen.me.name, tick.seen.wall.0);
        let write = GenerationWrite::begin(cluster, &tick.memory.store, &change, id);
        tick.memory.generation_sent_at = Some(tick.now);
        tick.act(Action::WriteGeneration(write));
    }
    if tick.seen.job.as_ref().is_some_and(|running| running.job.kind() == JobKind::Promote) {
        tick.act(Action::CancelJob);
    }
    tick.wake_in(AGAIN_AFTER, WaitingOn::Lease);
    Reason::Store(StoreReason::WentBack(change))
}

/// By then no primary can live under a lease of the store before.
fn old_leases_end(tick: &Tick<'_>) -> Moment {
    let since = tick.memory.answers_since.unwrap_or(tick.now);
    since + tick.seen.settings.ttl.max(tick.memory.store.keys.ttl)
}

/// Why even a member that an operator wants to lead, whatever is lost, must not yet: the former primary may be frozen,
/// and write once more.
pub(super) fn bars(tick: &mut Tick<'_>) -> Option<Reason> {
    let end = old_leases_end(tick);
    if !tick.is_unsettled() || end <= tick.now {
        return None;
    }
    tick.wake_at(end, WaitingOn::Lease);
    Some(Reason::Store(StoreReason::OldLeases))
}

/// Why I must not lead by what I hold, while the store's generation is unsettled. Members that may hold acknowledged
/// commits have to answer where commits wait for standbys; where they do not, a member that is silent for a TTL is not
/// waited for any longer, and no lease of the store before can last longer. `lag_disqualified` says how far I am behind
/// the last leader: that bars me only while somebody who may hold more is silent.
pub(super) fn unproved(
    tick: &mut Tick<'_>,
    mine: Position,
    lag_disqualified: Option<Reason>,
) -> Option<Reason> {
    tick.cluster()?.unsettled()?;
    let members = tick.may_hold_commits();
    let lost = lost(tick, &members);
    let mut missing = Vec::new();
    for member in members.difference(&lost).cloned() {
        match shown(tick, mine, &member) {
            Shown::Less => {}
            Shown::More(reason) => return Some(reason),
            Shown::Nothing => missing.push(member),
        }
    }
    if missing.is_empty() {
        return None;
    }
    match waits_for_silent(tick) {
        true => Some(Reason::Store(StoreReason::Unsettled { missing })),
        false => lag_disqualified,
    }
}

/// Whether members that do not say what they hold keep everybody from leading.
fn waits_for_silent(tick: &Tick<'_>) -> bool {
    // The settings may be old, too.
    let synchronous = tick.seen.settings.sync.mode != SyncMode::Off || !tick.promised().is_empty();
    synchronous || tick.now < old_leases_end(tick)
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

fn shown(tick: &Tick<'_>, mine: Position, member: &MemberName) -> Shown {
    let answer = tick.answer_of(member).filter(|answer| answer.reachable);
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
fn lost(tick: &Tick<'_>, members: &BTreeSet<MemberName>) -> BTreeSet<MemberName> {
    let empty = |name: &&MemberName| tick.answer_of(name).is_some_and(|answer| answer.no_data);
    let promised = tick.promised();
    let lost: BTreeSet<MemberName> = members.iter().filter(empty).cloned().collect();
    let of_promised = (&lost & &promised).len();
    match of_promised == 0 || (of_promised == 1 && 1 < promised.len()) {
        true => lost,
        false => &lost - &promised,
    }
}

/// I lead and serve, proved to be the newest: the generation is confirmed. Where commits wait for standbys, the record
/// of synchronous replication comes first: if I died between the two, nobody would know whom to wait for.
pub(super) fn settle(tick: &mut Tick<'_>, term: Term) {
    let Some(key) = tick.cluster().and_then(|cluster| cluster.generation.as_ref()) else { return };
    let due = tick.memory.generation_sent_at.is_none_or(|at| at + AGAIN_AFTER <= tick.now);
    let me = &tick.seen.me.name;
    let recorded = tick.sync_record().is_some_and(|record| record.is_leader(me));
    let unrecorded = tick.seen.settings.sync.mode != SyncMode::Off && !recorded;
    if key.record.settled || !due || unrecorded {
        return;
    }
    tick.memory.generation_sent_at = Some(tick.now);
    let record = StoreGeneration { settled: true, ..key.record.clone() };
    tick.act(Action::WriteGeneration(GenerationWrite::Settle { term, over: key.mod_revision, record }));
}
