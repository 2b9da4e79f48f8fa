//! The fuse: the kernel kills Postgres at the deadline, also while the guard itself is frozen.
//!
//! ```text
//!  guard ── reading end of a pipe, opened once for each process of Postgres: the wires
//!                    ║                  each O_ASYNC, F_SETSIG: SIGKILL, F_SETOWN: that process
//!        writing end, held by two processes (strands) and by nobody else
//!                    each with a timer that sends it SIGKILL a little after `kill_at`
//! ```
//!
//! SIGKILL reaches a stopped process, and one that the freezer of cgroup v2 holds. So at the deadline both strands die,
//! the pipe has no writer left, and the kernel tells the owner of each wire so, with SIGKILL: no instruction of a
//! program is needed. It has to reach the server processes, not only the postmaster: one whose client's next statement
//! lay in its socket at the freeze would answer it before it looked for its postmaster. One that was born since the
//! last look at the children has no wire yet; it finds its postmaster dead before it takes a second statement.
//!
//! # Invariants
//!
//! * **One strand alone burns nothing.** The pipe closes with the last of them: a strand that is killed or stopped by
//!   itself is found out, and both are replaced while nobody is the pipe's owner any more.
//! * **It belongs to processes, not to numbers.** The kernel keeps the process that was set as the owner; it counts
//!   only if it was seen to be one of Postgres after that.
//! * **A guard that ends burns nothing.** The end of a reader tells nobody, and only when the kernel has closed all
//!   that a dead guard had open does it kill the strands; of themselves they never end.
//! * **It never burns early.** It is lit only when both strands have repeated the newest deadline; while they have not,
//!   and the older one is near, it is out.

use std::convert::Infallible;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigEvent, SigHandler, SigevNotify, Signal};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::{ForkResult, Pid};
use rustix::process::PidfdFlags;

use super::wire::Wire;
use super::{descriptors, socket};
use crate::model::Moment;
use crate::os::prey::Hunt;

/// A guard that runs goes first, and tells more.
const AFTER_GUARD: Duration = Duration::from_millis(100);
/// A strand that has not repeated its deadline by then is stopped.
const REPEATED_WITHIN: Duration = Duration::from_secs(1);
/// Strands that do not live for long, or cannot be had, are not made in a tight loop.
const LAY_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What the start waits for each strand.
const SETTLED_WITHIN: Duration = Duration::from_millis(100);
/// One deadline, as it is told and repeated: a number, and nanoseconds since boot (zero: never).
const WORD_BYTES: usize = 16;

/// Processes of one Postgres that get a wire, if there are descriptors for that many; the guard kills those beyond when
/// it goes on.
const WIRES_MAX: usize = 2048;
/// Where no descriptor can be had all the same, none is asked for meanwhile.
const WIRE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the guard keeps of it.
pub(super) struct Fuse {
    pair: Option<Pair>,
    /// When it has to burn; zero: never.
    burns_at: Moment,
    laid_at: Moment,
}

/// Two strands and their pipe.
struct Pair {
    reader: OwnedFd,
    /// One for each process that the kernel kills, by its number.
    wires: Vec<Wire>,
    strands: [Strand; 2],
    /// Whose wires these are: the postmaster's number and its start.
    postmaster: (i32, u64),
    lit: bool,
    /// Some processes have no wire.
    partial: bool,
    /// No wire is made before.
    wire_at: Moment,
    /// Number and time of what was told last.
    told: (u64, Moment),
    told_at: Option<Moment>,
    /// No strand burns before.
    earliest: Moment,
}

/// One of the two processes.
struct Strand {
    process: OwnedFd,
    link: OwnedFd,
    repeated: u64,
}

impl Fuse {
    /// Out. To be called by a process with one thread; what it has locked of its memory has to be locked again.
    pub(super) fn lay(now: Moment) -> Fuse {
        // Children need not be waited for.
        // SAFETY: no handler is installed, and none was before.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) };
        let mut fuse = Fuse { pair: Pair::lay(now).ok(), burns_at: Moment::default(), laid_at: now };
        // Both repeat once, so that the first answer says whether it works at all.
        for _strand in 0..2 {
            if !fuse.is_whole() {
                socket::wait(fuse.sockets(), Some(SETTLED_WITHIN));
                fuse.hear(now);
            }
        }
        fuse
    }

    /// What to wait for on its behalf.
    pub(super) fn sockets(&self) -> [Option<&OwnedFd>; 2] {
        [0, 1].map(|which| self.pair.as_ref().map(|pair| &pair.strands[which].link))
    }

