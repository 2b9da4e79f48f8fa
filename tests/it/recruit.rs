//! A dead leader is replaced before its lease ends, by the standbys' promises.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Cluster, Plan, Proxy, Writer};

const SOON: Duration = Duration::from_secs(30);

fn plan() -> Plan {
    let settings = json!({"synchronous_mode": "quorum", "failover": "recruit", "ttl": 20, "loop_wait": 10});
    Plan::new(3).dynamic(settings)
}

/// All members hear their leader, and both standbys are synchronous.
async fn begin() -> Cluster {
    let cluster = plan().start().await;
    wait_until_heard(&cluster).await;
    cluster
}

async fn wait_until_heard(cluster: &Cluster) {
    for standby in 1..3 {
        cluster
            .wait_until(SOON, "the standby hears its leader", async || {
                let answer = cluster.members[standby].get("/patroni").await;
                answer.is_some_and(|answer| answer.json()["leader_heartbeats"]["state"] == "heard")
            })
            .await;
    }
    cluster
        .wait_until(SOON, "two synchronous standbys", async || {
            let sync = cluster.etcd.get("/service/herd/sync").await.unwrap_or_default();
            sync.contains("m2,m3")
        })
        .await;
}

/// All processes of the primary are killed at once while a client writes. Nothing that was acknowledged is lost, and
/// the former leader's lease is still there when its successor serves.
#[tokio::test]
async fn a_dead_leader_is_replaced_while_its_lease_lives() {
    let mut cluster = begin().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(50, SOON).await;
    cluster.members[0].kill_all();
    let successor = cluster.wait_for_successor(0, SOON).await;
    assert!(cluster.etcd.get("/service/herd/members/m1").await.is_some(), "its lease has ended");
    assert_eq!(cluster.etcd.get("/service/herd/recruit").await, None);
    let other = 3 - successor;
    writer.wait_for_more(50, SOON).await;
    assert!(cluster.members[other].log_text().contains("promised"), "{}", cluster.members[other].log_text());
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(seen.timeline(), cluster.first_timeline + 1);
    writer.stop_and_verify(&cluster.members[successor]).await;
}

/// All of PostgreSQL is stopped, and its supervisor works: it gives the leader key away as soon as others would suspect
/// a dead machine.
#[tokio::test]
async fn a_leader_whose_postgres_is_stopped_hands_over_soon() {
    let cluster = begin().await;
    let leader = &cluster.members[0];
    leader.signal_postgres(Signal::SIGSTOP);
    let successor = cluster.wait_for_successor(0, SOON).await;
    let log = leader.log_text();
    assert!(log.contains("all of its processes are stopped, for 0.6 s"), "{log}");
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
}

/// The leader is cut off from everything but its clients: for all it knows, others have replaced it.
#[tokio::test]
async fn a_leader_that_nothing_reaches_lets_no_clients_in() {
    let mut cluster = plan().prepare().await;
    let proxy = Proxy::before_etcd_of(&cluster, 0).await;
    cluster.start().await;
    wait_until_heard(&cluster).await;
    proxy.cut();
    for other in 1..3 {
        cluster.members[other].kill_all();
    }
    let leader = &cluster.members[0];
    let refused = async || leader.status("/primary").await == 503;
    cluster.wait_until(SOON, "clients are not let in", refused).await;
    let lease_lives = cluster.etcd.get("/service/herd/leader").await.is_some_and(|leader| leader == "m1");
    assert!(
        lease_lives && leader.log_text().contains("cut off from etcd, from all members"),
        "{}",
        leader.log_text()
    );
    proxy.mend();
    let let_in = async || leader.status("/primary").await == 200;
    cluster.wait_until(SOON, "etcd says that it leads", let_in).await;
}
