//! Synchronous replication: no acknowledged commit is lost, whichever member dies, and no member leads unless the key
//! permits it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, Writer, connect, settings};

/// Of `Plan::new`.
const TTL: Duration = Duration::from_secs(5);
/// The limit until a change of roles is in the promise.
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

async fn start(members: usize, mode: &str, more: Value) -> Cluster {
    let plan = Plan::new(members).dynamic(json!({ "synchronous_mode": mode })).dynamic(more);
    plan.start().await
}

async fn key(cluster: &Cluster) -> Value {
    let text = cluster.etcd.get("/service/herd/sync").await;
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
}

/// Waits until the key has this leader, quorum and standbys.
async fn promises(cluster: &Cluster, leader: &str, quorum: u64, standbys: Value) {
    let expected = json!({ "leader": leader, "quorum": quorum, "sync_standby": standbys });
    let what = format!("the key sync says {expected}");
    cluster.wait_until(SETTLES_WITHIN, &what, async || key(cluster).await == expected).await;
}

async fn names(cluster: &Cluster, index: usize) -> String {
    cluster.members[index].value("SHOW synchronous_standby_names").await
}

/// Waits: a voter is written to etcd first, and named in PostgreSQL afterwards.
async fn named(cluster: &Cluster, expected: &str) {
    let named = async || names(cluster, 0).await == expected;
    cluster.wait_until(Duration::from_secs(20), "synchronous_standby_names", named).await;
}

async fn pause_between_rows(writer: &Writer) {
    writer.wait_for_more(20, Duration::from_secs(20)).await;
}

fn others(cluster: &Cluster, leader: usize) -> String {
    let names = cluster.members.iter().enumerate().filter(|(index, _)| *index != leader);
    names.map(|(_, member)| member.name.as_str()).collect::<Vec<_>>().join(",")
}

/// Whichever member leads, and however the previous leader ended: every acknowledged row is there in the end.
#[tokio::test]
async fn in_mode_quorum_no_acknowledged_row_is_lost() {
    let mut cluster = start(3, "quorum", json!({})).await;
    promises(&cluster, "m1", 1, json!("m2,m3")).await;
    named(&cluster, "ANY 1 (m2,m3)").await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    pause_between_rows(&writer).await;

    cluster.members[0].kill_postmaster();
    let second = cluster.wait_for_successor(0, TTL).await;
    assert!(
        cluster.members[0].log_text().contains("a synchronous standby has every acknowledged commit"),
        "{}",
        cluster.story()
    );
    pause_between_rows(&writer).await;
    cluster.wait_until_well().await;
    let name = cluster.members[second].name.clone();
    promises(&cluster, &name, 1, json!(others(&cluster, second))).await;

    cluster.members[second].kill_all();
    let third = cluster.wait_for_successor(second, TTL * 4).await;
    pause_between_rows(&writer).await;
    cluster.members[second].start();
    cluster.wait_until_well().await;
    let name = cluster.members[third].name.clone();
    promises(&cluster, &name, 1, json!(others(&cluster, third))).await;
    writer.stop_and_verify(&cluster.members[third]).await;
}

