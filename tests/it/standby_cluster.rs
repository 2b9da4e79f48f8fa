//! Standby clusters: a whole cluster follows a primary outside of it.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Plan, Seen, query};

/// Long enough for a bootstrap or a clone on a busy machine.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The cluster with the remote primary.
async fn remote() -> Cluster {
    let remote = Plan::new(1).start().await;
    remote.wait_until_writable(0, STARTS_WITHIN).await;
    query(remote.members[0].postgres, "CREATE TABLE words (word text)").await.expect("a primary");
    remote
}

fn section(remote: &Cluster) -> Value {
    json!({ "standby_cluster": {
        "host": "127.0.0.1", "port": remote.members[0].postgres,
        "archive_cleanup_command": "true", "recovery_min_apply_delay": "10ms",
    } })
}

/// The leader of a standby cluster, once it and `size - 1` others stream.
fn standby_leader(seen: &Seen, size: usize) -> Option<&str> {
    let streams = |member: &&Value| member["state"] == "streaming";
    let leader = seen.members().iter().find(|member| member["role"] == "standby_leader")?;
    let well = seen.members().iter().filter(streams).count() == size && seen.members().len() == size;
    leader["name"].as_str().filter(|_| well)
}

/// A row that is written on the remote primary arrives at every member.
async fn arrives(remote: &Cluster, cluster: &Cluster, word: &str) {
    let insert = format!("INSERT INTO words VALUES ('{word}')");
    query(remote.members[0].postgres, &insert).await.expect("a primary");
    let select = format!("SELECT FROM words WHERE word = '{word}'");
    for member in &cluster.members {
        let what = format!("the word {word} is on {}", member.name);
        cluster.wait_for_row(Duration::from_secs(20), &what, member.postgres, &select).await;
    }
}

/// Two members are made from the remote primary, and follow it: one streams from it, the other from that one.
#[tokio::test]
async fn a_standby_cluster_is_made_from_a_remote_primary() {
    let remote = remote().await;
    let mut cluster = Plan::new(2).dynamic(section(&remote)).prepare().await;
    cluster.members[0].start();
    cluster
        .wait_for(STARTS_WITHIN, "m1 leads the standby cluster", |seen| standby_leader(seen, 1) == Some("m1"))
        .await;
    cluster.members[1].start();
    cluster.wait_for(STARTS_WITHIN, "m2 follows it", |seen| standby_leader(seen, 2) == Some("m1")).await;
    arrives(&remote, &cluster, "made").await;
    let leader = &cluster.members[0];
    for (path, status) in [
        ("/standby-leader", 200),
        ("/leader", 200),
        ("/primary", 503),
        ("/replica", 503),
        ("/read-write", 503),
        ("/read-only", 200),
    ] {
        assert_eq!(leader.status(path).await, status, "{path}\n{}", cluster.story());
    }
    assert_eq!(cluster.members[1].status("/replica").await, 200);
    assert_eq!(cluster.members[1].status("/standby-leader").await, 503);
    let answer = leader.get("/patroni").await.expect("an answer").json();
    assert_eq!(answer["role"], "standby_leader", "{answer}");
    for (member, delay) in cluster.members.iter().zip(["10ms", "0"]) {
        for (parameter, value) in [("archive_cleanup_command", "true"), ("recovery_min_apply_delay", delay)] {
            let what = format!("{parameter} is {value} on {}", member.name);
            let sql = format!("SELECT WHERE current_setting('{parameter}') = '{value}'");
            cluster.wait_for_row(Duration::from_secs(20), &what, member.postgres, &sql).await;
        }
    }
    let sources = query(cluster.members[1].postgres, "SELECT sender_port FROM pg_stat_wal_receiver").await;
    assert_eq!(sources, Ok(vec![vec![leader.postgres.to_string()]]));
}

/// Its users can do nothing but replicate on the remote primary.
#[tokio::test]
async fn a_remote_primary_that_admits_only_replication_is_followed() {
    let remote = remote().await;
    let stranger = json!({ "postgresql": { "authentication": { "rewind": { "username": "stranger" } } } });
    let mut cluster = Plan::new(1).dynamic(section(&remote)).all(stranger).prepare().await;
    cluster.members[0].start();
    cluster.wait_for(STARTS_WITHIN, "m1 leads", |seen| standby_leader(seen, 1) == Some("m1")).await;
    arrives(&remote, &cluster, "replicated").await;
}

/// Both members of a standby cluster, `m1` leading.
async fn follows(remote: &Cluster) -> Cluster {
    let mut cluster = Plan::new(2).dynamic(section(remote)).prepare().await;
    cluster.members[0].start();
    cluster.wait_for(STARTS_WITHIN, "m1 leads", |seen| standby_leader(seen, 1) == Some("m1")).await;
    cluster.members[1].start();
    cluster.wait_for(STARTS_WITHIN, "m2 follows", |seen| standby_leader(seen, 2) == Some("m1")).await;
    cluster
}

