//! The guard's file descriptors: as many as it may have, a budget for the dead-man timer, and a spare one.
//!
//! The timer takes one for each process of Postgres. Whatever else a guard does needs one, too, if only for a moment:
//! to look at a process, to kill it, to answer the next supervisor. So the timer never gets the last ones.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit};

/// More than a guard ever needs, and less than what makes a hard limit without a number costly.
const WANTED: u64 = 4096;
/// What everything but the timer may have open at one time: about twenty, and as many again for what is open briefly.
const RESERVED: u64 = 40;

/// Raises the limit as far as it may be, and as far as a guard has a use for it.
pub(super) fn raise_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(WANTED).min(WANTED);
    if limit.current.is_some_and(|current| current < wanted) {
        // What it is now may be enough.
        let _ = rustix::process::setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(wanted), maximum: limit.maximum },
        );
    }
}

/// How many the timer may have for the processes of one Postgres: at least one, for the postmaster.
pub(super) fn budget() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(WANTED);
    usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(1)
}

/// One that is kept for the moment in which there is no other.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    /// Takes one.
    pub(super) fn take() -> Spare {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Spare(rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).ok())
    }

    /// Gives it up; true when there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Takes one again, where there is none.
    pub(super) fn renew(&mut self) {
        if self.0.is_none() {
            *self = Spare::take();
        }
    }
}