    /// When to look again although nothing was heard.
    pub(super) fn late_at(&self) -> Option<Moment> {
        self.pair.as_ref().and_then(|pair| pair.told_at).map(|at| at + REPEATED_WITHIN)
    }

    /// Whether the kernel stands by.
    pub(super) fn is_whole(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.told_at.is_none())
    }

    /// Whether the kernel stands by for some of the processes only.
    pub(super) fn is_partial(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.partial)
    }

    /// From now on it burns after `kill_at`, and the Postgres of `hunt` with it.
    pub(super) fn arm(&mut self, kill_at: Moment, hunt: &mut Hunt, now: Moment) {
        self.burns_at = kill_at + AFTER_GUARD;
        if let Some(pair) = &mut self.pair {
            pair.follow(hunt, now);
            pair.tell(self.burns_at, now);
        }
    }

    /// To be called often while it is armed, because server processes come and go.
    pub(super) fn follow(&mut self, hunt: &mut Hunt, now: Moment) {
        if let Some(pair) = &mut self.pair {
            pair.follow(hunt, now);
        }
    }

    /// Out at once.
    pub(super) fn disarm(&mut self, now: Moment) {
        self.burns_at = Moment::default();
        if let Some(pair) = &mut self.pair {
            pair.put_out();
            pair.tell(self.burns_at, now);
        }
    }

    /// Hears the strands; true when they had to be replaced.
    pub(super) fn look(&mut self, hunt: &mut Hunt, now: Moment) -> bool {
        self.hear(now);
        let wanted = now < self.burns_at && self.pair.is_none();
        if !wanted || now < self.laid_at + LAY_AGAIN_AFTER {
            return false;
        }
        self.laid_at = now;
        self.pair = Pair::lay(now).ok();
        if let Some(pair) = &mut self.pair {
            pair.follow(hunt, now);
            pair.tell(self.burns_at, now);
        }
        true
    }

    fn hear(&mut self, now: Moment) {
        if self.pair.as_mut().is_some_and(|pair| !pair.hear(now)) {
            self.pair = None;
        }
    }
}

impl Pair {
    fn lay(now: Moment) -> nix::Result<Pair> {
        let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
        let (reader, writer) = nix::unistd::pipe2(flags)?;
        let strands = [Strand::start(&writer)?, Strand::start(&writer)?];
        let mut pair = Pair {
            reader,
            wires: Vec::with_capacity(WIRES_MAX),
            strands,
            postmaster: (0, 0),
            lit: false,
            partial: false,
            wire_at: Moment::default(),
            told: (0, Moment::default()),
            told_at: None,
            earliest: Moment::default(),
        };
        pair.tell(Moment::default(), now);
        Ok(pair)
    }

    /// Wires who is new, and lets go of who is gone.
    fn follow(&mut self, hunt: &mut Hunt, now: Moment) {
        let prey = hunt.prey();
        let postmaster = (prey.pid, prey.started_ticks);
        if self.postmaster != postmaster {
            (self.postmaster, self.lit) = (postmaster, false);
            self.wires.clear();
        }
        self.wires.iter_mut().for_each(|wire| wire.seen = false);
        let most = descriptors::budget().min(WIRES_MAX);
        if most < self.wires.len() {
            // The postmaster is the first to get one.
            self.wires.clear();
        }
        self.partial = false;
        hunt.family(|hunt, pid| match self.wires.binary_search_by_key(&pid, |wire| wire.pid) {
            Ok(place) => self.wires[place].seen = true,
            Err(place) if self.wires.len() < most && self.wire_at <= now => {
                match Wire::to(pid, &self.reader, hunt) {
                    Ok(Some(wire)) => {
                        wire.set_lit(self.lit);
                        self.wires.insert(place, wire);
                    }
                    Ok(None) => {}
                    Err(_) => (self.wire_at, self.partial) = (now + WIRE_AGAIN_AFTER, true),
                }
            }
            Err(_full) => self.partial = true,
        });
        self.wires.retain(|wire| wire.seen);
    }

