//! The data directory from outside: `pg_controldata`, history files, `postmaster.pid`, the half-made marker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::program::{run, tool};
use super::{Error, Setup};
use crate::model::{Branch, ControlFile, ControlState, DataDirectory, Lsn, Timeline, TimelineHistory};
use crate::os::durable;
use crate::os::error_chain::ErrorChain;

/// The control file is one small read; a disk that takes longer is inaccessible.
const CONTROL_WITHIN: Duration = Duration::from_secs(10);
/// The size of a WAL segment, unless `initdb` had another one.
pub(super) const DEFAULT_SEGMENT: u64 = 16 << 20;

/// `<data_dir><suffix>`.
pub(super) fn beside(data_dir: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(data_dir.as_os_str());
    path.push(suffix);
    PathBuf::from(path)
}

/// The file with the major version.
const VERSION: &str = "PG_VERSION";

fn marker(setup: &Setup) -> PathBuf {
    beside(&setup.data_dir, ".matriarch-half-made")
}

/// The directory must not be started until [`unmark`]. `by` is the reason.
pub(super) fn mark(setup: &Setup, by: &str) -> Result<(), Error> {
    let path = marker(setup);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    durable::write(&path, by.as_bytes(), 0o600, setup.uid_gid).map_err(Error::file("write", &path))
}

/// The directory is complete again.
pub(super) fn unmark(setup: &Setup) -> Result<(), Error> {
    let path = marker(setup);
    durable::remove(&path).map_err(Error::file("remove", &path))
}

/// Reads the data directory and the history of its timeline.
pub(super) async fn look(setup: &Setup) -> (DataDirectory, TimelineHistory) {
    match marked_by(setup) {
        Ok(Some(by)) => return (DataDirectory::HalfMade { by }, TimelineHistory::default()),
        Ok(None) => {}
        Err(error) => return inaccessible(&error),
    }
    match is_empty(&setup.data_dir) {
        Ok(true) => return (DataDirectory::Empty, TimelineHistory::default()),
        Ok(false) => {}
        Err(error) => return inaccessible(&error),
    }
    let control = match read(setup).await {
        Ok(control) => control,
        Err(error) => return inaccessible(&error),
    };
    let timeline = control.checkpoint_timeline.max(control.min_recovery_timeline);
    match history(setup, timeline) {
        Ok(history) => (DataDirectory::Ready(control), history),
        Err(error) => inaccessible(&error),
    }
}

/// Whether the directory has content that is neither a database nor an incomplete one.
pub(super) fn is_strange(setup: &Setup) -> bool {
    lacks(setup) == Some(VERSION)
}

/// The entry that a directory with content lacks to be a database. `None` for an incomplete one, and for one that
/// cannot be read, since that may pass.
pub fn lacks(setup: &Setup) -> Option<&'static str> {
    let unmarked = matches!(marked_by(setup), Ok(None));
    let filled = matches!(is_empty(&setup.data_dir), Ok(false));
    let missing = |name: &&str| !setup.data_dir.join(name).exists();
    [VERSION, "pg_wal"].into_iter().filter(|_| unmarked && filled).find(missing)
}

pub(super) fn inaccessible(error: &Error) -> (DataDirectory, TimelineHistory) {
    (DataDirectory::Inaccessible { error: error.chain() }, TimelineHistory::default())
}

