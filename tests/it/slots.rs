//! Replication slots: permanent ones, and those that belong to nobody.

use std::time::Duration;

use serde_json::json;

use crate::support::{Cluster, Plan};

mod failover;

/// Barman's slot and others on the primary; then another member leads. Unused slots that would retain WAL for ever are
/// dropped, and slots that a setting names stay. Until then a metric shows how much WAL each retains.
#[tokio::test]
async fn unused_slots_on_a_former_primary_are_dropped_unless_configured() {
    let settings = json!({
        "slots": { "kept": { "type": "physical" } },
        "ignore_slots": [{ "type": "logical", "plugin": "test_decoding" }, { "name": "ignored" }],
        "postgresql": { "parameters": { "wal_level": "logical" } },
    });
    let cluster = Plan::new(2).dynamic(settings).start().await;
    let m1 = &cluster.members[0];
    wait_for_slots(&cluster, 0, "kept, m2").await;
    for slot in ["barman", "ignored"] {
        let made = m1.sql(&format!("SELECT pg_create_physical_replication_slot('{slot}', true)")).await;
        made.expect("m1 leads");
    }
    let made = "SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')";
    m1.sql(made).await.expect("m1 leads");
    m1.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("m1 leads");
    let sample = "slot=\"barman\"} ";
    cluster
        .wait_until(Duration::from_secs(20), "the metric says what barman holds", async || {
            let page = m1.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
            let line = page
                .lines()
                .find(|line| line.starts_with("matriarch_slot_wal_bytes{") && line.contains(sample));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .is_some_and(|bytes| bytes > 10_000)
        })
        .await;
    let answer = m1.post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    wait_for_slots(&cluster, 0, "decoded, ignored, kept, m2").await;
    let here = "the slots that a setting names stay";
    cluster
        .stays(Duration::from_secs(4), here, async || {
            slots(&cluster, 0).await == "decoded, ignored, kept, m2"
        })
        .await;
    let log = m1.log_text();
    assert!(log.contains("nobody uses these replication slots") && log.contains("barman"), "{log}");
    assert!(log.contains("dropped a replication slot"), "{log}");
}

/// A permanent physical slot is on every member, and follows on the standbys what its reader has confirmed on the
/// leader. It outlives a failover, and goes when its setting goes. A faulty setting is refused with its key.
#[tokio::test]
async fn a_permanent_physical_slot_outlives_a_failover() {
    let settings = json!({ "slots": { "barman": { "type": "physical" } } });
    let mut cluster = Plan::new(3).dynamic(settings).start().await;
    for (index, names) in [(0, "barman, m2, m3"), (1, "barman, m1, m3"), (2, "barman, m1, m2")] {
        wait_for_slots(&cluster, index, names).await;
    }
    let m1 = &cluster.members[0];
    m1.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS id").await.expect("m1 leads");
    let read = "SELECT end_lsn FROM pg_replication_slot_advance('barman', pg_current_wal_flush_lsn())";
    let confirmed = m1.value(read).await;
    let behind = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE restart_lsn < '{confirmed}' AND slot_name = 'barman'"
    );
    for index in [1, 2] {
        let what = format!("barman's slot on {} follows", cluster.members[index].name);
        let follows = async || cluster.members[index].value(&behind).await == "0";
        cluster.wait_until(Duration::from_secs(20), &what, follows).await;
    }
    cluster.members[0].kill_all();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    assert_eq!(cluster.members[successor].value(&behind).await, "0");
    cluster.members[0].start();
    cluster.wait_until_well().await;
    wait_for_slots(&cluster, 0, "barman, m2, m3").await;
    let wrong = json!({ "slots": { "Bar-man": {}, "lg": { "type": "logical" } } });
    let answer = cluster.members[0].send("PATCH", "/config", Some(&wrong)).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("slots.Bar-man") && answer.body.contains("slots.lg"), "{}", answer.body);
    let answer = cluster.members[0].send("PATCH", "/config", Some(&json!({ "slots": null }))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let gone = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'barman'";
    for member in &cluster.members {
        let what = format!("barman's slot on {} is gone", member.name);
        cluster.wait_until(Duration::from_secs(20), &what, async || member.value(gone).await == "0").await;
    }
}

