//! The leader that is to be replaced: it may be alive all the time, and change its synchronous standbys.

use std::collections::BTreeSet;

use matriarch::decide::{SyncMachine, SyncStep, priority_step, quorum_steps};
use matriarch::model::{MemberName, SyncKey, SyncNames, SyncRecord, Term};

use super::interned::Interned;
use super::standby::name;

/// Commits in its WAL. Those that no standby has are as good as not made yet.
pub(super) const COMMITS: u8 = 1;

/// Its PostgreSQL, and its supervisor as far as that sets the synchronous standbys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct OldLeader {
    /// Its PostgreSQL runs.
    pub(super) runs: bool,
    /// How many of its commits are acknowledged.
    pub(super) acknowledged: u8,
    pub(super) names: Interned<SyncNames>,
    /// How many were when the names took effect.
    pub(super) from: u8,
    /// The keys as last seen.
    pub(super) view: Interned<LeaderView>,
    pub(super) writing: Option<SyncWrite>,
}

/// What it needs of etcd: its own key while it leads, and the key `sync`.
#[derive(Debug)]
pub(super) struct LeaderView {
    pub(super) term: Option<Term>,
    pub(super) sync: Option<SyncKey>,
}

/// A write to the key `sync` that it has not seen done.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct SyncWrite {
    pub(super) record: Interned<SyncRecord>,
    pub(super) over: i64,
    pub(super) arrived: bool,
}

impl OldLeader {
    /// The standbys with these positions have confirmed a commit of this number.
    fn is_confirmed(&self, commit: u8, has: [u8; 2]) -> bool {
        let confirms = |index: &usize| commit <= has[index - 1] && self.names.names.contains(&name(*index));
        self.names.count <= (1..3).filter(confirms).count()
    }

    /// Its next commit can be acknowledged.
    pub(super) fn may_acknowledge(&self, has: [u8; 2]) -> bool {
        self.runs && self.acknowledged < COMMITS && self.is_confirmed(self.acknowledged + 1, has)
    }

    /// Another commit could be acknowledged if these standbys receive WAL.
    pub(super) fn can_go_on(&self, receives: [bool; 2]) -> bool {
        self.runs && self.is_confirmed(1, receives.map(u8::from))
    }

    /// It looks at etcd.
    pub(super) fn see(&mut self, view: Interned<LeaderView>) {
        self.view = view;
        self.runs &= self.view.term.is_some();
        let revision = self.sync_revision();
        self.writing = self.writing.take().filter(|write| write.over == revision);
    }

    pub(super) fn sync_revision(&self) -> i64 {
        self.view.sync.as_ref().map_or(0, |key| key.mod_revision)
    }

    /// The next step of the product's machine, if these standbys seem to be there, and those with these positions have
    /// told so.
    pub(super) fn step(&self, is_quorum: bool, active: &[usize], has: [u8; 2]) -> Option<SyncStep> {
        if !self.runs || self.writing.is_some() {
            return None;
        }
        let confirms =
            |index: &usize| self.from <= has[index - 1] && self.names.names.contains(&name(*index));
        let confirmed: BTreeSet<MemberName> = (1..3).filter(confirms).map(name).collect();
        let state = SyncMachine {
            me: name(0),
            record: self.view.sync.as_ref().map(|key| key.record.clone()).unwrap_or_default(),
            names: SyncNames::clone(&self.names),
            confirmed,
            active: active.iter().copied().map(name).collect(),
            wanted: 1,
            strict: true,
        };
        let step = match is_quorum {
            true => quorum_steps(&state).into_iter().next(),
            false => priority_step(&state),
        };
        step.and_then(|step| state.permit(step))
    }
}
