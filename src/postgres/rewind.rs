//! A rewind to the last common position. The discarded WAL is kept for a while.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::archive::UnarchivedWal;
use super::control::{DEFAULT_SEGMENT, beside, segment};
use super::handle::{LeaderHistory, PostgresInner};
use super::program::{LAST_LINES, bare, configured_value, run, run_to_end, tool};
use super::{Error, Setup, archive, conninfo, control, files, slot_copies, sql};
use crate::model::{ControlFile, ControlState, FollowTarget, Lsn, RewindReport, Timeline};
use crate::os::durable;
use crate::os::error_chain::ErrorChain;

/// The number of rewinds whose diverged WAL is kept; the oldest is removed first.
const KEPT_MAX: usize = 5;
/// The first version of pg_rewind with `--config-file`.
const FIRST_WITH_CONFIG_FILE: u32 = 15;
/// How long a rewind waits for the checkpoint of its source. It is not cut short when the supervisor is to end, and is
/// tried again.
const CHECKPOINTED_WITHIN: Duration = Duration::from_secs(30);
/// The interval between looks at the source's control file.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The limit for counting commits, which is optional.
const COUNT_WITHIN: Duration = Duration::from_secs(60);

/// Runs crash recovery in single-user mode, with the configured `wal_level`.
pub(super) async fn crash_recovery(inner: &PostgresInner) -> Result<(), Error> {
    inner.postmaster.must_be_down("crash recovery")?;
    let setup = &inner.setup;
    if setup.data_dir.join("backup_label").exists() {
        return Err(Error::Unfit(
            "crash recovery: a backup_label is left, only a standby start is safe".to_owned(),
        ));
    }
    let control = control::read(setup).await?;
    single_user(inner, &control.standby_minimums, None).await
}

/// Starts PostgreSQL and ends it with a checkpoint; clients cannot connect.
pub(super) async fn single_user(
    inner: &PostgresInner,
    minimums: &BTreeMap<String, u64>,
    within: Option<Duration>,
) -> Result<(), Error> {
    let setup = &inner.setup;
    let parameters = inner.parameters();
    files::write_main(inner, None)?;
    files::remove_signals(setup)?;
    let mut command = bare(setup, setup.program("postgres"));
    command.arg("--single").arg("-D").arg(&setup.data_dir);
    command.arg(format!("--config-file={}", files::main_file(setup).display()));
    command.args(files::command_line(&parameters, &slot_copies::with_room(setup, minimums)));
    command.args(["-c", "archive_mode=on", "-c", "archive_command=false", "template1"]);
    run("postgres --single", command, within).await.map(drop)
}

/// Sets the diverged WAL aside and runs pg_rewind.
pub(super) async fn rewind(
    inner: &PostgresInner,
    target: &FollowTarget,
    fork: (Timeline, Lsn),
) -> Result<RewindReport, Error> {
    inner.postmaster.must_be_down("rewind")?;
    let setup = &inner.setup;
    let mut control = control::read(setup).await?;
    if !matches!(control.state, ControlState::ShutDown | ControlState::ShutDownInRecovery) {
        crash_recovery(inner).await?;
        control = control::read(setup).await?;
    }
    let history = checkpointed_history(setup, target, &control).await?;
    archive::save(inner, &history, UnarchivedWal::Discarded).await;
    let report = keep_diverged(setup, &control, fork).await?;
    files::write_main(inner, Some(target))?;
    let source = conninfo::to_member(setup, target, setup.rewind_credentials(), "Matriarch rewind")
        .ok_or_else(|| Error::Unfit(format!("rewind: `{}` is no address", target.conn_url)))?;
    let mut command = tool(setup, "pg_rewind");
    command.arg("--target-pgdata").arg(&setup.data_dir).arg(format!("--source-server={source}"));
    command.arg("--no-ensure-shutdown");
    command.args(archive_options(setup).await);
    command.args(setup.rewind_options.iter().map(|option| format!("--{option}")));
    control::mark(setup, "rewind")?;
    if let Err(error) = run("pg_rewind", command, None).await {
        if is_untouched(&error) {
            control::unmark(setup)?;
        }
        return Err(error);
    }
    remove_segments_above(setup, history.branch.timeline)?;
    files::remove_signals(setup)?;
    files::write_main(inner, Some(target))?;
    control::unmark(setup)?;
    Ok(report)
}

