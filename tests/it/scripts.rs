//! Scripts of an operator in a cluster: a restore to a point in time, replicas from a backup, and the scripts before a
//! promotion and before a stop.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Cluster, Member, Plan, command_as, merge, query};

const SOON: Duration = Duration::from_secs(60);
const BACKREST: &str = "pgbackrest";

/// Writes an executable script with these lines into the member's folder.
fn script(member: &Member, name: &str, lines: &str) -> PathBuf {
    let path = member.folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).expect("our own place is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    path
}

fn configure(member: &Member, over: &Value) {
    let mut config = member.read_config();
    merge(&mut config, over);
    member.write_config(&config);
}

/// The command of pgBackRest for a member, with the repository that all share.
fn backrest(cluster: &Cluster, member: &Member) -> String {
    let config = cluster.place.path().join("pgbackrest.conf");
    format!("{BACKREST} --config={} --stanza=pg --pg1-path={}", config.display(), member.data().display())
}

fn write_repository(cluster: &Cluster) {
    let (member, place) = (&cluster.members[0], cluster.place.path().display());
    let text = format!(
        "[global]\nrepo1-path={place}/backups\nlog-level-file=off\nlog-level-console=info\nstart-fast=y\n\
         lock-path={place}/locks\nspool-path={place}/spool\n[pg]\npg1-port={}\npg1-socket-path={place}/s\n",
        member.postgres,
    );
    let config = cluster.place.path().join("pgbackrest.conf");
    std::fs::write(config, text).expect("our own place is writable");
    for name in ["backups", "locks", "spool"] {
        cluster.place.folder(name);
    }
}

fn run(cluster: &Cluster, line: &str) {
    let member = &cluster.members[0];
    let mut command: Command = command_as("sh", &member.folder);
    command.args(["-c", line]).env("PGPASSWORD", crate::support::PASSWORD);
    let output = command.output().expect("sh runs");
    let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
    assert!(output.status.success(), "{line}: {}\n{text}", output.status);
}

async fn value(port: u16, text: &str) -> String {
    query(port, text).await.expect("it answers").remove(0).remove(0)
}

/// Waits until the primary has archived all that it has written.
async fn archived(cluster: &Cluster, port: u16) {
    let last = value(port, "SELECT pg_walfile_name(pg_switch_wal())").await;
    let archived = format!("SELECT FROM pg_stat_archiver WHERE last_archived_wal >= '{last}'");
    cluster.wait_for_row(SOON, "the last segment is archived", port, &archived).await;
}

/// A backup, then rows before and after a moment, all archived. Returns the moment. The cluster is gone afterwards.
async fn backed_up(cluster: &mut Cluster) -> String {
    write_repository(cluster);
    for member in &cluster.members {
        let line = backrest(cluster, member);
        let parameters = json!({"archive_mode": "on", "archive_command": format!("{line} archive-push %p")});
        let recovery = json!({"restore_command": format!("{line} archive-get %f %p")});
        configure(member, &json!({"postgresql": {"parameters": parameters, "recovery_conf": recovery}}));
    }
    cluster.members[0].start();
    cluster.wait_until_writable(0, SOON).await;
    let port = cluster.members[0].postgres;
    let line = backrest(cluster, &cluster.members[0]);
    run(cluster, &format!("{line} stanza-create && {line} backup"));
    let ended = value(port, "SELECT now()").await;
    let later = format!("SELECT WHERE now() > timestamptz '{ended}' + interval '2 s'");
    cluster
        .wait_for_row(SOON, "the backup is older, in whole seconds, than any moment to come", port, &later)
        .await;
    query(port, "CREATE TABLE t AS SELECT 'kept' AS row").await.expect("it takes writes");
    let moment = value(port, "SELECT now()").await;
    query(port, "INSERT INTO t VALUES ('given up')").await.expect("it takes writes");
    archived(cluster, port).await;
    cluster.members[0].terminate();
    let member = &mut cluster.members[0];
    assert_eq!(member.exit_code(SOON).await, Some(0), "{}", member.log_text());
    cluster.etcd.delete_below("/service/herd").await;
    std::fs::remove_dir_all(cluster.members[0].data()).expect("our own place is writable");
    moment
}

