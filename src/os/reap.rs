//! Collects orphans, as PID 1 and as a child subreaper.

use std::io;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::signal::unix::{SignalKind, signal};

use super::{child, process};

/// Makes this process the parent of orphans among its descendants (above all the backends of a dead postmaster).
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// Reaps all dead children that no task waits for; returns their number.
pub fn reap_orphans() -> usize {
    let me = getpid().as_raw();
    // Held throughout: between the look and the wait no child can be spawned or unregistered.
    let register = child::register();
    process::all()
        .filter_map(process::stat)
        .filter(|stat| stat.parent == me && stat.is_zombie() && !register.holds(stat.pid))
        .filter(|stat| waitpid(Pid::from_raw(stat.pid), Some(WaitPidFlag::WNOHANG)).is_ok())
        .count()
}

/// Reaps orphans whenever a child ends, until it is dropped.
pub async fn reap_forever() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    loop {
        reap_orphans();
        if ended.recv().await.is_none() {
            return Ok(());
        }
    }
}
