//! The guard itself: one thread, no runtime, no memory asked for after the start, but to replace a fuse.
//!
//! ```text
//!  Idle ── arm ──► Armed ── stop_at: SIGQUIT; kill_at ──► Firing ── nothing left ──► Over
//!   ▲ ▲             │ ▲ └── arm (a renewal, or a shorter lease): other deadlines      │
//!   │ └── disarm ───┘ └──────────────────────── arm ──────────────────────────────────┘
//!   └──── disarm, from anywhere
//! ```
//!
//! **Invariants.** An order to arm counts as it is, also when it shortens. While it fires it takes no other deadline:
//! half a kill helps nobody. It ends only when it is neither armed nor firing, and nobody is connected; or when it is
//! dismissed, by somebody whose own guard is armed. No signal that can be blocked moves it. Nothing is written to the
//! log before Postgres is dead: the log's reader may be as frozen as the supervisor.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::Signal;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::descriptors::{self, Spare};
use super::fuse::Fuse;
use super::message::{Answer, Command, ORDER_BYTES, Order, VERSION};
use super::watchdog::{Driver, Watchdog};
use super::{Deadlines, FenceError, Phase, Protection, socket};
use crate::model::Moment;
use crate::os::clock;
use crate::os::prey::Hunt;

/// A process in an uninterruptible wait dies late: it is looked for this often.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// While it is armed. So young may a server process be that the fuse does not know. Without a timer on the right clock,
/// a suspend makes a deadline late by this much.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_millis(100);
/// Where memory cannot be locked, the kill path is gone through this often so that it stays in memory.
const REHEARSE_EVERY: Duration = Duration::from_secs(10);
/// Who knocks while no descriptor is left stays at the door: looking there again and again would take the processor
/// from everybody else.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Orders taken between two looks at the clock.
const ORDERS_PER_LOOK_MAX: usize = 16;

/// What a guard is started with.
#[derive(Clone, Debug, Default)]
pub struct GuardSetup {
    /// The watchdog's device and how to speak to it.
    pub watchdog: Option<(PathBuf, Driver)>,
}

/// Is the guard until there is nothing left to guard. Standard input is the supervisor, standard output the socket for
/// the next one.
///
/// # Errors
/// When it was not started by a supervisor, or the system refuses what a guard cannot do without.
pub fn run(setup: &GuardSetup) -> Result<(), FenceError> {
    let mut guard = Guard::start(setup)?;
    while !guard.is_done() {
        let [one, two] = guard.fuse.sockets();
        let listener = Some(&guard.listener).filter(|_| guard.deaf_until <= clock::now());
        socket::wait(
            [guard.link.as_ref(), listener, guard.timer.as_ref(), one, two],
            guard.pause(clock::now()),
        );
        guard.drain_timer();
        guard.accept(clock::now());
        guard.take_orders();
        guard.look(clock::now());
    }
    Ok(())
}

struct Guard {
    link: Option<OwnedFd>,
    listener: OwnedFd,
    /// Nobody is listened to before: there was no descriptor to be had.
    deaf_until: Moment,
    spare: Spare,
    timer: Option<OwnedFd>,
    hunt: Hunt,
    fuse: Fuse,
    phase: Phase,
    deadlines: Deadlines,
    /// The postmaster was told to stop.
    stopped: bool,
    killed: u32,
    rehearsed_at: Moment,
    watchdog: Watchdog,
    protection: Protection,
    dismissed: bool,
}

