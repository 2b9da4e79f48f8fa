//! The cluster at this moment: etcd's keys, and each member's own answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::wire;
use crate::model::{ClusterView, Guarantee, Lsn, MemberKey, MemberName};

/// What was found.
#[derive(Clone, Debug)]
pub struct ClusterNow {
    /// The cluster's name.
    pub scope: String,
    /// etcd's keys.
    pub view: ClusterView,
    /// The answer of each registered member to `GET /patroni`; `None`: none came.
    pub answers: BTreeMap<MemberName, Option<Value>>,
    /// How long etcd keeps the leader's lease yet, and its TTL.
    pub lease: Option<(Duration, Duration)>,
    /// etcd takes no writes.
    pub is_full: bool,
    /// The last change of leadership in the journal.
    pub last: Option<String>,
}

/// A member, by etcd and by its own answer.
#[derive(Clone, Copy, Debug)]
pub struct MemberNow<'a> {
    /// Its name.
    pub name: &'a MemberName,
    /// Its key; `None`: it is not registered.
    pub key: Option<&'a MemberKey>,
    answer: Option<&'a Value>,
}

impl ClusterNow {
    /// The members that are registered, and those that the key `sync` names and are not.
    pub fn members(&self) -> impl Iterator<Item = MemberNow<'_>> {
        let names: BTreeSet<&MemberName> = self.view.members.keys().chain(self.holders()).collect();
        names.into_iter().map(|name| self.member(name))
    }

    /// One member.
    pub fn member<'a>(&'a self, name: &'a MemberName) -> MemberNow<'a> {
        let answer = self.answers.get(name).and_then(Option::as_ref);
        MemberNow { name, key: self.view.members.get(name), answer }
    }

    /// The members that confirm commits, by the key `sync`, the leader among them.
    pub fn holders(&self) -> impl Iterator<Item = &MemberName> {
        let record = self.view.sync_record();
        record.into_iter().flat_map(|record| record.voters.iter().chain(&record.leader))
    }

    /// The guarantee in force, as a sentence.
    pub fn guarantee(&self) -> String {
        Guarantee::of(&wire::sync_settings(&self.view), &self.view).to_string()
    }
}

impl MemberNow<'_> {
    /// Whether its supervisor answers.
    pub fn answers(&self) -> bool {
        self.answer.is_some()
    }

    /// Its position, if its PostgreSQL answers.
    pub fn position(&self) -> Option<Lsn> {
        let xlog = self.answer?.get("xlog")?;
        let part = |key: &str| xlog.get(key).and_then(Value::as_u64);
        part("location").or_else(|| part("received_location").max(part("replayed_location"))).map(Lsn)
    }

    /// Its role and state, by its own answer, else by its key.
    pub fn role_and_state(&self) -> String {
        let word = |key: &str| self.answer?.get(key)?.as_str().map(str::to_owned);
        let by_key = self.key.map(|key| (key.record.role.to_string(), key.record.state.to_string()));
        let (role, state) = by_key.unzip();
        let role = word("role").or(role).unwrap_or_else(|| "not registered".to_owned());
        let state = word("replication_state").or_else(|| word("state")).or(state);
        [Some(role), state].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// The reason of its last decision, in its own words.
    pub fn because(&self) -> Option<&str> {
        self.answer?.get("because")?.as_str()
    }

    /// Whether it is a primary, by its own answer.
    pub fn is_primary(&self) -> Option<bool> {
        Some(self.answer?.get("role")? == "primary")
    }

    /// Whether it runs as a standby that can be compared with others.
    pub fn competes(&self) -> bool {
        self.is_primary() == Some(false) && self.position().is_some() && !self.has_nofailover()
    }

    /// Whether its tags keep it from leading.
    pub fn has_nofailover(&self) -> bool {
        self.key.is_some_and(|key| key.record.tags.nofailover())
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "answers": self.answers(),
            "role_and_state": self.role_and_state(),
            "position": self.position(),
            "because": self.because(),
        })
    }
}
