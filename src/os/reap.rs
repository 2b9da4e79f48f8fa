//! Collecting orphans, as PID 1 and as a child subreaper.

use std::io;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::signal::unix::{SignalKind, signal};

use super::{child, process};

/// Makes this process inherit the orphans among its descendants (the backends of a dead postmaster, above all).
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Collects every dead child that nobody here waits for; returns their number.
pub fn reap_orphans() -> usize {
    let me = getpid().as_raw();
    // Held throughout: a child can neither be spawned nor taken off the register between the look and the wait.
    let register = child::register();
    process::all()
        .filter_map(process::stat)
        .filter(|stat| stat.parent == me && stat.is_zombie() && !register.holds(stat.pid))
        .filter(|stat| waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG)).is_ok())
        .count()
}

/// Collects orphans whenever a child ends, until it is dropped.
pub async fn reap_forever() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        reap_orphans();
        if ended.recv().await.is_none() {
            return Ok(());
        }
    }
}
