//! The check before a switchover, against real servers.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Cluster, Plan, connect, settings};

const WITHIN: Duration = Duration::from_secs(30);

/// The findings of `GET /switchover/check` at the leader.
async fn findings(cluster: &Cluster) -> Vec<Value> {
    let answer = cluster.members[0].get("/switchover/check?candidate=m2").await.expect("m1 answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().as_array().expect("a list").clone()
}

/// Waits for a finding with this verdict and these words.
async fn wait_for(cluster: &Cluster, what: &str, verdict: &str, words: &str) -> Value {
    let found = std::cell::RefCell::new(Value::Null);
    cluster
        .wait_until(WITHIN, &format!("{what} {verdict}: {words}"), async || {
            let all = findings(cluster).await;
            let finding = all.into_iter().find(|it| {
                it["what"] == what
                    && it["verdict"] == verdict
                    && it["text"].as_str().is_some_and(|text| text.contains(words))
            });
            finding.is_some_and(|finding| {
                *found.borrow_mut() = finding;
                true
            })
        })
        .await;
    found.into_inner()
}

async fn delay_replay(cluster: &Cluster, delay: Value) {
    let change = json!({ "postgresql": { "recovery_conf": { "recovery_min_apply_delay": delay } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&change)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A healthy cluster has nothing in the way. Then a long transaction, a prepared one, a logical slot that the candidate
/// does not have and a late replay are each named with their numbers, and nothing is done.
#[tokio::test]
async fn the_check_names_what_a_switchover_would_meet() {
    let dynamic = json!({
        "ignore_slots": [{ "name": "cdc" }],
        "postgresql": { "parameters": { "wal_level": "logical", "max_prepared_transactions": 5 } },
    });
    let cluster = Plan::new(2).dynamic(dynamic).start().await;
    let m1 = &cluster.members[0];
    cluster
        .wait_until(WITHIN, "nothing is in the way", async || {
            let output = m1.command(&["switchover", "--check"]).await;
            output.status.success() && output.stdout.ends_with(b"Nothing is in the way.\n")
        })
        .await;
    m1.sql("CREATE TABLE t (id int)").await.expect("m1 leads");
    m1.sql("SELECT pg_create_logical_replication_slot('cdc', 'test_decoding')").await.expect("m1 leads");
    wait_for(&cluster, "logical_slot", "warns", "m2 has no copy of the logical slot cdc").await;

    let client = connect(&settings(&[m1.postgres])).await.expect("m1 answers");
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.expect("m1 leads");
    m1.sql("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'two'").await.expect("m1 leads");
    let prepared = wait_for(&cluster, "prepared_transactions", "warns", "`two`").await;
    assert_eq!((&prepared["value"], &prepared["unit"]), (&json!(1), &json!("transactions")));
    let long = wait_for(&cluster, "long_transaction", "warns", "postgres in postgres is").await;
    assert!(long["value"].as_u64() >= long["limit"].as_u64(), "{long}");

    delay_replay(&cluster, json!("1h")).await;
    wait_for(&cluster, "replay_held", "warns", "m2 replays 3600.0 s late").await;
    // Replay waits at the first commit, and the rest is behind it.
    for rows in [1, 400_000] {
        m1.sql(&format!("INSERT INTO t SELECT generate_series(1, {rows})")).await.expect("m1 leads");
    }
    let lag = wait_for(&cluster, "replay_lag", "warns", "m2 has to replay").await;
    assert_eq!(lag["unit"], "bytes", "{lag}");
    wait_for(&cluster, "replay_delay", "warns", "ago").await;
    wait_for(&cluster, "free_space", "fine", "are free in").await;

    let output = m1.command(&["switchover", "--candidate", "m2", "--check"]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "nothing refuses: {output:?}");
    for words in ["| prepared transactions |", "recovery_min_apply_delay", "long transaction"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    client.batch_execute("COMMIT").await.expect("its transaction was left alone");
    m1.sql("COMMIT PREPARED 'two'").await.expect("m1 still leads");
    delay_replay(&cluster, Value::Null).await;
    cluster.wait_until_well().await;
}

/// A candidate that lacks more WAL than may be lost is refused by the check and by the switchover, for the same reason.
#[tokio::test]
async fn the_check_refuses_by_the_rule_of_the_switchover() {
    let cluster = Plan::new(2).start().await;
    let (m1, m2) = (&cluster.members[0], &cluster.members[1]);
    let receiver = std::cell::Cell::new(0);
    cluster
        .wait_until(WITHIN, "m2 receives", async || {
            let pid = m2.value("SELECT max(pid) FROM pg_stat_wal_receiver WHERE status = 'streaming'").await;
            receiver.set(pid.parse().unwrap_or_default());
            receiver.get() != 0
        })
        .await;
    let receiver = receiver.get();
    m2.signal_process(receiver, Signal::SIGSTOP);
    // More than the sender and the kernel hold for a receiver that does not read.
    m1.sql("CREATE TABLE t AS SELECT generate_series(1, 400000) AS id").await.expect("m1 leads");
    let candidate = wait_for(&cluster, "candidate", "refuses", "bytes behind").await;
    let lag = wait_for(&cluster, "receive_lag", "refuses", "wait until it is nearer").await;
    assert!(lag["value"].as_u64() > lag["limit"].as_u64(), "{lag}");
    let output = m1.command(&["switchover", "--check", "-o", "json"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(printed.as_array().is_some_and(|all| all.iter().any(|it| it["verdict"] == "refuses")));

    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let reason = candidate["text"].as_str().and_then(|text| text.split_once(" bytes ")).expect("a reason").1;
    assert!(answer.body.contains(reason), "{} has not: {reason}", answer.body);
    m2.signal_process(receiver, Signal::SIGCONT);
    assert_eq!(cluster.wait_until_well().await.leader(), Some("m1"));
}
