//! The keys of one cluster in etcd, decoded, at one revision.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    FailsafeKey, GenerationKey, LeaseId, Lsn, MemberName, MemberRecord, RecruitKey, SyncKey, SyncRecord,
    Term, Timeline, UnfencedKey, WallTime, slot_name,
};

/// All keys of the cluster, as shown by one linearizable list and the watch that followed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The store's revision this view shows.
    pub revision: i64,
    /// The revision of the list on which this view rests. Later changes came through a watch, which may have missed
    /// some.
    #[serde(default)]
    pub listed: i64,
    /// The identifier of the etcd cluster that showed it; zero: unknown.
    #[serde(default)]
    pub cluster_id: u64,
    /// The leader key.
    pub leader: Option<LeaderKey>,
    /// The revision that created that key; a hand-over keeps it. `None`: there is no key, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_created: Option<i64>,
    /// Every member key.
    pub members: BTreeMap<MemberName, MemberKey>,
    /// `None` before any bootstrap, empty while one runs, then the system identifier.
    pub initialize: Option<String>,
    /// The lease on which that key hangs while the cluster is being made.
    #[serde(default)]
    pub initialize_lease: Option<LeaseId>,
    /// The dynamic configuration.
    pub config: Option<ConfigKey>,
    /// The position and the slots that the leader published last.
    pub status: Option<ClusterStatus>,
    /// The members that may take the leader key, while failsafe mode is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failsafe: Option<FailsafeKey>,
    /// An attempt to replace the leader before its lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recruit: Option<RecruitKey>,
    /// Every change of timeline.
    pub history: Option<Vec<HistoryLine>>,
    /// A switchover or failover that was asked for.
    pub failover: Option<FailoverKey>,
    /// The members that can be promoted without losing an acknowledged commit.
    pub sync: Option<SyncKey>,
    /// Unfenced primaries: their supervisor left them running.
    #[serde(default)]
    pub unfenced: Option<UnfencedKey>,
    /// The store's generation; `None` while the store has never gone back in time or been replaced.
    #[serde(default)]
    pub generation: Option<GenerationKey>,
    /// The newest number of a timeline that a leader has claimed. The key is never deleted.
    #[serde(default)]
    pub timeline_claim: Option<TimelineClaim>,
}

/// The key `timeline`: the newest claim of a timeline's number, which was made before its promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineClaim {
    /// The number; its promotion may not have happened.
    pub timeline: Timeline,
    /// The key's modification revision.
    pub mod_revision: i64,
}

impl ClusterView {
    /// The system identifier, once a bootstrap has finished.
    pub fn system_id(&self) -> Option<u64> {
        self.initialize.as_deref()?.parse().ok()
    }

    /// The leader's member record, if both keys are there.
    pub fn leader_member(&self) -> Option<(&MemberName, &MemberKey)> {
        self.members.get_key_value(&self.leader.as_ref()?.name)
    }

    /// The position that the leader has certainly reached: the one it published last, or a later one that a member on
    /// its timeline has shown. `None` while it has published none.
    pub fn known_end(&self) -> Option<Lsn> {
        let published = self.status.as_ref()?.optime.filter(|lsn| lsn.is_known())?;
        let timeline = self.leader_member().and_then(|(_, leader)| leader.record.timeline);
        let with_it = self
            .members
            .values()
            .map(|member| &member.record)
            .filter(|record| timeline.is_some() && record.timeline == timeline);
        with_it.filter_map(|record| record.xlog_location.max(record.receive_lsn)).chain([published]).max()
    }

    /// The record of synchronous replication, if one is in force.
    pub fn sync_record(&self) -> Option<&SyncRecord> {
        self.sync.as_ref().map(|key| &key.record).filter(|record| record.is_in_force())
    }

    /// Whether that record promises standbys to have every acknowledged commit.
    pub fn has_voters(&self) -> bool {
        self.sync_record().is_some_and(|record| !record.voters.is_empty())
    }

    /// The member that streams through the slot named after `name`. Several names can give the same slot; the first of
    /// them has it, so that no two members ask for one slot.
    pub fn slot_holder<'a>(&'a self, name: &'a MemberName) -> &'a MemberName {
        let slot = slot_name(name);
        let same = self.members.keys().filter(|other| slot_name(other) == slot);
        same.chain([name]).min().unwrap_or(name)
    }

    /// Members without a slot, each with the member that has the slot of the same name.
    pub fn without_slot(&self) -> Vec<(&MemberName, &MemberName)> {
        let pairs = self.members.keys().map(|name| (name, self.slot_holder(name)));
        pairs.filter(|(name, holder)| name != holder).collect()
    }

