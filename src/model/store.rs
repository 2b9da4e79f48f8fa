//! Evidence that the store of etcd was restored from a snapshot, emptied or replaced.
//!
//! Within one store revisions only grow, and a key with a modification revision not above a revision that was read
//! stays as it was read there (etcd documentation, "Data model"). A store that was restored from a snapshot breaks one
//! of the two, even if its revision was raised (`--bump-revision`) or has caught up, because the keys keep their
//! revisions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ClusterView, MemberName, SyncRecord, Term, Timeline, UnfencedPrimary};

/// Older generations than this many are forgotten. Each stands for one loss of etcd's data.
const GENERATIONS_MAX: usize = 16;

/// The store as this member has seen it. Kept in memory and beside the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreSeen {
    /// The keys. A change of these is worth a write to disk.
    pub keys: StoreKeys,
    /// The highest revision.
    pub revision: i64,
    /// The revision of the list on which `keys` rest: no write up to that revision was missed.
    #[serde(default)]
    pub listed: i64,
    /// The contradiction between the present store and the earlier one, until a generation explains it. It is recorded
    /// because a revision that fell catches up again.
    #[serde(default)]
    pub change: Option<StoreChange>,
}

/// The state of the store that a member has seen, as it tells other members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreMark {
    /// The identifier of the etcd cluster; zero: unknown.
    pub cluster_id: u64,
    /// The highest revision.
    pub revision: i64,
}

/// The keys on which leadership rests, as a revision showed them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreKeys {
    /// The identifier of the etcd cluster; zero: unknown.
    pub cluster_id: u64,
    /// The modification revision of `leader`; zero: absent.
    pub leader: i64,
    /// The modification revision of `sync`; zero: absent.
    pub sync: i64,
    /// The modification revision of `generation`; zero: absent.
    pub generation: i64,
    /// The modification revision of `timeline`; zero: absent. `None`: written by a version that did not look at it.
    #[serde(default)]
    pub timeline_claim: Option<i64>,
    /// The generations ever seen, the present one last.
    pub generations: Vec<String>,
    /// All members of the last record of synchronous replication that was in force: one of them has all acknowledged
    /// commits. Unfenced primaries are among them, too.
    pub promised: BTreeSet<MemberName>,
    /// The members that had data.
    #[serde(default)]
    pub members: BTreeSet<MemberName>,
    /// The unfenced primaries.
    #[serde(default)]
    pub unfenced: BTreeMap<MemberName, UnfencedPrimary>,
    /// The newest timeline that any member was ever on, or has claimed.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// The longest TTL of a lease that may still exist.
    #[serde(default)]
    pub ttl: Duration,
    /// The key `failsafe` named members: a leader may go on by their promises, without a lease.
    #[serde(default)]
    pub failsafe: bool,
}

/// Why the present store cannot be a later state of the store that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreChange {
    /// Another etcd cluster answers.
    OtherCluster {
        /// The identifier seen before.
        before: u64,
        /// The identifier now.
        now: u64,
    },
    /// The revision fell.
    RevisionFell {
        /// The revision seen before.
        before: i64,
        /// The revision now.
        now: i64,
    },
    /// A key shows a write that is older than one that was seen, or that an earlier look should have shown.
    KeyReturned {
        /// Its short name.
        key: String,
        /// The modification revision that it shows.
        revision: i64,
    },
    /// The key `generation` lacks a generation that was seen, although none is ever removed.
    GenerationGone,
    /// The leader key has no lease: no member owns it, and it never expires.
    LeaderWithoutLease,
}

/// Why a replaced or restored store keeps every member from leading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreReason {
    /// It went back in time or was replaced.
    WentBack(StoreChange),
    /// It went back in time, and the members' data decides which member leads; these members have not answered.
    Unsettled {
        /// Their names.
        missing: Vec<MemberName>,
    },
    /// A primary may still run under a lease of the earlier store, whichever member is to lead.
    OldLeases,
    /// An operator wants a member to lead, and these may go on as primaries in failsafe mode: they do not answer as
    /// standbys.
    MayGoOn {
        /// Their names.
        members: Vec<MemberName>,
    },
}

/// The key `generation`: the store was replaced or restored, and leadership begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreGeneration {
    /// The identifier of this generation, after those of the earlier generations; at most 16.
    pub ids: Vec<String>,
    /// Whether a leader with the newest data has confirmed it. Until then members compete by the WAL they have.
    pub settled: bool,
    /// The members that may have acknowledged commits, as the writer knew them.
    pub promised: BTreeSet<MemberName>,
    /// The members that had data, or that the key `failsafe` named, as the writer knew them.
    pub members: BTreeSet<MemberName>,
    /// The key `failsafe` named members, as the writer knew it.
    pub failsafe: bool,
    /// The evidence, for operators.
    pub because: String,
}

