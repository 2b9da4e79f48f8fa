//! Child processes: spawned and registered under one lock that the reaper takes too, so the reaper never takes the exit
//! status of such a child.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

/// The children that a task waits for: pid and token of the registration. The token matters because a pid may be used
/// again before the former registration is removed.
pub(super) struct Register {
    children: BTreeMap<i32, u64>,
    next: u64,
}

static REGISTER: Mutex<Register> = Mutex::new(Register { children: BTreeMap::new(), next: 0 });

pub(super) fn register() -> MutexGuard<'static, Register> {
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Register {
    pub(super) fn holds(&self, pid: i32) -> bool {
        self.children.contains_key(&pid)
    }

    fn add(&mut self, pid: i32) -> u64 {
        self.next += 1;
        self.children.insert(pid, self.next);
        self.next
    }

    fn remove(&mut self, pid: i32, token: u64) {
        if self.children.get(&pid) == Some(&token) {
            self.children.remove(&pid);
        }
    }
}

/// The fate of a child that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOwnerExit {
    /// Its whole process group is killed. It is also killed when this process ends, so that no orphaned copy continues
    /// to write; precisely, when the thread that spawned it ends. Never spawn one from a short-lived thread.
    DiesWithItsOwner,
    /// It continues, even when this process ends.
    Outlives,
}

/// A child in a process group of its own.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    token: u64,
    fate: OnOwnerExit,
    inner: Option<tokio::process::Child>,
}

/// Spawns a child in a process group of its own and registers it. The reaper cannot see it before it is registered.
pub fn spawn(command: &mut Command, fate: OnOwnerExit) -> io::Result<Child> {
    command.process_group(0);
    if fate == OnOwnerExit::DiesWithItsOwner {
        // SAFETY: between fork and exec this makes one system call and touches no memory.
        unsafe {
            command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
    }
    let mut register = register();
    let inner = command.spawn()?;
    let pid = inner.id().map_or(0, |pid| pid as i32);
    let token = register.add(pid);
    Ok(Child { pid, token, fate, inner: Some(inner) })
}

/// Spawns a child of the standard library under the same lock. It stays registered until `forget_std`.
pub fn spawn_std(command: &mut std::process::Command) -> io::Result<std::process::Child> {
    let mut register = register();
    let child = command.spawn()?;
    register.add(child.id() as i32);
    Ok(child)
}

/// To be called after a child of [`spawn_std`] has been waited for.
pub fn forget_std(child: &std::process::Child) {
    register().children.remove(&(child.id() as i32));
}

impl Child {
    /// Its process id, which is also its group's.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its exit. Can be dropped and called again.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        let Some(inner) = &mut self.inner else {
            return Err(io::Error::other("waited for twice"));
        };
        let status = inner.wait().await?;
        self.inner = None;
        register().remove(self.pid, self.token);
        Ok(status)
    }

    /// Kills its whole process group, unless it has been waited for.
    pub fn kill(&self) {
        if self.inner.is_some() {
            let _ = killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    /// Its standard input, if piped and not taken yet.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.inner.as_mut()?.stdin.take()
    }

    /// Its standard output, if piped and not taken yet.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.inner.as_mut()?.stdout.take()
    }

    /// Its standard error, if piped and not taken yet.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.inner.as_mut()?.stderr.take()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.fate == OnOwnerExit::DiesWithItsOwner {
            self.kill();
        }
        let Some(mut inner) = self.inner.take() else { return };
        let (pid, token) = (self.pid, self.token);
        match tokio::runtime::Handle::try_current() {
            // It stays registered until it is reaped, so that its pid cannot be waited for twice.
            Ok(runtime) => {
                runtime.spawn(async move {
                    let _ = inner.wait().await;
                    register().remove(pid, token);
                });
            }
            Err(_) => register().remove(pid, token),
        }
    }
}
