//! WAL that a former primary has not archived: its `archive_command` is run here, before a rewind or a clone discards
//! that WAL, and before it starts as a standby, which archives nothing and removes it at a checkpoint. The new primary
//! archives nothing that it has received, so the archive would have a gap.
//!
//! **Invariant.** Only WAL of the shared history goes to the archive: whole segments that end before the source left
//! their timeline. A segment with the fork, or beyond it, has commits that the cluster does not have. A standby that
//! restores from the archive, and has not seen the new timeline yet, would replay them and diverge itself. The new
//! primary archives the shared part of the segment with the fork on its own timeline.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::control::{DEFAULT_SEGMENT, history, segment};
use super::handle::{LeaderHistory, PostgresInner};
use super::program::{bare, configured_value, run_to_end};
use super::{Error, Parameters, Setup, control, files, sql};
use crate::model::{FollowTarget, SettingsRole, Timeline, TimelineHistory};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// The limit for one segment. After it no other is tried.
const SEGMENT_WITHIN: Duration = Duration::from_secs(60);
/// The limit for all: a member that rejoins is worth more than the rest.
const ALL_WITHIN: Duration = Duration::from_secs(300);
/// The limit for all before a start as a standby, the question to its source included: it may be the only candidate.
const BEFORE_START_WITHIN: Duration = Duration::from_secs(10);
const READY: &str = ".ready";

/// What becomes of WAL that cannot be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnarchivedWal {
    /// A rewind or a clone discards it.
    Discarded,
    /// It stays until PostgreSQL removes it, or archives it after a promotion.
    Kept,
}

/// Before a clone over the data of a former primary.
pub(super) async fn save_before_clone(inner: &PostgresInner, source: &FollowTarget) {
    save_shared_with(inner, source, UnarchivedWal::Discarded).await;
}

/// Before a former primary starts behind this member, without a rewind.
pub(super) async fn save_before_start(inner: &PostgresInner, source: &FollowTarget) {
    let saved = save_shared_with(inner, source, UnarchivedWal::Kept);
    if tokio::time::timeout(BEFORE_START_WITHIN, saved).await.is_err() {
        tracing::warn!(unarchived = ?UnarchivedWal::Kept, "not all WAL was archived in time");
    }
}

async fn save_shared_with(inner: &PostgresInner, source: &FollowTarget, unarchived: UnarchivedWal) {
    let setup = &inner.setup;
    if waiting(setup).is_empty() {
        return;
    }
    let known = async {
        let mine = control::read(setup).await?;
        let history = sql::leader_history(setup, source).await?;
        Ok::<_, Error>((mine.system_id == history.system_id).then_some(history))
    };
    match known.await {
        Ok(Some(history)) => save(inner, &history, unarchived).await,
        Ok(None) => tracing::warn!(?unarchived, "WAL of another cluster was not archived"),
        Err(error) => {
            tracing::warn!(?unarchived, error = error.chain(), "WAL was not archived: its fork is unknown");
        }
    }
}

/// Archives the WAL that waits for that and is shared with `source`. Nothing that fails here keeps the member from
/// rejoining.
pub(super) async fn save(inner: &PostgresInner, source: &LeaderHistory, unarchived: UnarchivedWal) {
    let setup = &inner.setup;
    let names: Vec<String> =
        waiting(setup).into_iter().filter(|name| is_shared(setup, name, &source.branch.history)).collect();
    if names.is_empty() {
        return;
    }
    let Some(command) = archive_command(inner, unarchived).await else { return };
    tracing::info!(files = names.len(), "archiving WAL that was not archived");
    let begun = clock::now();
    for (at, name) in names.iter().enumerate() {
        let left = ALL_WITHIN.saturating_sub(clock::now().since(begun));
        let within = SEGMENT_WITHIN.min(left);
        match archive(setup, &command, name, within).await {
            Ok(()) => {}
            Err(error) => {
                let (error, is_late) = (error.chain(), matches!(error, Error::Deadline { .. }));
                tracing::warn!(?unarchived, name, error, "WAL was not archived");
                if is_late || unarchived == UnarchivedWal::Kept {
                    let left = names.len() - at - 1;
                    return tracing::warn!(left, "the archive is too slow or refuses, and gets no other WAL");
                }
            }
        }
    }
}

/// The files that wait to be archived, in the order of PostgreSQL: histories first, then by position.
fn waiting(setup: &Setup) -> Vec<String> {
    let entries = fs::read_dir(status_of(setup)).into_iter().flatten().flatten();
    let names: BTreeSet<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(READY)?.to_owned()))
        .collect();
    let (histories, segments): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.ends_with(".history"));
    histories.into_iter().chain(segments).collect()
}

fn status_of(setup: &Setup) -> PathBuf {
    setup.data_dir.join("pg_wal/archive_status")
}

