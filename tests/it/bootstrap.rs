//! The bootstrap of a new cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Plan, merge, postgres_bin};

/// Three members start at the same moment on an empty etcd. Exactly one runs initdb, the others clone from it, and etcd
/// then holds the keys that Patroni's tools read.
#[tokio::test]
async fn three_start_at_once_and_one_initializes() {
    let mut cluster = Plan::new(3).prepare().await;
    for member in &mut cluster.members {
        member.start();
    }
    let seen = cluster.wait_until_well().await;
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    let initialized = cluster.etcd.get("/service/herd/initialize").await.expect("the key is there");
    assert_eq!(seen.timeline(), 1, "the first start is no promotion");
    for member in &cluster.members {
        assert_eq!(member.value(identifier).await, initialized, "{}", member.name);
        assert_eq!(seen.member(&member.name)["timeline"], seen.timeline(), "{}", member.name);
        assert_eq!(member.value("SHOW data_checksums").await, "on");
    }
    let leader = cluster.etcd.get("/service/herd/leader").await.expect("somebody leads");
    assert_eq!(Some(leader.as_str()), seen.leader(), "the key is the bare name");
    let config = cluster.etcd.get("/service/herd/config").await.expect("the key is there");
    let config: Value = serde_json::from_str(&config).expect("the configuration is JSON");
    assert_eq!(config["ttl"], 5);
    let record = cluster.etcd.get(&format!("/service/herd/members/{leader}")).await.expect("it is there");
    let record: Value = serde_json::from_str(&record).expect("the record is JSON");
    assert_eq!((&record["role"], &record["state"]), (&json!("primary"), &json!("running")));
    let primary = &cluster.members[cluster.leader().await];
    let secret = primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'replicator'").await;
    assert!(secret.starts_with("SCRAM-SHA-256$"), "passwords are stored as SCRAM");
}

/// `initdb --allow-group-access`: backups run as another user of the group, so every file and directory of each member
/// is readable for the group. That includes the files that the supervisor writes, also after a hand-over and a reload.
#[tokio::test]
async fn group_access_covers_every_file() {
    let initdb = json!([{ "encoding": "UTF8" }, "data-checksums", "no-sync", "allow-group-access"]);
    let cluster = Plan::new(2).all(json!({ "bootstrap": { "initdb": initdb } })).start().await;
    let closed = |cluster: &Cluster| -> Vec<String> {
        let mut closed = Vec::new();
        cluster.members.iter().for_each(|member| closed_below(&member.data(), &mut closed));
        closed
    };
    assert_eq!(closed(&cluster), Vec::<String>::new());
    let answer = cluster.members[0].post("/switchover", &json!({ "leader": "m1" })).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    cluster.wait_until_well().await;
    let change = json!({ "postgresql": { "parameters": { "work_mem": "9MB" }, "pg_hba": ["host all all all scram-sha-256",
        "host replication all all scram-sha-256"] } });
    assert_eq!(cluster.members[0].send("PATCH", "/config", Some(&change)).await.status, 200);
    cluster
        .wait_until(Duration::from_secs(20), "both took the change", async || {
            let mut taken = true;
            for member in &cluster.members {
                taken &= member.value("SHOW work_mem").await == "9MB";
            }
            taken
        })
        .await;
    assert_eq!(closed(&cluster), Vec::<String>::new());
}

/// Adds every file that the group may not read, with its mode.
fn closed_below(path: &Path, closed: &mut Vec<String>) {
    // PostgreSQL removes files all the time.
    let Ok(metadata) = path.symlink_metadata() else { return };
    let (mode, wanted) =
        (metadata.permissions().mode() & 0o777, if metadata.is_dir() { 0o750 } else { 0o640 });
    if mode & wanted != wanted {
        closed.push(format!("{} {mode:o}", path.display()));
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        closed_below(&entry.path(), closed);
    }
}

