//! The return of a member: by following, by rewind, by a new clone.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, PASSWORD, Plan, merge};

/// A standby was away while the primary wrote. It follows, with its old data directory.
#[tokio::test]
async fn a_standby_rejoins_by_following() {
    let mut cluster = Plan::new(2).start().await;
    let created = cluster.members[1].created_at();
    cluster.members[1].kill_all();
    let filled = "CREATE TABLE t AS SELECT generate_series(1, 10000) AS id";
    cluster.members[0].sql(filled).await.expect("the primary takes writes");
    cluster.members[1].start();
    cluster.wait_until_well().await;
    wait_for_rows(&cluster, 1, "10000").await;
    assert_eq!(cluster.members[1].created_at(), created, "no new clone");
}

/// The old primary diverges and comes back. Whether it was cloned anew for that.
async fn is_cloned_to_rejoin(cluster: &mut Cluster) -> bool {
    let created = cluster.members[0].created_at();
    let successor = diverge(cluster).await;
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    wait_for_rows(cluster, 0, "2").await;
    cluster.members[0].created_at() != created
}

/// The old primary had commits that no standby had received when its machine died. When it comes back it is rewound:
/// those rows are gone, the cluster's rows are there, and no new clone was made. pg_rewind is told of the archive.
#[tokio::test]
async fn a_diverged_member_rejoins_by_rewind() {
    let archive = json!({ "postgresql": { "parameters": { "restore_command": "cp /nowhere/%f %p" } } });
    let mut cluster = Plan::new(2).dynamic(archive).start().await;
    assert!(!is_cloned_to_rejoin(&mut cluster).await, "no new clone");
    let kept = std::fs::read_dir(cluster.members[0].folder.join("data.diverged")).expect("WAL was kept");
    let report = kept.flatten().next().expect("that of one rewind").path().join("report.json");
    let report: Value = serde_json::from_slice(&std::fs::read(report).expect("a report")).expect("JSON");
    let bytes = report["bytes"].as_u64().expect("a number");
    assert!((5_000..200_000).contains(&bytes), "101 rows, and not the segments that they lie in: {report}");
    assert!(report["commits"].as_u64().is_some_and(|commits| commits >= 1), "{report}");

    let loss = async |options: &[&str]| {
        let done = cluster.members[0].command(&[&["loss"], options].concat()).await;
        assert!(done.status.success(), "{done:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    let lost: Value = serde_json::from_str(&loss(&["-o", "json"]).await).expect("JSON");
    let inserted = |transaction: &Value| {
        let by_relation = transaction["changes"].as_object().expect("relations").values();
        by_relation.map(|rows| rows["inserted"].as_u64().expect("a number")).sum::<u64>()
    };
    let committed = lost["committed"].as_array().expect("transactions");
    assert!(committed.iter().any(|it| inserted(it) == 101), "the lonely rows: {lost}");
    let text = loss(&[]).await;
    assert!(text.contains("101 rows inserted, 0 updated, 0 deleted"), "{text}");
    assert_eq!(loss(&["--all"]).await.lines().count(), 1);
    let password = PASSWORD.replace('\'', "\\'");
    let login =
        format!("host=127.0.0.1 port={} user=postgres password='{password}'", cluster.members[0].postgres);
    let text = loss(&["--names", &login]).await;
    assert!(text.contains("postgres: t "), "the name of the relation: {text}");
}

/// The same without pg_rewind, and with the operator's consent to a new clone.
#[tokio::test]
async fn a_diverged_member_rejoins_by_clone_without_pg_rewind() {
    let settings = json!({
        "postgresql": { "use_pg_rewind": false, "remove_data_directory_on_diverged_timelines": true },
    });
    let mut cluster = Plan::new(2).dynamic(settings.clone()).all(settings).start().await;
    assert!(is_cloned_to_rejoin(&mut cluster).await, "a new clone");
}

/// pg_rewind fails each time, and the operator allows a new clone in that case.
#[tokio::test]
async fn a_diverged_member_rejoins_by_clone_after_a_failed_rewind() {
    let mut cluster = Plan::new(2).prepare().await;
    let m1 = &cluster.members[0];
    let program = m1.folder.join("pg_rewind");
    std::fs::write(&program, "#!/bin/sh\necho no >&2\nexit 1\n").expect("our own place is writable");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let settings = json!({
        "bin_name": { "pg_rewind": program }, "remove_data_directory_on_rewind_failure": true,
    });
    let mut config = m1.read_config();
    merge(&mut config, &json!({ "postgresql": settings }));
    m1.write_config(&config);
    cluster.start().await;
    assert!(is_cloned_to_rejoin(&mut cluster).await, "a new clone");
    assert!(cluster.members[0].log_text().contains("pg_rewind"), "{}", cluster.story());
}

/// A standby was away for longer than the primary keeps WAL for it. It serves readers that accept any age, reports that
/// it receives nothing more, and is cloned anew once the operator allows that, also through its slot, which was
/// invalidated.
#[tokio::test]
async fn a_standby_whose_wal_was_removed_rejoins_by_clone() {
    let keeps = json!({ "max_slot_wal_keep_size": "32MB", "wal_keep_size": "16MB", "min_wal_size": "32MB" });
    let settings = json!({ "postgresql": { "parameters": keeps } });
    let mut cluster = Plan::new(2).dynamic(settings).start().await;
    cluster.members[1].expected_errors.push("has already been removed".to_owned());
    cluster.members[0].expected_errors.push("has already been removed".to_owned());
    let created = cluster.members[1].created_at();
    cluster.members[1].kill_all();
    cluster.members[0].sql("CREATE TABLE t (id int, text text)").await.expect("m1 leads");
    for _ in 0..6 {
        let filled = "INSERT INTO t SELECT id, repeat('x', 1000) FROM generate_series(1, 20000) AS id";
        cluster.members[0].sql(filled).await.expect("m1 leads");
        cluster.members[0].sql("CHECKPOINT").await.expect("m1 leads");
    }
    cluster.members[1].start();
    let m2 = &cluster.members[1];
    cluster
        .wait_until(Duration::from_secs(40), "m2 says that its WAL is gone", async || {
            let shown = m2.get("/patroni").await.map(|answer| answer.json()["because"].to_string());
            shown.is_some_and(|why| why.contains("WAL removed") && why.contains("reinit m2"))
        })
        .await;
    for (path, status) in [("/replica", 200), ("/replica?lag=1TB", 503), ("/readiness?lag=1TB", 503)] {
        assert_eq!(m2.status(path).await, status, "{path}");
    }
    let list = m2.command(&["list"]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned() + &String::from_utf8_lossy(&list.stderr);
    assert!(list.contains("WAL removed") && list.contains("reinit m2"), "{list}");
    assert_eq!(m2.created_at(), created, "nothing was deleted");
    let allowed = json!({ "postgresql": { "remove_data_directory_on_diverged_timelines": true } });
    assert_eq!(m2.send("PATCH", "/config", Some(&allowed)).await.status, 200);
    cluster
        .wait_until(Duration::from_secs(60), "m2 has a new data directory", async || {
            cluster.members[1].created_at().is_some_and(|at| Some(at) != created)
        })
        .await;
    cluster.wait_until_well().await;
    wait_for_rows(&cluster, 1, "120000").await;
}

/// The operator wipes a standby: `POST /reinitialize` clones it anew.
#[tokio::test]
async fn a_member_rejoins_by_a_requested_reinitialization() {
    let cluster = Plan::new(2).start().await;
    let created = cluster.members[1].created_at();
    assert_eq!(cluster.members[0].post("/reinitialize", &json!({})).await.status, 503, "not the leader");
    let answer = cluster.members[1].post("/reinitialize", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    cluster
        .wait_until(Duration::from_secs(60), "m2 has a new data directory", async || {
            cluster.members[1].created_at().is_some_and(|at| Some(at) != created)
        })
        .await;
    cluster.wait_until_well().await;
}

/// The old primary's supervisor was gone for longer than the lease, while its Postgres continued. Another member leads
/// now; the supervisor that comes back makes its Postgres follow.
#[tokio::test]
async fn a_supervisor_that_returns_after_its_lease_makes_postgres_follow() {
    let mut cluster = Plan::new(2).start().await;
    cluster.members[0].kill_supervisor();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
    assert_eq!(cluster.members[0].value("SELECT pg_is_in_recovery()").await, "t");
}

/// Ends `m1` with rows that `m2` has not received, and lets `m2` lead and write. Returns the successor.
async fn diverge(cluster: &mut Cluster) -> usize {
    cluster.members[0].sql("CREATE TABLE t AS SELECT 1 AS id").await.expect("m1 leads");
    wait_for_rows(cluster, 1, "1").await;
    cluster.members[1].cut_off().await;
    let lonely = "INSERT INTO t SELECT generate_series(100, 200)";
    cluster.members[0].sql(lonely).await.expect("m1 leads, and waits for nobody");
    cluster.members[0].sql("SELECT pg_switch_wal()").await.expect("m1 leads");
    cluster.members[0].kill_all();
    cluster.members[1].go_on();
    let successor = cluster.wait_for_successor(0, Duration::from_secs(30)).await;
    cluster.members[successor].sql("INSERT INTO t VALUES (2)").await.expect("the successor leads");
    successor
}

async fn wait_for_rows(cluster: &Cluster, index: usize, count: &str) {
    let what = format!("{} has {count} rows", cluster.members[index].name);
    cluster
        .wait_until(Duration::from_secs(20), &what, async || {
            cluster.members[index].value("SELECT count(*) FROM t").await == count
        })
        .await;
}

/// The archive did not work while m1 led. When m1 is rewound, or cloned anew, it archives what the cluster shares with
/// it, and nothing from the fork on.
#[tokio::test]
async fn wal_that_was_not_archived_is_archived_before_it_is_discarded() {
    for rewinds in [true, false] {
        let mut plan = Plan::new(2);
        plan = plan.dynamic(json!({
            "postgresql": { "use_pg_rewind": rewinds, "remove_data_directory_on_diverged_timelines": true },
        }));
        let mut cluster = plan.prepare().await;
        let archive = cluster.place.folder("archive");
        let (works, command) = (archive.join("works"), archive.display());
        let command = format!("test -e {} && cp %p {command}/%f && echo {command}", works.display());
        for member in &cluster.members {
            let mut config = member.read_config();
            let parameters = json!({ "archive_mode": "on", "archive_command": command });
            merge(&mut config, &json!({ "postgresql": { "parameters": parameters } }));
            member.write_config(&config);
        }
        cluster.start().await;
        cluster.members.iter_mut().for_each(|member| member.expected_errors.push("archive".to_owned()));
        for _ in 0..2 {
            cluster.members[0].sql("CREATE TABLE IF NOT EXISTS s ()").await.expect("m1 leads");
            cluster.members[0].sql("SELECT pg_switch_wal()").await.expect("m1 leads");
            cluster.members[0].sql("SELECT txid_current()").await.expect("m1 leads");
        }
        let successor = diverge(&mut cluster).await;
        std::fs::write(&works, "").expect("our own place is writable");
        cluster.members[0].start();
        let seen = cluster.wait_until_well().await;
        assert_eq!(seen.leader(), Some(cluster.members[successor].name.as_str()));
        let history = "SELECT pg_read_file('pg_wal/' || max(name)) FROM pg_ls_dir('pg_wal') name WHERE name ~ '.history$'";
        let history = cluster.members[successor].value(history).await;
        let fork: Vec<&str> = history.lines().last().expect("a switch").split(['\t', '/']).collect();
        let offset = u32::from_str_radix(fork[2], 16).expect("a position");
        let fork = format!("{:0>8}{:0>8}{:08X}", fork[0], fork[1], offset >> 24);
        let entries = std::fs::read_dir(&archive).expect("it is there").flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.len() == 24 && name.starts_with(&fork[..8]));
        names.sort();
        assert!(
            2 <= names.len() && names.iter().all(|name| *name < fork),
            "{fork}: {names:?}\n{}",
            cluster.story()
        );
    }
}

/// The archive command of m1 fails for PostgreSQL, and works while that is down. Nothing is to be rewound after a
/// switchover: m1 archives what waits before it starts as a standby, which would archive nothing.
#[tokio::test]
async fn wal_that_was_not_archived_is_archived_before_a_start_without_a_rewind() {
    let mut cluster = Plan::new(2).prepare().await;
    let archive = cluster.place.folder("archive");
    let command = format!("test ! -e postmaster.pid && cp %p {}/%f", archive.display());
    for member in &cluster.members {
        let mut config = member.read_config();
        let parameters = json!({ "archive_mode": "on", "archive_command": command });
        crate::support::merge(&mut config, &json!({ "postgresql": { "parameters": parameters } }));
        member.write_config(&config);
    }
    cluster.start().await;
    cluster.members.iter_mut().for_each(|member| member.expected_errors.push("archive".to_owned()));
    let segment = cluster.members[0].value("SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    cluster.members[0].sql("CREATE TABLE s ()").await.expect("m1 leads");
    cluster.members[0].sql("SELECT pg_switch_wal()").await.expect("m1 leads");
    let end = cluster.members[0].value("SELECT pg_current_wal_lsn()").await;
    let received = format!("SELECT 1 WHERE '{end}' <= pg_last_wal_receive_lsn()");
    let port = cluster.members[1].postgres;
    cluster.wait_for_row(Duration::from_secs(20), "m2 has the new segment", port, &received).await;
    assert!(!archive.join(&segment).exists());
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1", "candidate": "m2" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    assert!(archive.join(&segment).exists(), "{segment}\n{}", cluster.story());
    assert!(!cluster.members[0].log_text().contains("rewind"), "{}", cluster.story());
}
