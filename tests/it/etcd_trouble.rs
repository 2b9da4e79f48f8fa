//! etcd restarts, freezes, is stopped, or is reached through an endpoint that never answers.

use std::time::Duration;

use serde_json::json;

use crate::support::{BlackHole, Cluster, Member, Plan, Writer, merge};

/// etcd is killed and started again. Leases outlive that, and so does the primary: same postmaster, same timeline.
#[tokio::test]
async fn a_restart_of_etcd_causes_no_failover() {
    let mut cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.etcd.kill();
    cluster.etcd.start_again().await;
    writer.wait_for_more(100, Duration::from_secs(20)).await;
    assert_undisturbed(&cluster, before).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// etcd is frozen for half a TTL. The primary serves throughout.
#[tokio::test]
async fn a_freeze_shorter_than_the_ttl_causes_no_failover() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let before = cluster.members[0].postmaster();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.etcd.freeze();
    cluster
        .stays(Duration::from_secs(5), "m1 serves", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    cluster.etcd.thaw();
    writer.wait_for_more(50, Duration::from_secs(10)).await;
    assert_undisturbed(&cluster, before).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// One of three etcd servers, each in turn, accepts connections and never answers. The lease is renewed through the
/// others for longer than two TTLs.
#[tokio::test]
async fn one_dead_endpoint_of_three_causes_no_failover() {
    let mut cluster = Plan::new(2).etcd(3).start().await;
    let before = cluster.members[0].postmaster();
    for server in 0..3 {
        cluster.etcd.freeze_one(server);
        cluster
            .stays(Duration::from_secs(11), "m1 leads", async || {
                cluster.members[0].status("/primary").await == 200
            })
            .await;
        cluster.etcd.restart_one(server).await;
    }
    assert_undisturbed(&cluster, before).await;
}

/// The members know one of three etcd servers. They have the others from etcd, and go on when the one that they know
/// accepts connections and never answers.
#[tokio::test]
async fn members_go_on_without_the_only_endpoint_that_they_know() {
    let mut cluster = Plan::new(2).etcd(3).prepare().await;
    let known = cluster.etcd.hosts()[0].clone();
    for member in &cluster.members {
        let mut config = member.read_config();
        merge(&mut config, &json!({ "etcd3": { "hosts": known } }));
        member.write_config(&config);
    }
    cluster.start().await;
    for member in &cluster.members {
        let has = async || member.log_text().matches("etcd announces another endpoint").count() == 2;
        cluster.wait_until(Duration::from_secs(20), "both are announced", has).await;
    }
    let before = cluster.members[0].postmaster();
    cluster.etcd.freeze_one(0);
    cluster
        .stays(Duration::from_secs(25), "m1 leads", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
    cluster.etcd.restart_one(0).await;
    assert_undisturbed(&cluster, before).await;
}

/// The first host in the configuration never answers: the member starts, leads, and stays leader through the other.
#[tokio::test]
async fn a_member_starts_despite_an_endpoint_that_never_answers() {
    let mut cluster = Plan::new(1).prepare().await;
    let hole = BlackHole::open();
    let mut config = cluster.members[0].read_config();
    let hosts = [vec![hole.host()], cluster.etcd.hosts()].concat();
    merge(&mut config, &json!({ "etcd3": { "hosts": hosts } }));
    cluster.members[0].write_config(&config);
    cluster.members[0].start();
    cluster.wait_until_well().await;
    cluster
        .stays(Duration::from_secs(11), "m1 leads", async || {
            cluster.members[0].status("/primary").await == 200
        })
        .await;
}

/// etcd is down for longer than the TTL. The primary stops accepting writes before its lease can have run out, and
/// accepts them again when etcd is back.
#[tokio::test]
async fn without_etcd_the_primary_steps_down_and_comes_back() {
    let mut cluster = Plan::new(2).start().await;
    for member in &mut cluster.members {
        member.expected_errors.push("etcd".to_owned());
    }
    cluster.etcd.kill();
    cluster
        .wait_until(Duration::from_secs(20), "m1 takes no writes", async || {
            cluster.members[0].sql("CREATE TABLE IF NOT EXISTS writable ()").await.is_err()
        })
        .await;
    assert_eq!(cluster.members[0].status("/primary").await, 503);
    cluster.etcd.start_again().await;
    cluster.wait_until_well().await;
}

/// An etcd that accepts no writes.
const QUOTA: u64 = 4 << 20;

async fn is_primary(member: &Member) -> bool {
    member.status("/primary").await == 200
}

async fn metric(member: &Member, name: &str) -> String {
    let page = member.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
    let line = page.lines().find(|line| line.split('{').next() == Some(name)).unwrap_or_default();
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// A cluster of two members with a full etcd; returned once the primary reports that.
async fn full() -> Cluster {
    let cluster = Plan::new(2).etcd_quota(QUOTA).start().await;
    cluster.etcd.fill().await;
    // A position to publish.
    cluster.members[0].sql("CREATE TABLE before_it_was_full ()").await.expect("it takes writes");
    let said = "etcd refuses writes";
    cluster
        .wait_until(Duration::from_secs(15), "the primary says that etcd takes no writes", async || {
            cluster.members[0].log_text().contains(said)
        })
        .await;
    cluster
}

/// etcd serves reads and renews leases, but refuses writes. The primary continues, reports it, and is not stopped for a
/// switchover. When its postmaster is killed, more often than the crash budget allows, it keeps the key, because no
/// other member could take it, and goes on in place, which needs no write.
#[tokio::test]
async fn a_full_etcd_causes_no_failover() {
    let cluster = full().await;
    let primary = &cluster.members[0];
    assert_eq!(metric(primary, "matriarch_etcd_writes_refused").await, "1");
    let state = primary.get("/patroni").await.expect("it answers").json();
    let refused = state["etcd_writes_refused"].as_str().unwrap_or_default();
    assert!(refused.contains("database space exceeded"), "{state}");
    let listed = primary.command(&["list"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("etcd refuses writes"), "{listed}");
    let before = primary.postmaster();
    let order = json!({ "leader": "m1", "candidate": "m2" });
    let answer = primary.post("/switchover", &order).await;
    assert_ne!(answer.status, 200, "{}", answer.body);
    assert!(is_primary(primary).await, "{}", cluster.story());
    assert_eq!(primary.postmaster(), before, "nothing was stopped");
    let key = cluster.etcd.get("/service/herd/leader").await;
    for _crash in 0..4 {
        let before = primary.postmaster();
        primary.kill_postmaster();
        cluster
            .wait_until(Duration::from_secs(30), "the leader is back", async || {
                primary.postmaster().is_some_and(|pid| Some(pid) != before) && is_primary(primary).await
            })
            .await;
        assert_eq!(cluster.etcd.get("/service/herd/leader").await, key, "the key is not given to nobody");
    }
    cluster.etcd.free().await;
    cluster
        .wait_until(Duration::from_secs(20), "writes are taken again", async || {
            metric(primary, "matriarch_etcd_writes_refused").await == "0" && is_primary(primary).await
        })
        .await;
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
}

/// Nothing is written in the meantime: an idle primary notices on its own.
#[tokio::test]
async fn an_idle_primary_sees_that_etcd_is_no_longer_full() {
    let cluster = full().await;
    cluster.etcd.free().await;
    cluster
        .wait_until(Duration::from_secs(20), "writes are taken again", async || {
            metric(&cluster.members[0], "matriarch_etcd_writes_refused").await == "0"
        })
        .await;
}

/// A primary that is ended while etcd is full stops PostgreSQL and exits, and its key is removed.
#[tokio::test]
async fn a_full_etcd_does_not_delay_a_shutdown() {
    let mut cluster = full().await;
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(30)).await, Some(0), "{}", cluster.story());
    assert_eq!(cluster.members[0].postmaster(), None);
    assert_eq!(cluster.etcd.get("/service/herd/leader").await, None);
    assert_eq!(cluster.etcd.get("/service/herd/members/m1").await, None);
    cluster.etcd.free().await;
    cluster.wait_for_successor(0, Duration::from_secs(20)).await;
}

async fn assert_undisturbed(cluster: &Cluster, postmaster: Option<u32>) {
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    assert_eq!(cluster.members[0].postmaster(), postmaster, "Postgres was not restarted");
}
