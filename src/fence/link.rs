//! The supervisor's side: what is to be armed, written down for the thread that keeps a guard alive.
//!
//! **Invariants.** Giving an order never waits: it is written down, and the thread is woken. What was written down last
//! is what every guard is told, the present one and each that takes its place. An order counts as held only while the
//! guard that acknowledged it is the present one.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;
use tokio::sync::watch;

use super::keeping::Keeping;
use super::watchdog::Driver;
use super::{Deadlines, FenceError, Found, Phase, Protection, WatchdogFacts, predecessor, running, socket};
use crate::model::Moment;
use crate::os::prey::Prey;

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

/// What the handle and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    orders: Mutex<Orders>,
    /// Something became held, or the thread ended.
    pub(super) changed: Condvar,
    /// Readable when there is something new for the thread.
    pub(super) wake: OwnedFd,
}

/// What is wanted of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Armed {
    pub(super) deadlines: Deadlines,
    pub(super) prey: Prey,
    pub(super) watchdog_at: Option<Moment>,
}

/// What was written down.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) armed: Option<Armed>,
    /// Of the newest order; grows from one, because zero is an answer to none.
    pub(super) sequence: u32,
    /// The newest that the present guard has acknowledged.
    pub(super) held: Option<u32>,
    /// The guard of a former supervisor may go.
    pub(super) decided: bool,
    pub(super) end: Option<End>,
}

/// How the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Leave an armed guard behind.
    Stay,
    /// Take the guard along.
    Dismiss,
}

impl Shared {
    pub(super) fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It cannot overflow before the thread reads it.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Link {
    /// Looks for the guard of a former supervisor, then starts one of its own, with nothing armed. The former stays
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
        let keeping = Keeping::new(Arc::clone(&shared), setup, listener, predecessor, to_reader);
        std::thread::Builder::new()
            .name("fence".to_owned())
            .spawn(move || keeping.run())
            .map_err(|source| FenceError::System { what: "start the fence's thread", source })?;
        Ok((Link { shared, facts }, found))
    }

    /// From now on `prey` is stopped and killed at these deadlines, in place of all earlier ones. The watchdog, if
    /// there is one and it is wanted, resets the machine at `watchdog_at`.
    pub fn arm(&self, deadlines: Deadlines, prey: Prey, watchdog_at: Option<Moment>) {
        self.order(Some(Armed { deadlines, prey, watchdog_at }));
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

    /// Takes the guard along at an orderly end: Postgres is no primary, or is left alone on purpose.
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
