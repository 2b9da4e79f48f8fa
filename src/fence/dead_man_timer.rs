//! The dead-man timer: the kernel kills Postgres at the deadline, even while the guard itself is frozen.
//!
//! ```text
//!  guard ── reading end of a pipe, opened once for each process of Postgres: the triggers
//!                    ║                  each O_ASYNC, F_SETSIG: SIGKILL, F_SETOWN: that process
//!        writing end, held only by two timer processes
//!                    each with a timer that sends it SIGKILL a little after `kill_at`
//! ```
//!
//! SIGKILL reaches a stopped process, and also one that the freezer of cgroup v2 holds. So at the deadline both timer
//! processes die, and the pipe has no writer left. The kernel signals that to the owner of each trigger with SIGKILL;
//! no program has to run. The signal has to reach the server processes, not only the postmaster: a statement may have
//! arrived in a server process's socket during the freeze, and the process would answer it before it noticed the death
//! of its postmaster. A process that was forked after the last look at the children has no trigger yet; it finds its
//! postmaster dead before it takes a second statement.
//!
//! # Invariants
//!
//! * **One timer process alone kills nothing.** The pipe closes only with the last of them. When one is killed or
//!   stopped alone, the guard notices and replaces both, after it has removed the pipe's owners.
//! * **A trigger belongs to a process, not to a process id.** The kernel keeps the process that was set as the owner.
//!   The trigger counts only if that process was seen afterwards to be one of Postgres.
//! * **A guard that ends kills nothing.** The close of a reading end signals nothing. The kernel kills the timer
//!   processes only after it has closed all descriptors of a dead guard; they never end by themselves.
//! * **It never fires early.** It is armed only when both timer processes have confirmed the newest deadline. While
//!   they have not, and the older deadline is near, it is disarmed.

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

use super::trigger::Trigger;
use super::{descriptors, socket};
use crate::model::Moment;
use crate::os::postgres_processes::ProcessKiller;

/// A guard that works acts first, and reports more.
const AFTER_GUARD: Duration = Duration::from_millis(100);
/// A timer process that has not repeated its deadline by then is replaced.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// Timer processes that die early, or cannot be started, are not started again in a tight loop.
const CREATE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long the start waits for each timer process.
const SETTLED_WITHIN: Duration = Duration::from_millis(100);
/// One deadline, as it is sent and repeated: a number, and nanoseconds since boot (zero: never).
const WORD_BYTES: usize = 16;

/// The most processes of one Postgres that get a trigger, if there are enough descriptors. The guard kills the others
/// when it continues.
const TRIGGERS_MAX: usize = 2048;
/// Without a free descriptor none is requested for this long.
const TRIGGER_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The guard's part of the timer.
pub(super) struct DeadManTimer {
    pair: Option<TimerPair>,
    /// When it has to fire; zero: never.
    fires_at: Moment,
    created_at: Moment,
}

/// Two timer processes and their pipe.
struct TimerPair {
    reader: OwnedFd,
    /// One for each process that the kernel kills, sorted by process id.
    triggers: Vec<Trigger>,
    timer_processes: [TimerProcess; 2],
    /// The postmaster's process id and start time.
    postmaster: (i32, u64),
    armed: bool,
    /// Some processes have no trigger.
    partial: bool,
    /// No trigger is created before.
    trigger_at: Moment,
    /// The number and deadline sent last.
    sent: (u64, Moment),
    sent_at: Option<Moment>,
    /// No timer process fires before.
    earliest: Moment,
}

/// One of the two processes.
struct TimerProcess {
    process: OwnedFd,
    link: OwnedFd,
    acknowledged: u64,
}

impl DeadManTimer {
    /// Creates it, not armed. The calling process must have one thread, and has to lock its memory again afterwards.
    pub(super) fn create(now: Moment) -> DeadManTimer {
        // Children need not be waited for.
        // SAFETY: no handler is installed, and none was before.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGCHLD, SigHandler::SigIgn) };
        let mut dead_man_timer =
            DeadManTimer { pair: TimerPair::create(now).ok(), fires_at: Moment::default(), created_at: now };
        // Both repeat once, so that the first answer shows whether the timer works at all.
        for _timer_process in 0..2 {
            if !dead_man_timer.is_whole() {
                socket::wait(dead_man_timer.sockets(), Some(SETTLED_WITHIN));
                dead_man_timer.read_acknowledgements(now);
            }
        }
        dead_man_timer
    }

    /// The sockets to wait for.
    pub(super) fn sockets(&self) -> [Option<&OwnedFd>; 2] {
        [0, 1].map(|which| self.pair.as_ref().map(|pair| &pair.timer_processes[which].link))
    }

