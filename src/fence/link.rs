//! The supervisor's side: what is to be armed, and a thread of its own that keeps a guard alive for it.
//!
//! **Invariants.** Giving an order never waits: it is written down, and the thread is woken. What was written down last
//! is what every guard is told, the present one and each that takes its place. An order counts as held only while the
//! guard that acknowledged it is the present one. While something is armed and no guard holds it, the thread is the
//! fence: it kills at the deadline, and after [`REPLACE_WITHIN`] at once.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::event::EventfdFlags;
use tokio::sync::watch;

use super::message::{Command, VERSION};
use super::predecessor::{self, Predecessor};
use super::running::{self, Lost, Running};
use super::watchdog::Driver;
use super::{Deadlines, FenceError, Found, Phase, Protection, WatchdogFacts, socket};
use crate::model::Moment;
use crate::os::clock;
use crate::os::prey::Prey;

/// An armed guard is asked this often whether it is well; with the time it has for the answer, one that is frozen is
/// known after one and a half seconds.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// One that is not armed matters less.
const ASK_IDLE_EVERY: Duration = Duration::from_secs(2);
/// How long a primary may run while one guard after the other cannot be started, if its deadline lies that far ahead.
const REPLACE_WITHIN: Duration = Duration::from_secs(3);
/// The pause after a guard could not be started.
const START_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// While the thread itself kills.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The machine's watchdog, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogSetup {
    /// Its device.
    pub device: PathBuf,
    /// How to speak to it.
    pub driver: Driver,
}

/// What a link is started with.
#[derive(Clone, Debug)]
pub struct LinkSetup {
    /// The program that knows the command `guard`.
    pub program: PathBuf,
    /// Its sockets lie beside this directory.
    pub data_dir: PathBuf,
    /// `None`: no watchdog is used.
    pub watchdog: Option<WatchdogSetup>,
}

impl LinkSetup {
    /// With this very program, also when its file was replaced.
    pub fn new(data_dir: PathBuf, watchdog: Option<WatchdogSetup>) -> LinkSetup {
        LinkSetup { program: PathBuf::from("/proc/self/exe"), data_dir, watchdog }
    }

    /// Whether there is a watchdog that could be opened.
    pub fn may_open_watchdog(&self) -> bool {
        self.watchdog.as_ref().is_some_and(|watchdog| running::may_write(&watchdog.device))
    }
}

/// The guard as last heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardFacts {
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// What it does.
    pub phase: Phase,
    /// The watchdog behind it.
    pub watchdog: WatchdogFacts,
    /// What keeps it running on a machine in trouble.
    pub protection: Protection,
}

/// The handle. Dropping it ends the thread and closes the socket: a guard that is armed stays, and will fire.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    facts: watch::Receiver<GuardFacts>,
}

#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    /// Something became held, or the thread ended.
    changed: Condvar,
    wake: OwnedFd,
}

/// What is wanted of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Armed {
    deadlines: Deadlines,
    prey: Prey,
    watchdog_seconds: u32,
}