impl Guard {
    fn start(setup: &GuardSetup) -> Result<Guard, FenceError> {
        SigSet::all()
            .thread_block()
            .map_err(|source| FenceError::System { what: "block signals", source: source.into() })?;
        descriptors::raise_limit();
        // It fails for the leader of a group, which is out of its parent's group already.
        let _ = rustix::process::setsid();
        // A name is a comfort for who looks at the processes.
        let _ = nix::sys::prctl::set_name(c"matriarch-guard");
        let link = inherited(rustix::stdio::stdin())?;
        let listener = inherited(rustix::stdio::stdout())?;
        socket::listen_as_me(&listener).map_err(|_| FenceError::ByHand)?;
        let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty());
        let null = null.map_err(FenceError::system("open /dev/null"))?;
        // The copies would keep the sockets open when the guard has closed them.
        rustix::stdio::dup2_stdin(&null).map_err(FenceError::system("leave standard input"))?;
        rustix::stdio::dup2_stdout(&null).map_err(FenceError::system("leave standard output"))?;
        let hunt = Hunt::open().map_err(|source| FenceError::System { what: "read /proc", source })?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags).ok();
        let mut protection = Protection::take();
        let fuse = Fuse::lay(clock::now());
        // Its strands have copies of what was locked: what is written to from now on must be there already.
        protection.lock_again();
        let watchdog = setup.watchdog.as_ref().map(|(device, driver)| (device.as_path(), *driver));
        Ok(Guard {
            link: Some(link),
            listener,
            deaf_until: Moment::default(),
            spare: Spare::take(),
            timer,
            hunt,
            fuse,
            phase: Phase::Idle,
            deadlines: Deadlines::default(),
            stopped: false,
            killed: 0,
            rehearsed_at: Moment::default(),
            watchdog: Watchdog::new(watchdog),
            protection,
            dismissed: false,
        })
    }

    fn is_done(&self) -> bool {
        let busy = matches!(self.phase, Phase::Armed | Phase::Firing);
        self.dismissed || (self.link.is_none() && !busy)
    }

    /// How long there is nothing to do but to listen; `None`: for ever. The timer ends it at a deadline.
    fn pause(&self, now: Moment) -> Option<Duration> {
        let deaf = Some(self.deaf_until).filter(|until| now < *until);
        let strands = [self.fuse.late_at(), deaf].into_iter().flatten().min().map(|at| now.until(at));
        match self.phase {
            Phase::Idle | Phase::Over => strands,
            Phase::Firing => Some(KILL_AGAIN_AFTER),
            Phase::Armed => {
                let next = if self.stopped { self.deadlines.kill_at } else { self.deadlines.stop_at };
                let next = now.until(next.min(self.deadlines.kill_at));
                Some(next.min(strands.unwrap_or(LOOK_AT_LEAST_EVERY)).min(LOOK_AT_LEAST_EVERY))
            }
        }
    }

    /// An expiry that was not read would wake every later wait.
    fn drain_timer(&self) {
        if let Some(timer) = &self.timer {
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
    }

    /// A supervisor that was started again takes the place of the one that was connected.
    fn accept(&mut self, now: Moment) {
        if now < self.deaf_until {
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(link) if socket::trusted_peer(&link).is_some() => self.link = Some(link),
                Ok(_stranger) => {}
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // The former link is let go by the next round, and the spare one taken again.
                Err(Errno::MFILE | Errno::NFILE) if self.spare.give_up() => {}
                Err(Errno::MFILE | Errno::NFILE) => break self.deaf_until = now + LISTEN_AGAIN_AFTER,
                Err(_nobody) => break,
            }
        }
        self.spare.renew();
    }

    fn take_orders(&mut self) {
        let mut buffer = [0; ORDER_BYTES];
        for _ in 0..ORDERS_PER_LOOK_MAX {
            let Some(link) = &self.link else { return };
            let order = match socket::receive(link, &mut buffer) {
                Ok([]) => return self.link = None,
                Ok(bytes) => Order::decode(bytes),
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => return self.link = None,
            };
            let sequence = order.map_or(0, |order| order.sequence);
            if let Some(order) = order {
                self.obey(&order.command, clock::now());
            }
            self.answer(sequence);
        }
    }

    fn obey(&mut self, command: &Command, now: Moment) {
        match command {
            Command::Ask => {}
            Command::Dismiss => {
                self.watchdog.close();
                self.dismissed = true;
            }
            Command::Disarm => {
                self.phase = Phase::Idle;
                self.fuse.disarm(now);
                self.watchdog.close();
            }
            Command::Arm { .. } if self.phase == Phase::Firing => {}
            Command::Arm { deadlines, prey, watchdog_at } => {
                self.hunt.aim(prey);
                self.phase = Phase::Armed;
                self.deadlines = *deadlines;
                self.stopped = false;
                self.killed = 0;
                self.set_timer(deadlines.stop_at);
                self.fuse.arm(deadlines.kill_at, &mut self.hunt, now);
                // An order that lay unread through a freeze is no sign of life.
                if now < deadlines.stop_at {
                    self.watchdog.feed(*watchdog_at, clock::now());
                }
            }
        }
    }

    fn answer(&mut self, sequence: u32) {
        let answer = Answer {
            version: VERSION,
            sequence,
            phase: self.phase,
            deadlines: self.deadlines,
            guard: rustix::process::getpid().as_raw_nonzero().get(),
            postmaster: self.hunt.prey().pid,
            started_ticks: self.hunt.prey().started_ticks,
            protection: Protection {
                fuse: self.fuse.is_whole(),
                partial: self.fuse.is_partial(),
                ..self.protection
            },
            watchdog: self.watchdog.facts(),
        };
        if let Some(link) = &self.link {
            // A supervisor that does not read is frozen; it misses nothing that it could act on.
            let _ = socket::send(link, &answer.encode());
        }
    }

    /// Does what is due.
    fn look(&mut self, now: Moment) {
        if self.fuse.look(&mut self.hunt, now) {
            self.protection.lock_again();
        }
        if self.phase == Phase::Armed {
            self.fuse.follow(&mut self.hunt, now);
            if self.deadlines.kill_at <= now {
                self.phase = Phase::Firing;
            } else if self.deadlines.stop_at <= now && !self.stopped {
                self.stopped = true;
                self.hunt.signal_postmaster(Signal::QUIT);
                self.set_timer(self.deadlines.kill_at);
            } else if self.rehearsed_at + REHEARSE_EVERY <= now && !self.protection.memory {
                self.rehearsed_at = now;
                self.hunt.rehearse();
            }
        }
        if self.phase == Phase::Firing {
            self.killed = self.killed.max(self.hunt.kill());
            if self.hunt.is_over() {
                self.phase = Phase::Over;
                self.fuse.disarm(now);
                self.watchdog.close();
                self.report(clock::now());
                self.answer(0);
            }
        }
    }

    /// Wakes the wait at `at`, on the clock that goes on in a suspend.
    fn set_timer(&self, at: Moment) {
        let Some(timer) = &self.timer else { return };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would mean never.
        let nanos = at.as_nanos().max(1);
        let it_value =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: never, it_value };
        // Setting it also takes back an expiry that was not read. Without a timer the pause is bounded all the same.
        let _ = rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// One line for whoever reads the log of a supervisor that cannot write any more. Never waits for the reader.
    fn report(&self, now: Moment) {
        let mut space = [0_u8; 512];
        let mut rest = &mut space[..];
        let prey = self.hunt.prey();
        let directory = prey.directory.as_path().display();
        let written = writeln!(
            rest,
            "WARN matriarch guard: the lease's deadline passed and no renewal came: stopped PostgreSQL {} at {}, killed \
             {} processes from {} on, none left at {now}, in {directory}",
            prey.pid, self.deadlines.stop_at, self.killed, self.deadlines.kill_at
        );
        let length = if written.is_ok() { 512 - rest.len() } else { 512 };
        let stderr = rustix::stdio::stderr();
        let ready = rustix::event::PollFd::new(&stderr, rustix::event::PollFlags::OUT);
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut [ready], Some(&at_once)) == Ok(1) {
            let _ = rustix::io::write(stderr, &space[..length]);
        }
    }
}

/// A copy of a socket that the supervisor left in a standard place.
fn inherited(place: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, FenceError> {
    rustix::net::sockopt::socket_type(place).map_err(|_| FenceError::ByHand)?;
    rustix::io::fcntl_dupfd_cloexec(place, 3).map_err(FenceError::system("copy a socket"))
}
