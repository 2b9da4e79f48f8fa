//! Maintenance mode: no automatic action.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan, Proxy};

/// In pause a dead primary is neither started nor replaced; after the pause the cluster recovers on its own.
#[tokio::test]
async fn no_failover_in_pause_and_one_after_it() {
    let cluster = Plan::new(2).start().await;
    pause(&cluster).await;
    cluster.members[0].kill_postmaster();
    let down = async || cluster.members[0].postmaster().is_none();
    cluster.wait_until(Duration::from_secs(10), "the postmaster of m1 is gone", down).await;
    cluster
        .stays(Duration::from_secs(8), "no postmaster on m1, no promotion of m2", async || {
            cluster.members[0].postmaster().is_none()
                && cluster.members[1].value("SELECT pg_is_in_recovery()").await == "t"
        })
        .await;
    let output = cluster.members[1].command(&["resume", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    cluster.wait_until_well().await;
    cluster.wait_until_writable(cluster.leader().await, Duration::from_secs(30)).await;
}

/// Pauses the cluster, and waits until both members know.
async fn pause(cluster: &Cluster) {
    let output = cluster.members[1].command(&["pause", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let paused = |seen: &crate::support::Seen| seen.0["pause"] == true;
    cluster.wait_for(Duration::from_secs(10), "the pause is shown", paused).await;
    cluster
        .wait_until(Duration::from_secs(20), "both members know of the pause", async || {
            let mut known = true;
            for member in &cluster.members {
                known &= member.get("/patroni").await.is_some_and(|answer| answer.json()["pause"] == true);
            }
            known
        })
        .await;
}

/// In pause an operator may still choose another leader, by name and at once.
#[tokio::test]
async fn a_switchover_in_pause_needs_a_candidate_and_no_schedule() {
    let cluster = Plan::new(2).start().await;
    pause(&cluster).await;
    let ask = async |arguments: &[&str]| {
        let all = ["switchover", "--leader", "m1", "--force"].iter().chain(arguments).copied();
        let output = cluster.members[1].command(&all.collect::<Vec<_>>()).await;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    };
    let (done, text) = ask(&["--candidate", "m2", "--scheduled", "2099-01-01T00:00+00"]).await;
    assert!(!done && text.contains("Can't schedule switchover in the paused state"), "{text}");
    let (done, text) = ask(&[]).await;
    assert!(!done && text.contains("only to a specific candidate in a paused state"), "{text}");
    let (done, text) = ask(&["--candidate", "m2"]).await;
    assert!(done, "{text}\n{}", cluster.story());
    cluster.wait_until_writable(1, Duration::from_secs(10)).await;
    let follows = |seen: &crate::support::Seen| seen.0["members"][0]["state"] == "streaming";
    cluster.wait_for(Duration::from_secs(20), "m1 streams from m2", follows).await;
}

/// A supervisor that is ended in pause leaves its primary without a fence, and reports that. After the pause no member
/// is promoted beside it, not even by a failover that does not confirm that it is down. When its supervisor comes back,
/// it continues to lead.
#[tokio::test]
async fn no_member_is_promoted_beside_a_primary_that_was_left_running() {
    let mut cluster = Plan::new(2).start().await;
    pause(&cluster).await;
    let postmaster = cluster.members[0].postmaster();
    cluster.members[0].terminate();
    let ended = cluster.members[0].exit_code(Duration::from_secs(20)).await;
    assert_eq!(ended, Some(0), "{}", cluster.story());
    let named = |seen: &crate::support::Seen| seen.0["unfenced"]["m1"]["term"].is_u64();
    cluster.wait_for(Duration::from_secs(10), "m1 is named as left running", named).await;
    let output = cluster.members[1].command(&["resume", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let nobody = |seen: &crate::support::Seen| seen.leader().is_none() && seen.0.get("pause").is_none();
    cluster.wait_for(Duration::from_secs(20), "nobody leads", nobody).await;
    cluster
        .stays(Duration::from_secs(8), "m1 is primary, m2 is not", async || {
            cluster.members[0].postmaster() == postmaster
                && cluster.members[0].value("SELECT pg_is_in_recovery()").await == "f"
                && cluster.members[1].value("SELECT pg_is_in_recovery()").await == "t"
        })
        .await;
    let listed = cluster.members[1].command(&["list"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("m1 was left running as a primary in pause"), "{listed}");
    let refused = cluster.members[1].post("/failover", &json!({ "candidate": "m2" })).await;
    assert_eq!(refused.status, 412, "{}", refused.body);
    assert!(refused.body.contains("--confirm-down m1"), "{}", refused.body);
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
    let cleared = |seen: &crate::support::Seen| seen.0.get("unfenced").is_none();
    cluster.wait_for(Duration::from_secs(10), "m1 is named no more", cleared).await;
    assert_eq!(cluster.members[0].postmaster(), postmaster, "it was adopted");
}

/// The machine of a primary that was left running is lost; an operator confirms that, and the other member leads.
#[tokio::test]
async fn an_operator_confirms_that_a_primary_left_running_is_down() {
    let mut cluster = Plan::new(2).start().await;
    pause(&cluster).await;
    cluster.members[0].terminate();
    assert_eq!(cluster.members[0].exit_code(Duration::from_secs(20)).await, Some(0), "{}", cluster.story());
    cluster.members[0].kill_postmaster();
    let output = cluster.members[1].command(&["resume", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let words = ["failover", "--candidate", "m2", "--confirm-down", "m1", "--force"];
    cluster
        .wait_until(Duration::from_secs(60), "the failover is accepted", async || {
            cluster.members[1].command(&words).await.status.success()
        })
        .await;
    cluster.wait_until_writable(1, Duration::from_secs(30)).await;
    let cleared = |seen: &crate::support::Seen| seen.0.get("unfenced").is_none();
    cluster.wait_for(Duration::from_secs(10), "m1 is named no more", cleared).await;
}

/// The leader's machine is gone, and the other member's REST interface cannot be reached: the command line writes the
/// request to etcd.
#[tokio::test]
async fn a_failover_reaches_a_member_without_its_rest_interface() {
    let mut cluster = Plan::new(2).prepare().await;
    let proxy = Proxy::before(format!("127.0.0.1:{}", cluster.members[1].api)).await;
    let mut config = cluster.members[1].read_config();
    config["restapi"]["connect_address"] = json!(proxy.host);
    cluster.members[1].write_config(&config);
    cluster.start().await;
    pause(&cluster).await;
    proxy.cut();
    cluster.members[0].kill_all();
    cluster
        .wait_until(Duration::from_secs(20), "the leader key has expired", async || {
            cluster.etcd.get("/service/herd/leader").await.is_none()
        })
        .await;
    let output = cluster.members[1].command(&["failover", "--candidate", "m2", "--force"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}", cluster.story());
    assert!(said.contains("the request is written to etcd") && said.contains("m2 leads"), "{said}");
    cluster.wait_until_writable(1, Duration::from_secs(10)).await;
}