/// The key `generation` with its revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationKey {
    /// The value.
    pub record: StoreGeneration,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

/// A write to the key `generation`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GenerationWrite {
    /// Begin a generation if the keys are still as read. `leader`, `sync` and `failover` are deleted in the same
    /// transaction.
    Begin {
        /// The modification revisions of `leader`, `sync`, `generation` and `unfenced` that were read; zero: absent.
        over: [i64; 4],
        /// The value.
        record: StoreGeneration,
        /// The key `unfenced`, with every unfenced primary that is known or remembered: an operator who makes another
        /// member the leader is told of them.
        unfenced: BTreeMap<MemberName, UnfencedPrimary>,
    },
    /// Confirm it, if I still lead in `term`.
    Settle {
        /// The term that guards the write.
        term: Term,
        /// The modification revision of `generation` that was read.
        over: i64,
        /// The value.
        record: StoreGeneration,
    },
}

impl StoreKeys {
    /// The keys that `view` shows. The promises and the TTL of `before` count until a leader has confirmed the store's
    /// generation.
    pub fn of(view: &ClusterView, before: &StoreKeys, ttl: Duration) -> StoreKeys {
        let with_data = view.members.iter().filter(|(_, key)| key.record.holds_data());
        let mut with_data: BTreeSet<MemberName> = with_data.map(|(name, _)| name.clone()).collect();
        let mut promised = view.sync_record().map(SyncRecord::members).unwrap_or_default();
        promised.extend(view.unfenced(None).map(|(name, _)| name.clone()));
        if view.unsettled().is_some() {
            promised.extend(before.promised.iter().cloned());
            with_data.extend(before.members.iter().cloned());
        }
        let in_failsafe = view.failsafe.iter().flat_map(|key| key.members.keys());
        // Their member keys end with their leases while they go on.
        with_data.extend(in_failsafe.clone().cloned());
        let names = in_failsafe.count() > 0;
        // A leader that does not know of a shorter TTL has no other term.
        let leader = view.leader.as_ref().map_or(0, |key| key.term.0);
        let keeps_ttl = view.unsettled().is_some() || leader == 0 || leader == before.leader;
        let members = view.members.values();
        StoreKeys {
            cluster_id: view.cluster_id,
            leader,
            sync: view.sync.as_ref().map_or(0, |key| key.mod_revision),
            generation: view.generation.as_ref().map_or(0, |key| key.mod_revision),
            timeline_claim: Some(view.timeline_claim.map_or(0, |claim| claim.mod_revision)),
            generations: view.generation.as_ref().map(|key| key.record.ids.clone()).unwrap_or_default(),
            promised,
            members: with_data,
            unfenced: view.unfenced(None).map(|(name, left)| (name.clone(), *left)).collect(),
            timeline: members
                .filter_map(|key| key.record.timeline)
                .chain(view.timeline())
                .chain(view.timeline_claim.map(|claim| claim.timeline))
                .chain(before.timeline)
                .max(),
            ttl: if keeps_ttl { before.ttl.max(ttl) } else { ttl },
            failsafe: names || (view.unsettled().is_some() && before.failsafe),
        }
    }
}

impl StoreSeen {
    /// The key `unfenced` as remembered, with the entries of `view`. A remembered entry with an older timeline than the
    /// newest is dropped: a promotion followed it.
    pub fn unfenced_beside(&self, view: &ClusterView) -> BTreeMap<MemberName, UnfencedPrimary> {
        let newest = StoreKeys::of(view, &self.keys, Duration::ZERO).timeline;
        let remembered =
            self.keys.unfenced.iter().filter(|(_, left)| left.timeline.is_none() || newest <= left.timeline);
        remembered.chain(view.unfenced(None)).map(|(name, left)| (name.clone(), *left)).collect()
    }

    /// The state of the store that other members are told.
    pub fn mark(&self) -> StoreMark {
        StoreMark { cluster_id: self.keys.cluster_id, revision: self.revision }
    }

    /// Whether it has more than `written`: a new revision alone is not worth a write.
    pub fn adds_to(&self, written: &StoreSeen) -> bool {
        (&self.keys, &self.change) != (&written.keys, &written.change)
    }

    /// Whether `view` has a generation that was not seen before, which explains the contradiction.
    pub fn explained_by(&self, view: &ClusterView) -> bool {
        let id = view.generation.as_ref().and_then(|key| key.record.ids.last());
        id.is_some_and(|id| !self.keys.generations.contains(id))
    }