    /// When to look again without an answer.
    pub(super) fn late_at(&self) -> Option<Moment> {
        self.pair.as_ref().and_then(|pair| pair.sent_at).map(|at| at + ACKNOWLEDGED_WITHIN)
    }

    /// Whether the kernel is ready to kill.
    pub(super) fn is_whole(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.sent_at.is_none())
    }

    /// Whether the kernel is ready to kill only some of the processes.
    pub(super) fn is_partial(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.partial)
    }

    /// Arms it: it fires after `kill_at` and kills the Postgres of `killer`.
    pub(super) fn arm(&mut self, kill_at: Moment, killer: &mut ProcessKiller, now: Moment) {
        self.fires_at = kill_at + AFTER_GUARD;
        if let Some(pair) = &mut self.pair {
            pair.follow(killer, now);
            pair.send_deadline(self.fires_at, now);
        }
    }

    /// Updates the triggers. To be called often while it is armed, because server processes start and end.
    pub(super) fn follow(&mut self, killer: &mut ProcessKiller, now: Moment) {
        if let Some(pair) = &mut self.pair {
            pair.follow(killer, now);
        }
    }

    /// Disarms it at once.
    pub(super) fn disarm(&mut self, now: Moment) {
        self.fires_at = Moment::default();
        if let Some(pair) = &mut self.pair {
            pair.disarm();
            pair.send_deadline(self.fires_at, now);
        }
    }

    /// Reads the answers of the timer processes; true when they had to be replaced.
    pub(super) fn look(&mut self, killer: &mut ProcessKiller, now: Moment) -> bool {
        self.read_acknowledgements(now);
        let wanted = now < self.fires_at && self.pair.is_none();
        if !wanted || now < self.created_at + CREATE_AGAIN_AFTER {
            return false;
        }
        self.created_at = now;
        self.pair = TimerPair::create(now).ok();
        if let Some(pair) = &mut self.pair {
            pair.follow(killer, now);
            pair.send_deadline(self.fires_at, now);
        }
        true
    }

    fn read_acknowledgements(&mut self, now: Moment) {
        if self.pair.as_mut().is_some_and(|pair| !pair.read_acknowledgements(now)) {
            self.pair = None;
        }
    }
}

impl TimerPair {
    fn create(now: Moment) -> nix::Result<TimerPair> {
        let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
        let (reader, writer) = nix::unistd::pipe2(flags)?;
        let timer_processes = [TimerProcess::start(&writer)?, TimerProcess::start(&writer)?];
        let mut pair = TimerPair {
            reader,
            triggers: Vec::with_capacity(TRIGGERS_MAX),
            timer_processes,
            postmaster: (0, 0),
            armed: false,
            partial: false,
            trigger_at: Moment::default(),
            sent: (0, Moment::default()),
            sent_at: None,
            earliest: Moment::default(),
        };
        pair.send_deadline(Moment::default(), now);
        Ok(pair)
    }

    /// Adds triggers for new processes and drops those of ended ones.
    fn follow(&mut self, killer: &mut ProcessKiller, now: Moment) {
        let processes = killer.processes();
        let postmaster = (processes.pid, processes.started_ticks);
        if self.postmaster != postmaster {
            (self.postmaster, self.armed) = (postmaster, false);
            self.triggers.clear();
        }
        self.triggers.iter_mut().for_each(|trigger| trigger.seen = false);
        let most = descriptors::budget().min(TRIGGERS_MAX);
        if most < self.triggers.len() {
            // The postmaster is the first to get one.
            self.triggers.clear();
        }
        self.partial = false;
        killer.family(|killer, pid| match self.triggers.binary_search_by_key(&pid, |trigger| trigger.pid) {
            Ok(place) => self.triggers[place].seen = true,
            Err(place) if self.triggers.len() < most && self.trigger_at <= now => {
                match Trigger::to(pid, &self.reader, killer) {
                    Ok(Some(trigger)) => {
                        trigger.set_armed(self.armed);
                        self.triggers.insert(place, trigger);
                    }
                    Ok(None) => {}
                    Err(_) => (self.trigger_at, self.partial) = (now + TRIGGER_AGAIN_AFTER, true),
                }
            }
            Err(_full) => self.partial = true,
        });
        self.triggers.retain(|trigger| trigger.seen);
    }

    /// Sends both the deadline.
    fn send_deadline(&mut self, at: Moment, now: Moment) {
        if self.earliest < now + ACKNOWLEDGED_WITHIN {
            // They may confirm the new deadline too late for the old one.
            self.disarm();
        }
        self.earliest = if self.armed { self.earliest.min(at) } else { at };
        self.sent = (self.sent.0 + 1, at);
        self.sent_at = Some(now);
        let mut word = [0; WORD_BYTES];
        word[..8].copy_from_slice(&self.sent.0.to_le_bytes());
        word[8..].copy_from_slice(&at.as_nanos().to_le_bytes());
        for timer_process in &self.timer_processes {
            // A process that does not receive it will not repeat it.
            let _ = socket::send(&timer_process.link, &word);
        }
    }

