//! etcd is restored from an older state, or emptied and filled again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, Writer};

/// The content of etcd from the time when m1 led; since then another member took over, and m1 has received none of its
/// WAL.
struct Story {
    cluster: Cluster,
    writer: Writer,
    /// The keys and values of the time when m1 led.
    copy: Vec<(String, String)>,
}

impl Story {
    /// A snapshot is taken while m1 leads. Another member takes over, m1 confirms nothing and is cut off, rows are
    /// written, and etcd is down for longer than the TTL.
    async fn begins() -> Story {
        let plan = Plan::new(3).dynamic(json!({ "synchronous_mode": true }));
        let mut cluster = plan.member(0, json!({ "tags": { "nosync": true } })).start().await;
        for member in &mut cluster.members {
            member.expected_errors.push("etcd".to_owned());
        }
        let second = confirmer_of(&cluster, "m1").await;
        cluster.etcd.save_snapshot();
        let mut copy = Vec::new();
        for key in ["initialize", "config", "history", "leader", "sync"] {
            let path = format!("/service/herd/{key}");
            copy.extend(cluster.etcd.get(&path).await.map(|value| (path, value)));
        }

        let body = json!({ "leader": "m1", "candidate": second });
        let answer = cluster.members[0].post("/switchover", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        cluster.wait_until_well().await;
        assert_ne!(confirmer_of(&cluster, &second).await, "m1");
        cluster.members[0].cut_off().await;
        let leader = cluster.index(&second);
        // A PostgreSQL that is cut off accepts connections and does not answer: the client does not connect to it.
        let writer = Writer::start(&cluster.members[leader], cluster.ports()[1..].to_vec()).await;
        writer.wait_for_more(200, Duration::from_secs(60)).await;

        cluster.etcd.kill();
        let probe = "CREATE TABLE IF NOT EXISTS writable ()";
        cluster
            .wait_until(Duration::from_secs(30), "nobody takes writes", async || {
                cluster.members[leader].sql(probe).await.is_err()
            })
            .await;
        Story { cluster, writer, copy }
    }

    /// A member other than m1 leads, every acknowledged row is there, and the event was logged.
    async fn ends_well(self) {
        let Story { cluster, writer, copy: _ } = self;
        cluster.members[0].go_on();
        let seen = cluster.wait_until_well().await;
        let now = cluster.index(seen.leader().expect("it is well"));
        writer.stop_and_verify(&cluster.members[now]).await;
        assert_ne!(now, 0, "m1 lacks rows: {}", cluster.story());
        let said = |member: &crate::support::Member| member.log_text().contains("store went back in time");
        assert!(cluster.members.iter().any(said), "somebody says what happened: {}", cluster.story());
        cluster
            .wait_until(Duration::from_secs(10), "the leader confirms the generation", async || {
                let metrics = cluster.members[now].get("/metrics").await.map_or(String::new(), |it| it.body);
                let is_zero = |name: &str| {
                    metrics.lines().find(|line| line.starts_with(name)).map(|line| line.ends_with(" 0"))
                };
                is_zero("matriarch_store_unsettled") == Some(true)
                    && is_zero("matriarch_store_generations") == Some(false)
            })
            .await;
    }
}

async fn promise(cluster: &Cluster) -> Value {
    let text = cluster.etcd.get("/service/herd/sync").await;
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// Waits until the promise names one standby of this leader; returns its name.
async fn confirmer_of(cluster: &Cluster, leader: &str) -> String {
    let mut name = String::new();
    let what = format!("a standby confirms for {leader}");
    cluster
        .wait_until(Duration::from_secs(30), &what, async || {
            let key = promise(cluster).await;
            let standby = key["sync_standby"].as_str().unwrap_or_default().to_owned();
            key["leader"] == leader && !standby.is_empty() && !standby.contains(',')
        })
        .await;
    name.push_str(promise(cluster).await["sync_standby"].as_str().expect("it was a text"));
    name
}

/// etcd comes back from the snapshot, with m1's own valid lease on the leader key and a promise that names m1. No row
/// is lost.
#[tokio::test]
async fn a_restored_snapshot_loses_no_acknowledged_row() {
    let mut story = Story::begins().await;
    story.cluster.etcd.restore_snapshot();
    story.cluster.etcd.start_again().await;
    story.ends_well().await;
}

/// etcd comes back empty, and an operator restores the keys from the time when m1 led: the leader key, on no lease, and
/// a promise that names m1. No row is lost, whether members look before or after it.
#[tokio::test]
async fn a_wiped_and_refilled_etcd_loses_no_acknowledged_row() {
    let mut story = Story::begins().await;
    story.cluster.etcd.wipe();
    story.cluster.etcd.start_again().await;
    for (key, value) in &story.copy {
        story.cluster.etcd.put(key, value).await;
    }
    story.ends_well().await;
}