/// The operation that left the directory incomplete, if one did.
pub(super) fn marked_by(setup: &Setup) -> Result<Option<String>, Error> {
    let path = marker(setup);
    match fs::read_to_string(&path) {
        Ok(by) => Ok(Some(by)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

/// Whether the directory is missing or empty.
pub(super) fn is_empty(path: &Path) -> Result<bool, Error> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Runs `pg_controldata`.
pub(super) async fn read(setup: &Setup) -> Result<ControlFile, Error> {
    // It is read before the control file: a start first records in the control file that it is a copy, and removes the
    // label only then.
    let backup_label = setup.data_dir.join("backup_label").exists();
    let mut command = tool(setup, "pg_controldata");
    command.arg(&setup.data_dir);
    let output = run("pg_controldata", command, Some(CONTROL_WITHIN)).await?;
    let control = parse(&output)
        .ok_or_else(|| Error::Unfit(format!("pg_controldata cannot be understood: {}", output.trim())))?;
    Ok(ControlFile { backup_label, segments: segments(setup, segment_bytes(&output))?, ..control })
}

fn segment_bytes(output: &str) -> u64 {
    let line = output.lines().find_map(|line| line.strip_prefix("Bytes per WAL segment:"));
    line.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(DEFAULT_SEGMENT)
}

/// The newest timeline that has segments, and the end of its last one. Segments kept for later use are beyond the end
/// of WAL, so that end is no position, only an upper bound.
fn segments(setup: &Setup, bytes: u64) -> Result<Option<Branch>, Error> {
    let path = setup.data_dir.join("pg_wal");
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let mut newest = None;
    for entry in entries {
        let name = entry.map_err(Error::file("read", &path))?.file_name();
        newest = newest.max(segment(&name.to_string_lossy(), bytes));
    }
    let Some((timeline, start)) = newest else { return Ok(None) };
    let end = Some(Lsn(start.saturating_add(bytes)));
    Ok(Some(Branch { history: history(setup, timeline)?, timeline, end }))
}

/// Timeline and first position of a segment of this size, by its file name.
pub(super) fn segment(name: &str, bytes: u64) -> Option<(Timeline, u64)> {
    if name.len() != 24 {
        return None;
    }
    let part = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
    let start = (u64::from(part(8)?) << 32) + u64::from(part(16)?) * bytes;
    Some((Timeline(part(0)?), start))
}

/// The history file of a timeline; empty for the first.
pub(super) fn history(setup: &Setup, timeline: Timeline) -> Result<TimelineHistory, Error> {
    if timeline <= Timeline::FIRST {
        return Ok(TimelineHistory::default());
    }
    let path = setup.data_dir.join(format!("pg_wal/{:08X}.history", timeline.0));
    match fs::read_to_string(&path) {
        Ok(text) => TimelineHistory::parse(&text)
            .map_err(|error| Error::Unfit(format!("{}: {error}", path.display()))),
        // A standby that was just cloned may not have it yet.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(TimelineHistory::default()),
        Err(error) => Err(Error::file("read", &path)(error)),
    }
}

/// The names of parameters in the control file and in `postgresql.conf`.
const STANDBY_MINIMUMS: [(&str, &str); 5] = [
    ("max_connections setting", "max_connections"),
    ("max_worker_processes setting", "max_worker_processes"),
    ("max_wal_senders setting", "max_wal_senders"),
    ("max_prepared_xacts setting", "max_prepared_transactions"),
    ("max_locks_per_xact setting", "max_locks_per_transaction"),
];

pub(super) fn parse(text: &str) -> Option<ControlFile> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.strip_prefix("Current ").unwrap_or(key).trim(), value.trim()))
        .collect();
    let lsn = |key: &str| fields.get(key)?.parse::<Lsn>().ok();
    let timeline = |key: &str| fields.get(key)?.parse().ok().map(Timeline);
    let minimum = |(field, name): &(&str, &str)| Some(((*name).to_owned(), fields.get(field)?.parse().ok()?));
    Some(ControlFile {
        backup_label: false,
        backup_start: lsn("Backup start location").unwrap_or_default(),
        segments: None,
        system_id: fields.get("Database system identifier")?.parse().ok()?,
        state: state(fields.get("Database cluster state")?)?,
        checkpoint: lsn("Latest checkpoint location")?,
        checkpoint_timeline: timeline("Latest checkpoint's TimeLineID")?,
        min_recovery: lsn("Minimum recovery ending location").unwrap_or_default(),
        min_recovery_timeline: timeline("Min recovery ending loc's timeline").unwrap_or(Timeline(0)),
        checksums: fields.get("Data page checksum version").is_some_and(|version| *version != "0"),
        wal_log_hints: fields.get("wal_log_hints setting") == Some(&"on"),
        minimal_wal: fields.get("wal_level setting") == Some(&"minimal"),
        standby_minimums: STANDBY_MINIMUMS.iter().filter_map(minimum).collect(),
    })
}

fn state(text: &str) -> Option<ControlState> {
    Some(match text {
        "starting up" => ControlState::StartingUp,
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "shutting down" => ControlState::ShuttingDown,
        "in crash recovery" => ControlState::InCrashRecovery,
        "in archive recovery" => ControlState::InArchiveRecovery,
        "in production" => ControlState::InProduction,
        _ => return None,
    })
}

