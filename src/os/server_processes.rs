//! The children of one postmaster, as last seen. They are server processes whatever their working directory.
//!
//! **Invariant.** A process is recorded only while the kernel names the postmaster as its parent. Its start time is
//! recorded too, so its process id can never stand for another process. When the postmaster is gone the last list
//! stays.

use std::os::fd::OwnedFd;

use super::procfs::{self, ProcessStat};

/// More than PostgreSQL's largest usual `max_connections`; further children are found by their working directory.
const CHILDREN_MAX: usize = 2048;
/// The space for the kernel's list of that many.
const LIST_BYTES: usize = 8 * CHILDREN_MAX;

/// The list, sorted by process id. Its memory is allocated on creation.
#[derive(Debug)]
pub(super) struct ServerProcesses {
    known: Vec<ServerProcess>,
    list: Box<[u8]>,
}

#[derive(Clone, Copy, Debug)]
struct ServerProcess {
    pid: i32,
    started_ticks: u64,
    /// It was in the last look.
    seen: bool,
}

impl ServerProcesses {
    pub(super) fn new() -> ServerProcesses {
        ServerProcesses {
            known: Vec::with_capacity(CHILDREN_MAX),
            list: vec![b' '; LIST_BYTES].into_boxed_slice(),
        }
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Reads the children of a live postmaster.
    pub(super) fn look(&mut self, proc: &OwnedFd, postmaster: i32) {
        if !procfs::read_children(proc, postmaster, &mut self.list) {
            return;
        }
        self.known.iter_mut().for_each(|child| child.seen = false);
        let mut words = self.list.split(|byte| *byte == b' ');
        if self.list.last() != Some(&b' ') {
            // The last number may be truncated.
            words.next_back();
        }
        let pids = words.filter_map(|word| std::str::from_utf8(word).ok()?.parse::<i32>().ok());
        for pid in pids {
            match self.known.binary_search_by_key(&pid, |child| child.pid) {
                Ok(place) => self.known[place].seen = true,
                Err(place) if self.known.len() < CHILDREN_MAX => {
                    if let Some(life) = procfs::life(proc, pid).filter(|life| life.parent == postmaster) {
                        let child = ServerProcess { pid, started_ticks: life.started_ticks, seen: true };
                        self.known.insert(place, child);
                    }
                }
                Err(_full) => {}
            }
        }
        self.known.retain(|child| child.seen);
    }

    /// Their process ids.
    pub(super) fn pids(&self) -> impl Iterator<Item = i32> {
        self.known.iter().map(|child| child.pid)
    }

    /// Whether the process with this id and start is one of them.
    pub(super) fn holds(&self, pid: i32, life: &ProcessStat) -> bool {
        self.find(pid).is_some_and(|child| child.started_ticks == life.started_ticks)
    }

    /// Whether one of them leads the session of a process: PostgreSQL makes each of its processes a session leader.
    pub(super) fn leads(&self, life: &ProcessStat) -> bool {
        self.find(life.session).is_some()
    }

    fn find(&self, pid: i32) -> Option<&ServerProcess> {
        let place = self.known.binary_search_by_key(&pid, |child| child.pid).ok()?;
        self.known.get(place)
    }
}
