//! pg_rewind of a former primary.

use std::fs;
use std::time::Duration;

use matriarch::model::{Divergence, Lsn, Timeline};
use matriarch::postgres::{Postgres, Setup};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::herd::Herd;
use super::{SOON, client, down, facts_until, pid, promote, standby_history, start, streams, target};

#[tokio::test(flavor = "multi_thread")]
async fn a_diverged_primary_is_rewound() {
    let herd = Herd::new("rewind");
    let old = herd.primary("a").await;
    let new = herd.standby("b", &old).await;
    facts_until(&new, "streaming", streams).await;
    promote(&new).await;
    new.checkpoint(SOON).await.expect("checkpoint");
    let session = client(&old).await;
    session.batch_execute("CREATE TABLE lost AS SELECT 1; INSERT INTO lost VALUES (2)").await.expect("write");
    client(&new).await.batch_execute("CREATE TABLE kept AS SELECT 1").await.expect("write");
    kill(Pid::from_raw(pid(&old)), Signal::SIGKILL).expect("kill");
    down(&old).await;
    old.crash_recovery().await.expect("crash recovery");
    let Divergence::Forked { timeline, at } = standby_history(&new, &old).await else { panic!("no fork") };
    let report = old.rewind(&target(&new), (timeline, at)).await.expect("rewind");
    assert_eq!(report.commits, Some(1), "both statements were one implicit transaction");
    assert!(report.kept_in.join("report.json").exists() && report.bytes > 0);
    assert!(fs::read_dir(&report.kept_in).expect("kept").count() > 1);
    start(&old, Some(&new)).await;
    facts_until(&old, "streaming", streams).await;
    let rows =
        client(&old).await.query("SELECT relname FROM pg_class WHERE relname IN ('lost', 'kept')", &[]).await;
    let names: Vec<String> = rows.expect("select").iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["kept"]);
}

/// `a` was the primary when `b` was promoted, and has crashed. `b` has many pages to write, so its checkpoint after the
/// promotion takes minutes. The fork is the third.
async fn with_a_slow_checkpoint(herd: &Herd) -> (Postgres, Postgres, (Timeline, Lsn)) {
    let old = herd.primary("a").await;
    let new = herd.standby("b", &old).await;
    facts_until(&new, "streaming", streams).await;
    let pages = "CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 8000)";
    client(&old).await.batch_execute(pages).await.expect("write");
    let end = client(&old).await.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("ask");
    let end: Lsn = end.get::<_, &str>(0).parse().expect("a position");
    facts_until(&new, "replayed", |facts| end <= facts.lsn()).await;
    promote(&new).await;
    client(&old).await.batch_execute("CREATE TABLE lost AS SELECT 1").await.expect("write");
    kill(Pid::from_raw(pid(&old)), Signal::SIGKILL).expect("kill");
    down(&old).await;
    old.crash_recovery().await.expect("crash recovery");
    let Divergence::Forked { timeline, at } = standby_history(&new, &old).await else { panic!("no fork") };
    assert_eq!(checkpoint_timeline(&new).await, 2, "the checkpoint is too fast for this test");
    (old, new, (timeline, at))
}

async fn checkpoint_timeline(member: &Postgres) -> i32 {
    let row = client(member).await.query_one("SELECT timeline_id FROM pg_control_checkpoint()", &[]).await;
    row.expect("ask").get(0)
}

/// Not every leader says that its checkpoint after the promotion is done: another version, or the remote primary of a
/// standby cluster. Before that its control file has the old timeline, and pg_rewind would find nothing to do. A
/// superuser orders the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_orders_the_checkpoint_of_its_source() {
    let herd = Herd::new("rewind-orders");
    let (old, new, fork) = with_a_slow_checkpoint(&herd).await;
    let superuser = Setup { rewind: None, ..old.setup().clone() };
    let superuser = Postgres::new(superuser, old.parameters());
    superuser.rewind(&target(&new), fork).await.expect("rewind");
    assert_eq!(checkpoint_timeline(&new).await, 3);
    start(&superuser, Some(&new)).await;
    facts_until(&superuser, "streaming", streams).await;
}

/// A user that may not order it waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_waits_for_the_checkpoint_of_its_source() {
    let herd = Herd::new("rewind-waits");
    let (old, new, fork) = with_a_slow_checkpoint(&herd).await;
    let source = target(&new);
    let rewind = old.rewind(&source, fork);
    tokio::pin!(rewind);
    let early = tokio::time::timeout(Duration::from_secs(3), &mut rewind).await;
    assert!(early.is_err(), "{early:?}");
    new.checkpoint(SOON).await.expect("checkpoint");
    rewind.await.expect("rewind");
    start(&old, Some(&new)).await;
    facts_until(&old, "streaming", streams).await;
}
