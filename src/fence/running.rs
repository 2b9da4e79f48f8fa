//! One guard from its supervisor's view: the guard's process, its socket, and its last report.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::io::Errno;

use super::message::{GuardReport, Message, PostgresOrder, REPORT_BYTES, VERSION};
use super::watchdog::DeviceDriver;
use super::{FenceError, LinkSetup, socket};
use crate::core::guard::GuardEvent;
use crate::os::{child, output};

/// A guard that was started, and a supervisor's end of its socket.
#[derive(Debug)]
pub(super) struct RunningGuard {
    child: Option<Child>,
    pub(super) link: OwnedFd,
    /// What it last said.
    pub(super) report: Option<GuardReport>,
}

impl RunningGuard {
    /// Starts a guard with `listener` as the socket for the next supervisor.
    pub(super) fn start(setup: &LinkSetup, listener: &OwnedFd) -> Result<RunningGuard, FenceError> {
        let (mine, its) = socket::pair().map_err(FenceError::system("make a pair of sockets"))?;
        let listener = listener
            .try_clone()
            .map_err(|source| FenceError::System { what: "copy the guard's socket", source })?;
        let mut command = std::process::Command::new(&setup.program);
        command.arg0("matriarch").arg("guard").env_clear();
        if let Some(watchdog) = &setup.watchdog {
            command.arg("--watchdog").arg(&watchdog.device);
            if watchdog.driver == DeviceDriver::Testing {
                command.arg("--testing");
            }
        }
        command.stdin(Stdio::from(its)).stdout(Stdio::from(listener)).stderr(output::child_stderr());
        let child = child::spawn_std(&mut command)
            .map_err(|source| FenceError::System { what: "start a guard", source })?;
        Ok(RunningGuard { child: Some(child), link: mine, report: None })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// Sends one order; never waits. A full socket means that nobody reads: the answer will be missed.
    pub(super) fn send(&self, sequence: u32, order: PostgresOrder) {
        let _ = socket::send(&self.link, &Message { sequence, order }.encode());
    }

    /// What it said next, if it has said anything more. What a guard of another version says is no answer.
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

    /// Ends it whatever state it is in; what is left is to wait for it.
    pub(super) fn kill(mut self) -> Option<Child> {
        let mut child = self.child.take()?;
        // It may have ended by itself.
        let _ = child.kill();
        Some(child)
    }

    /// Leaves it to end by itself.
    pub(super) fn release(mut self) -> Option<Child> {
        self.child.take()
    }
}

/// Collects those of `dying` that have ended.
pub(super) fn reap(dying: &mut Vec<Child>) {
    dying.retain_mut(|child| match child.try_wait() {
        Ok(None) => true,
        Ok(Some(_)) | Err(_) => {
            child::forget_std(child);
            false
        }
    });
}

/// True for a device that this process may write to.
pub(super) fn may_write(device: &Path) -> bool {
    nix::unistd::access(device, nix::unistd::AccessFlags::W_OK).is_ok()
}
