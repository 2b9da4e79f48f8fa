//! A cgroup for each member: frozen, thawed and killed as one, as a paused or lost machine would be.
//!
//! Version 2 only, and only its core, so that no controller is needed. Where there is none, a member's processes are
//! found by their working directory and stopped one by one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Its folder.
    pub(crate) folder: PathBuf,
}

/// Where version 2 is mounted, if anywhere.
fn root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mounted = mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    mounted.map(|root| root.join(own().unwrap_or_default().trim_start_matches('/')))
}

/// Our own place in the hierarchy.
fn own() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

impl Cgroup {
    /// A new one below `run`; `None` where cgroups cannot be made or cannot be frozen.
    pub(crate) fn new(run: &str, name: &str) -> Option<Cgroup> {
        let folder = root()?.join(run).join(name);
        std::fs::create_dir_all(&folder).ok()?;
        folder.join("cgroup.freeze").exists().then_some(Cgroup { folder })
    }

    /// The processes in it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Stops or resumes all of it.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        let value = if frozen { "1" } else { "0" };
        std::fs::write(self.folder.join("cgroup.freeze"), value).context("write cgroup.freeze")
    }

    /// Whether every process in it has stopped.
    pub(crate) fn is_frozen(&self) -> bool {
        let text = std::fs::read_to_string(self.folder.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|line| line == "frozen 1")
    }

    /// Kills all of it at once; false where the kernel has no such thing.
    pub(crate) fn kill(&self) -> bool {
        std::fs::write(self.folder.join("cgroup.kill"), "1").is_ok()
    }
}

/// Removes the cgroups of a run, which hold no process any more.
pub(crate) fn remove(run: &str) {
    let Some(folder) = root().map(|root| root.join(run)) else { return };
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        // What still holds a zombie goes at the next start.
        let _ = std::fs::remove_dir(entry.path());
    }
    let _ = std::fs::remove_dir(Path::new(&folder));
}