    /// Why `view` cannot be a later state of the store that was seen; `None` when it can. An earlier contradiction
    /// stays.
    pub fn contradicts(&self, view: &ClusterView) -> Option<StoreChange> {
        let (before, now) = (&self.keys, StoreKeys::of(view, &self.keys, Duration::ZERO));
        if before.cluster_id != 0 && now.cluster_id != 0 && before.cluster_id != now.cluster_id {
            return Some(StoreChange::OtherCluster { before: before.cluster_id, now: now.cluster_id });
        }
        match &self.change {
            // The earlier etcd cluster answers again.
            Some(StoreChange::OtherCluster { .. }) | None => {}
            Some(change) => return Some(change.clone()),
        }
        if view.revision < self.revision {
            return Some(StoreChange::RevisionFell { before: self.revision, now: view.revision });
        }
        let pairs = [
            ("leader", before.leader, now.leader),
            ("sync", before.sync, now.sync),
            ("generation", before.generation, now.generation),
        ];
        let claims =
            before.timeline_claim.zip(now.timeline_claim).map(|(before, now)| ("timeline", before, now));
        let returned = |(_, before, now): &(&str, i64, i64)| {
            *now != 0 && (now < before || *now <= self.listed && now != before)
        };
        if let Some((key, _, revision)) = pairs.into_iter().chain(claims).find(returned) {
            return Some(StoreChange::KeyReturned { key: key.to_owned(), revision });
        }
        if before.generations.last().is_some_and(|last| !now.generations.contains(last)) {
            return Some(StoreChange::GenerationGone);
        }
        let lasting = view.leader.as_ref().is_some_and(|leader| leader.lease.is_none());
        lasting.then_some(StoreChange::LeaderWithoutLease)
    }
}

impl GenerationWrite {
    /// Begins a generation over the keys of `view`, which is no later state of the store as `seen`, by `change`. `id`
    /// is unique.
    pub fn begin(view: &ClusterView, seen: &StoreSeen, change: &StoreChange, id: String) -> GenerationWrite {
        let keys = StoreKeys::of(view, &StoreKeys::default(), Duration::ZERO);
        let promised = &keys.promised | &seen.keys.promised;
        let members = &keys.members | &seen.keys.members;
        let older = keys.generations.iter().filter(|id| !seen.keys.generations.contains(id));
        let mut ids: Vec<String> = older.chain(&seen.keys.generations).cloned().chain([id]).collect();
        ids.drain(..ids.len().saturating_sub(GENERATIONS_MAX));
        let failsafe = keys.failsafe || seen.keys.failsafe;
        let because = change.to_string();
        let record = StoreGeneration { ids, settled: false, promised, members, failsafe, because };
        let unfenced_at = view.unfenced.as_ref().map_or(0, |key| key.mod_revision);
        let unfenced = seen.unfenced_beside(view);
        GenerationWrite::Begin {
            over: [keys.leader, keys.sync, keys.generation, unfenced_at],
            record,
            unfenced,
        }
    }
}

impl fmt::Display for StoreGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "etcd's store went back in time or was replaced ({}): members compete by the WAL they have, and no leader has \
             confirmed the store yet",
            self.because
        )
    }
}

impl fmt::Display for StoreReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreReason::WentBack(change) => write!(
                f,
                "etcd's store went back in time or was replaced ({change}): leader, lease and sync record in it are void"
            ),
            StoreReason::OldLeases => write!(
                f,
                "etcd's store went back in time: waiting one ttl, until every lease of the previous store has ended"
            ),
            StoreReason::Unsettled { missing } => write!(
                f,
                "etcd's store went back in time: nobody leads before all members that may hold acknowledged commits, or \
                 lead in failsafe mode, have answered; missing: {}; stop their machines and `failover --candidate NAME{}` to \
                 lead without them; their newer data is lost",
                listed(missing),
                confirmations(missing)
            ),
            StoreReason::MayGoOn { members } => write!(
                f,
                "etcd's store went back in time, and a primary in failsafe mode may go on without it; not known to be \
                 standbys: {}; stop their machines and repeat the failover with{}",
                listed(members),
                confirmations(members)
            ),
        }
    }
}

fn listed(members: &[MemberName]) -> String {
    members.iter().map(MemberName::as_str).collect::<Vec<_>>().join(", ")
}

/// As options of `failover`.
fn confirmations(members: &[MemberName]) -> String {
    members.iter().map(|name| format!(" --confirm-down {name}")).collect()
}

impl fmt::Display for StoreChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreChange::OtherCluster { before, now } => {
                write!(f, "etcd cluster {now:x} answers where {before:x} did")
            }
            StoreChange::RevisionFell { before, now } => {
                write!(f, "its revision fell from {before} to {now}")
            }
            StoreChange::KeyReturned { key, revision } => {
                write!(f, "its key {key} shows revision {revision}, which was gone before")
            }
            StoreChange::GenerationGone => write!(f, "its key generation has lost what it held"),
            StoreChange::LeaderWithoutLease => {
                write!(f, "its leader key hangs on no lease: somebody put it back from a copy")
            }
        }
    }
}
