//! Finding and killing every process of one Postgres.
//!
//! **Invariants.** Nothing here allocates memory, so that it works when there is none. A process is signalled only
//! through a descriptor that was opened before its identity was checked, so that a number that was given to another
//! process in between is never hit. "None is left" is said only when two whole looks through `/proc`, one after the
//! other, found none: a process that was forked behind the back of the first is seen by the second.
//!
//! A process belongs to a Postgres if it runs its program in its data directory: every backend works there, and that
//! needs no disk to be read. A directory that was renamed or removed shows under another name; the postmaster tells
//! which.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::process;
use super::procfs::{self, link, started_ticks};
use super::text::{PATH_BYTES_MAX, PathText};

/// Looks in a row that find nothing until nothing is left.
const EMPTY_LOOKS: u32 = 2;
/// What one read of `/proc` returns.
const ENTRIES_BYTES: usize = 8192;
/// What Linux appends to the name of a file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// What every process of one Postgres has in common, resolved while the disk still answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prey {
    /// The postmaster; zero while it is not known.
    pub pid: i32,
    /// Its start, in clock ticks since boot, so that another process with its number is told apart; zero: not known.
    pub started_ticks: u64,
    /// What it runs, resolved.
    pub program: PathText,
    /// Where, resolved.
    pub directory: PathText,
}

impl Prey {
    /// The same with its postmaster known.
    pub fn with_postmaster(self, pid: i32) -> Prey {
        let started_ticks = process::stat(pid).map_or(0, |stat| stat.started_ticks);
        Prey { pid, started_ticks, ..self }
    }

    /// Every living process of it.
    pub fn all(&self) -> Vec<i32> {
        let mut found = Vec::new();
        if let Ok(mut hunt) = Hunt::open() {
            hunt.aim(self);
            // A look that breaks off shows fewer; whoever needs certainty asks `kill_all`.
            let _ = hunt.each(|_, pid| found.push(pid));
        }
        found
    }

    /// Sends SIGKILL to every process of it; false only when none was left to begin with.
    pub fn kill_all(&self) -> bool {
        let Ok(mut hunt) = Hunt::open() else { return true };
        hunt.aim(self);
        hunt.kill();
        !hunt.is_over()
    }

    /// Signals the postmaster, if it still is one.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> bool {
        let Ok(mut hunt) = Hunt::open() else { return false };
        hunt.aim(self);
        Signal::from_named_raw(signal as i32).is_some_and(|signal| hunt.signal_postmaster(signal))
    }
}

/// Everything that is needed to kill one Postgres, taken hold of beforehand.
#[derive(Debug)]
pub struct Hunt {
    proc: OwnedFd,
    prey: Prey,
    postmaster: Option<OwnedFd>,
    /// Where the postmaster works when it is not under the name of the data directory.
    moved_to: PathText,
    /// The postmaster's children when it was last seen alive, as the kernel lists them.
    children: [u8; ENTRIES_BYTES],
    empty_looks: u32,
}

