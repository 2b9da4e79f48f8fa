//! The postmaster that runs: which processes are its own, and what it may be.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::Error;
use crate::model::{Process, Timeline};
use crate::os::clock;
use crate::os::postgres_processes::PostgresProcesses;

/// How often a level is looked at that nothing announces.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A postmaster that exited cleanly has waited for its children; the last may still be on their way out.
const CLEAN_EXIT_WITHIN: Duration = Duration::from_secs(1);

/// What is known of it. Down only when none of its processes is left.
#[derive(Default)]
pub(super) struct Postmaster {
    process: watch::Sender<Process>,
    processes: Mutex<Option<PostgresProcesses>>,
    /// The timeline of the newest look inside; zero before the first.
    timeline: AtomicU32,
}

impl Postmaster {
    fn known(&self) -> MutexGuard<'_, Option<PostgresProcesses>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The processes, as the fence knows them too; `None` while none runs.
    pub(super) fn processes(&self) -> Option<PostgresProcesses> {
        *self.known()
    }

    /// Every change, at once.
    pub(super) fn subscribe(&self) -> watch::Receiver<Process> {
        self.process.subscribe()
    }

    /// It runs.
    pub(super) fn is_up(&self) -> bool {
        matches!(*self.process.borrow(), Process::Up { .. })
    }

    /// Refuses `what` while it runs.
    pub(super) fn must_be_down(&self, what: &str) -> Result<(), Error> {
        match *self.process.borrow() {
            Process::Down { .. } => Ok(()),
            Process::Up { pid, .. } => Err(Error::Unfit(format!("{what}: postgres runs as {pid}"))),
        }
    }

    /// It is being promoted: until it ends, nobody may take it for a mere standby.
    pub(super) fn may_be_primary(&self) {
        self.process.send_if_modified(|process| match process {
            Process::Up { standby_start, .. } => std::mem::replace(standby_start, false),
            Process::Down { .. } => false,
        });
    }

    /// Signals it; false when it has ended, or cannot be signalled.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        self.processes().is_some_and(|processes| processes.signal(signal))
    }

    /// The timeline of the newest look inside.
    pub(super) fn timeline(&self) -> Option<Timeline> {
        Some(Timeline(self.timeline.load(Ordering::Relaxed))).filter(|timeline| *timeline >= Timeline::FIRST)
    }

    /// A look inside has shown it.
    pub(super) fn has_shown(&self, timeline: Option<Timeline>) {
        self.timeline.store(timeline.map_or(0, |timeline| timeline.0), Ordering::Relaxed);
    }

    /// One was started, or adopted.
    pub(super) fn began(&self, processes: PostgresProcesses, standby_start: bool) {
        let pid = processes.pid;
        self.has_shown(None);
        *self.known() = Some(processes);
        self.process.send_replace(Process::Up { pid, since: clock::now(), standby_start });
    }

    /// What was started has started the postmaster in turn.
    pub(super) fn replaced_by(&self, processes: PostgresProcesses) {
        tracing::info!(
            pid = processes.pid,
            "the program that was started as postgres runs PostgreSQL as a child process"
        );
        *self.known() = Some(processes);
        self.process.send_modify(|process| {
            if let Process::Up { pid, .. } = process {
                *pid = processes.pid;
            }
        });
    }

    /// The postmaster has ended: waits for its other processes, kills those that stay, and says that it is down.
    pub(super) async fn ended(&self, processes: PostgresProcesses, exit: Option<String>, clean: bool) {
        if clean {
            let patience = clock::now() + CLEAN_EXIT_WITHIN;
            while clock::now() < patience && !processes.all().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        while processes.kill_all() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let mut known = self.known();
        if known.as_ref() == Some(&processes) {
            *known = None;
            self.process.send_replace(Process::Down { exit });
        }
    }

    /// True when it is down within so long.
    pub(super) async fn is_down_within(&self, within: Duration) -> bool {
        let mut seen = self.subscribe();
        let down = seen.wait_for(|process| matches!(process, Process::Down { .. }));
        tokio::time::timeout(within, down).await.is_ok_and(|result| result.is_ok())
    }
}