/// Whether the file is of the shared history: a segment as said above, or the history file of a timeline in it.
fn is_shared(setup: &Setup, name: &str, source: &TimelineHistory) -> bool {
    let size =
        fs::metadata(setup.data_dir.join("pg_wal").join(name)).map_or(DEFAULT_SEGMENT, |file| file.len());
    let Some((timeline, end)) = extent(name, size) else { return false };
    let Some(at) = source.0.iter().position(|switch| switch.timeline == timeline) else { return false };
    // Another timeline may have the same number.
    let position = |history: &TimelineHistory, count: usize| -> Vec<_> {
        history.0.iter().take(count).map(|switch| (switch.timeline, switch.lsn)).collect()
    };
    let is_same =
        history(setup, timeline).is_ok_and(|mine| position(&mine, usize::MAX) == position(source, at));
    is_same && end <= source.0[at].lsn.0
}

/// The timeline of a file of WAL, and where it ends; a history file has no extent.
fn extent(name: &str, size: u64) -> Option<(Timeline, u64)> {
    match name.strip_suffix(".history") {
        Some(number) => Some((Timeline(u32::from_str_radix(number, 16).ok()?), 0)),
        None => segment(name, size).map(|(timeline, start)| (timeline, start.saturating_add(size))),
    }
}

/// The command of a primary; `None`: nothing is archived, or not by a command.
async fn archive_command(inner: &PostgresInner, unarchived: UnarchivedWal) -> Option<String> {
    let all = inner.configuration.all_parameters();
    let configured = Parameters { role: SettingsRole::Primary, ..all }.in_force().parameters;
    let main = files::main_file(&inner.setup);
    let value = async |name: &str| match configured.get(name) {
        Some(value) => value.clone(),
        None => configured_value(&inner.setup, &main, name).await.unwrap_or_default(),
    };
    if value("archive_mode").await.eq_ignore_ascii_case("off") {
        return None;
    }
    let command = value("archive_command").await;
    let is_one = !command.is_empty() && command != "(disabled)";
    if !is_one {
        tracing::warn!(?unarchived, "WAL was not archived: there is no archive_command");
    }
    is_one.then_some(command)
}

/// Runs the command as PostgreSQL does: by a shell, in the data directory.
async fn archive(setup: &Setup, command: &str, name: &str, within: Duration) -> Result<(), Error> {
    let what = "archiving WAL";
    let mut shell = bare(setup, "sh");
    shell.arg("-c").arg(expanded(command, name)).current_dir(&setup.data_dir);
    let ended = tokio::time::timeout(within, run_to_end("archive_command", shell, None)).await;
    let ended = ended.map_err(|_| Error::Deadline { what, within })??;
    if !ended.status.success() {
        return Err(ended.failed("archive_command"));
    }
    let mark = |suffix: &str| status_of(setup).join(format!("{name}{suffix}"));
    let ready: &Path = &mark(READY);
    fs::rename(ready, mark(".done")).map_err(Error::file("rename", ready))
}

/// `%p` is the file's path, `%f` its name, `%%` a percent sign.
fn expanded(command: &str, name: &str) -> String {
    let mut expanded = String::new();
    let mut letters = command.chars();
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('%', Some('p')) => expanded.push_str(&format!("pg_wal/{name}")),
            ('%', Some('f')) => expanded.push_str(name),
            ('%', Some('%')) => expanded.push('%'),
            (letter, _) => {
                expanded.push(letter);
                continue;
            }
        }
        letters.next();
    }
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_expanded_as_by_postgresql() {
        assert_eq!(expanded("cp %p /a/%f # 5%% %x %", "N"), "cp pg_wal/N /a/N # 5% %x %");
        assert_eq!(expanded("%%p %p", "N"), "%p pg_wal/N");
    }

    /// The source left timeline 1 in the middle of the sixth segment, and timeline 2 in the ninth. The data here are of
    /// timeline 3, which the source does not have, or has begun elsewhere.
    #[test]
    fn only_segments_before_the_fork_are_shared() {
        let place = std::env::temp_dir().join(format!("archive-{}", std::process::id()));
        let status = place.join("pg_wal/archive_status");
        fs::create_dir_all(&status).expect("a place");
        let setup = Setup { data_dir: place.clone(), ..Setup::default() };
        let source = "1\t0/6800000\tx\n2\t0/9800000\ty\n3\t0/A000000\tz\n";
        let write =
            |name: &str, text: &str| fs::write(place.join("pg_wal").join(name), text).expect("written");
        write("00000002.history", "1\t0/6800000\tx\n");
        write("00000003.history", "1\t0/6800000\tx\n2\t0/9000000\tother\n");
        let files = [
            ("000000010000000000000005", true),
            ("000000010000000000000006", false),
            ("000000010000000000000007", false),
            ("000000020000000000000008", true),
            ("000000020000000000000009", false),
            ("000000030000000000000009", false),
            ("000000040000000000000009", false),
            ("00000002.history", true),
            ("00000003.history", false),
            ("000000010000000000000006.partial", false),
        ];
        for (name, _) in files {
            fs::write(status.join(format!("{name}{READY}")), "").expect("written");
        }
        let source = TimelineHistory::parse(source).expect("a history");
        let shared: Vec<String> =
            waiting(&setup).into_iter().filter(|name| is_shared(&setup, name, &source)).collect();
        let expected = ["00000002.history", "000000010000000000000005", "000000020000000000000008"];
        assert_eq!(shared, expected);
        assert!(files.iter().all(|(name, is)| shared.iter().any(|found| found == name) == *is));
        fs::remove_dir_all(&place).expect("removed");
    }
}