/// A new cluster is made from a backup, up to a moment: rows from before are there, rows from after are not. A replica
/// is made from the same backup.
#[tokio::test]
async fn a_cluster_and_its_replica_are_made_from_a_backup() {
    let mut cluster = Plan::new(2).prepare().await;
    let moment = backed_up(&mut cluster).await;
    let (first, second) = (&cluster.members[0], &cluster.members[1]);
    let line = backrest(&cluster, first);
    let restored = json!({
        "method": "pitr",
        "pitr": {
            "command": format!("{line} restore"),
            "no_params": true,
            "recovery_conf": {
                "restore_command": format!("{line} archive-get %f %p"),
                "recovery_target_time": moment,
            },
        },
        "post_bootstrap": script(first, "post", &format!("echo \"$1\" > {}/post.told", first.folder.display())),
    });
    configure(first, &json!({"bootstrap": restored}));
    let command = format!("{} --delta restore", backrest(&cluster, second));
    let method = json!({"command": command, "keep_data": true, "no_params": true});
    let methods = json!({"create_replica_methods": ["backrest"], "backrest": method});
    configure(second, &json!({"postgresql": methods}));
    cluster.members[0].start();
    cluster.wait_until_writable(0, SOON).await;
    let port = cluster.members[0].postgres;
    assert_eq!(query(port, "SELECT row FROM t").await.expect("it answers"), [["kept"]]);
    let told = std::fs::read_to_string(cluster.members[0].folder.join("post.told")).expect("it was called");
    assert!(told.contains("user=postgres") && !told.contains("password"), "{told}");
    query(port, "INSERT INTO t VALUES ('new')").await.expect("it takes writes");
    archived(&cluster, port).await;
    cluster.members[1].start();
    cluster.wait_until_well().await;
    let log = cluster.members[1].log_text();
    assert!(log.contains("the replica was made") && !log.contains("pg_basebackup"), "{log}");
    let rows = cluster.members[1].sql("SELECT row FROM t").await.expect("it answers");
    assert_eq!(rows, [["kept"], ["new"]]);
}

/// The script fails: its directory is set aside, the member ends, and another makes the cluster.
#[tokio::test]
async fn a_custom_bootstrap_that_fails_leaves_the_cluster_to_another() {
    let mut cluster = Plan::new(2).prepare().await;
    let first = &cluster.members[0];
    let told = first.folder.join("told");
    let lines = format!(
        "echo \"$@\" > {}; mkdir -p {}/base; echo broken; exit 5",
        told.display(),
        first.data().display()
    );
    let own = json!({"command": script(first, "own", &lines), "answer": 42, "recovery_conf": {"recovery_target": "immediate"}});
    configure(first, &json!({"bootstrap": {"method": "own", "own": own}}));
    let member = &mut cluster.members[0];
    member.expected_errors.push(String::new());
    member.start();
    assert_eq!(member.exit_code(SOON).await, Some(10), "documented: bootstrap failed");
    let expected = format!("--scope=herd --datadir={} --answer=42\n", member.data().display());
    assert_eq!(std::fs::read_to_string(&told).expect("it was called"), expected);
    assert!(member.folder.join("data.failed/base").exists(), "it is kept");
    assert!(member.log_text().contains("broken"), "what it said is logged");
    assert_eq!(cluster.etcd.get("/service/herd/initialize").await, None);
    cluster.members[1].start();
    cluster.wait_until_writable(1, SOON).await;
}

/// `pre_promote` forbids the promotion: the key goes back, and the other member leads again. Once it allows it, a
/// switchover succeeds.
#[tokio::test]
async fn pre_promote_decides_about_a_promotion() {
    let mut cluster = Plan::new(2).prepare().await;
    let second = &cluster.members[1];
    let lines = format!("echo called >> {0}/calls; test -e {0}/allowed", second.folder.display());
    let path = script(second, "pre_promote", &lines);
    configure(second, &json!({"postgresql": {"pre_promote": path}}));
    cluster.start().await;
    let folder = cluster.members[1].folder.clone();
    assert!(!folder.join("calls").exists(), "it was not promoted");
    cluster.members[0].kill_all();
    cluster
        .wait_until(SOON, "m2 gives the key back", async || {
            cluster.members[1].log_text().contains("pre_promote failed, so this member is not promoted")
        })
        .await;
    assert_eq!(cluster.members[1].value("SELECT pg_is_in_recovery()").await, "t");
    cluster.members[0].start();
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m1"), "{}", cluster.story());
    std::fs::write(folder.join("allowed"), "").expect("our own place is writable");
    let known = std::fs::read_to_string(folder.join("calls")).expect("it was called").len();
    let answer = cluster.members[0].post("/switchover", &json!({"leader": "m1", "candidate": "m2"})).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    let seen = cluster.wait_until_well().await;
    assert_eq!(seen.leader(), Some("m2"), "{}", cluster.story());
    let calls = std::fs::read_to_string(folder.join("calls")).expect("it was called");
    assert_eq!(&calls[known..], "called\n", "once for the promotion");
}

/// A script that hangs ends with the leadership, and with everything that it has started.
#[tokio::test]
async fn a_hanging_pre_promote_ends_with_the_leadership() {
    let mut cluster = Plan::new(2).prepare().await;
    let second = &cluster.members[1];
    let pid_file = second.folder.join("sleeps");
    let lines = format!("sleep 3600 & echo $! > {0}.new; mv {0}.new {0}; wait", pid_file.display());
    let path = script(second, "pre_promote", &lines);
    configure(second, &json!({"postgresql": {"pre_promote": path}}));
    cluster.start().await;
    cluster.members[0].kill_all();
    cluster.wait_until(SOON, "the script runs", async || pid_file.exists()).await;
    let pid: u32 = std::fs::read_to_string(&pid_file).expect("there").trim().parse().expect("a number");
    assert!(cluster.members[1].has_process(pid));
    cluster.etcd.delete("/service/herd/leader").await;
    cluster
        .wait_until(Duration::from_secs(10), "it has ended", async || !cluster.members[1].has_process(pid))
        .await;
    assert_eq!(cluster.members[1].value("SELECT pg_is_in_recovery()").await, "t");
}

