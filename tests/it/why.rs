//! `matriarch why` after real changes of leadership: a reader names the cause from the text alone.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Plan, until};

/// What a member's `why` prints, once it says all of `words`.
async fn why(cluster: &Cluster, member: usize, more: &[&str], words: &[&str]) -> String {
    told(cluster, member, &[&["why"], more].concat(), words).await
}

/// What a member's command prints, once it says all of `words`. Lines are joined, and the text fits in 80 columns.
async fn told(cluster: &Cluster, member: usize, command: &[&str], words: &[&str]) -> String {
    let mut last = String::new();
    let said = async || {
        let output = cluster.members[member].command(command).await;
        last =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let joined = last.split_whitespace().collect::<Vec<_>>().join(" ");
        words.iter().all(|word| joined.contains(word.trim())).then_some(())
    };
    let told = until(Duration::from_secs(20), said).await;
    println!("{last}");
    assert!(told.is_some(), "not all of {words:?} in\n{last}\n{}", cluster.story());
    assert!(last.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{last}");
    last
}

/// The whole member is killed. It cannot say anything; the new leader tells what it saw. When the member is back, the
/// advice changes.
#[tokio::test]
async fn a_killed_member_is_named_by_its_successor() {
    let mut cluster = Plan::new(3).start().await;
    cluster.members[0].kill_all();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let new = cluster.members[successor].name.clone();
    let headline = format!("failover: {new} leads in place of m1");
    why(&cluster, successor, &[], &[&headline, "m1 fell silent and its lease ended", "m1 is not back: it"])
        .await;
    cluster.members[0].start();
    cluster.wait_until_well().await;
    let text = why(&cluster, 0, &[], &[&headline]).await;
    assert!(!text.contains("not back:"), "{text}");

    // The same as JSON, by its id, by its time, in the list, and from the file beside the data directory.
    let output = cluster.members[0].command(&["why", "--output", "json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (term, at) = (json["term"].to_string(), json["at"].as_str().expect("a time").to_owned());
    why(&cluster, 0, &["--id", &term], &[&headline]).await;
    why(&cluster, 0, &["--at", &at], &[&headline]).await;
    let list = why(&cluster, 0, &["--all"], &[&headline, "m1 became the first leader of the cluster"]).await;
    assert!(list.find("first leader") < list.find(&headline), "the oldest is first: {list}");
    let file = format!("{}.matriarch-journal", cluster.members[successor].data().display());
    why(&cluster, successor, &["--file", &file], &[&headline]).await;
    let output = cluster.members[0].command(&["why", "--id", "1"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

/// The supervisor and PostgreSQL stand still for longer than the lease. The member tells it itself afterwards.
#[tokio::test]
async fn a_frozen_member_names_itself() {
    let cluster = Plan::new(2).start().await;
    cluster.members[0].signal_all(Signal::SIGSTOP);
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.members[0].signal_all(Signal::SIGCONT);
    cluster.wait_until_well().await;
    why(&cluster, 1, &[], &["m2 leads in place of m1", "m1 was frozen: its supervisor did not run for"])
        .await;
}

/// Both records of a switchover: what the old leader did, and what the new one did.
#[tokio::test]
async fn a_switchover_names_the_operator() {
    let cluster = Plan::new(2).start().await;
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = cluster.members[1].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", cluster.story());
    cluster.wait_until_well().await;
    let words = [
        "switchover: m1 handed the leadership over to m2",
        "matriarch, REST from 127.0.0.1) asked for a switchover from m1 to m2",
        "stopping PostgreSQL to hand over to m2",
        "nothing: the old leader stopped cleanly",
    ];
    why(&cluster, 0, &[], &words).await;
}

/// The supervisor of the leader ends: its record comes from its last second.
#[tokio::test]
async fn an_ending_supervisor_names_its_end() {
    let mut cluster = Plan::new(2).start().await;
    cluster.members[0].terminate();
    let code = cluster.members[0].exit_code(Duration::from_secs(30)).await;
    assert_eq!(code, Some(0), "{}", cluster.story());
    cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    why(&cluster, 1, &[], &["m1 handed the leadership over to m2", "the supervisor of m1 was asked to end"])
        .await;
}

/// PostgreSQL of the leader crashes more often than is allowed.
#[tokio::test]
async fn a_crash_loop_is_named() {
    let cluster = Plan::new(2).dynamic(json!({ "ttl": 30 })).start().await;
    let mut killed = None;
    let crashes = async || {
        let leader = cluster.seen().await?.leader()?.to_owned();
        if leader != "m1" {
            return Some(());
        }
        let postmaster = cluster.members[0].postmaster().filter(|pid| Some(*pid) != killed)?;
        cluster.members[0].kill_postmaster();
        killed = Some(postmaster);
        None
    };
    until(Duration::from_secs(60), crashes).await.expect("m2 leads");
    cluster.wait_until_writable(1, Duration::from_secs(30)).await;
    why(&cluster, 1, &[], &["m2 leads in place of m1", "PostgreSQL on m1 crashed again and again"]).await;
}

/// `explain` while all is well, and when the members that confirm commits are lost.
#[tokio::test]
async fn explain_names_the_leader_and_who_is_waited_for() {
    let dynamic = json!({ "synchronous_mode": "quorum" });
    let mut cluster = Plan::new(3).dynamic(dynamic).start().await;
    let words = ["herd: m1 leads", "accepts writes", "renews it every 1.2 s (TTL 5 s)", "m2", "following m1"];
    told(&cluster, 1, &["explain"], &words).await;
    let quorum = "all others are quorum standbys";
    cluster
        .wait_for(Duration::from_secs(30), quorum, |seen| {
            seen.members().iter().filter(|member| member["role"] == "quorum_standby").count() == 2
        })
        .await;
    cluster.members[0].kill_all();
    cluster.members[2].kill_all();
    let words =
        ["herd: nobody leads, so no writes are accepted", "Waits for ", "matriarch failover --candidate m2"];
    told(&cluster, 1, &["explain"], &words).await;
    let output = cluster.members[1].command(&["explain", "--output", "json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&json["leader"], &json["scope"]), (&Value::Null, &json!("herd")), "{json}");
    cluster.members[2].start();
    cluster.wait_for(Duration::from_secs(60), "m2 or m3 leads", |seen| seen.leader().is_some()).await;
    told(&cluster, 1, &["explain"], &["accepts writes", "in place of m1"]).await;
}