    /// Tells both when to burn.
    fn tell(&mut self, at: Moment, now: Moment) {
        if self.earliest < now + REPEATED_WITHIN {
            // They may repeat the new one too late for the old one.
            self.put_out();
        }
        self.earliest = if self.lit { self.earliest.min(at) } else { at };
        self.told = (self.told.0 + 1, at);
        self.told_at = Some(now);
        let mut word = [0; WORD_BYTES];
        word[..8].copy_from_slice(&self.told.0.to_le_bytes());
        word[8..].copy_from_slice(&at.as_nanos().to_le_bytes());
        for strand in &self.strands {
            // One that does not take it will not repeat it.
            let _ = socket::send(&strand.link, &word);
        }
    }

    /// False when a strand is dead or stopped.
    fn hear(&mut self, now: Moment) -> bool {
        let alive = self.strands.iter_mut().all(Strand::hear);
        let repeated = self.strands.iter().all(|strand| strand.repeated == self.told.0);
        if alive && repeated && self.told_at.take().is_some() {
            self.earliest = self.told.1;
            if self.told.1 != Moment::default() {
                self.set_lit(true);
            }
        }
        alive && self.told_at.is_none_or(|at| now < at + REPEATED_WITHIN)
    }

    fn put_out(&mut self) {
        if self.lit {
            self.set_lit(false);
        }
    }

    fn set_lit(&mut self, lit: bool) {
        self.lit = lit;
        self.wires.iter().for_each(|wire| wire.set_lit(lit));
    }
}

impl Drop for Pair {
    /// The order matters: nobody may be the owner when the strands die.
    fn drop(&mut self) {
        self.put_out();
    }
}

impl Drop for Strand {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }
}

impl Strand {
    fn start(writer: &OwnedFd) -> nix::Result<Strand> {
        let errno = |errno: rustix::io::Errno| nix::errno::Errno::from_raw(errno.raw_os_error());
        let (link, its) = socket::pair().map_err(errno)?;
        let guard = nix::unistd::getpid();
        // SAFETY: the process has one thread, so whatever the child calls, nobody holds a lock there.
        match unsafe { nix::unistd::fork()? } {
            ForkResult::Child => {
                let _ = burn(&its, writer, guard);
                // SAFETY: it ends the process and returns to nobody.
                unsafe { libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                let pid = rustix::process::Pid::from_raw(child.as_raw()).ok_or(nix::errno::Errno::ESRCH)?;
                match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(process) => Ok(Strand { process, link, repeated: 0 }),
                    Err(why) => {
                        // It has just been made.
                        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                        Err(errno(why))
                    }
                }
            }
        }
    }

    /// False when it is dead.
    fn hear(&mut self) -> bool {
        let mut buffer = [0; WORD_BYTES];
        loop {
            match socket::receive(&self.link, &mut buffer) {
                Ok([]) => return false,
                Ok(word) => {
                    let number = word.first_chunk().map(|number| u64::from_le_bytes(*number));
                    self.repeated = number.unwrap_or(self.repeated);
                }
                Err(errno) => return errno == rustix::io::Errno::AGAIN,
            }
        }
    }
}

/// Is a strand: sets its timer to what it is told, and repeats that.
fn burn(link: &OwnedFd, writer: &OwnedFd, guard: Pid) -> nix::Result<Infallible> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != guard {
        return Err(nix::errno::Errno::ESRCH);
    }
    nix::sys::prctl::set_name(c"matriarch-fuse")?;
    let errno = |errno: rustix::io::Errno| nix::errno::Errno::from_raw(errno.raw_os_error());
    // It must hold nothing else of the guard's: neither the reading end nor the supervisor's socket.
    rustix::stdio::dup2_stdin(link).map_err(errno)?;
    rustix::stdio::dup2_stdout(writer).map_err(errno)?;
    // SAFETY: the call takes plain numbers; what it closes is never used again, because this function never returns.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0) };
    nix::errno::Errno::result(closed)?;
    let link = rustix::stdio::stdin();
    rustix::io::ioctl_fionbio(link, false).map_err(errno)?;
    let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_BOOTTIME, event)?;
    while repeat(link, &mut timer).is_some() {}
    // Were it to end now, the other one might, too, before the pipe of a guard that dies is closed.
    loop {
        nix::unistd::pause();
    }
}

/// Takes one deadline; `None` when it cannot, as when the guard is gone.
fn repeat(link: BorrowedFd<'_>, timer: &mut Timer) -> Option<()> {
    let mut word = [0; WORD_BYTES];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(link, &mut word)).ok()?;
    let nanos = u64::from_le_bytes(*word[..length].last_chunk()?);
    let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(nanos)));
    timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).ok()?;
    rustix::io::write(link, &word).ok().map(drop)
}