/// The source's history, once its control file has it too. Until its first checkpoint after a promotion that file has
/// the timeline before, and pg_rewind would find nothing to do. A leader of this version says when the checkpoint is
/// done; other versions, and the remote primary of a standby cluster, do not.
async fn checkpointed_history(
    setup: &Setup,
    target: &FollowTarget,
    mine: &ControlFile,
) -> Result<LeaderHistory, Error> {
    let mut ordered = false;
    let wait = async {
        loop {
            let history = history_of_source(setup, target, mine).await?;
            if history.in_recovery || history.checkpoint_timeline == history.branch.timeline {
                return Ok(history);
            }
            if ordered {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else if let Err(error) = sql::remote_checkpoint(setup, target).await {
                // Not every user may order it. The one that follows a promotion by itself does as well.
                tracing::info!(error = error.chain(), "rewind: waiting for a checkpoint of {}", target.name);
            }
            ordered = true;
        }
    };
    let unfinished = || {
        Error::Unfit(format!("rewind: {} has not finished its checkpoint after its promotion", target.name))
    };
    tokio::time::timeout(CHECKPOINTED_WITHIN, wait).await.unwrap_or_else(|_| Err(unfinished()))
}

async fn history_of_source(
    setup: &Setup,
    target: &FollowTarget,
    mine: &ControlFile,
) -> Result<LeaderHistory, Error> {
    let history = sql::leader_history(setup, target).await?;
    if history.system_id != mine.system_id {
        return Err(Error::Unfit(format!(
            "rewind: {} belongs to another cluster: its system identifier is {}, and that of the data here is {}",
            target.name, history.system_id, mine.system_id
        )));
    }
    Ok(history)
}

/// pg_rewind may leave segments of the discarded timeline. Where that has a higher number than the source's, as behind
/// the remote primary of a standby cluster, they would look like the newest WAL here.
fn remove_segments_above(setup: &Setup, timeline: Timeline) -> Result<(), Error> {
    let directory = setup.data_dir.join("pg_wal");
    let entries = fs::read_dir(&directory).map_err(Error::file("read", &directory))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if segment(&name, DEFAULT_SEGMENT).is_some_and(|(of, _)| timeline < of) {
            fs::remove_file(entry.path()).map_err(Error::file("remove", &entry.path()))?;
        }
    }
    durable::sync_dir(&directory).map_err(Error::file("sync", &directory))
}

/// With these pg_rewind reads WAL from the archive, if `restore_command` is configured anywhere. It asks PostgreSQL for
/// the command, and before version 15 it does so with the file in the data directory only.
async fn archive_options(setup: &Setup) -> Vec<String> {
    let main = files::main_file(setup);
    let is_default = main == setup.data_dir.join("postgresql.conf");
    let version = fs::read_to_string(setup.data_dir.join("PG_VERSION")).unwrap_or_default();
    let takes_file = version.trim().parse::<u32>().is_ok_and(|major| FIRST_WITH_CONFIG_FILE <= major);
    match configured_value(setup, &main, "restore_command").await {
        Ok(command) if !command.is_empty() && (is_default || takes_file) => {
            let mut options = vec!["--restore-target-wal".to_owned()];
            if !is_default {
                options.push(format!("--config-file={}", main.display()));
            }
            options
        }
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "could not read restore_command: pg_rewind works without an archive"
            );
            Vec::new()
        }
    }
}

/// Whether pg_rewind has changed nothing: it reports when it begins to. An output that may be truncated proves nothing.
fn is_untouched(error: &Error) -> bool {
    match error {
        Error::Program { output, .. } => {
            !output.is_empty()
                && !output.contains("rewinding from")
                && output.split("; ").count() < LAST_LINES
        }
        _ => false,
    }
}

