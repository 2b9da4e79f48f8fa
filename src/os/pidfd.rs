//! Waiting for the exit of a process that is not our child.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that cannot turn into another one behind our back.
#[derive(Debug)]
pub struct Pidfd {
    fd: AsyncFd<OwnedFd>,
}

impl Pidfd {
    /// Takes hold of a process. Check its identity afterwards: from then on the number cannot be reused unnoticed.
    pub fn open(pid: i32) -> io::Result<Pidfd> {
        // SAFETY: the call takes two plain integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: the `AsyncFd` owns the descriptor, which stays open and the same until it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
        Ok(Pidfd { fd })
    }

    /// Waits until it has ended (it may still be a zombie). Can be dropped and called again.
    pub async fn exited(&self) -> io::Result<()> {
        let guard = self.fd.readable().await?;
        drop(guard);
        Ok(())
    }
}
