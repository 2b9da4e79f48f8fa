//! etcd's store went back in time, was emptied or replaced: everything that was read from it is void, and the members
//! run a race by their WAL positions.
//!
//! ```text
//!  contradiction ─► `generation` written, `leader` and `sync` deleted ─► race by positions ─► leader ─► settled
//! ```
//!
//! The first member that notices begins a generation. The others find a generation that they do not know, and take it
//! as the explanation of what they see.

use std::collections::BTreeSet;
use std::time::Duration;

use super::position::{Position, comparable};
use super::tick::Tick;
use super::{failsafe, peers};
use crate::model::{
    Action, ClusterView, DataDirectory, FailoverRequest, GenerationWrite, JobKind, MemberName, Moment,
    Reason, RunningJob, StoreChange, StoreGeneration, StoreKeys, StoreReason, StoreSeen, SyncMode, Term,
    WaitingOn,
};

/// A write to `generation` that etcd does not show by then is repeated.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Tick<'_> {
    /// Compares the view with the store as seen before, and records it. The result is a contradiction that no member
    /// has recorded yet: the view must not be acted on.
    pub(super) fn remember_store(&mut self) -> Option<StoreChange> {
        let cluster = self.cluster()?;
        let change = match &self.seen.postgres.data {
            DataDirectory::Ready(control) if cluster.system_id().is_none_or(|id| id == control.system_id) => {
                self.memory.store.contradicts(cluster)
            }
            // The recorded state belongs to the data that was here with it. But an empty member must not create a new
            // cluster in place of the known one.
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
        // For so long a promise of mine, or of my predecessor, may last, which my successor has to keep.
        let promised = match failsafe::may_last(self) {
            true => self.memory.store.keys.ttl,
            false => Duration::ZERO,
        };
        let keys = StoreKeys::of(cluster, &self.memory.store.keys, self.seen.settings.ttl.max(promised));
        self.memory.store =
            StoreSeen { keys, revision: cluster.revision, listed: cluster.listed, change: None };
        None
    }

    fn forget_store_of_before(&mut self, cluster: &ClusterView) {
        // The writer of the generation may not have known of them.
        let remembered = self.memory.store.unfenced_beside(cluster);
        self.memory.forget_numbers();
        (self.memory.unfenced.owed, self.memory.unfenced.owed_sent_at) = (remembered, None);
    }

    fn promised(&self) -> BTreeSet<MemberName> {
        let recorded = self.cluster().and_then(|cluster| cluster.unsettled());
        let recorded = recorded.map(|key| key.record.promised.clone()).unwrap_or_default();
        &recorded | &self.memory.store.keys.promised
    }

    /// All other members that may have acknowledged commits, by all that is recorded.
    fn may_hold_commits(&self) -> BTreeSet<MemberName> {
        let recorded = self.cluster().and_then(|cluster| cluster.unsettled());
        let mut all = &self.promised() | &self.memory.store.keys.members;
        all.extend(recorded.into_iter().flat_map(|key| key.record.members.iter().cloned()));
        all.retain(|name| !name.is_same(&self.seen.me.name));
        all
    }
}

/// Records how far other members have seen this store, before I first try to take the leader key. While its generation
/// is unsettled their answers do not count: they may concern the earlier store.
pub(super) fn hear(tick: &mut Tick<'_>, vacant_at: i64) {
    if tick.is_unsettled() || tick.memory.store_heard.is_some_and(|(at, _)| at == vacant_at) {
        return;
    }
    let mine = tick.memory.store.keys.cluster_id;
    let marks = tick.peers.values().map(|answer| answer.store);
    let seen = marks.filter(|mark| mark.cluster_id == mine).map(|mark| mark.revision).max();
    tick.memory.store_heard = Some((vacant_at, seen.unwrap_or_default()));
}

/// The revision that another member had already seen when I became leader by an older one.
pub(super) fn heard_before(tick: &Tick<'_>, term: Term) -> Option<i64> {
    tick.memory.store_heard.filter(|(_, heard)| term.0 <= *heard).map(|(_, before)| before)
}

/// The leader key is older than a revision that another member had already seen. So this member was away since before
/// the restored snapshot, and its view does not contradict its own memory.
pub(super) fn denied(tick: &mut Tick<'_>, term: Term) -> Option<Reason> {
    let before = heard_before(tick, term)?;
    let change = StoreChange::RevisionFell { before, now: term.0 };
    tick.memory.store.change = Some(change.clone());
    Some(record(tick, change))
}

