//! Processes by id: who they are, whether they run, and signals to them. Never by a name alone.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The state in `/proc/PID/stat`; `None` when there is no such process.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether it is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// Whether SIGSTOP has reached it.
pub(crate) fn is_stopped(pid: i32) -> bool {
    state(pid) == Some('T')
}

/// Sends a signal to each. One that has ended meanwhile needs none.
pub(crate) fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter(|pid| **pid > 1) {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// The name of the file that it executes.
pub(crate) fn program(pid: i32) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = link.file_name()?.to_string_lossy().into_owned();
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

/// Its command line, word by word.
pub(crate) fn words(pid: i32) -> Vec<String> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).into_owned();
    text.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Its parent.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Processes whose working directory is `folder` or below.
pub(crate) fn living_in(folder: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|working| working.starts_with(folder))
    })
    .collect()
}

/// Waits until a condition holds, and says what was waited for when it does not.
pub(crate) async fn wait_for(what: &str, within: Duration, mut level: impl FnMut() -> bool) -> Result<()> {
    let by = Instant::now() + within;
    while !level() {
        if Instant::now() > by {
            bail!("not within {} s: {what}", within.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_what_it_is() {
        let me = std::process::id() as i32;
        assert!(is_alive(me) && !is_stopped(me));
        assert!(parent(me).is_some() && program(me).is_some() && !words(me).is_empty());
        let here = std::env::current_dir().expect("there is one");
        assert!(living_in(&here).contains(&me));
    }
}
