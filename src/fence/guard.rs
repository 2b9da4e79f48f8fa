//! The guard's process: the driver of [`Guard`]. One thread, no runtime. After the start it allocates memory only to
//! replace a dead-man timer.
//!
//! It reads orders and the clock, passes them to the machine and carries out its actions, in that order. It blocks
//! every signal that can be blocked.

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

use super::dead_man_timer::DeadManTimer;
use super::descriptors::{self, Spare};
use super::message::{GuardReport, MESSAGE_BYTES, Message, VERSION};
use super::watchdog::{DeviceDriver, Watchdog};
use super::{Deadlines, FenceError, GuardPhase, Protection, socket};
use crate::core::guard::{Guard, GuardAction, GuardAnswer, GuardInput};
use crate::model::Moment;
use crate::os::clock;
use crate::os::postgres_processes::{PostgresProcesses, ProcessKiller};

/// The longest wait while armed. A server process younger than this may be missing from the dead-man timer. Without a
/// timer on the right clock, a suspend makes a deadline late by up to this much.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_millis(100);
/// Where memory cannot be locked, the kill path is read through this often, so that it stays in memory.
const REHEARSE_EVERY: Duration = Duration::from_secs(10);
/// Without a free descriptor a connecting client stays in the queue. Checking it again and again would take the
/// processor from all others.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Orders handled between two readings of the clock.
const ORDERS_PER_LOOK_MAX: usize = 16;

/// The parameters of a guard.
#[derive(Clone, Debug, Default)]
pub struct GuardSetup {
    /// The watchdog's device and its driver.
    pub watchdog: Option<(PathBuf, DeviceDriver)>,
}

/// Runs the guard until there is nothing left to guard. Standard input is the connection to the supervisor, standard
/// output the socket for the next one.
///
/// # Errors
/// When it was not started by a supervisor, or the system refuses a resource that a guard needs.
pub fn run(setup: &GuardSetup) -> Result<(), FenceError> {
    let mut process = GuardProcess::start(setup)?;
    while !process.guard.is_done() {
        process.wait(clock::now());
        process.accept(clock::now());
        process.take_orders();
        process.look(clock::now());
    }
    Ok(())
}

struct GuardProcess {
    guard: Guard,
    link: Option<OwnedFd>,
    listener: OwnedFd,
    /// No connection is accepted before: there was no free descriptor.
    deaf_until: Moment,
    spare: Spare,
    timer: Option<OwnedFd>,
    killer: ProcessKiller,
    dead_man_timer: DeadManTimer,
    warmed_up_at: Moment,
    watchdog: Watchdog,
    protection: Protection,
}