/// Dead members are removed from the promise, so that commits continue; after the last one the primary is alone.
#[tokio::test]
async fn synchronous_standbys_are_added_and_removed() {
    let mut cluster = start(3, "quorum", json!({})).await;
    promises(&cluster, "m1", 1, json!("m2,m3")).await;
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    cluster.members[2].kill_all();
    promises(&cluster, "m1", 0, json!("m2")).await;
    named(&cluster, "ANY 1 (m2)").await;
    cluster.members[1].kill_all();
    promises(&cluster, "m1", 0, Value::Null).await;
    pause_between_rows(&writer).await;
    named(&cluster, "").await;
    cluster.members[1].start();
    cluster.members[2].start();
    promises(&cluster, "m1", 1, json!("m2,m3")).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// Only the synchronous standby may follow a dead leader; the other one waits, unless an operator requests it.
#[tokio::test]
async fn a_member_that_the_sync_key_does_not_list_never_leads() {
    let mut cluster = start(3, "on", json!({})).await;
    cluster
        .wait_until(SETTLES_WITHIN, "one standby is synchronous", async || {
            key(&cluster).await["sync_standby"].as_str().is_some_and(|names| !names.contains(','))
        })
        .await;
    let chosen = key(&cluster).await["sync_standby"].as_str().map(|name| cluster.index(name)).expect("one");
    let asynchronous = 3 - chosen;
    named(&cluster, &cluster.members[chosen].name).await;
    cluster.members[chosen].kill_all();
    cluster.members[0].kill_all();
    cluster
        .stays(TTL * 3, "the asynchronous standby does not lead", async || {
            cluster.members[asynchronous].status("/primary").await != 200
        })
        .await;
    let log = cluster.members[asynchronous].log_text();
    assert!(log.contains("does not list this member"), "{}", cluster.story());
    let name = cluster.members[asynchronous].name.clone();
    let body = json!({ "candidate": name });
    let answer = cluster.members[asynchronous].post("/failover", &body).await;
    assert!(answer.status == 200 || answer.status == 202, "{answer:?}");
    cluster.wait_for(TTL * 2, "it leads", |seen| seen.leader() == Some(name.as_str())).await;
    cluster.members[0].start();
    cluster.members[chosen].start();
    cluster.wait_until_well().await;
}

/// In mode on a planned hand-over goes to a synchronous standby, unless an operator requests a failover to another one.
#[tokio::test]
async fn a_failover_to_an_asynchronous_standby_is_a_hand_over_while_the_leader_lives() {
    let cluster = start(3, "on", json!({})).await;
    cluster
        .wait_until(SETTLES_WITHIN, "one standby is synchronous", async || {
            key(&cluster).await["sync_standby"].as_str().is_some_and(|names| !names.contains(','))
        })
        .await;
    let chosen = key(&cluster).await["sync_standby"].as_str().map(|name| cluster.index(name)).expect("one");
    let name = cluster.members[3 - chosen].name.clone();
    let body = json!({ "leader": "m1", "candidate": name });
    let refused = cluster.members[0].post("/switchover", &body).await;
    assert_eq!(refused.status, 412, "{}", refused.body);
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    writer.wait_for_more(10, SETTLES_WITHIN).await;
    let answer = cluster.members[0].post("/failover", &json!({ "candidate": name })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(name.as_str()));
    writer.wait_for_more(10, SETTLES_WITHIN).await;
    writer.stop_and_verify(&cluster.members[3 - chosen]).await;
}

/// A primary that crashed and comes back alone may have commits that no standby has: clients cannot read them before a
/// standby has them.
#[tokio::test]
async fn clients_are_locked_out_until_the_standbys_have_caught_up() {
    let mut cluster = start(2, "quorum", json!({ "synchronous_mode_strict": true })).await;
    promises(&cluster, "m1", 0, json!("m2")).await;
    let created = cluster.members[0].sql("CREATE ROLE app LOGIN PASSWORD 'app'; CREATE TABLE kept ()").await;
    created.expect("m1 takes writes");
    let client = async |cluster: &Cluster| {
        let mut settings = settings(&[cluster.members[0].postgres]);
        connect(settings.user("app").password("app")).await.is_ok()
    };
    assert!(client(&cluster).await, "{}", cluster.story());
    cluster.members[1].kill_all();
    cluster.members[0].kill_postmaster();
    cluster
        .wait_until(TTL * 3, "m1 says why nobody gets in", async || {
            cluster.members[0].log_text().contains("clients are locked out")
        })
        .await;
    cluster.stays(TTL, "no client gets in", async || !client(&cluster).await).await;
    cluster.members[1].start();
    cluster.wait_until(TTL * 4, "clients get in", async || client(&cluster).await).await;
    cluster.wait_until_well().await;
}

/// A synchronous standby that is to shut down is removed from the promise first: no commit waits for it.
#[tokio::test]
async fn a_stopping_standby_delays_no_commit() {
    let mut cluster = start(3, "on", json!({ "loop_wait": 10 })).await;
    cluster
        .wait_until(SETTLES_WITHIN, "one standby is synchronous", async || {
            key(&cluster).await["sync_standby"].as_str().is_some_and(|names| !names.contains(','))
        })
        .await;
    let chosen = key(&cluster).await["sync_standby"].as_str().map(|name| cluster.index(name)).expect("one");
    let other = cluster.members[3 - chosen].name.clone();
    let writer = Writer::start(&cluster.members[0], cluster.ports()).await;
    pause_between_rows(&writer).await;
    cluster.members[chosen].terminate();
    assert_eq!(cluster.members[chosen].exit_code(TTL * 4).await, Some(0), "{}", cluster.story());
    let gone = cluster.members[chosen].name.clone();
    assert_ne!(key(&cluster).await["sync_standby"], json!(gone), "it went before it was let go");
    promises(&cluster, "m1", 0, json!(other)).await;
    pause_between_rows(&writer).await;
    writer.stop_and_verify(&cluster.members[0]).await;
}

/// The mode is changed while running; the operator's own value returns when the mode is off.
#[tokio::test]
async fn modes_are_changed_while_it_runs() {
    let parameters =
        json!({ "postgresql": { "parameters": { "synchronous_standby_names": "ANY 1 (nobody, m2)" } } });
    let cluster = start(2, "off", parameters).await;
    cluster
        .wait_until(SETTLES_WITHIN, "the operator's value", async || {
            names(&cluster, 0).await == "ANY 1 (nobody, m2)"
        })
        .await;
    assert_eq!(key(&cluster).await, Value::Null);
    for (mode, quorum, value) in [("on", 0, "m2"), ("quorum", 0, "ANY 1 (m2)")] {
        let answer =
            cluster.members[0].send("PATCH", "/config", Some(&json!({ "synchronous_mode": mode }))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        cluster.wait_until(SETTLES_WITHIN, value, async || names(&cluster, 0).await == value).await;
        promises(&cluster, "m1", quorum, json!("m2")).await;
    }
    cluster.members[0].send("PATCH", "/config", Some(&json!({ "synchronous_mode": null }))).await;
    cluster
        .wait_until(SETTLES_WITHIN, "the operator's value, and no key", async || {
            names(&cluster, 0).await == "ANY 1 (nobody, m2)" && key(&cluster).await == Value::Null
        })
        .await;
}

/// Sessions that do not wait for a standby, or no longer do, are reported.
#[tokio::test]
async fn commits_that_did_not_wait_are_reported() {
    let mut cluster = start(2, "quorum", json!({ "synchronous_mode_strict": true })).await;
    promises(&cluster, "m1", 0, json!("m2")).await;
    let sql = "CREATE ROLE hasty; ALTER ROLE hasty SET synchronous_commit = off; CREATE TABLE told (id int)";
    cluster.members[0].sql(sql).await.expect("m1 takes writes");
    cluster
        .wait_until(SETTLES_WITHIN, "the role is listed", async || {
            let body = cluster.members[0].get("/patroni").await.map(|answer| answer.json());
            body.is_some_and(|body| body["unsynchronous"] == json!(["role hasty"]))
        })
        .await;
    cluster.members[1].kill_all();
    let client = connect(&settings(&[cluster.members[0].postgres])).await.expect("m1 answers");
    let cancel = client.cancel_token();
    let commit = tokio::spawn(async move { client.batch_execute("INSERT INTO told VALUES (1)").await });
    let metrics = async |name: &str| {
        let page = cluster.members[0].get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
        let line = page.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    cluster
        .wait_until(SETTLES_WITHIN, "the supervisor sees that the commit waits", async || {
            metrics("matriarch_sync_waiting").await == "1"
        })
        .await;
    assert_eq!(metrics("matriarch_sync_waits_cancelled_total").await, "0");
    cancel.cancel_query(tokio_postgres::NoTls).await.expect("m1 answers");
    commit.await.expect("it ends").expect("PostgreSQL says that it is committed");
    cluster
        .wait_until(SETTLES_WITHIN, "the cancelled wait is counted", async || {
            metrics("matriarch_sync_waits_cancelled_total").await == "1"
        })
        .await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
}