    /// False when a timer process is dead or stopped.
    fn read_acknowledgements(&mut self, now: Moment) -> bool {
        let alive = self.timer_processes.iter_mut().all(TimerProcess::read_acknowledgements);
        let acknowledged =
            self.timer_processes.iter().all(|timer_process| timer_process.acknowledged == self.sent.0);
        if alive && acknowledged && self.sent_at.take().is_some() {
            self.earliest = self.sent.1;
            if self.sent.1 != Moment::default() {
                self.set_armed(true);
            }
        }
        alive && self.sent_at.is_none_or(|at| now < at + ACKNOWLEDGED_WITHIN)
    }

    fn disarm(&mut self) {
        if self.armed {
            self.set_armed(false);
        }
    }

    fn set_armed(&mut self, armed: bool) {
        self.armed = armed;
        self.triggers.iter().for_each(|trigger| trigger.set_armed(armed));
    }
}

impl Drop for TimerPair {
    /// The order matters: no process may be the owner when the timer processes die.
    fn drop(&mut self) {
        self.disarm();
    }
}

impl Drop for TimerProcess {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }
}

impl TimerProcess {
    fn start(writer: &OwnedFd) -> nix::Result<TimerProcess> {
        let errno = |errno: rustix::io::Errno| nix::errno::Errno::from_raw(errno.raw_os_error());
        let (link, its) = socket::pair().map_err(errno)?;
        let guard = nix::unistd::getpid();
        // SAFETY: this process has one thread, so no other thread has a lock that the child needs.
        match unsafe { nix::unistd::fork()? } {
            ForkResult::Child => {
                let _ = timer_process_main(&its, writer, guard);
                // SAFETY: it ends the process and does not return.
                unsafe { libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                let pid = rustix::process::Pid::from_raw(child.as_raw()).ok_or(nix::errno::Errno::ESRCH)?;
                match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(process) => Ok(TimerProcess { process, link, acknowledged: 0 }),
                    Err(why) => {
                        // It has just been created.
                        let _ = nix::sys::signal::kill(child, Signal::SIGKILL);
                        Err(errno(why))
                    }
                }
            }
        }
    }

    /// False when it is dead.
    fn read_acknowledgements(&mut self) -> bool {
        let mut buffer = [0; WORD_BYTES];
        loop {
            match socket::receive(&self.link, &mut buffer) {
                Ok([]) => return false,
                Ok(word) => {
                    let number = word.first_chunk().map(|number| u64::from_le_bytes(*number));
                    self.acknowledged = number.unwrap_or(self.acknowledged);
                }
                Err(errno) => return errno == rustix::io::Errno::AGAIN,
            }
        }
    }
}

/// The main function of a timer process: sets its timer to each deadline that it receives, and repeats the deadline.
fn timer_process_main(link: &OwnedFd, writer: &OwnedFd, guard: Pid) -> nix::Result<Infallible> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != guard {
        return Err(nix::errno::Errno::ESRCH);
    }
    nix::sys::prctl::set_name(c"matriarch-timer")?;
    let errno = |errno: rustix::io::Errno| nix::errno::Errno::from_raw(errno.raw_os_error());
    // It must not have any other descriptor of the guard: neither the reading end nor the supervisor's socket.
    rustix::stdio::dup2_stdin(link).map_err(errno)?;
    rustix::stdio::dup2_stdout(writer).map_err(errno)?;
    // SAFETY: the call takes plain numbers; the closed descriptors are never used again, because this function never
    // returns.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0) };
    nix::errno::Errno::result(closed)?;
    let link = rustix::stdio::stdin();
    rustix::io::ioctl_fionbio(link, false).map_err(errno)?;
    let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_BOOTTIME, event)?;
    while repeat(link, &mut timer).is_some() {}
    // If it ended now, the other one might end as well, before the pipe of a dying guard is closed.
    loop {
        nix::unistd::pause();
    }
}

/// Receives one deadline; `None` when it cannot, for example when the guard is gone.
fn repeat(link: BorrowedFd<'_>, timer: &mut Timer) -> Option<()> {
    let mut word = [0; WORD_BYTES];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(link, &mut word)).ok()?;
    let nanos = u64::from_le_bytes(*word[..length].last_chunk()?);
    let at = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(nanos)));
    timer.set(at, TimerSetTimeFlags::TFD_TIMER_ABSTIME).ok()?;
    rustix::io::write(link, &word).ok().map(drop)
}
