//! Finds and ends processes by their working directory, never by name.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Deadline;

/// Processes whose working directory is `folder` or below: supervisor, guard, Postgres and its backends, a clone.
pub(crate) fn living_in(folder: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| working_directory(*pid).is_some_and(|place| place.starts_with(folder)))
        .map(Pid::from_raw)
        .collect()
}

/// The process in `folder` whose title `is` what is looked for.
pub(crate) fn titled(folder: &Path, is: impl Fn(&str) -> bool) -> Option<u32> {
    let is = |pid: &Pid| {
        let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is(String::from_utf8_lossy(&text).trim_end_matches(['\0', ' ']))
    };
    living_in(folder).into_iter().find(is).map(|pid| pid.as_raw() as u32)
}

fn working_directory(pid: i32) -> Option<PathBuf> {
    let link = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    // The suffix of a folder that was moved or removed under its process.
    Some(PathBuf::from(link.to_string_lossy().trim_end_matches(" (deleted)")))
}

/// Kills all processes that work in `folder`, until none is left.
pub(crate) fn kill_all_in(folder: &Path) {
    let deadline = Deadline::after(Duration::from_secs(10));
    loop {
        let living = living_in(folder);
        if living.is_empty() || deadline.passed() {
            return;
        }
        for pid in living {
            // It may have ended meanwhile.
            let _ = kill(pid, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal; the process may have ended.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// Whether the process is there and not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}