    /// The store's generation, while the store went back in time and no leader has confirmed it. Only the members' data
    /// decides then; the key `sync` does not count, since it may have been restored from a copy.
    pub fn unsettled(&self) -> Option<&GenerationKey> {
        self.generation.as_ref().filter(|key| !key.record.settled)
    }

    /// Whoever may go on as a primary in failsafe mode, without a lease, beside a store that went back in time and is
    /// not settled.
    pub fn may_go_on(&self) -> BTreeSet<&MemberName> {
        let record = self.unsettled().map(|key| &key.record).filter(|record| record.failsafe);
        record.into_iter().flat_map(|record| record.members.iter().chain(&record.promised)).collect()
    }

    /// The timeline the history implies; `None` when nothing is known.
    pub fn timeline(&self) -> Option<Timeline> {
        let history = self.history.as_ref()?;
        Some(history.last().map_or(Timeline::FIRST, |line| Timeline(line.parent.0 + 1)))
    }
}

/// The key `leader`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderKey {
    /// The value: the bare name.
    pub name: MemberName,
    /// The lease it hangs on; `None` when a foreign tool wrote it without one.
    pub lease: Option<LeaseId>,
    /// Its modification revision.
    pub term: Term,
}

/// A key `members/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberKey {
    /// The decoded value.
    pub record: MemberRecord,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// The key `config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigKey {
    /// The JSON text as stored: its key order is what readers compare.
    pub text: String,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

/// The key `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The leader's position; at a clean hand-over, the shutdown checkpoint's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optime: Option<Lsn>,
    /// The timeline of `optime`. Patroni does not publish it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Slot name to position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<BTreeMap<String, Lsn>>,
    /// Slots that are kept although their member is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_slots: Option<Vec<String>>,
}

/// One element of `history`: a timeline that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub parent: Timeline,
    /// Where it ended.
    pub lsn: Lsn,
    /// The reason, in PostgreSQL's words.
    pub reason: String,
    /// RFC 3339, when known.
    pub at: Option<String>,
    /// The member that was promoted, when known.
    pub promoted: Option<String>,
}

/// The key `failover` with a request in it; `{}` reads as no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverKey {
    /// The request.
    pub request: FailoverRequest,
    /// For compare-and-swap when cleaning it.
    pub mod_revision: i64,
}

/// A switchover (names the leader) or a manual failover (names only the candidate).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRequest {
    /// The member that is to give up leadership.
    pub leader: Option<MemberName>,
    /// The member that is to lead.
    pub candidate: Option<MemberName>,
    /// Not before this time.
    pub scheduled_at: Option<WallTime>,
    /// Members that left a running PostgreSQL behind, and whose PostgreSQL is down as the operator confirms. Ours:
    /// Patroni ignores it.
    #[serde(default)]
    pub confirmed_down: Vec<MemberName>,
    /// etcd knows no cluster: rebuild the cluster from the candidate's data. Ours, too.
    #[serde(default)]
    pub rebuild: bool,
    /// Who asked, and by what, for people to read. Ours.
    #[serde(default)]
    pub requested_by: Option<String>,
}

impl FailoverRequest {
    /// Who asked, by `text` that anybody may have written: one line of at most 200 characters; `None` for an empty one.
    pub fn asker(text: &str) -> Option<String> {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect();
        Some(line.trim().to_owned()).filter(|line| !line.is_empty())
    }

    /// True for a manual failover.
    pub fn is_failover(&self) -> bool {
        self.leader.is_none()
    }
}

impl ClusterStatus {
    /// The JSON object, without empty parts.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|_| Value::Object(Map::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_has_one_holder() {
        let name = |name: &str| MemberName::new(name).expect("a name");
        let long = |end: &str| name(&format!("{}{end}", "x".repeat(63)));
        let key = || MemberKey { record: serde_json::from_str("{}").expect("a record"), lease: None };
        let names = [name("a-b"), name("a.b"), name("c"), long("1"), long("2")];
        let cluster =
            ClusterView { members: names.map(|name| (name, key())).into(), ..ClusterView::default() };
        let pairs = [(name("a.b"), name("a-b")), (long("2"), long("1"))];
        assert_eq!(
            cluster.without_slot(),
            pairs.iter().map(|(name, holder)| (name, holder)).collect::<Vec<_>>()
        );
        assert_eq!(cluster.slot_holder(&name("c")), &name("c"));
        assert_eq!(cluster.slot_holder(&name("new")), &name("new"));
    }
}
