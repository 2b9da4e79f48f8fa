//! New clusters from what a script has made.

use std::fs;

use matriarch::model::{
    BootstrapRecovery, ControlFile, CustomBootstrap, DataDirectory, ScriptWords, Timeline,
};
use matriarch::postgres::{Postgres, Setup};

use super::herd::Herd;
use super::{client, facts_until, promote, start, stop};

/// A cluster `a` with a table, which is down; its timeline.
async fn original(herd: &Herd) -> (Postgres, Timeline) {
    let original = herd.primary("a").await;
    client(&original).await.batch_execute("CREATE TABLE t AS SELECT 7 AS id").await.expect("it takes writes");
    let facts = facts_until(&original, "primary", |facts| facts.is_primary()).await;
    stop(&original).await;
    (original, facts.timeline.expect("a primary has one"))
}

/// A member that is made by a copy of `a`, after which these lines run in the directory.
fn restored(herd: &Herd, name: &str, lines: &str, recovery: BootstrapRecovery) -> Postgres {
    let copies = format!("cp -R {}/. \"$0\" && cd \"$0\" && {lines}", herd.root.join("a").display());
    let words = ["sh", "-c", &copies, &herd.root.join(name).display().to_string()].map(str::to_owned);
    let command = ScriptWords { words: words.to_vec(), is_told: true, arguments: Vec::new() };
    let custom = CustomBootstrap { name: "copy".to_owned(), command, recovery };
    let setup = Setup {
        custom_bootstrap: Some(custom),
        bootstrap_pg_hba: vec!["host all all 127.0.0.2/32 trust".to_owned()],
        ..herd.setup(name)
    };
    let mut parameters = herd.parameters(&setup);
    parameters.pg_hba = None;
    Postgres::new(setup, parameters)
}

async fn control(member: &Postgres) -> ControlFile {
    match member.look().await.0 {
        DataDirectory::Ready(control) => control,
        other => panic!("{other:?}"),
    }
}

/// It serves what the original had; the timeline on which its directory was made.
async fn made(member: &Postgres, original: &Postgres) -> Timeline {
    let system_id = member.bootstrap().await.expect("a cluster");
    let (mine, theirs) = (control(member).await, control(original).await);
    assert_eq!((system_id, mine.system_id), (theirs.system_id, theirs.system_id));
    let rules = fs::read_to_string(member.setup().data_dir.join("pg_hba.conf")).expect("the restored file");
    assert!(rules.contains("host all all 127.0.0.1/32 scram-sha-256"), "{rules}");
    assert!(rules.trim_end().ends_with("host all all 127.0.0.2/32 trust"), "{rules}");
    start(member, None).await;
    promote(member).await;
    let rows = client(member).await.query("SELECT id FROM t", &[]).await.expect("it answers");
    assert_eq!(rows.len(), 1);
    stop(member).await;
    mine.checkpoint_timeline
}

/// Signal files and recovery settings that the script left do not count.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_started_by_crash_recovery() {
    let herd = Herd::new("copies");
    let (original, timeline) = original(&herd).await;
    let lines = "touch standby.signal && echo \"recovery_target = 'nonsense'\" >> postgresql.auto.conf";
    let member = restored(&herd, "b", lines, BootstrapRecovery::Crash);
    assert_eq!(made(&member, &original).await, timeline);
}

/// A restore tool has written how to recover; its end is a promotion, whatever it says of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_the_script_has_prepared_is_kept() {
    let herd = Herd::new("prepared");
    let (original, timeline) = original(&herd).await;
    let lines = "touch recovery.signal && echo \"restore_command = 'false'\" >> postgresql.auto.conf && \
                 echo \"recovery_target_action = 'pause'\" >> postgresql.auto.conf";
    let member = restored(&herd, "b", lines, BootstrapRecovery::AsMade);
    assert_eq!(made(&member, &original).await, Timeline(timeline.0 + 1));
}

/// The archive ends before the target: nothing is left that could be taken for the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_does_not_reach_its_target_fails() {
    let herd = Herd::new("short");
    let _original = original(&herd).await;
    let parameter = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let parameters =
        [("restore_command", "false"), ("recovery_target_name", "never")].map(parameter).to_vec();
    let recovery = BootstrapRecovery::Archive { parameters, standby: false };
    let member = restored(&herd, "b", "true", recovery);
    member.bootstrap().await.expect_err("the target is not reached");
    assert!(herd.root.join("b.failed/PG_VERSION").exists());
    assert!(!member.setup().data_dir.join("PG_VERSION").exists());
}
