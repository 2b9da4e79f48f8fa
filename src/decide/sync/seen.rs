//! The conversion of the observed facts to the state from which the next step is chosen.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::super::tick::Tick;
use super::state::QuorumState;
use crate::model::{
    Lsn, MemberKey, MemberName, MemberState, SqlFacts, SyncMode, SyncNames, SyncRecord, SyncState, Walsender,
};

/// A named standby that disconnected counts as connected for this long: it may be reconnecting, or have to find a new
/// leader first.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(2);

impl<'a> Tick<'a> {
    /// The standbys that stream from me, with the member each of them is.
    pub(super) fn standbys(&self, sql: &'a SqlFacts) -> Vec<(&'a MemberName, &'a Walsender)> {
        let member = |standby: &'a Walsender| {
            let mut others = self.others();
            let (name, _) = others.find(|(name, _)| name.as_str().eq_ignore_ascii_case(&standby.name))?;
            (standby.streams && standby.flushed.is_some()).then_some((name, standby))
        };
        sql.sync.walsenders.iter().filter_map(member).collect()
    }

    pub(super) fn sync_state(&self, sql: &'a SqlFacts) -> QuorumState {
        let record = self.cluster().and_then(|cluster| cluster.sync_record()).cloned().unwrap_or_default();
        let names = SyncNames::parse(&sql.sync.names).0;
        QuorumState {
            me: self.seen.me.name.clone(),
            confirmed: self.confirmed(sql),
            active: self.active(sql, &record, &names),
            record,
            names,
            wanted: self.seen.settings.sync.node_count,
            strict: self.seen.settings.sync.strict,
        }
    }

    fn confirmed(&self, sql: &'a SqlFacts) -> BTreeSet<MemberName> {
        let in_effect = self.memory.sync.in_effect.as_ref();
        let seen = in_effect.filter(|seen| seen.as_primary && seen.names == sql.sync.names);
        let Some(from) = seen.and_then(|seen| seen.from) else { return BTreeSet::new() };
        let holds = |standby: &Walsender| {
            // The flushed position counts, whatever position a commit waits for.
            matches!(standby.sync, SyncState::Sync | SyncState::Quorum) && standby.flushed >= Some(from)
        };
        let standbys = self.standbys(sql);
        // All connections of that name count: one of them may belong to the member before it was cloned anew.
        let sure =
            |name: &MemberName| standbys.iter().all(|(other, standby)| *other != name || holds(standby));
        standbys.iter().filter(|(name, _)| sure(name)).map(|(name, _)| (*name).clone()).collect()
    }

    /// The standbys that can be synchronous now, best first.
    fn active(&self, sql: &'a SqlFacts, record: &SyncRecord, names: &SyncNames) -> Vec<MemberName> {
        let settings = &self.seen.settings.sync;
        let connected = self.standbys(sql);
        let position = |standby: &Walsender| standby.position(sql.sync.wait).unwrap_or_default();
        let mut fit: Vec<_> = connected.iter().filter(|(name, _)| self.may_be_sync(name)).collect();
        let newest = fit.iter().map(|(_, standby)| position(standby)).max().filter(|_| fit.len() > 1);
        let newest: Lsn = newest.unwrap_or(sql.flushed);
        fit.retain(|(_, standby)| {
            settings.maximum_lag.is_none_or(|limit| newest.bytes_since(position(standby)) <= limit)
        });
        let tags =
            |name: &MemberName| self.member(name).map(|key| key.record.tags.clone()).unwrap_or_default();
        fit.sort_by_key(|(name, standby)| {
            let rank = (tags(name).sync_priority(), standby.sync, position(standby));
            (tags(name).nofailover(), Reverse(rank), (*name).clone())
        });
        let mut active: Vec<MemberName> = Vec::new();
        for (name, _) in fit {
            // A standby that has just reconnected may have two connections.
            if !active.contains(name) {
                active.push((*name).clone());
            }
        }
        if settings.mode == SyncMode::Quorum {
            let usual = active.iter().filter(|name| !tags(name).nofailover()).count();
            active.truncate(usual.max(settings.node_count));
        }
        let absent = record.voters.iter().chain(&names.names).filter(|name| {
            let away = connected.iter().all(|(connected, _)| !connected.is_same(name));
            away && self.may_be_sync(name) && self.comes_back(name)
        });
        active.extend(absent.cloned().collect::<BTreeSet<_>>());
        active
    }

    fn member(&self, name: &MemberName) -> Option<&'a MemberKey> {
        self.others().find(|(other, _)| other.is_same(name)).map(|(_, key)| key)
    }

    fn may_be_sync(&self, name: &MemberName) -> bool {
        self.member(name).is_some_and(|key| {
            key.record.state == MemberState::Running && key.record.tags.sync_priority().is_some()
        })
    }

    fn comes_back(&self, name: &MemberName) -> bool {
        let memory = &self.memory.sync;
        let since = [memory.streamed_at.get(name).copied(), memory.term.map(|(_, since)| since)];
        since.into_iter().flatten().any(|at| self.now < at + COMES_BACK_WITHIN)
    }
}
