//! Members that run Patroni itself beside ours: the same files, the same data directories, the same keys in etcd.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan, Writer};

/// What both accept: Patroni takes no shorter TTL.
fn plan() -> Plan {
    let dynamic = json!({ "ttl": 20, "loop_wait": 2, "retry_timeout": 3 });
    Plan::new(3).dynamic(dynamic)
}

/// A cluster of Patroni, `m1` leading.
async fn of_patroni(plan: Plan) -> Cluster {
    let mut cluster = plan.prepare().await;
    cluster.members[0].start_patroni();
    cluster.wait_for(Duration::from_secs(60), "m1 leads", |seen| seen.leader() == Some("m1")).await;
    for member in &mut cluster.members[1..] {
        member.start_patroni();
    }
    cluster.first_timeline = cluster.wait_until_well().await.timeline();
    cluster
}

/// Ends a member that does not lead, and starts the other program on its directory.
async fn replace(cluster: &mut Cluster, index: usize, by_patroni: bool) {
    let created_at = cluster.members[index].created_at();
    let member = &mut cluster.members[index];
    member.terminate();
    assert_eq!(member.exit_code(Duration::from_secs(30)).await, Some(0), "{}", member.name);
    if by_patroni {
        member.start_patroni()
    } else {
        member.start()
    }
    cluster.wait_until_well().await;
    assert_eq!(cluster.members[index].created_at(), created_at, "nothing is cloned");
}

async fn switch_over(cluster: &Cluster, from: usize, to: usize) {
    let name = |index: usize| cluster.members[index].name.clone();
    let body = json!({ "leader": name(from), "candidate": name(to) });
    let answer = cluster.members[from].post("/switchover", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(name(to).as_str()));
}

/// Member by member, the primary last by a switchover, and all the way back, while a client writes.
#[tokio::test]
async fn a_cluster_of_patroni_is_taken_over_and_given_back() {
    let mut cluster = of_patroni(plan()).await;
    let seen = cluster.members[1].command(&["observe", "--once"]).await;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let would = seen.lines().next().and_then(|line| line.split_once("  m1 leads; if it were lost, "));
    assert!(
        would.is_some_and(|(_, would)| would.starts_with('m') && would.ends_with(" would lead")),
        "{seen}"
    );
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    for (by_patroni, from, to) in [(false, 0, 1), (true, 1, 0)] {
        let before = writer.interruptions();
        for index in [2, to] {
            replace(&mut cluster, index, by_patroni).await;
        }
        writer.wait_for_more(20, Duration::from_secs(20)).await;
        assert_eq!(writer.interruptions(), before, "the primary serves while its standbys are exchanged");
        switch_over(&cluster, from, to).await;
        writer.wait_for_more(20, Duration::from_secs(20)).await;
        let by_switchover = writer.interruptions();
        replace(&mut cluster, from, by_patroni).await;
        writer.wait_for_more(20, Duration::from_secs(20)).await;
        assert_eq!(writer.interruptions(), by_switchover, "the former primary is exchanged as a standby");
    }
    writer.stop_and_verify(&cluster.members[0]).await;
}

async fn stays_primary_without_etcd(cluster: &mut Cluster) {
    cluster
        .wait_until(Duration::from_secs(30), "the key `failsafe` names all members", async || {
            let key = cluster.etcd.get("/service/herd/failsafe").await.unwrap_or_default();
            ["m1", "m2", "m3"].iter().all(|member| key.contains(member))
        })
        .await;
    let before = cluster.members[0].postmaster();
    cluster.etcd.kill();
    cluster
        .stays(Duration::from_secs(30), "m1 serves", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    cluster.etcd.start_again().await;
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.timeline(), cluster.members[0].postmaster()), (cluster.first_timeline, before));
}

/// A primary of one program asks standbys of both while etcd is down for longer than the TTL.
#[tokio::test]
async fn failsafe_mode_works_between_both() {
    let mut cluster = of_patroni(plan().dynamic(json!({ "failsafe_mode": true }))).await;
    replace(&mut cluster, 1, false).await;
    stays_primary_without_etcd(&mut cluster).await;
    switch_over(&cluster, 0, 1).await;
    replace(&mut cluster, 0, false).await;
    switch_over(&cluster, 1, 0).await;
    replace(&mut cluster, 1, true).await;
    cluster.first_timeline = cluster.wait_until_well().await.timeline();
    stays_primary_without_etcd(&mut cluster).await;
}