#[derive(Debug, Default)]
struct Orders {
    armed: Option<Armed>,
    /// Of the newest order; grows from one, because zero is an answer to none.
    sequence: u32,
    /// The newest that the present guard has acknowledged.
    held: Option<u32>,
    /// The guard of a former supervisor may go.
    decided: bool,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Leave an armed guard behind.
    Stay,
    /// Take the guard along.
    Dismiss,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It cannot overflow before the thread reads it.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Link {
    /// Looks for the guard of a former supervisor, then starts one of its own, with nothing armed. The former one stays
    /// until the first order to arm or to disarm is held.
    ///
    /// # Errors
    /// When the guard's socket cannot be made.
    pub fn start(setup: LinkSetup) -> Result<(Link, Found), FenceError> {
        let (found, predecessor) = predecessor::find(&setup.data_dir);
        let listener = socket::listen(&setup.data_dir)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(FenceError::system("make an event"))?;
        let orders = Mutex::new(Orders { sequence: 1, ..Orders::default() });
        let shared = Arc::new(Shared { orders, changed: Condvar::new(), wake });
        let (to_reader, facts) = watch::channel(GuardFacts::default());
        let keeping = Keeping {
            shared: Arc::clone(&shared),
            listener,
            guard: None,
            dying: Vec::new(),
            named: false,
            stale_name: true,
            predecessor,
            lost_at: None,
            replacing: false,
            start_at: Moment::default(),
            killed: None,
            told: false,
            to_reader,
            setup,
        };
        std::thread::Builder::new()
            .name("fence".to_owned())
            .spawn(move || keeping.run())
            .map_err(|source| FenceError::System { what: "start the fence's thread", source })?;
        Ok((Link { shared, facts }, found))
    }

    /// From now on `prey` is stopped and killed at these deadlines, in place of all earlier ones. The watchdog, if there
    /// is one, is pinged for `watchdog_seconds`.
    pub fn arm(&self, deadlines: Deadlines, prey: Prey, watchdog_seconds: u32) {
        self.order(Some(Armed { deadlines, prey, watchdog_seconds }));
    }

    /// Nothing is to be killed.
    pub fn disarm(&self) {
        self.order(None);
    }

    fn order(&self, armed: Option<Armed>) {
        let mut orders = self.shared.orders();
        if orders.armed != armed || !orders.decided {
            orders.armed = armed;
            orders.sequence += 1;
            orders.decided = true;
            self.shared.wake();
        }
    }

    /// True when the guard has acknowledged the last order; waits for that, but not longer than `within`.
    pub fn holds(&self, within: Duration) -> bool {
        let wanted = self.shared.orders().sequence;
        let pending =
            |orders: &mut Orders| orders.held.is_none_or(|held| held < wanted) && orders.end.is_none();
        let waited = self.shared.changed.wait_timeout_while(self.shared.orders(), within, pending);
        let (orders, _) = waited.unwrap_or_else(PoisonError::into_inner);
        orders.held.is_some_and(|held| wanted <= held)
    }

    /// The guard as last heard of.
    pub fn facts(&self) -> watch::Receiver<GuardFacts> {
        self.facts.clone()
    }

    /// Takes the guard along when the supervisor ends in good order: Postgres is no primary, or is left alone on purpose.
    pub fn leave(&self, within: Duration) {
        let mut orders = self.shared.orders();
        orders.end = Some(End::Dismiss);
        orders.held = None;
        self.shared.wake();
        let gone = |orders: &mut Orders| orders.held.is_none();
        // A guard that does not go in time ends by itself: nothing is armed, nobody is connected.
        drop(self.shared.changed.wait_timeout_while(orders, within, gone));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.orders().end.get_or_insert(End::Stay);
        self.shared.wake();
    }
}

/// The thread's state.
struct Keeping {
    shared: Arc<Shared>,
    setup: LinkSetup,
    listener: OwnedFd,
    guard: Option<Running>,
    dying: Vec<Child>,
    predecessor: Option<Predecessor>,
    /// Our socket has the name that says armed.
    named: bool,
    /// A former socket may still have it.
    stale_name: bool,
    /// Since when something is armed that no guard holds.
    lost_at: Option<Moment>,
    /// A guard was lost while something was armed.
    replacing: bool,
    /// Not before then is another guard started.
    start_at: Moment,
    /// The order whose prey this thread has killed itself.
    killed: Option<u32>,
    /// The first guard has introduced itself.
    told: bool,
    to_reader: watch::Sender<GuardFacts>,
}

impl Keeping {
    fn run(mut self) {
        loop {
            let end = self.shared.orders().end;
            if let Some(end) = end {
                return self.finish(end);
            }
            self.keep_one(clock::now());
            self.order(clock::now());
            let pause = self.pause(clock::now());
            socket::wait(
                [self.guard.as_ref().map(|guard| &guard.link), Some(&self.shared.wake)],
                Some(pause),
            );
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
            self.hear(clock::now());
            self.be_the_fence(clock::now());
            self.publish();
        }
    }

