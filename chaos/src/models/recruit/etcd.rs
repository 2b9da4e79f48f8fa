//! What etcd holds. The transactions are the product's, the store is the simulation's.

use std::time::Duration;

use matriarch::core::store::{Compare, KeyChange, Keys, Txn};
use matriarch::model::{
    ClusterView, LeaseId, Outcome, RecruitWrite, SyncRecord, TakeLeadershipPreconditions, Term,
};

use super::Mutation;
use super::leader::LeaderView;
use super::standby::name;
use crate::models::control_file::SYSTEM_ID;
use crate::sim::clock::At;
use crate::sim::etcd::store::Store;

const TTL: Duration = Duration::from_secs(10);

/// The store, and what a member makes of it.
#[derive(Debug)]
pub(super) struct Etcd {
    store: Store,
    pub(super) cluster: ClusterView,
}

fn keys() -> Keys {
    Keys::new("/service/herd")
}

impl Etcd {
    /// Member 0 leads, the others are registered.
    pub(super) fn new(record: &SyncRecord) -> Etcd {
        let mut store = Store::default();
        let keys = keys();
        for index in 0..3 {
            let lease = store.grant(TTL, At(0));
            done(&mut store, register(index, lease));
        }
        let put = |key: &str, text: &str, lease| KeyChange::Put(keys.path(key), text.to_owned(), lease);
        let then = vec![
            put("initialize", &SYSTEM_ID.to_string(), None),
            put("config", "{}", None),
            put("leader", name(0).as_str(), Some(LeaseId(1))),
        ];
        done(&mut store, Txn { when: Vec::new(), then, ..register(0, 1) });
        let held = (Term(store.revision), LeaseId(1));
        done(&mut store, keys.write_sync(held, Some(record), 0));
        Etcd::of(store)
    }

    fn of(mut store: Store) -> Etcd {
        // Nobody watches.
        store.events.clear();
        let cluster = keys().view(&store.keys, store.revision).expect("every key is valid");
        Etcd { store, cluster }
    }

    /// The member of this lease is there.
    pub(super) fn lives(&self, lease: i64) -> bool {
        self.store.leases.contains_key(&lease)
    }

    /// The owner of the leader key.
    pub(super) fn is_led_by(&self, index: usize) -> bool {
        self.cluster.leader.as_ref().is_some_and(|leader| leader.name == name(index))
    }

    pub(super) fn seen_by_leader(&self) -> LeaderView {
        let key = self.cluster.leader.as_ref().filter(|leader| leader.name == name(0));
        LeaderView { term: key.map(|leader| leader.term), sync: self.cluster.sync.clone() }
    }

    /// Whether a write to the key `recruit` may succeed now or later: no revision of a key comes back.
    pub(super) fn may_do(&self, write: &RecruitWrite) -> bool {
        let attempt = self.cluster.recruit.as_ref().map_or(0, |key| key.attempt);
        match write {
            RecruitWrite::Withdraw { attempt: of } => *of == attempt,
            RecruitWrite::Begin { term, sync, over } => {
                let leads = self.cluster.leader.as_ref().is_some_and(|leader| leader.term == *term);
                let vouches = self.cluster.sync.as_ref().is_some_and(|key| key.mod_revision == *sync);
                leads && vouches && [0, attempt].contains(over)
            }
        }
    }

    /// The attempt that may succeed.
    pub(super) fn attempt(&self) -> Option<i64> {
        let term = self.cluster.leader.as_ref()?.term;
        self.cluster.recruit.as_ref().filter(|key| key.term == term).map(|key| key.attempt)
    }

    /// A lease ends, with every key on it.
    pub(super) fn end(&self, lease: i64) -> Etcd {
        let mut store = self.store.clone();
        store.revoke(lease);
        Etcd::of(store)
    }

    /// The member takes another lease, and registers again.
    pub(super) fn grant(&self, index: usize) -> (Etcd, i64) {
        let mut store = self.store.clone();
        let lease = store.grant(TTL, At(0));
        done(&mut store, register(index, lease));
        (Etcd::of(store), lease)
    }

    /// A transaction to take the leader key arrives.
    pub(super) fn take(
        &self,
        (index, lease): (usize, i64),
        by: TakeLeadershipPreconditions,
        mutation: Option<Mutation>,
    ) -> (Option<Etcd>, Outcome) {
        let mut txn = keys().take_leadership(&name(index), LeaseId(lease), by);
        if by.deposes.is_some() {
            let ignored = match mutation {
                Some(Mutation::DeposedOverOldSync) => Some(keys().path("sync")),
                Some(Mutation::DeposedWithoutAttempt) => Some(keys().path("recruit")),
                _ => None,
            };
            txn.when.retain(
                |compare| !matches!(compare, Compare::Revision(path, _) if Some(path) == ignored.as_ref()),
            );
        }
        self.commit(&txn)
    }

    /// A write to the key `recruit` arrives.
    pub(super) fn recruit(&self, (index, lease): (usize, i64), write: &RecruitWrite) -> Option<Etcd> {
        self.commit(&keys().write_recruit(&name(index), LeaseId(lease), write)).0
    }

    /// The leader's write to the key `sync` arrives.
    pub(super) fn sync(&self, term: Term, record: Option<&SyncRecord>, over: i64) -> Option<Etcd> {
        self.commit(&keys().write_sync((term, LeaseId(1)), record, over)).0
    }

    fn commit(&self, txn: &Txn) -> (Option<Etcd>, Outcome) {
        let mut store = self.store.clone();
        match store.txn(txn) {
            Ok((true, _)) => (Some(Etcd::of(store)), Outcome::Done),
            Ok((false, now)) if txn.evidence.is_shown_by(now.as_ref()) => (None, Outcome::Done),
            Ok((false, _)) => (None, Outcome::Lost),
            Err(_not_found) => (None, Outcome::LeaseGone),
        }
    }
}

fn register(index: usize, lease: i64) -> Txn {
    let name = name(index);
    let role = if index == 0 { "primary" } else { "replica" };
    let record = serde_json::json!({
        "conn_url": format!("postgres://{name}:5432/postgres"), "api_url": format!("http://{name}"),
        "state": "running", "role": role, "version": "4.1.5", "timeline": 1,
    });
    let record = serde_json::from_value(record).expect("a valid record");
    keys().publish_member(&name, LeaseId(lease), &record)
}

fn done(store: &mut Store, txn: Txn) {
    let (is_done, _now) = store.txn(&txn).expect("its lease is there");
    assert!(is_done, "the beginning is as described");
}
