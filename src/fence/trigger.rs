//! A trigger of the dead-man timer: a reading end of its pipe, with the process that the kernel kills when the pipe
//! closes.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use rustix::fs::{CWD, Mode, OFlags};

use crate::os::postgres_processes::ProcessKiller;

/// `F_SETSIG` of fcntl.h.
const SET_SIGNAL: libc::c_int = 10;

/// A reading end with an owner process.
pub(super) struct Trigger {
    pub(super) pid: i32,
    end: OwnedFd,
    /// Its process was among the children at the last look.
    pub(super) seen: bool,
}

impl Trigger {
    /// `None` where the process is not part of the target.
    ///
    /// # Errors
    /// The system has no free descriptor.
    pub(super) fn to(
        pid: i32,
        reader: &OwnedFd,
        killer: &ProcessKiller,
    ) -> rustix::io::Result<Option<Trigger>> {
        let mut name = [0; 32];
        let named = write!(&mut name[..], "/proc/self/fd/{}\0", reader.as_raw_fd());
        let (true, Ok(()), Ok(name)) = (0 < pid, named, CStr::from_bytes_until_nul(&name)) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let end = rustix::fs::openat(CWD, name, flags, Mode::empty())?;
        // SAFETY: both calls take plain numbers, and the descriptor is ours.
        let owned = unsafe {
            libc::fcntl(end.as_raw_fd(), SET_SIGNAL, libc::SIGKILL) == 0
                && libc::fcntl(end.as_raw_fd(), libc::F_SETOWN, pid) == 0
        };
        // Only now is it certain which process had that id.
        Ok((owned && killer.holds(pid)).then_some(Trigger { pid, end, seen: true }))
    }

    pub(super) fn set_armed(&self, armed: bool) {
        let flags = if armed { libc::O_ASYNC | libc::O_NONBLOCK } else { libc::O_NONBLOCK };
        // SAFETY: the call takes plain numbers, and the descriptor is ours. It does not fail for a pipe.
        let _ = unsafe { libc::fcntl(self.end.as_raw_fd(), libc::F_SETFL, flags) };
    }
}