/// `postmaster.pid` (src/include/utils/pidfile.h).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: i32,
    pub(super) port: Option<u16>,
    pub(super) socket_dir: Option<String>,
    /// It accepts connections, or (without hot standby) replays.
    pub(super) ready: bool,
    /// It replays, and accepts no connections.
    pub(super) replays: bool,
}

impl PidFile {
    /// The file of a data directory; `None` also if it names no process, as a newly created one does.
    pub(super) fn find(data_dir: &Path) -> Result<Option<PidFile>, Error> {
        let path = data_dir.join("postmaster.pid");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(PidFile::parse(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path)(error)),
        }
    }

    pub(super) fn parse(text: &str) -> Option<PidFile> {
        let mut lines = text.lines().map(str::trim);
        // A single-user backend writes its process id negated.
        let pid = lines.next()?.parse::<i32>().ok()?.checked_abs()?;
        let mut lines = lines.skip(2);
        let port = lines.next().and_then(|port| port.parse().ok());
        let socket_dir = lines.next().filter(|path| !path.is_empty()).map(str::to_owned);
        let status = lines.nth(2);
        let replays = status == Some("standby");
        let ready = replays || status == Some("ready");
        Some(PidFile { pid, port, socket_dir, ready, replays })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pg_controldata() {
        let text = "pg_control version number:            1300
Database system identifier:           7300000000000000001
Database cluster state:               in archive recovery
Latest checkpoint location:           0/4000060
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     0/5000000
Backup start location:                0/4000028
Min recovery ending loc's timeline:   3
wal_log_hints setting:                on
Current max_connections setting:      100
max_prepared_xacts setting:           7
Data page checksum version:           1
";
        let control = parse(text).expect("complete");
        assert_eq!(control.state, ControlState::InArchiveRecovery);
        assert_eq!(control.end_of_wal(), (Timeline(3), Lsn(0x500_0000)));
        assert!(control.checksums && control.wal_log_hints && control.is_unfinished_copy());
        assert_eq!(control.standby_minimums.get("max_connections"), Some(&100));
        assert_eq!(control.standby_minimums.get("max_prepared_transactions"), Some(&7));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn reads_segment_names() {
        let start = 0x1_0000_0000 + 3 * DEFAULT_SEGMENT;
        assert_eq!(segment("000000020000000100000003", DEFAULT_SEGMENT), Some((Timeline(2), start)));
        assert_eq!(segment("00000002.history", DEFAULT_SEGMENT), None);
    }

    #[test]
    fn the_last_segment_of_the_newest_timeline_bounds_wal() {
        let data_dir = std::env::temp_dir().join(format!("matriarch-segments-{}", std::process::id()));
        let setup = Setup { data_dir: data_dir.clone(), ..Setup::default() };
        assert_eq!(segments(&setup, DEFAULT_SEGMENT).ok(), Some(None), "there is no such directory");
        fs::create_dir_all(data_dir.join("pg_wal")).expect("a temporary directory");
        for name in ["00000001000000000000000A", "000000020000000000000003", "00000003.history", "x"] {
            fs::write(data_dir.join("pg_wal").join(name), "").expect("room");
        }
        fs::write(data_dir.join("pg_wal/00000002.history"), "1\t0/3000100\tpromoted\n").expect("room");
        let found = segments(&setup, DEFAULT_SEGMENT).expect("legible").expect("there are some");
        assert_eq!((found.timeline, found.end), (Timeline(2), Some(Lsn(4 * DEFAULT_SEGMENT))));
        assert_eq!(found.history.0.len(), 1);
        fs::remove_dir_all(&data_dir).expect("it is ours");
    }

    #[test]
    fn reads_postmaster_pid() {
        let text = "4711\n/data\n1700000000\n5432\n/tmp\n127.0.0.1\n  1234 5\nready   \n";
        let expected = PidFile {
            pid: 4711,
            port: Some(5432),
            socket_dir: Some("/tmp".to_owned()),
            ready: true,
            replays: false,
        };
        assert_eq!(PidFile::parse(text), Some(expected));
        assert_eq!(
            PidFile::parse("4711\n/data\n1\n").map(|file| (file.pid, file.ready)),
            Some((4711, false))
        );
        assert_eq!(PidFile::parse("-9\n").map(|file| file.pid), Some(9));
        assert_eq!(PidFile::parse("x"), None);
    }
}