/// `before_stop` runs before a planned stop, while PostgreSQL still serves. One that hangs delays no stop that the end
/// of the lease demands.
#[tokio::test]
async fn before_stop_runs_before_a_planned_stop_only() {
    let mut cluster = Plan::new(1).prepare().await;
    let first = &cluster.members[0];
    let begun = first.folder.join("begun");
    let lines = format!(
        "kill -0 $(head -n 1 {0}/postmaster.pid) && echo served >> {1}; test ! -e {2}/hang || exec sleep 3600; exit 7",
        first.data().display(),
        begun.display(),
        first.folder.display()
    );
    let path = script(first, "before_stop", &lines);
    configure(first, &json!({"postgresql": {"before_stop": path}}));
    cluster.start().await;
    let answer = cluster.members[0].post("/restart", &json!({})).await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.body, cluster.story());
    assert_eq!(std::fs::read_to_string(&begun).expect("it ran"), "served\n");
    assert!(cluster.members[0].log_text().contains("before_stop failed: stopping PostgreSQL all the same"));
    cluster.wait_until_writable(0, SOON).await;
    std::fs::remove_file(&begun).expect("it is ours");
    std::fs::write(cluster.members[0].folder.join("hang"), "").expect("our own place is writable");
    cluster.members[0].terminate();
    cluster.wait_until(SOON, "the script hangs", async || begun.exists()).await;
    cluster.etcd.delete("/service/herd/leader").await;
    cluster
        .wait_until(Duration::from_secs(15), "PostgreSQL stops all the same", async || {
            cluster.members[0].postmaster().is_none()
        })
        .await;
}

/// Nobody leads, and only an empty member is left: it makes a replica by a method that needs no leader, which leads by
/// its position.
#[tokio::test]
async fn a_replica_is_made_while_nobody_leads() {
    let mut cluster = Plan::new(2).prepare().await;
    let (first, second) = (&cluster.members[0], &cluster.members[1]);
    // In place of an archive that has everything.
    let lines = format!("cp -R {}/. {}", first.data().display(), second.data().display());
    let method = json!({"command": script(second, "copy", &lines), "no_leader": true});
    configure(
        second,
        &json!({"postgresql": {"create_replica_methods": ["basebackup", "copy"], "copy": method}}),
    );
    cluster.members[0].start();
    cluster.wait_until_writable(0, SOON).await;
    cluster.members[0].sql("CREATE TABLE t AS SELECT 'kept' AS row").await.expect("it takes writes");
    cluster.members[0].terminate();
    let member = &mut cluster.members[0];
    assert_eq!(member.exit_code(SOON).await, Some(0), "{}", member.log_text());
    cluster.members[1].start();
    cluster.wait_until_writable(1, SOON).await;
    let rows = cluster.members[1].sql("SELECT row FROM t").await.expect("it answers");
    assert_eq!(rows, [["kept"]]);
    cluster.members[0].start();
    cluster.wait_until_well().await;
}

/// `check` names every fault of the sections, and scripts that are not there.
#[tokio::test]
async fn check_names_faults_of_scripts() {
    let cluster = Plan::new(1).prepare().await;
    let member = &cluster.members[0];
    let words = ["check", &member.config_file().display().to_string()].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let check = async |over: Value| {
        configure(member, &over);
        let output = member.binary(&words).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let over = json!({"postgresql": {"pre_promote": "/nowhere/a 'b c'", "create_replica_methods": ["tape", "basebackup"]}});
    let (code, said) = check(over).await;
    assert_eq!(code, Some(0), "{said}");
    for part in ["postgresql.pre_promote: /nowhere/a cannot be executed", "no section `tape`"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let pitr = json!({"recovery_conf": {"recovery_target_action": "pause", "recovery_targt_time": "x"}});
    let (code, said) = check(json!({"bootstrap": {"method": "pitr", "pitr": pitr}})).await;
    assert_ne!(code, Some(0), "{said}");
    for part in ["bootstrap.pitr.command: is missing", "did you mean `recovery_target_time`?"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said) = check(json!({"bootstrap": {"method": "pitrr", "pitr": {"command": "true"}}})).await;
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("write a section `bootstrap.pitrr` with `command`"), "{said}");
    let (code, said) = check(json!({"bootstrap": {"method": "pitr"}})).await;
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("recovery_target_action: found `pause`; write promote"), "{said}");
}
