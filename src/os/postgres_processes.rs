//! Finding and killing every process of one Postgres.
//!
//! **Invariants.** Nothing here allocates memory, so it works when there is none. A process is signalled only through a
//! descriptor that was opened before its identity was checked, so a process id that was reused in between never leads
//! to the wrong process. "None is left" is reported only when two whole looks through `/proc`, one after the other,
//! found none: the second sees a process that was forked during the first.
//!
//! A process belongs to a Postgres if it is a child of its postmaster, whatever its working directory. It also belongs
//! to it if its working directory is the data directory and its program is called `postgres` or is the configured one:
//! since its start a link to the programs may have been moved, a package replaced, a directory renamed. Directories are
//! compared by name first, which needs no disk, then by device and inode.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::file_id::FileId;
use super::process::{self, ProcessId};
use super::procfs::{self, ProcessStat, link};
use super::server_processes::ServerProcesses;
use super::text::{PATH_BYTES_MAX, PathText};

/// The number of looks in a row without a process that proves that none is left.
const EMPTY_LOOKS: u32 = 2;
/// The size of one read of `/proc`.
const ENTRIES_BYTES: usize = 8192;
/// A part of the server program's name in every distribution.
const POSTGRES: &[u8] = b"postgres";
/// Linux' suffix for the name of a deleted file.
const DELETED: &[u8] = b" (deleted)";

/// The common properties of one Postgres' processes, resolved while the disk still answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresProcesses {
    /// The postmaster's process id; zero while it is unknown.
    pub pid: i32,
    /// Its start, in clock ticks since boot, which distinguishes it from another process with its id; zero: unknown.
    pub started_ticks: u64,
    /// Its program by the configuration, resolved. Its processes may show another name.
    pub program: PathText,
    /// The data directory, resolved.
    pub directory: PathText,
    /// The same directory, whatever its present name.
    pub place: FileId,
}

impl PostgresProcesses {
    /// The same with a known postmaster.
    pub fn with_postmaster(self, pid: i32) -> PostgresProcesses {
        let started_ticks = process::stat(pid).map_or(0, |stat| stat.started_ticks);
        PostgresProcesses { pid, started_ticks, ..self }
    }

    /// Its postmaster, if it is known for certain.
    pub fn postmaster(&self) -> Option<ProcessId> {
        (self.pid != 0 && self.started_ticks != 0)
            .then_some(ProcessId { pid: self.pid, started_ticks: self.started_ticks })
    }

    /// Whether a live process belongs to it, by its program and its working directory.
    pub fn includes(&self, pid: i32) -> bool {
        let Ok(mut killer) = ProcessKiller::open() else { return false };
        killer.processes = *self;
        killer.runs_program(pid) && killer.works_here(pid)
    }

    /// All live processes of it.
    pub fn all(&self) -> Vec<i32> {
        let mut found = Vec::new();
        if let Ok(mut killer) = ProcessKiller::open() {
            killer.set_target(self);
            // An aborted look shows fewer; a caller that needs certainty uses `kill_all`.
            let _ = killer.each(|_, pid| found.push(pid));
        }
        found
    }

    /// Sends SIGKILL to all its processes; false only when there was none left.
    pub fn kill_all(&self) -> bool {
        let Ok(mut killer) = ProcessKiller::open() else { return true };
        killer.set_target(self);
        killer.kill();
        !killer.is_over()
    }

    /// Signals the postmaster, if it still is one.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> bool {
        let Ok(mut killer) = ProcessKiller::open() else { return false };
        killer.set_target(self);
        Signal::from_named_raw(signal as i32).is_some_and(|signal| killer.signal_postmaster(signal))
    }
}

/// All that is needed to kill one Postgres, opened beforehand.
#[derive(Debug)]
pub struct ProcessKiller {
    proc: OwnedFd,
    processes: PostgresProcesses,
    postmaster: Option<OwnedFd>,
    children: ServerProcesses,
    empty_looks: u32,
}