    /// Starts a guard when there is none.
    fn keep_one(&mut self, now: Moment) {
        running::reap(&mut self.dying);
        if self.guard.is_some() || now < self.start_at {
            return;
        }
        match Running::start(&self.setup, &self.listener, now) {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => {
                self.start_at = now + START_AGAIN_AFTER;
                tracing::warn!(error = chain(&error), "no guard could be started; trying again");
            }
        }
    }

    /// Tells the guard what it has not been told yet.
    fn order(&mut self, now: Moment) {
        let (armed, sequence, decided) = {
            let orders = self.shared.orders();
            (orders.armed, orders.sequence, orders.decided)
        };
        if armed.is_some() && !self.rename(true) {
            return;
        }
        let Some(guard) = &mut self.guard else { return };
        let every = if armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        if guard.sent == Some(sequence) {
            if guard.asked_at + every <= now {
                guard.send(sequence, Command::Ask, now);
            }
            return;
        }
        guard.sent = Some(sequence);
        let command = match armed {
            Some(Armed { deadlines, prey, watchdog_seconds }) => {
                Command::Arm { deadlines, prey, watchdog_seconds }
            }
            None if decided => Command::Disarm,
            None => Command::Ask,
        };
        guard.send(sequence, command, now);
    }

    /// Reads what the guard says, and ends it when it does not count any more.
    fn hear(&mut self, now: Moment) {
        let Some(guard) = &mut self.guard else { return };
        let heard = guard.receive(now);
        let answer = guard.answer;
        if let Err(lost) = heard {
            return self.lose(lost, now);
        }
        let Some(answer) = answer else { return };
        if !self.told {
            self.told = true;
            tracing::info!(pid = answer.guard, protection = %answer.protection, "the guard runs");
        }
        let mut orders = self.shared.orders();
        let agrees = match orders.armed {
            Some(armed) => answer.phase == Phase::Armed && answer.deadlines == armed.deadlines,
            None => answer.phase == Phase::Idle,
        };
        let held = (agrees && answer.sequence == orders.sequence && answer.version == VERSION)
            .then_some(orders.sequence);
        if held.is_none() || orders.held == held {
            return;
        }
        orders.held = held;
        let (decided, idle) = (orders.decided, orders.armed.is_none());
        drop(orders);
        self.shared.changed.notify_all();
        self.lost_at = None;
        if std::mem::take(&mut self.replacing) {
            tracing::warn!(pid = answer.guard, "another guard has taken over, with the same deadline");
        }
        if decided {
            self.dismiss_predecessor();
            if idle {
                self.rename(false);
            }
        }
    }

    fn lose(&mut self, lost: Lost, now: Moment) {
        let Some(guard) = self.guard.take() else { return };
        let armed = {
            let mut orders = self.shared.orders();
            orders.held = None;
            orders.armed.is_some()
        };
        let pid = guard.pid();
        match lost {
            Lost::Died => tracing::warn!(pid, armed, "the guard died; starting another"),
            Lost::Frozen => {
                tracing::warn!(pid, armed, "the guard does not answer; killing it and starting another")
            }
        }
        if armed {
            self.replacing = true;
            self.lost_at = self.lost_at.or(Some(now));
        }
        // At once the first time; a guard that dies on its first breath is not started in a tight loop.
        self.start_at = if guard.answer.is_some() { now } else { now + START_AGAIN_AFTER };
        self.dying.extend(guard.kill());
    }

    /// The former guard goes when this one holds what was decided. Its watchdog is free only then: told once more, the
    /// new one opens it.
    fn dismiss_predecessor(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        predecessor.dismiss();
        if let Some(guard) = &mut self.guard {
            guard.sent = None;
        }
    }

