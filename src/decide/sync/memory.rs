//! The memory about synchronous replication that one tick passes to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Lsn, MemberName, Moment, SqlFacts, SyncFacts, SyncRecord, Term};

/// Lost when the supervisor restarts: then the key is written once more before anything else, so that no write of the
/// previous incarnation can still arrive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncMemory {
    /// The term of what follows, and since when.
    pub term: Option<(Term, Moment)>,
    /// The names that Postgres shows.
    pub in_effect: Option<InEffect>,
    /// When Postgres was last told other names.
    pub named_at: Option<Moment>,
    /// The write to the key under way.
    pub writing: Option<SyncWrite>,
    /// The revision of the key that came of my last write.
    pub owned: Option<i64>,
    /// When each standby was last seen streaming.
    pub streamed_at: BTreeMap<MemberName, Moment>,
    /// Since when this standby asks to be let go.
    pub leaving_since: Option<Moment>,
    /// Sessions that waited for a standby when last looked at.
    pub waits: Option<Waits>,
    /// Commits at least that were acknowledged although no standby had confirmed them: their wait was cancelled.
    pub cancelled: u64,
}

/// `synchronous_standby_names` as seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InEffect {
    /// The value.
    pub names: String,
    /// As primary or as standby.
    pub as_primary: bool,
    /// The first look that showed it.
    pub seen_at: Moment,
    /// A position such that every commit beyond it obeys the names: known from the next look on in which the
    /// checkpointer rests.
    pub from: Option<Lsn>,
}

/// A write to the key `sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncWrite {
    /// The value; `None` deletes it.
    pub record: Option<SyncRecord>,
    /// The revision it replaces.
    pub over: i64,
    /// When it was last sent.
    pub sent_at: Moment,
}

/// Who waited, and for what to change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waits {
    sessions: BTreeSet<i32>,
    names: String,
    positions: BTreeSet<(String, Option<Lsn>)>,
}

impl Waits {
    fn of(sync: &SyncFacts) -> Waits {
        let position =
            |standby: &crate::model::Walsender| (standby.name.clone(), standby.position(sync.wait));
        Waits {
            sessions: sync.waiting.clone(),
            names: sync.names.clone(),
            positions: sync.walsenders.iter().map(position).collect(),
        }
    }

    fn is_for_the_same(&self, now: &Waits) -> bool {
        self.names == now.names && self.positions == now.positions
    }
}

impl InEffect {
    /// Seen once more.
    fn look(&mut self, sql: &SqlFacts) {
        if self.from.is_none() && self.seen_at < sql.at && sql.sync.checkpointer_rests {
            self.from = Some(sql.flushed);
        }
    }
}

impl SyncMemory {
    /// Takes note of the names in effect, and of waits that were cancelled.
    pub(super) fn look(&mut self, sql: &SqlFacts) {
        self.look_at_names(sql);
        self.look_at_waits(sql);
    }

    fn look_at_names(&mut self, sql: &SqlFacts) {
        let primary = sql.is_primary();
        let same = |seen: &&mut InEffect| seen.names == sql.sync.names && seen.as_primary == primary;
        match self.in_effect.as_mut().filter(same) {
            Some(seen) => seen.look(sql),
            None => {
                let names = sql.sync.names.clone();
                self.in_effect = Some(InEffect { names, as_primary: primary, seen_at: sql.at, from: None });
            }
        }
    }

    fn look_at_waits(&mut self, sql: &SqlFacts) {
        let waits = Waits::of(&sql.sync);
        let before = self.waits.take().filter(|_| sql.is_primary());
        // Nothing that could have ended a wait has changed, so a session that waits no more was cancelled.
        if let Some(before) = before.filter(|before| before.is_for_the_same(&waits)) {
            self.cancelled += before.sessions.difference(&waits.sessions).count() as u64;
        }
        self.waits = (sql.is_primary() && !waits.sessions.is_empty()).then_some(waits);
    }
}