/// A permanent logical slot: the standby gets a copy and moves it. After the leader's death its reader goes on with the
/// new leader without a gap, and the member that comes back gets a copy again.
#[tokio::test]
async fn a_logical_reader_goes_on_after_a_failover_without_a_gap() {
    let settings = json!({
        "slots": { "lg": { "type": "logical", "database": "postgres", "plugin": "test_decoding" } },
        "postgresql": { "parameters": { "wal_level": "logical" } },
    });
    let mut cluster = Plan::new(2).dynamic(settings).start().await;
    wait_for_slots(&cluster, 0, "lg, m2").await;
    let m1 = &cluster.members[0];
    m1.sql("CREATE TABLE t (id int PRIMARY KEY)").await.expect("m1 leads");
    // A clone has WAL from its own beginning only: a slot that needs older WAL is of no use to it.
    cluster
        .wait_until(Duration::from_secs(60), "m2 has a copy of the slot", async || {
            m1.sql("CHECKPOINT").await.expect("m1 leads");
            assert_eq!(read_ids(&cluster, 0).await, Vec::<i32>::new());
            slots(&cluster, 1).await == "lg, m1"
        })
        .await;
    m1.sql("INSERT INTO t SELECT generate_series(1, 100)").await.expect("m1 leads");
    let mut read = read_ids(&cluster, 0).await;
    assert_eq!(read, (1..=100).collect::<Vec<_>>());
    let confirmed =
        m1.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'lg'").await;
    m1.sql("INSERT INTO t SELECT generate_series(101, 200)").await.expect("m1 leads");
    let follows = format!(
        "SELECT confirmed_flush_lsn = '{confirmed}' FROM pg_replication_slots WHERE slot_name = 'lg'"
    );
    let end = m1.value("SELECT pg_current_wal_flush_lsn()").await;
    let received = format!("SELECT '{end}' <= pg_last_wal_receive_lsn()");
    let standby = &cluster.members[1];
    cluster
        .wait_until(Duration::from_secs(30), "the copy on m2 follows", async || {
            standby.value(&follows).await == "t" && standby.value(&received).await == "t"
        })
        .await;
    // The standby's feedback goes to the leader every 10 s.
    let safe = "the readers of these logical replication slots can go on here";
    cluster
        .wait_until(Duration::from_secs(40), "the copy on m2 is safe", async || {
            standby.log_text().contains(safe)
        })
        .await;
    assert_eq!(standby.value("SHOW hot_standby_feedback").await, "on");
    cluster.members[0].kill_all();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    let m2 = &cluster.members[successor];
    assert!(!m2.log_text().contains("promoted without these logical"), "{}", m2.log_text());
    m2.sql("INSERT INTO t SELECT generate_series(201, 300)").await.expect("m2 leads");
    read.extend(read_ids(&cluster, successor).await);
    assert_eq!(read, (1..=300).collect::<Vec<_>>(), "no gap, and nothing twice");
    cluster.members[0].start();
    cluster.wait_until_well().await;
    wait_for_slots(&cluster, 0, "lg, m2").await;
    let m2 = &cluster.members[successor];
    m2.sql("INSERT INTO t SELECT generate_series(301, 400)").await.expect("m2 leads");
    let answer = m2.post("/switchover", &json!({ "leader": "m2", "candidate": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    // What was confirmed within the last `loop_wait` may come again.
    let read = read_ids(&cluster, 0).await;
    assert!(read.ends_with(&(301..=400).collect::<Vec<_>>()), "{read:?}");
}

/// What a reader gets from the slot, which then counts as read.
async fn read_ids(cluster: &Cluster, index: usize) -> Vec<i32> {
    let text = "SELECT substring(data FROM 'id\\[integer\\]:(\\d+)') FROM pg_logical_slot_get_changes('lg', NULL, NULL)
                 WHERE data LIKE 'table public.t: INSERT%'";
    let rows = cluster.members[index].sql(text).await.expect("the slot is here");
    rows.iter().map(|row| row[0].parse().expect("a number")).collect()
}

async fn slots(cluster: &Cluster, index: usize) -> String {
    let text = "SELECT string_agg(slot_name, ', ' ORDER BY slot_name) FROM pg_replication_slots";
    cluster.members[index].value(text).await
}

async fn wait_for_slots(cluster: &Cluster, index: usize, names: &str) {
    let what = format!("{} has the slots {names}", cluster.members[index].name);
    cluster.wait_until(Duration::from_secs(20), &what, async || slots(cluster, index).await == names).await;
}
