//! One guard, as its supervisor sees it: its process, its socket, and what it has not answered yet.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::message::{ANSWER_BYTES, Answer, Command, Order};
use super::watchdog::Driver;
use super::{FenceError, LinkSetup, socket};
use crate::model::Moment;
use crate::os::{child, output};

/// A guard that has not answered by then is frozen.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The first answer of a new one, which has to be loaded first.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A guard that was started, and a supervisor's end of its socket.
#[derive(Debug)]
pub(super) struct Running {
    child: Option<Child>,
    pub(super) link: OwnedFd,
    /// The newest sequence that was sent; `None` before the first.
    pub(super) sent: Option<u32>,
    /// When the oldest order was sent that is still unanswered, or when it was started.
    waiting_since: Option<Moment>,
    /// When it was last asked for anything.
    pub(super) asked_at: Moment,
    /// What it last said.
    pub(super) answer: Option<Answer>,
}

/// Why a guard does not count any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// Its end of the socket is closed.
    Died,
    /// It does not answer.
    Frozen,
}

impl Running {
    /// Starts a guard with `listener` as the socket for the next supervisor.
    pub(super) fn start(setup: &LinkSetup, listener: &OwnedFd, now: Moment) -> Result<Running, FenceError> {
        let (mine, its) = socket::pair().map_err(FenceError::system("make a pair of sockets"))?;
        let listener = listener
            .try_clone()
            .map_err(|source| FenceError::System { what: "copy the guard's socket", source })?;
        let mut command = std::process::Command::new(&setup.program);
        command.arg0("matriarch").arg("guard").env_clear();
        if let Some(watchdog) = &setup.watchdog {
            command.arg("--watchdog").arg(&watchdog.device);
            if watchdog.driver == Driver::Testing {
                command.arg("--testing");
            }
        }
        command.stdin(Stdio::from(its)).stdout(Stdio::from(listener)).stderr(output::child_stderr());
        let child = child::spawn_std(&mut command)
            .map_err(|source| FenceError::System { what: "start a guard", source })?;
        Ok(Running {
            child: Some(child),
            link: mine,
            sent: None,
            waiting_since: Some(now),
            asked_at: now,
            answer: None,
        })
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<i32> {
        self.child.as_ref().map(|child| child.id() as i32)
    }

    /// Sends one order; never waits. A full socket means that nobody reads: the answer will be missed.
    pub(super) fn send(&mut self, sequence: u32, command: Command, now: Moment) {
        self.asked_at = now;
        self.waiting_since = self.waiting_since.or(Some(now));
        let _ = socket::send(&self.link, &Order { sequence, command }.encode());
    }

    /// Takes every answer that has arrived; the newest counts.
    pub(super) fn receive(&mut self, now: Moment) -> Result<(), Lost> {
        let mut buffer = [0; ANSWER_BYTES];
        loop {
            match socket::receive(&self.link, &mut buffer) {
                Ok([]) => return Err(Lost::Died),
                Ok(bytes) => {
                    if let Some(answer) = Answer::decode(bytes) {
                        self.answer = Some(answer);
                        // Zero: it has something to say without being asked.
                        if answer.sequence != 0 {
                            self.waiting_since = None;
                        }
                    }
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(_) => return Err(Lost::Died),
            }
        }
        match self.frozen_at() {
            Some(at) if at <= now => Err(Lost::Frozen),
            Some(_) | None => Ok(()),
        }
    }

    /// When it counts as frozen unless it answers before.
    pub(super) fn frozen_at(&self) -> Option<Moment> {
        let within = if self.answer.is_some() { ANSWER_WITHIN } else { FIRST_ANSWER_WITHIN };
        self.waiting_since.map(|since| since + within)
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