impl GuardProcess {
    fn start(setup: &GuardSetup) -> Result<GuardProcess, FenceError> {
        SigSet::all()
            .thread_block()
            .map_err(|source| FenceError::System { what: "block signals", source: source.into() })?;
        descriptors::raise_limit();
        // It fails for the leader of a group, which is out of its parent's group already.
        let _ = rustix::process::setsid();
        // The name helps people who list processes.
        let _ = nix::sys::prctl::set_name(c"matriarch-guard");
        let link = inherited(rustix::stdio::stdin())?;
        let listener = inherited(rustix::stdio::stdout())?;
        socket::listen_as_me(&listener).map_err(|_| FenceError::ByHand)?;
        let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDWR, Mode::empty());
        let null = null.map_err(FenceError::system("open /dev/null"))?;
        // These copies would keep the sockets open after the guard has closed them.
        rustix::stdio::dup2_stdin(&null).map_err(FenceError::system("leave standard input"))?;
        rustix::stdio::dup2_stdout(&null).map_err(FenceError::system("leave standard output"))?;
        let killer =
            ProcessKiller::open().map_err(|source| FenceError::System { what: "read /proc", source })?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags).ok();
        let mut protection = Protection::take();
        let dead_man_timer = DeadManTimer::create(clock::now());
        // Its timer processes share pages with the locked memory: a page that is written later must already be copied.
        protection.lock_again();
        let watchdog = setup.watchdog.as_ref().map(|(device, driver)| (device.as_path(), *driver));
        Ok(GuardProcess {
            guard: Guard::default(),
            link: Some(link),
            listener,
            deaf_until: Moment::default(),
            spare: Spare::take(),
            timer,
            killer,
            dead_man_timer,
            warmed_up_at: Moment::default(),
            watchdog: Watchdog::new(watchdog),
            protection,
        })
    }

    /// Waits until there is something to read, or time for a look.
    fn wait(&self, now: Moment) {
        let [one, two] = self.dead_man_timer.sockets();
        let listener = Some(&self.listener).filter(|_| self.deaf_until <= now);
        if let Some(at) = self.guard.wake_at(now) {
            self.set_timer(at);
        }
        socket::wait([self.link.as_ref(), listener, self.timer.as_ref(), one, two], self.pause(now));
        if let Some(timer) = &self.timer {
            // An expiry that is not read would wake every later wait.
            let _ = rustix::io::read(timer, &mut [0; 8]);
        }
    }

    /// How long only reading is needed; `None`: for ever.
    fn pause(&self, now: Moment) -> Option<Duration> {
        let deaf = Some(self.deaf_until).filter(|until| now < *until);
        let at_least = Some(now + LOOK_AT_LEAST_EVERY).filter(|_| self.guard.phase() == GuardPhase::Armed);
        let wakes = [self.guard.wake_at(now), at_least, self.dead_man_timer.late_at(), deaf];
        wakes.into_iter().flatten().min().map(|at| now.until(at))
    }

    /// A restarted supervisor replaces the connected one.
    fn accept(&mut self, now: Moment) {
        if now < self.deaf_until {
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(link) if socket::trusted_peer(&link).is_some() => {
                    self.link = Some(link);
                    self.step(GuardInput::Connected, now);
                }
                Ok(_stranger) => {}
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // The next round closes the former link, and reserves a descriptor again.
                Err(Errno::MFILE | Errno::NFILE) if self.spare.give_up() => {}
                Err(Errno::MFILE | Errno::NFILE) => break self.deaf_until = now + LISTEN_AGAIN_AFTER,
                Err(_nobody) => break,
            }
        }
        self.spare.renew();
    }

    fn take_orders(&mut self) {
        let mut buffer = [0; MESSAGE_BYTES];
        for _ in 0..ORDERS_PER_LOOK_MAX {
            let Some(link) = &self.link else { return };
            let message = match socket::receive(link, &mut buffer) {
                Ok(bytes @ [_, ..]) => Message::decode(bytes),
                Err(Errno::AGAIN) => return,
                Ok([]) | Err(_) => {
                    self.link = None;
                    return self.step(GuardInput::Disconnected, clock::now());
                }
            };
            match &message {
                Some(Message { sequence, order }) => {
                    self.step(GuardInput::Ordered { sequence: *sequence, order }, clock::now());
                }
                None => self.step(GuardInput::NotUnderstood, clock::now()),
            }
        }
    }

    /// Reads the dead-man timer's answers, and performs what is due.
    fn look(&mut self, now: Moment) {
        if self.dead_man_timer.look(&mut self.killer, now) {
            self.protection.lock_again();
        }
        self.step(GuardInput::Tick, now);
    }

    fn step(&mut self, input: GuardInput<'_, PostgresProcesses>, now: Moment) {
        for guard_action in self.guard.step(input, now) {
            self.carry_out(guard_action, now);
        }
    }

    fn carry_out(&mut self, guard_action: GuardAction<'_, PostgresProcesses>, now: Moment) {
        match guard_action {
            GuardAction::TakeTarget(target) => self.killer.set_target(target),
            GuardAction::SetDeadManTimer(kill_at) => self.dead_man_timer.arm(kill_at, &mut self.killer, now),
            GuardAction::ClearDeadManTimer => self.dead_man_timer.disarm(now),
            GuardAction::FeedWatchdog(at) => self.watchdog.feed(at, clock::now()),
            GuardAction::CloseWatchdog => self.watchdog.close(),
            GuardAction::FollowProcesses => self.dead_man_timer.follow(&mut self.killer, now),
            GuardAction::WarmUp => self.warm_up(now),
            GuardAction::Stop => {
                self.killer.signal_postmaster(Signal::QUIT);
            }
            GuardAction::Kill => {
                let found = self.killer.kill();
                self.step(GuardInput::Killed { found, none_left: self.killer.is_over() }, now);
            }
            GuardAction::Report { deadlines, killed } => self.report(deadlines, killed, clock::now()),
            GuardAction::Answer(answer) => self.answer(answer),
        }
    }

    /// Where memory is locked, no page can leave it.
    fn warm_up(&mut self, now: Moment) {
        if self.warmed_up_at + REHEARSE_EVERY <= now && !self.protection.memory {
            self.warmed_up_at = now;
            self.killer.warm_up();
        }
    }

    fn answer(&mut self, answer: GuardAnswer) {
        let report = GuardReport {
            version: VERSION,
            answer,
            guard: rustix::process::getpid().as_raw_nonzero().get(),
            postmaster: self.killer.processes().pid,
            started_ticks: self.killer.processes().started_ticks,
            protection: Protection {
                dead_man_timer: self.dead_man_timer.is_whole(),
                partial: self.dead_man_timer.is_partial(),
                ..self.protection
            },
            watchdog: self.watchdog.facts(),
        };
        if let Some(link) = &self.link {
            // A supervisor that does not read is frozen; it could not act on the answer.
            let _ = socket::send(link, &report.encode());
        }
    }

    /// Wakes the wait at `at`, on the clock that includes suspends.
    fn set_timer(&self, at: Moment) {
        let Some(timer) = &self.timer else { return };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Zero would mean never.
        let nanos = at.as_nanos().max(1);
        let it_value =
            Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: never, it_value };
        // Setting it also cancels an expiry that was not read. Without a timer the wait is bounded all the same.
        let _ = rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// Writes one line for the log of a supervisor that cannot write any more. Never waits for the reader.
    fn report(&self, deadlines: Deadlines, killed: u32, now: Moment) {
        let mut space = [0_u8; 512];
        let mut rest = &mut space[..];
        let processes = self.killer.processes();
        let directory = processes.directory.as_path().display();
        let written = writeln!(
            rest,
            "WARN matriarch guard: the lease's deadline passed and no renewal came: stopped PostgreSQL {} at {}, killed \
             {} processes from {} on, none left at {now}, in {directory}",
            processes.pid, deadlines.stop_at, killed, deadlines.kill_at
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

/// A copy of a socket that the supervisor passed as a standard descriptor.
fn inherited(place: std::os::fd::BorrowedFd<'_>) -> Result<OwnedFd, FenceError> {
    rustix::net::sockopt::socket_type(place).map_err(|_| FenceError::ByHand)?;
    rustix::io::fcntl_dupfd_cloexec(place, 3).map_err(FenceError::system("copy a socket"))
}
