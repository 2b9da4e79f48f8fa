//! Other processes, as `/proc` shows them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A line of `/proc/PID/stat`, as far as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// `R`, `S`, `Z`, …
    pub state: char,
    /// Clock ticks from boot to its start: with the pid it identifies a process for ever.
    pub started_ticks: u64,
}

impl Stat {
    /// Whether it is dead and not reaped yet.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// Whether it is stopped by a signal or a debugger, so that it does nothing until it is continued.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

/// Whether the process of this pid is stopped by a signal or a debugger.
pub fn is_stopped(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.is_stopped())
}

/// Identifies a process for ever: its pid may be used again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    pub started_ticks: u64,
}

impl ProcessId {
    /// False only if the kernel reports that it is gone, a zombie, or replaced by another process.
    pub fn may_live(self) -> bool {
        match fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(text) => parse_stat(&text)
                .is_none_or(|stat| stat.started_ticks == self.started_ticks && !stat.is_zombie()),
            // The second error: it ended between open and read.
            Err(error) => {
                error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(nix::libc::ESRCH)
            }
        }
    }
}

/// All processes.
pub fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
}

/// The line of `/proc/PID/stat`; `None` when there is no such process.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    let pid = text.split(' ').next()?.parse().ok()?;
    // The command may contain blanks and parentheses; the last one ends it.
    let (_, rest) = text.rsplit_once(") ")?;
    let columns: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        pid,
        state: columns.first()?.chars().next()?,
        parent: columns.get(1)?.parse().ok()?,
        started_ticks: columns.get(19)?.parse().ok()?,
    })
}

/// The processor time it has used so far, in clock ticks (`utime` and `stime` of proc(5)).
pub fn used_ticks(pid: i32) -> Option<u64> {
    parse_used_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_used_ticks(text: &str) -> Option<u64> {
    let mut columns = text.rsplit_once(") ")?.1.split(' ').skip(11).map(|column| column.parse::<u64>().ok());
    Some(columns.next()?? + columns.next()??)
}

/// Its title: its arguments, or the text it wrote in their place.
pub fn title(pid: i32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(text.trim().to_owned())
}

/// True for a process, false for a mere thread of one (whose id `kill` accepts as well).
pub fn is_thread_group_leader(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group.and_then(|text| text.trim().parse::<i32>().ok()) == Some(pid)
}

/// Its program, even if the file was replaced since.
pub fn exe(pid: i32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    Some(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// Its working directory.
pub fn cwd(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Kills every process, except this one, that was started with this environment variable; true if there was any. A
/// process whose environment cannot be read, because it is another user's, is left alone.
pub fn kill_started_with(variable: &str, value: &OsStr) -> bool {
    let mut entry = variable.as_bytes().to_vec();
    entry.push(b'=');
    entry.extend(value.as_bytes());
    let mut found = false;
    for pid in all().filter(|pid| u32::try_from(*pid) != Ok(std::process::id())) {
        // Opened before the look: the signal reaches no other process that got the pid since.
        let held = rustix::process::Pid::from_raw(pid)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        let Some(held) = held else { continue };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == entry) {
            found = true;
            // It may have ended.
            let _ = rustix::process::pidfd_send_signal(&held, rustix::process::Signal::KILL);
        }
    }
    found
}

/// The children of `parent`, with one read if the kernel supports it. A child that starts or ends meanwhile may be
/// missing: not for killing.
pub fn children_at_a_glance(parent: i32) -> Vec<i32> {
    match fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")) {
        Ok(text) => text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        Err(_) => children(parent),
    }
}

/// All live children of `parent`.
pub fn children(parent: i32) -> Vec<i32> {
    all().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent && !stat.is_zombie())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line_with_an_odd_name() {
        let line = "42 (a) b (c)) S 7 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 123456 1 2 3";
        let stat = parse_stat(line).expect("a stat line");
        assert_eq!(stat, Stat { pid: 42, parent: 7, state: 'S', started_ticks: 123_456 });
    }

    #[test]
    fn the_time_used_is_read_and_grows_with_work() {
        assert_eq!(parse_used_ticks("7 (a b) c) S 1 1 1 0 -1 4 1 0 0 0 150 50 0 0 20 0"), Some(200));
        assert_eq!(parse_used_ticks("7 (a"), None);
        let me = std::process::id() as i32;
        let before = used_ticks(me).expect("myself");
        while used_ticks(me).expect("myself") <= before {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
    }

    #[test]
    fn tells_a_process_from_a_thread() {
        let me = std::process::id() as i32;
        assert!(is_thread_group_leader(me));
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw()).join().expect("a thread");
        assert!(!is_thread_group_leader(thread));
    }
}
