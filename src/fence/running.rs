//! One guard, as its supervisor sees it: the process, its socket, and its last report.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;

use rustix::io::Errno;

use super::message::{GuardReport, Message, PostgresOrder, REPORT_BYTES, VERSION};
use super::program::{GuardProgram, GuardPrograms};
use super::{FenceError, socket};
use crate::core::guard::GuardEvent;
use crate::os::child;

/// A guard that was started, with the supervisor's end of its socket.
#[derive(Debug)]
pub(super) struct RunningGuard {
    child: Option<Child>,
    pub(super) link: OwnedFd,
    pub(super) program: GuardProgram,
    /// Its last answer.
    pub(super) report: Option<GuardReport>,
}

impl RunningGuard {
    /// Starts a guard with `listener` as the socket for the next supervisor.
    pub(super) fn start(programs: &GuardPrograms, listener: &OwnedFd) -> Result<RunningGuard, FenceError> {
        let (mine, its) = socket::pair().map_err(FenceError::system("make a pair of sockets"))?;
        let listener = listener
            .try_clone()
            .map_err(|source| FenceError::System { what: "copy the guard's socket", source })?;
        let (child, program) = programs.start(its, listener)?;
        Ok(RunningGuard { child: Some(child), link: mine, program, report: None })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// Sends one order without waiting. A full socket means that the guard does not read: its answer will be missed.
    pub(super) fn send(&self, sequence: u32, order: PostgresOrder) {
        let _ = socket::send(&self.link, &Message { sequence, order }.encode());
    }

    /// Its next answer, if there is one. Answers of another version do not count.
    pub(super) fn receive(&mut self) -> Option<GuardEvent> {
        let mut buffer = [0; REPORT_BYTES];
        loop {
            match socket::receive(&self.link, &mut buffer) {
                Ok([]) => return Some(GuardEvent::Closed),
                Ok(bytes) => {
                    if let Some(report) =
                        GuardReport::decode(bytes).filter(|report| report.version == VERSION)
                    {
                        self.report = Some(report);
                        return Some(GuardEvent::Answered(report.answer));
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(GuardEvent::Closed),
            }
        }
    }

    /// Kills it; the returned child has to be reaped.
    pub(super) fn kill(mut self) -> Option<Child> {
        let mut child = self.child.take()?;
        // It may have ended by itself.
        let _ = child.kill();
        Some(child)
    }

    /// Lets it end by itself.
    pub(super) fn release(mut self) -> Option<Child> {
        self.child.take()
    }
}

/// Reaps those of `dying` that have ended.
pub(super) fn reap(dying: &mut Vec<Child>) {
    dying.retain_mut(|child| match child.try_wait() {
        Ok(None) => true,
        Ok(Some(_)) | Err(_) => {
            child::forget_std(child);
            false
        }
    });
}

/// Whether this process may write to the device.
pub(super) fn may_write(device: &Path) -> bool {
    nix::unistd::access(device, nix::unistd::AccessFlags::W_OK).is_ok()
}
