//! The configuration that lives in etcd, applied while running.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Plan, Writer};

/// One change holds a parameter that a reload applies and one that needs a restart. The first is in force everywhere;
/// the second shows as pending, with its reason, until the operator restarts.
#[tokio::test]
async fn a_reload_applies_what_it_can_and_the_rest_is_pending() {
    let cluster = Plan::new(2).start().await;
    let change = json!({ "postgresql": { "parameters": { "work_mem": "7MB", "max_connections": 120 } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["postgresql"]["parameters"]["max_connections"], 120);
    for member in &cluster.members {
        let what = format!("{} uses the new work_mem", member.name);
        cluster
            .wait_until(Duration::from_secs(20), &what, async || member.value("SHOW work_mem").await == "7MB")
            .await;
        assert_eq!(member.value("SHOW max_connections").await, "100", "not before a restart");
    }
    let pending = |seen: &crate::support::Seen| {
        let reason = |name| seen.member(name).pointer("/pending_restart_reason/max_connections").cloned();
        ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] == true && reason(name).is_some())
    };
    cluster.wait_for(Duration::from_secs(20), "both show the pending restart", pending).await;
    for member in cluster.members.iter().rev() {
        let answer = member.post("/restart", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(member.value("SHOW max_connections").await, "120");
    }
    let done = |seen: &crate::support::Seen| {
        seen.is_well(2) && ["m1", "m2"].iter().all(|name| seen.member(name)["pending_restart"] != true)
    };
    cluster.wait_for(Duration::from_secs(30), "nothing is pending", done).await;
}

/// `matriarch edit-config` and `show-config`: what was set is what is shown, and a null removes it.
#[tokio::test]
async fn the_command_line_edits_and_shows() {
    let cluster = Plan::new(1).start().await;
    let member = &cluster.members[0];
    let output = member.command(&["edit-config", "-s", "loop_wait=3", "-s", "my.key=text", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let output = member.command(&["show-config", "-o", "json"]).await;
    let shown: Value = serde_json::from_slice(&output.stdout).expect("show-config prints JSON");
    assert_eq!((&shown["loop_wait"], &shown["my"]["key"]), (&json!(3), &json!("text")), "{shown}");
    let output = member.command(&["edit-config", "-s", "my.key=null", "--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let config = member.get("/config").await.expect("it answers").json();
    assert_eq!((config.get("my"), &config["loop_wait"]), (None, &json!(3)), "{config}");
}

/// A `pg_hba` from etcd that Postgres cannot read must not lock the cluster out: it goes on serving, through a crash,
/// too.
#[tokio::test]
async fn a_broken_pg_hba_does_not_take_the_cluster_down() {
    let rules = [
        "local all all scram-sha-256",
        "host replication all 127.0.0.1/32 scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
    ];
    let mut cluster = Plan::new(2)
        .all(json!({ "postgresql": { "pg_hba": null } }))
        .dynamic(json!({ "postgresql": { "pg_hba": rules } }))
        .start()
        .await;
    for member in &mut cluster.members {
        member.expected_errors.push("hba".to_owned());
    }
    let broken = json!({ "postgresql": { "pg_hba": ["hostt all nonsense"] } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&broken)).await;
    if answer.status == 200 {
        cluster
            .stays(Duration::from_secs(6), "both serve", async || {
                cluster.members[0].value("SELECT 1").await == "1"
                    && cluster.members[1].value("SELECT 1").await == "1"
            })
            .await;
        cluster.members[0].kill_postmaster();
        cluster.wait_until_well().await;
        cluster.wait_until_writable(cluster.leader().await, Duration::from_secs(30)).await;
    } else {
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

/// The TTL goes up and down under a primary that serves: its key moves from lease to lease, and no client notices.
#[tokio::test]
async fn another_ttl_costs_no_primary() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 10 })).start().await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    let postmaster = cluster.members[0].postmaster();
    for ttl in [60, 3, 60] {
        let answer = cluster.members[0].send("PATCH", "/config", Some(&json!({ "ttl": ttl }))).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let moved = async || cluster.etcd.ttl("/service/herd/leader").await == Some(ttl);
        cluster
            .wait_until(Duration::from_secs(20), &format!("the key hangs on a lease of {ttl} s"), moved)
            .await;
        writer.wait_for_more(20, Duration::from_secs(10)).await;
    }
    let seen = cluster.wait_until_well().await;
    assert_eq!((seen.leader(), seen.timeline()), (Some("m1"), cluster.first_timeline));
    assert_eq!(cluster.members[0].postmaster(), postmaster);
    let history = writer.stop_and_verify(&cluster.members[0]).await;
    assert!(history.unknown.is_empty(), "no client was disturbed: {:?}", history.unknown);
}