impl ProcessKiller {
    /// Without a target yet.
    pub fn open() -> io::Result<ProcessKiller> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
        let processes = PostgresProcesses {
            pid: 0,
            started_ticks: 0,
            program: PathText::EMPTY,
            directory: PathText::EMPTY,
            place: FileId::default(),
        };
        Ok(ProcessKiller {
            proc,
            processes,
            postmaster: None,
            children: ServerProcesses::new(),
            empty_looks: 0,
        })
    }

    /// The target.
    pub fn processes(&self) -> &PostgresProcesses {
        &self.processes
    }

    /// Sets the target. Its postmaster is kept open by a descriptor while it lives.
    pub fn set_target(&mut self, processes: &PostgresProcesses) {
        if self.processes != *processes {
            self.processes = *processes;
            self.children.clear();
            self.postmaster = self.hold_postmaster();
        }
        self.note_children();
        self.empty_looks = 0;
    }

    /// Whether this process id belongs to a live process of the target.
    pub fn holds(&self, pid: i32) -> bool {
        if pid == self.processes.pid { self.hold_postmaster().is_some() } else { self.is_part(pid) }
    }

    /// Passes the ids of the postmaster and its children to `found`: fast, but without proof.
    pub fn family(&mut self, mut found: impl FnMut(&ProcessKiller, i32)) {
        self.note_children();
        found(self, self.processes.pid);
        self.children.pids().for_each(|pid| found(self, pid));
    }

    fn hold_postmaster(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.processes.pid)?;
        let held = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        self.postmaster_lives().then_some(held)
    }

    /// Signals the postmaster, if it still exists.
    pub fn signal_postmaster(&mut self, signal: Signal) -> bool {
        let sent = |held: &OwnedFd| rustix::process::pidfd_send_signal(held, signal).is_ok();
        self.postmaster.as_ref().is_some_and(sent)
    }

    /// Sends SIGKILL to all processes: the postmaster first, then its children, then all others found in `/proc`, which
    /// takes longer. Returns how many were found.
    pub fn kill(&mut self) -> u32 {
        self.note_children();
        let postmaster = u32::from(self.signal_postmaster(Signal::KILL) && self.postmaster_lives());
        let children = self.kill_children();
        let mut found = postmaster;
        let looked = self.each(|killer, pid| {
            found += 1;
            killer.kill_one(pid);
        });
        // Some may have died in between.
        found = found.max(postmaster + children);
        self.empty_looks = if looked.is_ok() && found == 0 { self.empty_looks + 1 } else { 0 };
        if self.empty_looks == 1 {
            // At once again: this is the second look.
            return self.kill();
        }
        found
    }

    /// Whether it is proved that no process is left.
    pub fn is_over(&self) -> bool {
        EMPTY_LOOKS <= self.empty_looks
    }

    /// Does all of a kill except for the signal, so that its memory is loaded; returns the number of processes.
    pub fn warm_up(&mut self) -> u32 {
        let mut found = 0;
        let _ = self.each(|_, _| found += 1);
        found
    }

    /// A signal to a zombie succeeds as well, so the state is checked.
    fn postmaster_lives(&self) -> bool {
        let Some(life) = self.life(self.processes.pid) else { return false };
        match self.processes.started_ticks {
            0 => self.runs_program(self.processes.pid) && self.works_here(self.processes.pid),
            started_ticks => life.started_ticks == started_ticks,
        }
    }

    /// Kills those of the list that are still part of the target.
    fn kill_children(&self) -> u32 {
        let living = self.children.pids().filter(|pid| self.is_part(*pid));
        living.map(|pid| self.kill_one(pid)).count() as u32
    }

    /// A dead postmaster has no children in the list: then the last list stays.
    fn note_children(&mut self) {
        if self.postmaster_lives() {
            // The look through `/proc` finds children that do not fit, and later ones.
            self.children.look(&self.proc, self.processes.pid);
        }
    }

    fn kill_one(&self, pid: i32) {
        let Some(number) = Pid::from_raw(pid) else { return };
        match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(held) if self.is_part(pid) => drop(rustix::process::pidfd_send_signal(held, Signal::KILL)),
            // It is gone, or its id belongs to another process.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            // Without a free descriptor, a small risk of killing a wrong process is better than leaving this one alive.
            Err(_) => drop(rustix::process::kill_process(number, Signal::KILL)),
        }
    }

    fn life(&self, pid: i32) -> Option<ProcessStat> {
        procfs::life(&self.proc, pid).filter(|life| !life.is_zombie)
    }

    fn runs_program(&self, pid: i32) -> bool {
        let mut buffer = [0; PATH_BYTES_MAX];
        let Some(program) = link(&self.proc, pid, b"/exe", &mut buffer) else { return false };
        let program = program.strip_suffix(DELETED).unwrap_or(program);
        program == self.processes.program.as_bytes() || is_called_postgres(program)
    }

    /// The name is compared first: it needs no disk that answers.
    fn works_here(&self, pid: i32) -> bool {
        let mut buffer = [0; PATH_BYTES_MAX];
        let Some(place) = link(&self.proc, pid, b"/cwd", &mut buffer) else { return false };
        let same = || procfs::target(&self.proc, pid, b"/cwd") == Some(self.processes.place);
        place == self.processes.directory.as_bytes() || (self.processes.place.is_known() && same())
    }

    /// Whether it is a live process of the target; a zombie has no readable links.
    fn is_part(&self, pid: i32) -> bool {
        let by_birth = |life: ProcessStat| {
            self.children.holds(pid, &life) || (self.children.leads(&life) && self.runs_program(pid))
        };
        self.life(pid).is_some_and(by_birth) || (self.runs_program(pid) && self.works_here(pid))
    }

    /// Passes every live process of the target to `found`.
    fn each(&mut self, mut found: impl FnMut(&ProcessKiller, i32)) -> io::Result<()> {
        rustix::fs::seek(&self.proc, SeekFrom::Start(0))?;
        let mut space = [const { MaybeUninit::<u8>::uninit() }; ENTRIES_BYTES];
        let mut entries = RawDir::new(&self.proc, &mut space);
        while let Some(entry) = entries.next() {
            if let Some(pid) = number(entry?.file_name())
                && self.is_part(pid)
            {
                found(self, pid);
            }
        }
        Ok(())
    }
}

/// `postgres`, `edb-postgres`, `.postgres-wrapped`, `postgres.old`.
fn is_called_postgres(program: &[u8]) -> bool {
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.windows(POSTGRES.len()).any(|part| part == POSTGRES)
}

/// The process id in a name.
fn number(name: &CStr) -> Option<i32> {
    let digits = name.to_bytes();
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