impl Hunt {
    /// With no prey yet.
    pub fn open() -> io::Result<Hunt> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, c"/proc", flags, Mode::empty())?;
        let prey = Prey { pid: 0, started_ticks: 0, program: PathText::EMPTY, directory: PathText::EMPTY };
        let children = [b' '; ENTRIES_BYTES];
        Ok(Hunt { proc, prey, postmaster: None, moved_to: PathText::EMPTY, children, empty_looks: 0 })
    }

    /// Whom it is after.
    pub fn prey(&self) -> &Prey {
        &self.prey
    }

    /// Goes after `prey` from now on. Its postmaster is held by a descriptor while it lives.
    pub fn aim(&mut self, prey: &Prey) {
        if self.prey != *prey {
            self.prey = *prey;
            self.moved_to = PathText::EMPTY;
            self.postmaster = self.hold_postmaster();
        }
        self.note_children();
        self.empty_looks = 0;
    }

    /// Whether this number is that of a living process of the prey.
    pub fn holds(&self, pid: i32) -> bool {
        if pid == self.prey.pid { self.hold_postmaster().is_some() } else { self.is_part(pid) }
    }

    /// Shows the postmaster's number and those of its children to `found`: fast, and nothing is proved by it.
    pub fn family(&mut self, mut found: impl FnMut(&Hunt, i32)) {
        self.note_children();
        found(self, self.prey.pid);
        self.children().for_each(|pid| found(self, pid));
    }

    /// As last noted.
    fn children(&self) -> impl Iterator<Item = i32> {
        let words = self.children.split(|byte| *byte == b' ');
        words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
    }

    fn hold_postmaster(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.prey.pid)?;
        let held = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let started = started_ticks(&self.proc, self.prey.pid);
        let same = self.prey.started_ticks == 0 || started == Some(self.prey.started_ticks);
        (same && self.runs_program(self.prey.pid)).then_some(held)
    }

    /// Signals the postmaster, if it is still there.
    pub fn signal_postmaster(&mut self, signal: Signal) -> bool {
        let sent = |held: &OwnedFd| rustix::process::pidfd_send_signal(held, signal).is_ok();
        self.postmaster.as_ref().is_some_and(sent)
    }

    /// Sends SIGKILL to every process there is, the postmaster first, then its children, then whatever a look through
    /// `/proc` shows, which takes longer; returns how many were found.
    pub fn kill(&mut self) -> u32 {
        self.note_move();
        self.note_children();
        let postmaster = u32::from(self.signal_postmaster(Signal::KILL) && self.postmaster_lives());
        let children = self.kill_children();
        let mut found = postmaster;
        let looked = self.each(|hunt, pid| {
            found += 1;
            hunt.kill_one(pid);
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

    /// True when it is proved that nothing is left.
    pub fn is_over(&self) -> bool {
        EMPTY_LOOKS <= self.empty_looks
    }

    /// Does what a kill does, up to the signal, so that everything it needs is in memory; returns how many there are.
    pub fn rehearse(&mut self) -> u32 {
        self.note_move();
        let mut found = 0;
        let _ = self.each(|_, _| found += 1);
        found
    }

    /// A descriptor of a dead process that nobody has waited for can be signalled all the same.
    fn postmaster_lives(&self) -> bool {
        self.runs_program(self.prey.pid)
    }

    /// Those of the list that are still part of the prey.
    fn kill_children(&self) -> u32 {
        let living = self.children().filter(|pid| self.is_part(*pid));
        living.map(|pid| self.kill_one(pid)).count() as u32
    }

    /// The list of a dead postmaster is empty: then the last one stays.
    fn note_children(&mut self) {
        if self.postmaster_lives() {
            // What does not fit, and what is born later, the look through `/proc` finds.
            procfs::read_children(&self.proc, self.prey.pid, &mut self.children);
        }
    }

    fn kill_one(&self, pid: i32) {
        let Some(number) = Pid::from_raw(pid) else { return };
        match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(held) if self.is_part(pid) => drop(rustix::process::pidfd_send_signal(held, Signal::KILL)),
            // Gone, or another's by now.
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            // No descriptor to be had: better a small chance to hit a wrong one than to leave this one alive.
            Err(_) => drop(rustix::process::kill_process(number, Signal::KILL)),
        }
    }

    /// The directory may have got another name since.
    fn note_move(&mut self) {
        if self.postmaster.is_none() || !self.postmaster_lives() {
            return;
        }
        let mut buffer = [0; PATH_BYTES_MAX];
        if let Some(place) = link(&self.proc, self.prey.pid, b"/cwd", &mut buffer)
            && place != self.prey.directory.as_bytes()
        {
            self.moved_to = PathText::new(place).unwrap_or(self.moved_to);
        }
    }

    fn runs_program(&self, pid: i32) -> bool {
        let mut buffer = [0; PATH_BYTES_MAX];
        link(&self.proc, pid, b"/exe", &mut buffer)
            .is_some_and(|exe| exe.strip_suffix(DELETED).unwrap_or(exe) == self.prey.program.as_bytes())
    }

    /// True for a living process of the prey: of a zombie neither link can be read.
    fn is_part(&self, pid: i32) -> bool {
        let mut buffer = [0; PATH_BYTES_MAX];
        let Some(place) = link(&self.proc, pid, b"/cwd", &mut buffer) else { return false };
        let here = place == self.prey.directory.as_bytes()
            || (!self.moved_to.is_empty() && place == self.moved_to.as_bytes());
        here && !self.prey.program.is_empty() && self.runs_program(pid)
    }

    /// Shows every living process of the prey to `found`.
    fn each(&mut self, mut found: impl FnMut(&Hunt, i32)) -> io::Result<()> {
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

/// A name that is a process.
fn number(name: &CStr) -> Option<i32> {
    let digits = name.to_bytes();
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use super::*;

    fn sleeper(place: &std::path::Path) -> (Child, Prey) {
        let child = Command::new("sleep").arg("60").current_dir(place).spawn().expect("sleep starts");
        let text = |path: std::path::PathBuf| PathText::try_from(path).expect("a short path");
        // Until the exec it runs our own program.
        while process::exe(child.id() as i32) == process::exe(std::process::id() as i32) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let prey = Prey {
            pid: 0,
            started_ticks: 0,
            program: text(process::exe(child.id() as i32).expect("its program")),
            directory: text(place.canonicalize().expect("a place")),
        };
        (child, prey)
    }

    fn place(name: &str) -> std::path::PathBuf {
        let place = std::env::temp_dir().join(format!("prey-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a place");
        place
    }

    #[test]
    fn what_runs_the_program_in_the_directory_is_killed_until_none_is_left() {
        let (here, there) = (place("here"), place("there"));
        let (mut first, prey) = sleeper(&here);
        let (mut second, _) = sleeper(&here);
        let (mut other, _) = sleeper(&there);
        let stop = Pid::from_raw(second.id() as i32).expect("a process");
        rustix::process::kill_process(stop, Signal::STOP).expect("stopped");
        let mut all = prey.all();
        all.sort_unstable();
        let mut expected = [first.id() as i32, second.id() as i32];
        expected.sort_unstable();
        assert_eq!(all, expected);
        while prey.kill_all() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(first.try_wait().expect("waited").is_some() && second.try_wait().expect("waited").is_some());
        assert!(other.try_wait().expect("waited").is_none());
        other.kill().expect("killed");
        other.wait().expect("waited");
        for place in [here, there] {
            std::fs::remove_dir_all(place).expect("removed");
        }
    }

    #[test]
    fn a_renamed_directory_hides_nothing_from_one_who_knows_the_postmaster() {
        let (old, new) = (place("old"), place("new"));
        let (mut postmaster, prey) = sleeper(&old);
        let (mut backend, _) = sleeper(&old);
        let prey = prey.with_postmaster(postmaster.id() as i32);
        std::fs::rename(&old, &new).expect("renamed");
        while prey.kill_all() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(postmaster.wait().is_ok() && backend.wait().is_ok());
        std::fs::remove_dir_all(new).expect("removed");
    }

    #[test]
    fn another_process_with_the_postmasters_number_is_not_it() {
        let here = place("number");
        let (mut child, prey) = sleeper(&here);
        let prey =
            Prey { started_ticks: 1, directory: PathText::EMPTY, ..prey.with_postmaster(child.id() as i32) };
        assert!(!prey.kill_all() && !prey.signal(nix::sys::signal::Signal::SIGTERM));
        assert!(child.try_wait().expect("waited").is_none());
        child.kill().expect("killed");
        child.wait().expect("waited");
        std::fs::remove_dir_all(here).expect("removed");
    }

    #[test]
    fn the_start_is_read_as_the_stat_line_says() {
        let me = std::process::id() as i32;
        let proc = Hunt::open().expect("/proc").proc;
        assert_eq!(started_ticks(&proc, me), process::stat(me).map(|stat| stat.started_ticks));
    }
}