/// Records the contradiction in etcd, so that all members see it.
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
    let promotes = |running: &RunningJob| {
        matches!(running.job.kind(), JobKind::Promote | JobKind::PrePromote | JobKind::StartPrimary)
    };
    if tick.seen.job.as_ref().is_some_and(promotes) {
        tick.act(Action::CancelJob);
    }
    tick.wake_in(AGAIN_AFTER, WaitingOn::Lease);
    Reason::Store(StoreReason::WentBack(change))
}

/// When no primary can still have a lease of the earlier store.
fn old_leases_end(tick: &Tick<'_>) -> Moment {
    let since = tick.memory.answers_since.unwrap_or(tick.now);
    since + tick.seen.settings.ttl.max(tick.memory.store.keys.ttl)
}

/// Why a member must not lead yet, even when an operator accepts any loss: the former primary may be frozen, and could
/// write once more. Or it may go on in failsafe mode, for as long as it likes: whoever does not answer as a standby
/// has to be stopped then, and the operator confirms that. `rivals` are asked.
pub(super) fn bars(
    tick: &mut Tick<'_>,
    forced: &FailoverRequest,
    rivals: Vec<(MemberName, String)>,
) -> Option<Reason> {
    if !tick.is_unsettled() {
        return None;
    }
    let end = old_leases_end(tick);
    if tick.now < end {
        tick.wake_at(end, WaitingOn::Lease);
        return Some(Reason::Store(StoreReason::OldLeases));
    }
    if !may_go_on(tick) {
        return None;
    }
    if !peers::ask(tick, &rivals) {
        return Some(Reason::AskingMembers);
    }
    let known = tick.others().map(|(name, _)| name.clone());
    let mut members: BTreeSet<MemberName> = known.chain(tick.may_hold_commits()).collect();
    members.retain(|name| !forced.confirmed_down.contains(name) && !shows_standby(tick, name));
    if members.is_empty() {
        return None;
    }
    peers::ask_again(tick, rivals, false);
    Some(Reason::Store(StoreReason::MayGoOn { members: members.into_iter().collect() }))
}

fn shows_standby(tick: &Tick<'_>, member: &MemberName) -> bool {
    tick.answer_of(member).is_some_and(|answer| answer.no_data || (answer.reachable && answer.in_recovery))
}

/// Why my WAL does not allow me to lead, while the store's generation is unsettled. Where commits wait for standbys,
/// all members that may have acknowledged commits must answer; so they must in failsafe mode, since a leader may go on
/// by promises of members that do not know of the loss. Elsewhere a silent member is waited for until one TTL has
/// passed, since no lease of the earlier store lasts longer. `lag_disqualified` tells how far I am behind the last
/// leader; it matters only while a member that may have more WAL is silent.
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

/// Whether silent members keep every member from leading.
fn waits_for_silent(tick: &Tick<'_>) -> bool {
    // The settings may be outdated, too.
    let synchronous = tick.seen.settings.sync.mode != SyncMode::Off || !tick.promised().is_empty();
    synchronous || may_go_on(tick) || tick.now < old_leases_end(tick)
}

/// Whether a leader of the earlier store may go on without a lease.
fn may_go_on(tick: &Tick<'_>) -> bool {
    let recorded = tick.cluster().and_then(|cluster| cluster.unsettled());
    let recorded = recorded.is_some_and(|key| key.record.failsafe);
    recorded || tick.memory.store.keys.failsafe || tick.seen.settings.failsafe_mode
}

/// The answer of a member that may have acknowledged commits.
enum Shown {
    /// It has no WAL that I lack.
    Less,
    /// It leads, or has more WAL.
    More(Reason),
    /// It does not show all its WAL.
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
    // WAL that arrives after the answer is not covered by it.
    let all = answer.exact && !answer.receives && answer.timeline.is_some();
    if all { Shown::Less } else { Shown::Nothing }
}

/// Members that found no data: their commits are gone, and waiting for them is useless. Where commits wait for standbys
/// at most one such member is given up, since another has all commits, too.
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

/// I lead and serve, and have proved to have the newest data: the generation is confirmed. The key `initialize` comes
/// first: without it no standby may lead. Where commits wait for standbys, the record of synchronous replication comes
/// first, too: if I failed between the two, no member would know for which members to wait.
pub(super) fn settle(tick: &mut Tick<'_>, term: Term) {
    let cluster = tick.cluster().filter(|cluster| cluster.system_id().is_some());
    let Some(key) = cluster.and_then(|cluster| cluster.generation.as_ref()) else { return };
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
