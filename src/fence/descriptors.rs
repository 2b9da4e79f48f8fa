//! The guard's file descriptors: a limit as high as possible, a budget for the dead-man timer, and a spare one.
//!
//! The timer takes one for each process of Postgres. Everything else that a guard does needs one too, at least for a
//! moment: to look at a process, to kill it, to answer the next supervisor. So the timer never gets the last ones.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit};

/// More than a guard ever needs, and less than would be costly where the hard limit is unlimited.
const WANTED: u64 = 4096;
/// The most descriptors for all but the timer: about twenty, and as many again for a short time.
const RESERVED: u64 = 40;

/// Raises the limit as far as it may be, up to what a guard can use.
pub(super) fn raise_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(WANTED).min(WANTED);
    if limit.current.is_some_and(|current| current < wanted) {
        // The present limit may be enough.
        let _ = rustix::process::setrlimit(
            Resource::Nofile,
            Rlimit { current: Some(wanted), maximum: limit.maximum },
        );
    }
}

/// The most descriptors of the timer for the processes of one Postgres: at least one, for the postmaster.
pub(super) fn budget() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(WANTED);
    usize::try_from(limit.saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(1)
}

/// A descriptor that is reserved for the moment in which there is no other.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    /// Opens one.
    pub(super) fn take() -> Spare {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Spare(rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty()).ok())
    }

    /// Closes it; true when there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }

    /// Opens one again, if there is none.
    pub(super) fn renew(&mut self) {
        if self.0.is_none() {
            *self = Spare::take();
        }
    }
}