/// Leadership moves by a switchover and by the death of the leader; no member is promoted, and WAL goes on arriving.
#[tokio::test]
async fn a_standby_cluster_changes_its_leader_without_a_promotion() {
    let remote = remote().await;
    let mut cluster = follows(&remote).await;
    let pid = cluster.members[0].postmaster();
    let answer = cluster.members[1].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_for(STARTS_WITHIN, "m2 leads", |seen| standby_leader(seen, 2) == Some("m2")).await;
    assert_eq!(cluster.members[0].postmaster(), pid, "no PostgreSQL was stopped");
    arrives(&remote, &cluster, "switched").await;
    cluster.members[1].kill_all();
    let leads = |seen: &Seen| {
        seen.members().iter().any(|member| member["name"] == "m1" && member["role"] == "standby_leader")
    };
    cluster.wait_for(STARTS_WITHIN, "m1 leads again", leads).await;
    cluster.members[1].start();
    cluster.wait_for(STARTS_WITHIN, "both run", |seen| standby_leader(seen, 2) == Some("m1")).await;
    arrives(&remote, &cluster, "killed").await;
    for member in &cluster.members {
        let timelines = query(member.postgres, "SELECT timeline_id FROM pg_control_checkpoint()").await;
        let theirs =
            query(remote.members[0].postgres, "SELECT timeline_id FROM pg_control_checkpoint()").await;
        assert_eq!(timelines, theirs, "{}", member.name);
    }
}

/// A standby cluster becomes one of its own, writes, and goes back behind the remote primary, which does not have what
/// was written meanwhile.
#[tokio::test]
async fn a_standby_cluster_is_promoted_and_demoted_again() {
    let remote = remote().await;
    let cluster = follows(&remote).await;
    arrives(&remote, &cluster, "before").await;
    let output = cluster.members[1].command(&["promote-cluster", "--force"]).await;
    assert!(output.status.success(), "{output:?}\n{}", cluster.story());
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"));
    let written = query(cluster.members[0].postgres, "INSERT INTO words VALUES ('own')").await;
    assert_eq!(written, Ok(vec![]), "{}", cluster.story());
    query(remote.members[0].postgres, "INSERT INTO words VALUES ('theirs')").await.expect("a primary");
    let port = remote.members[0].postgres.to_string();
    let words = ["demote-cluster", "--host", "127.0.0.1", "--port", &port, "--force"];
    let output = cluster.members[1].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", cluster.story());
    cluster.wait_for(STARTS_WITHIN, "both follow again", |seen| standby_leader(seen, 2) == Some("m1")).await;
    arrives(&remote, &cluster, "after").await;
    for member in &cluster.members {
        let rows = query(member.postgres, "SELECT word FROM words ORDER BY word").await;
        let words = ["after", "before", "theirs"].map(|word| vec![word.to_owned()]);
        assert_eq!(rows, Ok(words.to_vec()), "{}", member.name);
    }
    let answer = cluster.members[0].get("/patroni").await.expect("an answer").json();
    assert_eq!(answer["role"], "standby_leader", "{answer}");
}

/// Its postmaster forks no more: another member leads, and the frozen one comes back behind it.
#[tokio::test]
async fn a_standby_leader_that_is_frozen_is_replaced() {
    let remote = remote().await;
    let cluster = follows(&remote).await;
    let frozen = cluster.members[0].postmaster().expect("it runs");
    cluster.members[0].signal_process(frozen, Signal::SIGSTOP);
    cluster.wait_for(STARTS_WITHIN, "m2 leads", |seen| standby_leader(seen, 2) == Some("m2")).await;
    assert_ne!(cluster.members[0].postmaster(), Some(frozen));
    arrives(&remote, &cluster, "thawed").await;
}

/// The remote primary is the leader of a cluster, and dies: the standby cluster goes on behind its successor, on
/// another timeline.
#[tokio::test]
async fn a_failover_of_the_remote_primary_is_followed() {
    let mut remote = Plan::new(2).start().await;
    query(remote.members[0].postgres, "CREATE TABLE words (word text)").await.expect("a primary");
    let ports = remote.ports().iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let section = json!({ "standby_cluster": { "host": "127.0.0.1,127.0.0.1", "port": ports } });
    let mut cluster = Plan::new(1).dynamic(section).prepare().await;
    cluster.members[0].start();
    cluster.wait_for(STARTS_WITHIN, "m1 leads", |seen| standby_leader(seen, 1) == Some("m1")).await;
    arrives(&remote, &cluster, "before").await;
    remote.members[0].kill_all();
    let successor = remote.wait_for_successor(0, STARTS_WITHIN).await;
    let insert = "INSERT INTO words VALUES ('after')";
    query(remote.members[successor].postgres, insert).await.expect("a primary");
    let select = "SELECT FROM words WHERE word = 'after'";
    cluster.wait_for_row(STARTS_WITHIN, "the word is here", cluster.members[0].postgres, select).await;
    cluster.wait_for(STARTS_WITHIN, "m1 leads still", |seen| standby_leader(seen, 1) == Some("m1")).await;
}
