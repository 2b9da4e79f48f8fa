//! The memory about synchronous replication that one tick passes to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Lsn, MemberName, Moment, SqlFacts, SyncFacts, SyncRecord, Term};

/// Memory of synchronous replication. It is lost when the supervisor restarts. Then the key is written once before
/// anything else, so that no write of the previous incarnation can still succeed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SyncMemory {
    /// The term of this memory, and since when.
    pub term: Option<(Term, Moment)>,
    /// The names that Postgres shows.
    pub in_effect: Option<InEffect>,
    /// When other names were last set.
    pub named_at: Option<Moment>,
    /// The write to the key under way.
    pub writing: Option<SyncWrite>,
    /// The revision of the key after my last write.
    pub owned: Option<i64>,
    /// When each standby was last seen streaming.
    pub streamed_at: BTreeMap<MemberName, Moment>,
    /// Since when this standby asks the leader to remove it from the promise.
    pub leaving_since: Option<Moment>,
    /// Sessions that waited for a standby at the last query.
    pub waits: Option<Waits>,
    /// A lower bound of the commits that were acknowledged without confirmation by any standby: their wait was
    /// cancelled.
    pub cancelled: u64,
    /// Clients were locked out only until the names are in force: what recovery brought back, if anything, was not
    /// beyond what standbys had.
    #[serde(default)]
    pub locked_out_for_names: bool,
}

/// `synchronous_standby_names` as seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InEffect {
    /// The value.
    pub names: String,
    /// Whether it is a primary.
    pub as_primary: bool,
    /// The first query that showed it.
    pub seen_at: Moment,
    /// A position after which every commit obeys the names. It is known from the next query on in which the
    /// checkpointer rests.
    pub from: Option<Lsn>,
}

/// A write to the key `sync`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncWrite {
    /// The value; `None` deletes it.
    pub record: Option<SyncRecord>,
    /// The revision that it replaces.
    pub over: i64,
    /// When it was last sent.
    pub sent_at: Moment,
}

/// The sessions that wait, and the state that could end their wait.
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
    /// Another query that shows the same names.
    fn look(&mut self, sql: &SqlFacts) {
        if self.from.is_none() && self.seen_at < sql.at && sql.sync.checkpointer_rests {
            self.from = Some(sql.flushed);
        }
    }
}

impl SyncMemory {
    /// PostgreSQL has ended.
    pub(super) fn forget_postgres(&mut self) {
        (self.in_effect, self.waits) = (None, None);
    }

    /// Records the names in effect, and cancelled waits.
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
        // Nothing that could have ended a wait has changed, so a session that no longer waits was cancelled.
        if let Some(before) = before.filter(|before| before.is_for_the_same(&waits)) {
            self.cancelled += before.sessions.difference(&waits.sessions).count() as u64;
        }
        self.waits = (sql.is_primary() && !waits.sessions.is_empty()).then_some(waits);
    }
}
