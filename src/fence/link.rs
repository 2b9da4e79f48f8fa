//! The supervisor's side of the guard: it passes the deadlines to the thread that keeps a guard running.
//!
//! **Invariants.** Giving an order never waits: the order is stored, and the thread is woken. [`KeepGuard`] decides
//! what follows, under the one lock that the handle and the thread share. No other work is done under that lock.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::EventfdFlags;
use tokio::sync::watch;

use super::keeping::GuardThread;
use super::watchdog::DeviceDriver;
use super::{
    FenceError, Found, GuardPhase, Protection, WatchdogFacts, predecessor, program, running, socket,
};
use crate::core::guard::{ArmedDeadlines, KeepGuard};
use crate::os::postgres_processes::PostgresProcesses;

/// The machine's watchdog, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogSetup {
    /// Its device.
    pub device: PathBuf,
    /// Its driver.
    pub driver: DeviceDriver,
}

/// The parameters of a link.
#[derive(Clone, Debug)]
pub struct LinkSetup {
    /// The program with the command `guard`.
    pub program: PathBuf,
    /// The small program that is preferred if it exists and is of the same release.
    pub separate: Option<PathBuf>,
    /// The directory beside which its sockets are.
    pub data_dir: PathBuf,
    /// `None`: no watchdog is used.
    pub watchdog: Option<WatchdogSetup>,
}

impl LinkSetup {
    /// Uses the running program, even if its file was replaced.
    pub fn new(data_dir: PathBuf, watchdog: Option<WatchdogSetup>) -> LinkSetup {
        let program = PathBuf::from("/proc/self/exe");
        LinkSetup { separate: program::beside(&program), program, data_dir, watchdog }
    }

    /// Whether there is a watchdog that can be opened.
    pub fn may_open_watchdog(&self) -> bool {
        self.watchdog.as_ref().is_some_and(|watchdog| running::may_write(&watchdog.device))
    }
}

/// The guard, by its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardFacts {
    /// Its process id, while there is one.
    pub pid: Option<i32>,
    /// Its state.
    pub phase: GuardPhase,
    /// The watchdog behind it.
    pub watchdog: WatchdogFacts,
    /// What protects it on a machine in trouble.
    pub protection: Protection,
}

/// The handle. Dropping it ends the thread and closes the socket; an armed guard stays, and will kill.
#[derive(Debug)]
pub struct Link {
    shared: Arc<LinkShared>,
    facts: watch::Receiver<GuardFacts>,
}

/// The state that the handle and the thread share.
#[derive(Debug)]
pub(super) struct LinkShared {
    state: Mutex<LinkState>,
    /// An order was acknowledged, or the thread ended.
    pub(super) changed: Condvar,
    /// Readable when the thread has something to do.
    pub(super) wake: OwnedFd,
}

/// The state machine, and how its thread ends.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) keep: KeepGuard<PostgresProcesses>,
    pub(super) end: Option<End>,
    pub(super) ended: bool,
}

/// How the thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Leave an armed guard behind.
    Stay,
    /// End the guard as well.
    Dismiss,
}

impl LinkShared {
    pub(super) fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // It cannot overflow before the thread reads it.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Link {
    /// Looks for the guard of a former supervisor, then starts a guard of its own that is not armed. The former guard
    /// stays until the first order to arm or to disarm is acknowledged.
    ///
    /// # Errors
    /// When the guard's socket cannot be created.
    pub fn start(setup: LinkSetup) -> Result<(Link, Found), FenceError> {
        let (found, predecessor) = predecessor::find(&setup.data_dir);
        let listener = socket::listen(&setup.data_dir)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(FenceError::system("make an event"))?;
        let keep = KeepGuard::new(predecessor.is_some());
        let state = Mutex::new(LinkState { keep, end: None, ended: false });
        let shared = Arc::new(LinkShared { state, changed: Condvar::new(), wake });
        let (to_reader, facts) = watch::channel(GuardFacts::default());
        let keeping = GuardThread::new(Arc::clone(&shared), setup, listener, predecessor, to_reader);
        std::thread::Builder::new()
            .name("fence".to_owned())
            .spawn(move || keeping.run())
            .map_err(|source| FenceError::System { what: "start the fence's thread", source })?;
        Ok((Link { shared, facts }, found))
    }

    /// Replaces the armed deadlines.
    pub fn arm(&self, armed: ArmedDeadlines<PostgresProcesses>) {
        self.order(Some(armed));
    }

    /// Disarms the guard.
    pub fn disarm(&self) {
        self.order(None);
    }

    fn order(&self, armed: Option<ArmedDeadlines<PostgresProcesses>>) {
        if self.shared.state().keep.order(armed) {
            self.shared.wake();
        }
    }

    /// True when the guard has acknowledged the last order; waits for that, but not longer than `within`.
    pub fn holds(&self, within: Duration) -> bool {
        let wanted = self.shared.state().keep.sequence();
        let pending = |state: &mut LinkState| !state.keep.holds(wanted) && state.end.is_none();
        let waited = self.shared.changed.wait_timeout_while(self.shared.state(), within, pending);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.keep.holds(wanted)
    }

    /// The guard, by its last answer.
    pub fn facts(&self) -> watch::Receiver<GuardFacts> {
        self.facts.clone()
    }

    /// Ends the guard at an orderly end: Postgres is no primary, or is left running on purpose.
    pub fn leave(&self, within: Duration) {
        let mut state = self.shared.state();
        state.end = Some(End::Dismiss);
        self.shared.wake();
        let stays = |state: &mut LinkState| !state.ended;
        // A guard that does not end in time ends by itself: it is not armed, and no supervisor is connected.
        drop(self.shared.changed.wait_timeout_while(state, within, stays));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.state().end.get_or_insert(End::Stay);
        self.shared.wake();
    }
}
