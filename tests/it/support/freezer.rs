//! A member frozen by the freezer of cgroup v2: every process at once, like a paused container.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::{Deadline, Member, processes};

/// A cgroup with all processes of one member. On drop, they continue.
pub(crate) struct Freezer {
    folder: PathBuf,
}

impl Freezer {
    /// `None`, after a message with the reason, if no cgroup can be made.
    pub(crate) fn around(member: &Member) -> Option<Freezer> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let root = mounted
            .filter(|words| words.get(2) == Some(&"cgroup2"))
            .find_map(|words| Some(PathBuf::from(words.get(1)?)));
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let Some((root, own)) = root.zip(own) else {
            eprintln!("not tried: there is no cgroup v2 here");
            return None;
        };
        let folder = root.join(own).join(format!("frozen-{}-{}", std::process::id(), member.name));
        if let Err(error) = fs::create_dir(&folder) {
            eprintln!("not tried: cannot make a cgroup: {error}");
            return None;
        }
        let freezer = Freezer { folder };
        // The next look finds processes that were forked in the meantime.
        let deadline = Deadline::after(Duration::from_secs(10));
        while let Some(outside) =
            processes::living_in(&member.folder).into_iter().find(|pid| !freezer.holds(pid.as_raw()))
        {
            assert!(!deadline.passed(), "process {outside} of {} cannot be moved", member.name);
            let _ = fs::write(freezer.folder.join("cgroup.procs"), outside.to_string());
        }
        Some(freezer)
    }

    fn holds(&self, pid: i32) -> bool {
        let text = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        text.lines().any(|line| line.parse() == Ok(pid))
    }

    /// On return all processes are frozen.
    pub(crate) fn freeze(&self) {
        fs::write(self.folder.join("cgroup.freeze"), "1").expect("it can be frozen");
        let deadline = Deadline::after(Duration::from_secs(10));
        while !self.is_frozen() {
            assert!(!deadline.passed(), "not frozen in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether every process in it is frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        let text = fs::read_to_string(self.folder.join("cgroup.events")).unwrap_or_default();
        text.lines().any(|line| line == "frozen 1")
    }

    /// All processes continue at once.
    pub(crate) fn thaw(&self) {
        fs::write(self.folder.join("cgroup.freeze"), "0").expect("it can be thawed");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.freeze"), "0");
        if let (Ok(pids), Some(parent)) =
            (fs::read_to_string(self.folder.join("cgroup.procs")), self.folder.parent())
        {
            for pid in pids.lines() {
                let _ = fs::write(parent.join("cgroup.procs"), pid);
            }
        }
        let _ = fs::remove_dir(&self.folder);
    }
}