    /// While something is armed and no guard holds it, and past the deadline in any case.
    fn be_the_fence(&mut self, now: Moment) {
        let (armed, sequence, held) = {
            let orders = self.shared.orders();
            (orders.armed, orders.sequence, orders.held)
        };
        let Some(armed) = armed.filter(|_| self.killed != Some(sequence)) else {
            self.lost_at = None;
            return;
        };
        if held.is_none() {
            self.lost_at = self.lost_at.or(Some(now));
        }
        let given_up = self.lost_at.is_some_and(|at| held.is_none() && at + REPLACE_WITHIN <= now);
        if armed.deadlines.stop_at <= now && now < armed.deadlines.kill_at && held.is_none() {
            armed.prey.signal(Signal::SIGQUIT);
        }
        if !given_up && now < armed.deadlines.kill_at {
            return;
        }
        if !armed.prey.kill_all() {
            self.killed = Some(sequence);
            match given_up {
                true => tracing::error!(
                    "no guard could be had: PostgreSQL was stopped, because nothing would have fenced it"
                ),
                false => {
                    tracing::warn!("the lease's deadline passed and no renewal came: PostgreSQL was killed")
                }
            }
        }
    }

    /// How long there is nothing to do.
    fn pause(&self, now: Moment) -> Duration {
        let orders = self.shared.orders();
        let Some(guard) = &self.guard else { return START_AGAIN_AFTER.min(now.until(self.start_at)) };
        let every = if orders.armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        let mut next = guard.asked_at + every;
        if let Some(at) = guard.frozen_at() {
            next = next.min(at);
        }
        if let Some(armed) = orders.armed.filter(|_| self.killed != Some(orders.sequence)) {
            next = next.min(armed.deadlines.kill_at.max(now + KILL_AGAIN_AFTER));
            if orders.held.is_none() {
                next = next.min(armed.deadlines.stop_at.max(now + KILL_AGAIN_AFTER));
            }
        }
        now.until(next)
    }

    /// Gives our socket the name that says armed, or takes that name away; true when it is so.
    fn rename(&mut self, armed: bool) -> bool {
        if self.named == armed && !(self.stale_name && !armed) {
            return true;
        }
        let (idle, named) =
            (socket::idle_name(&self.setup.data_dir), socket::armed_name(&self.setup.data_dir));
        let renamed = match (armed, self.named) {
            (true, _) => std::fs::rename(&idle, &named),
            (false, true) => std::fs::rename(&named, &idle),
            (false, false) => std::fs::remove_file(&named),
        };
        match renamed {
            Ok(()) => (self.named, self.stale_name) = (armed, false),
            Err(error) if !armed && error.kind() == std::io::ErrorKind::NotFound => {
                (self.named, self.stale_name) = (false, false);
            }
            Err(error) => tracing::warn!(%error, armed, "cannot rename the guard's socket"),
        }
        self.named == armed
    }

    fn publish(&self) {
        let answer = self.guard.as_ref().and_then(|guard| guard.answer).unwrap_or_default();
        let facts = GuardFacts {
            pid: self.guard.as_ref().and_then(Running::pid),
            phase: answer.phase,
            // A former guard may still have it open.
            watchdog: match self.predecessor {
                Some(_) => WatchdogFacts::Off,
                None => answer.watchdog,
            },
            protection: answer.protection,
        };
        self.to_reader.send_if_modified(|shown| std::mem::replace(shown, facts) != facts);
    }

    fn finish(mut self, end: End) {
        if end == End::Dismiss {
            if let Some(mut guard) = self.guard.take() {
                guard.send(0, Command::Dismiss, clock::now());
                self.dying.extend(guard.release());
            }
            for name in [socket::armed_name(&self.setup.data_dir), socket::idle_name(&self.setup.data_dir)] {
                // Not there is as good.
                let _ = std::fs::remove_file(name);
            }
        }
        self.shared.orders().held = Some(u32::MAX);
        self.shared.changed.notify_all();
        running::reap(&mut self.dying);
    }
}

/// An error with its cause, on one line.
fn chain(error: &FenceError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
