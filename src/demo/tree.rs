//! Trees of processes below one that the demo started.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `pid` and all its descendants, parents before children.
pub fn tree(pid: i32) -> Vec<i32> {
    let children = children();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        for child in children.get(&parent).into_iter().flatten() {
            if !found.contains(child) {
                found.push(*child);
            }
        }
    }
    found
}

fn children() -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_in(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

/// The parent in a line of `/proc/PID/stat`. The program's name, in parentheses, may contain any character.
fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The postmaster of a data directory of the demo, if one runs: the process of the pid file, in that directory.
pub fn postmaster(data_dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let runs_in = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (runs_in == fs::canonicalize(data_dir).ok()?).then_some(pid)
}

/// Sends `signal` to each, in order. A process that is gone is ignored.
pub fn send(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter(|pid| **pid > 1) {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// Whether any of them still runs (a zombie does not).
pub fn any_alive(pids: &[i32]) -> bool {
    let alive = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
    };
    pids.iter().any(alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_parent_behind_any_name() {
        assert_eq!(parent_in("12 (a) b (c)) S 7 1 1"), Some(7));
        assert_eq!(parent_in(""), None);
    }

    #[test]
    fn a_process_is_in_its_parents_tree() {
        let parent = nix::unistd::getppid().as_raw();
        assert!(tree(parent).contains(&(std::process::id() as i32)));
        assert!(any_alive(&[std::process::id() as i32]));
    }
}
