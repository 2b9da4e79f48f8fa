//! The guard that a previous supervisor left running: its deadlines, and its dismissal.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::message::{GuardReport, Message, PostgresOrder, REPORT_BYTES};
use super::{Deadlines, socket};
use crate::core::guard::LeftBehind;
use crate::model::Moment;
use crate::os::clock;
use crate::os::process::ProcessId;

/// A guard without an answer by then is frozen, or does not exist.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A guard whose deadline has passed has killed all processes by then.
const KILLED_WITHIN: Duration = Duration::from_secs(1);
/// A guard that was dismissed and still exists by then is killed.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// The guard that a starting supervisor finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No guard was armed here: a Postgres that runs as a primary was never fenced.
    Nothing,
    /// A guard is armed, or kills already: only its deadlines are proved.
    Armed {
        /// When it stops and kills.
        deadlines: Deadlines,
        /// Its target; `None` when its version does not report that.
        postmaster: Option<ProcessId>,
    },
    /// A guard was armed here, and none answers any more: a primary may run unfenced.
    Unguarded,
}

impl Found {
    /// The part that needs no process.
    pub fn left_behind(&self) -> LeftBehind {
        match self {
            Found::Nothing => LeftBehind::Nothing,
            Found::Armed { deadlines, .. } => LeftBehind::Armed(*deadlines),
            Found::Unguarded => LeftBehind::Unguarded,
        }
    }

    /// Its target, if that is known.
    pub fn postmaster(&self) -> Option<ProcessId> {
        match self {
            Found::Armed { postmaster, .. } => *postmaster,
            Found::Nothing | Found::Unguarded => None,
        }
    }

    /// Whether a former guard may still have a process to kill. While it may, nothing may end it, and its Postgres
    /// counts as running.
    pub fn may_have_to_kill(&self, now: Moment) -> bool {
        match self {
            Found::Nothing | Found::Unguarded => false,
            Found::Armed { postmaster: Some(postmaster), .. } => postmaster.may_live(),
            Found::Armed { deadlines, postmaster: None } => now <= deadlines.kill_at + KILLED_WITHIN,
        }
    }
}

/// A former guard that still answers, or may still exist.
#[derive(Debug)]
pub(super) struct Predecessor {
    link: OwnedFd,
    pid: Option<i32>,
}

/// Looks for a former guard.
pub(super) fn find(data_dir: &Path) -> (Found, Option<Predecessor>) {
    let path = socket::armed_name(data_dir);
    let link = match socket::connect(&path) {
        Ok(link) => link,
        Err(Errno::NOENT) => return (Found::Nothing, None),
        Err(_) => return (Found::Unguarded, None),
    };
    let pid = socket::trusted_peer(&link).filter(|pid| is_guard(*pid));
    let report = pid.and_then(|_| ask(&link));
    let found = match LeftBehind::judge(report.map(|report| report.answer)) {
        LeftBehind::Nothing => Found::Nothing,
        LeftBehind::Armed(deadlines) => {
            Found::Armed { deadlines, postmaster: report.and_then(|report| report.postmaster()) }
        }
        LeftBehind::Unguarded => Found::Unguarded,
    };
    (found, Some(Predecessor { link, pid }))
}

fn ask(link: &OwnedFd) -> Option<GuardReport> {
    socket::send(link, &Message { sequence: 1, order: PostgresOrder::Ask }.encode()).ok()?;
    let give_up_at = clock::now() + ANSWER_WITHIN;
    let mut buffer = [0; REPORT_BYTES];
    loop {
        let now = clock::now();
        if give_up_at <= now {
            return None;
        }
        socket::wait([Some(link)], Some(now.until(give_up_at)));
        match socket::receive(link, &mut buffer) {
            Ok([]) => return None,
            Ok(bytes) => {
                if let Some(report) = GuardReport::decode(bytes) {
                    return Some(report);
                }
            }
            Err(Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
}

impl Predecessor {
    /// Ends it. To be called only when another guard is armed, or none has to be.
    pub(super) fn dismiss(self) {
        // Its process id may be reused once it has ended, so the process is opened first.
        let held = self.pid.and_then(Pid::from_raw);
        let held = held.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let still_guard = self.pid.is_some_and(is_guard);
        let sent = socket::send(&self.link, &Message { sequence: 2, order: PostgresOrder::Dismiss }.encode());
        if sent.is_ok() && self.has_left(clock::now() + LEAVE_WITHIN) {
            return;
        }
        if let Some(held) = held.filter(|_| still_guard) {
            // It is frozen, or its version never ends by itself.
            let _ = rustix::process::pidfd_send_signal(held, Signal::KILL);
            self.has_left(clock::now() + LEAVE_WITHIN);
        }
    }

    fn has_left(&self, by: Moment) -> bool {
        let mut buffer = [0; REPORT_BYTES];
        loop {
            match socket::receive(&self.link, &mut buffer) {
                Ok([]) => return true,
                Ok(_) => continue,
                Err(Errno::AGAIN) => {}
                Err(_) => return true,
            }
            let now = clock::now();
            if by <= now {
                return false;
            }
            socket::wait([Some(&self.link)], Some(now.until(by)));
        }
    }
}

/// Whether the process has the name of a guard. A name is weak evidence, but the process id comes from the kernel.
fn is_guard(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "matriarch-guard")
}
