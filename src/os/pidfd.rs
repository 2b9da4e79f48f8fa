//! A handle for a process that is not a child of this one: its exit is waited for, and it can be killed.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A handle for one process, which never refers to another one.
#[derive(Debug)]
pub struct Pidfd {
    fd: AsyncFd<OwnedFd>,
}

impl Pidfd {
    /// Opens a process. Check its identity afterwards: from then on the pid cannot be reused unnoticed.
    pub fn open(pid: i32) -> io::Result<Pidfd> {
        // SAFETY: the call takes two plain integers and touches no memory of this process.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just created this descriptor, and it has no other owner.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and unchanged until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Pidfd { fd })
    }

    /// Sends it SIGKILL; false when it has ended.
    pub fn kill(&self) -> bool {
        rustix::process::pidfd_send_signal(self.fd.get_ref(), rustix::process::Signal::KILL).is_ok()
    }

    /// Waits until it has ended (it may still be a zombie). Can be dropped and called again.
    pub async fn exited(&self) -> io::Result<()> {
        let guard = self.fd.readable().await?;
        drop(guard);
        Ok(())
    }
}
