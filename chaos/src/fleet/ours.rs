//! Our members, as etcd knows them: the product's own lease, view and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use matriarch::etcd::{self, Etcd, EtcdSetup, LeaseHooks, LeaseKeeper, PromisingMembers};
use matriarch::model::{
    ClusterStatus, FailsafeMembers, Leading, LeaseFacts, Lsn, MemberName, MemberRecord,
    TakeLeadershipPreconditions, View,
};
use serde_json::json;
use tokio::sync::watch;

use super::{Arguments, CLUSTER};

/// Where every member's WAL ends.
const POSITION: u64 = 83_886_176;

/// A member. It is gone with this.
pub(super) struct FleetMember {
    _keeper: LeaseKeeper,
    _view: watch::Receiver<Option<View>>,
    _relist: watch::Sender<Duration>,
}

/// Starts all of them.
pub(super) async fn start(arguments: &Arguments, port: u16) -> Result<Vec<FleetMember>> {
    let mut members = Vec::new();
    for index in 0..arguments.members {
        members.push(member(arguments, port, index).await.with_context(|| format!("member {index}"))?);
    }
    Ok(members)
}

async fn member(arguments: &Arguments, port: u16, index: usize) -> Result<FleetMember> {
    let base = format!("/service/c{}/", index / CLUSTER);
    let endpoints = vec![format!("http://127.0.0.1:{port}")];
    let etcd = Etcd::connect(EtcdSetup { endpoints, base, ..EtcdSetup::default() })?;
    let name = MemberName::new(format!("m{index}"))?;
    let (relist, relist_every) = watch::channel(Duration::from_secs(arguments.loop_wait));
    let view = etcd::watch(etcd.clone(), relist_every);
    let keeper = etcd::keep_lease(&etcd, Duration::from_secs(arguments.ttl), None, hooks())?;
    let mut facts = keeper.facts();
    let lease = facts.wait_for(|facts| facts.lease.is_some()).await?.lease.context("there is a lease")?;
    let record: MemberRecord = serde_json::from_value(record(index))?;
    etcd.commit(&etcd.keys().publish_member(&name, lease, &record)).await?;
    if index.is_multiple_of(CLUSTER) {
        let none =
            TakeLeadershipPreconditions { sync: 0, unfenced: 0, failsafe: 0, unlocked: 0, deposes: None };
        etcd.commit(&etcd.keys().take_leadership(&name, lease, none)).await?;
        keeper.renew_now();
        let leading = |facts: &LeaseFacts| matches!(facts.leading, Leading::Yes(_));
        if let Leading::Yes(term) = facts.wait_for(leading).await?.leading {
            let status = ClusterStatus { optime: Some(Lsn(POSITION)), ..ClusterStatus::default() };
            etcd.commit(&etcd.keys().publish_status((term, lease), &status)).await?;
        }
    }
    Ok(FleetMember { _keeper: keeper, _view: view, _relist: relist })
}

/// As a member publishes itself.
fn record(index: usize) -> serde_json::Value {
    json!({
        "conn_url": format!("postgres://10.77.0.{}:5432/postgres", index % 250),
        "api_url": format!("http://10.77.0.{}:8008/patroni", index % 250),
        "state": "running", "role": if index.is_multiple_of(CLUSTER) { "primary" } else { "replica" },
        "version": "4.1.5", "xlog_location": POSITION, "timeline": 1,
    })
}

/// There is no guard and no PostgreSQL.
fn hooks() -> LeaseHooks {
    LeaseHooks {
        on_confirmed: Box::new(|_| {}),
        on_moving: Box::new(|_| true),
        withheld: Box::new(|| None),
        members: Box::new(NoFailsafe),
    }
}

struct NoFailsafe;

impl PromisingMembers for NoFailsafe {
    fn needed(&self, then: &mut dyn FnMut(&Option<FailsafeMembers>)) {
        then(&None);
    }

    fn ask(
        &self,
        _members: &FailsafeMembers,
        _first: &BTreeSet<MemberName>,
        _ttl: Duration,
        _within: Duration,
    ) -> std::pin::Pin<Box<dyn Future<Output = BTreeSet<MemberName>> + Send>> {
        Box::pin(std::future::ready(BTreeSet::new()))
    }
}
