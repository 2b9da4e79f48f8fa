//! The README's runbooks for a restore and for an etcd that lost all keys, followed to the letter.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::folder;
use super::objects::run;
use crate::support::{Cluster, PASSWORD, Plan, command_as, postgres_bin, query};

const SOON: Duration = Duration::from_secs(60);

/// A command of the member `m1` with the environment variables that pgBackRest and restore.sh need.
fn backrest(cluster: &Cluster, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let member = &cluster.members[0];
    let mut command = command_as(program, &member.folder);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", postgres_bin().display()));
    command
        .env("PGBACKREST_CONFIG", config(cluster))
        .env("PGPASSWORD", PASSWORD)
        .env("PGDATA", member.data());
    command
}

/// The path at which [`write_config`] writes the configuration of pgBackRest.
fn config(cluster: &Cluster) -> PathBuf {
    cluster.place.path().join("pgbackrest.conf")
}

/// As in the component, but with a folder instead of an object store.
fn write_config(cluster: &Cluster) {
    let (member, place) = (&cluster.members[0], cluster.place.path().display());
    let text = format!(
        "[global]\nrepo1-path={place}/backups\nlog-level-file=off\nlog-level-console=info\nstart-fast=y\n\
         lock-path={place}/locks\nspool-path={place}/spool\n[pg]\npg1-path={}\npg1-port={}\npg1-socket-path={place}/s\n",
        member.data().display(),
        member.postgres,
    );
    std::fs::write(config(cluster), text).expect("our own place is writable");
    for name in ["backups", "locks", "spool"] {
        cluster.place.folder(name);
    }
}

/// A cluster with an archive is restored to a point in time: rows from before are there, rows from after are not, and
/// the members are one cluster again.
#[tokio::test]
async fn a_cluster_is_restored_to_a_moment() {
    let mut cluster = Plan::new(2).prepare().await;
    write_config(&cluster);
    let push = format!("pgbackrest --config={} --stanza=pg archive-push %p", config(&cluster).display());
    let parameters = json!({"archive_mode": "on", "archive_command": push});
    for member in &cluster.members {
        let mut settings = member.read_config();
        crate::support::merge(&mut settings, &json!({"postgresql": {"parameters": parameters}}));
        member.write_config(&settings);
    }
    cluster.start().await;
    let port = cluster.members[0].postgres;
    run(backrest(&cluster, "pgbackrest").args(["--stanza=pg", "stanza-create"]));
    run(backrest(&cluster, "pgbackrest").args(["--stanza=pg", "backup"]));
    let ended = query(port, "SELECT now()").await.expect("it answers").remove(0).remove(0);
    let later = format!("SELECT WHERE now() > timestamptz '{ended}' + interval '2 s'");
    cluster
        .wait_for_row(SOON, "the backup is older, in whole seconds, than any moment to come", port, &later)
        .await;
    query(port, "CREATE TABLE t AS SELECT 'kept' AS row").await.expect("it takes writes");
    let moment = query(port, "SELECT now()").await.expect("it answers").remove(0).remove(0);
    query(port, "INSERT INTO t VALUES ('given up')").await.expect("it takes writes");
    let last =
        query(port, "SELECT pg_walfile_name(pg_switch_wal())").await.expect("it answers").remove(0).remove(0);
    let archived = format!("SELECT FROM pg_stat_archiver WHERE last_archived_wal >= '{last}'");
    cluster.wait_for_row(SOON, "the last segment is archived", port, &archived).await;
    end(&mut cluster, &[1, 0]).await;
    cluster.etcd.delete_below("/service/herd").await;
    std::fs::remove_dir_all(cluster.members[1].data()).expect("our own place is writable");
    let script = folder().join("overlays/restore-pgbackrest/restore.sh");
    run(backrest(&cluster, "bash").arg(script).env("TARGET", moment));
    cluster.start().await;
    let rows = query(port, "SELECT row FROM t").await.expect("it answers");
    assert_eq!(rows, [["kept"]]);
}

/// etcd lost the cluster, and only a standby is left. It leads only after an operator has confirmed by command whose
/// data the cluster has.
#[tokio::test]
async fn an_identity_written_back_lets_a_standby_lead() {
    let mut cluster = Plan::new(2).start().await;
    query(cluster.members[0].postgres, "CREATE TABLE t ()").await.expect("it takes writes");
    let replicated = "SELECT FROM pg_class WHERE relname = 't'";
    cluster.wait_for_row(SOON, "the standby has the table", cluster.members[1].postgres, replicated).await;
    let identity = cluster.etcd.get("/service/herd/initialize").await.expect("it was made");
    end(&mut cluster, &[1, 0]).await;
    cluster.etcd.delete_below("/service/herd").await;
    let standby = &mut cluster.members[1];
    standby.start();
    cluster
        .wait_until(SOON, "it says why it does not lead", async || {
            cluster.members[1].log_text().contains("only a running primary may rebuild it")
        })
        .await;
    cluster.etcd.put("/service/herd/initialize", &identity).await;
    cluster.wait_until_writable(1, SOON).await;
    assert!(query(cluster.members[1].postgres, "SELECT FROM t").await.is_ok());
}

/// Ends members in this order, and waits for each.
async fn end(cluster: &mut Cluster, order: &[usize]) {
    for index in order {
        let member = &mut cluster.members[*index];
        member.terminate();
        assert_eq!(member.exit_code(SOON).await, Some(0), "{}:\n{}", member.name, member.log_text());
    }
}