async fn keep_diverged(
    setup: &Setup,
    control: &ControlFile,
    fork: (Timeline, Lsn),
) -> Result<RewindReport, Error> {
    let (timeline, end) = control.end_of_wal();
    let root = beside(&setup.data_dir, ".diverged");
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ");
    let kept_in = root.join(format!("{stamp}-tl{timeline}"));
    fs::create_dir_all(&kept_in).map_err(Error::file("create", &kept_in))?;
    let (source, kept) = (setup.data_dir.join("pg_wal"), kept_in.clone());
    let copied = tokio::task::spawn_blocking(move || {
        copy_segments(&source, &kept, fork, end).inspect_err(|_| {
            // An incomplete copy is useless, and after a full disk it must not occupy space.
            let _ = fs::remove_dir_all(&kept);
        })
    });
    let copied = copied.await;
    copied.map_err(|error| Error::Unfit(format!("keep diverged WAL: {error}")))??;
    if let Some((user, group)) = setup.uid_gid {
        // The programs that read it do not run as root in tests.
        for path in [&root, &kept_in] {
            chown(path, Some(user), Some(group)).map_err(Error::file("chown", path))?;
        }
    }
    let lost = count(setup, timeline, fork.1, end).await;
    let report = RewindReport {
        timeline,
        fork: fork.1,
        end,
        bytes: lost.as_ref().map_or_else(|| end.bytes_since(fork.1), |lost| lost.bytes),
        commits: lost.map(|lost| lost.commits),
        kept_in: kept_in.clone(),
    };
    let text = serde_json::to_vec_pretty(&report).map_err(|error| Error::Unfit(error.to_string()))?;
    let path = kept_in.join(RewindReport::FILE);
    durable::write(&path, &text, 0o600, setup.uid_gid).map_err(Error::file("write", &path))?;
    forget_oldest(&root)?;
    Ok(report)
}

/// Copies, because Postgres overwrites segments in place when it recycles them.
fn copy_segments(source: &Path, kept_in: &Path, fork: (Timeline, Lsn), end: Lsn) -> Result<(), Error> {
    let entries = fs::read_dir(source).map_err(Error::file("read", source))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let wanted = if name.ends_with(".history") {
            true
        } else {
            let size = entry.metadata().map_or(DEFAULT_SEGMENT, |metadata| metadata.len());
            segment(&name, size).is_some_and(|(timeline, start)| {
                timeline >= fork.0 && start < end.0.saturating_add(1) && start + size > fork.1.0
            })
        };
        if wanted {
            let copy = kept_in.join(&name);
            fs::copy(&path, &copy).map_err(Error::file("copy", &path))?;
            fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(Error::file("sync", &copy))?;
        }
    }
    durable::sync_dir(kept_in).map_err(Error::file("sync", kept_in))
}

/// The size of the records between two positions. Their distance is misleading: crash recovery ends with a switch to
/// another segment, and the skipped part is empty.
#[derive(Debug, PartialEq)]
struct LostWal {
    bytes: u64,
    commits: u64,
}

async fn count(setup: &Setup, timeline: Timeline, fork: Lsn, end: Lsn) -> Option<LostWal> {
    let mut command = tool(setup, "pg_waldump");
    command.arg(format!("--path={}", setup.data_dir.join("pg_wal").display()));
    command.arg(format!("--timeline={timeline}")).arg("--stats=record");
    command.arg(format!("--start={fork}")).arg(format!("--end={end}"));
    // After a crash its log breaks off before `end`; the readable part counts.
    let ended = run_to_end("pg_waldump", command, Some(COUNT_WITHIN)).await.ok()?;
    LostWal::parse(&ended.output).filter(|lost| ended.status.success() || lost.bytes > 0)
}

impl LostWal {
    /// Parses pg_waldump's table: the number of each kind of record, and the total with page images at the end.
    fn parse(table: &str) -> Option<LostWal> {
        let mut lost = None;
        let mut commits = 0;
        for line in table.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["Transaction/COMMIT" | "Transaction/COMMIT_PREPARED", number, ..] => {
                    commits += number.parse::<u64>().ok()?;
                }
                ["Total", .., bytes, _percent] => {
                    lost = Some(LostWal { bytes: bytes.parse().ok()?, commits })
                }
                _other => {}
            }
        }
        lost
    }
}

fn forget_oldest(root: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(root).map_err(Error::file("read", root))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths.iter().take(paths.len().saturating_sub(KEPT_MAX)) {
        fs::remove_dir_all(path).map_err(Error::file("remove", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pg_waldumps_table() {
        let table = "WAL statistics between 0/1000028 and 0/1500790:
Type                        N      (%)     Record size      (%)      FPI size      (%)   Combined size      (%)
----                        -      ---     -----------      ---      --------      ---   -------------      ---
Transaction/COMMIT        721 (  3.00)          197064 (  5.82)             0 (  0.00)          197064 (  3.80)
Transaction/COMMIT_PREPARED 2 (  0.00)             100 (  0.00)             0 (  0.00)             100 (  0.00)
                     --------                 --------               --------                 --------
Total                   24057                  3383235 [65.18%]       1807652 [34.82%]         5190887 [100%]
";
        assert_eq!(LostWal::parse(table), Some(LostWal { bytes: 5_190_887, commits: 723 }));
        assert_eq!(LostWal::parse("pg_waldump: error: could not find a valid record"), None);
    }
}