/// `post_bootstrap` runs once on the new primary, with a connection string as its argument. Programs without it reach
/// the same server.
#[tokio::test]
async fn post_bootstrap_runs_on_the_new_primary() {
    let mut cluster = Plan::new(1).prepare().await;
    let psql = postgres_bin().join("psql");
    let body = format!(
        "{0} -d \"$1\" -qc 'CREATE TABLE from_script ()' && exec {0} -qc 'SELECT FROM from_script'",
        psql.display()
    );
    set_post_bootstrap(&cluster, &body);
    cluster.members[0].start();
    cluster.wait_until_well().await;
    cluster
        .wait_until(Duration::from_secs(10), "the script's table is there", async || {
            cluster.members[0].value("SELECT count(*) FROM from_script").await == "0"
        })
        .await;
}

/// The script fails: the supervisor reports it and exits, the initialize key is free for another try, and the half-made
/// data directory is moved aside, not started.
#[tokio::test]
async fn a_failed_bootstrap_frees_the_initialize_key() {
    let mut cluster = Plan::new(1).prepare().await;
    set_post_bootstrap(&cluster, "echo this script fails >&2; exit 3");
    let member = &mut cluster.members[0];
    member.expected_errors.push(String::new());
    member.start();
    assert_eq!(member.exit_code(Duration::from_secs(60)).await, Some(10), "documented: bootstrap failed");
    assert_eq!(cluster.etcd.get("/service/herd/initialize").await, None);
    assert!(!member.data().join("PG_VERSION").exists(), "the broken directory is out of the way");
    let aside = std::fs::read_dir(&member.folder)
        .expect("its folder is there")
        .flatten()
        .any(|entry| entry.path() != member.data() && entry.path().join("PG_VERSION").exists());
    assert!(aside, "and kept");
}

/// While a member made a cluster, another cluster was made. The new data directory is moved aside, and the member
/// continues, to be cloned.
#[tokio::test]
async fn an_overtaken_bootstrap_is_set_aside() {
    let mut cluster = Plan::new(1).prepare().await;
    let folder = cluster.members[0].folder.clone();
    let (begun, go) = (folder.join("begun"), folder.join("go"));
    // The script waits until the test lets it continue.
    let body = format!("touch {}; while [ ! -e {} ]; do sleep 0.1; done", begun.display(), go.display());
    set_post_bootstrap(&cluster, &body);
    cluster.members[0].start();
    let long = Duration::from_secs(60);
    cluster.wait_until(long, "the script runs", async || begun.exists()).await;
    cluster.etcd.put("/service/herd/initialize", "7000000000000000001").await;
    std::fs::write(&go, "").expect("our own place is writable");
    let data = cluster.members[0].data();
    let is_kept = || {
        let entries = std::fs::read_dir(&folder).expect("its folder is there").flatten();
        let mut others = entries.map(|entry| entry.path()).filter(|path| *path != data);
        others.any(|path| path.join("PG_VERSION").exists())
    };
    cluster
        .wait_until(long, "the directory is kept aside", async || {
            !data.join("PG_VERSION").exists() && is_kept()
        })
        .await;
    cluster
        .wait_until(long, "the member waits for a leader", async || {
            cluster.members[0].log_text().contains("waiting for a leader to clone from")
        })
        .await;
    let initialize = cluster.etcd.get("/service/herd/initialize").await;
    assert_eq!(initialize.as_deref(), Some("7000000000000000001"));
}

/// Writes a script with these lines, the first member's `post_bootstrap`.
fn set_post_bootstrap(cluster: &Cluster, body: &str) {
    let member = &cluster.members[0];
    let script = member.folder.join("post_bootstrap");
    std::fs::write(&script, format!("#!/bin/sh\n{body}\n")).expect("our own place is writable");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut config = member.read_config();
    merge(&mut config, &json!({ "bootstrap": { "post_bootstrap": script } }));
    member.write_config(&config);
}
