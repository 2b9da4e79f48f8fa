//! The sandbox: PID, mount, network and IPC namespaces of its own, so that whatever happens inside ends with it: also
//! the shared memory segments that killed PostgreSQL servers leave behind.
//!
//! Outside, a first process makes the place, waits, and cleans up what the kernel does not. Then comes PID 1, which
//! only collects orphans. The run itself is PID 1's child. Killing any of the three ends everything inside.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, Uid};
use tokio::signal::unix::{SignalKind, signal};

use super::{cgroup, processes};

/// Says which of the three this process is.
const STAGE: &str = "MATRIARCH_CHAOS_STAGE";
/// Where the place is.
const PLACE: &str = "MATRIARCH_CHAOS_PLACE";
/// Folders of runs begin like this; short, because of the length of a socket's path.
const PREFIX: &str = "mrig-";
/// Holds the id of the first process and when it began.
const RUN_FILE: &str = "run";
/// A place with this file stays.
const KEEP_FILE: &str = "keep";

/// Does the work in a sandbox: this process becomes the first one, and its end is the run's.
pub(crate) fn inside(work: impl FnOnce(&Path) -> Result<ExitCode>) -> Result<ExitCode> {
    match std::env::var(STAGE).as_deref() {
        Ok("init") => init(),
        Ok("inside") => work(Path::new(&std::env::var(PLACE)?)),
        _ => outside(),
    }
}

/// Whether a sandbox can be made here; else why not.
pub(crate) fn possible() -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("namespaces of a run's own need root");
    }
    // The same kinds of namespaces, an interface, a packet filter and a file system in memory, tried for a moment.
    let probe = "ip link add rig0 type bridge && ip link add rig1 type veth peer name rig2 && \
                 nft add table inet rig && mount -t tmpfs rig /mnt";
    let tried = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--ipc", "--fork", "--mount-proc", "--", "sh", "-c", probe])
        .output()
        .context("start unshare (util-linux)")?;
    if !tried.status.success() {
        bail!("no sandbox can be made: {}", String::from_utf8_lossy(&tried.stderr).trim());
    }
    Ok(())
}

/// Leaves the place there after the run, for somebody to look into.
pub(crate) fn keep(place: &Path) {
    // Without it there is less to look at, and nothing else.
    let _ = fs::write(place.join(KEEP_FILE), "");
}

fn outside() -> Result<ExitCode> {
    if !Uid::effective().is_root() {
        bail!("namespaces of a run's own need root");
    }
    sweep();
    let run = format!("{PREFIX}{}", std::process::id());
    let place = std::env::temp_dir().join(&run);
    // Left over by a process of the same id.
    let _ = fs::remove_dir_all(&place);
    fs::create_dir(&place).with_context(|| format!("make {}", place.display()))?;
    let began = started(std::process::id() as i32).unwrap_or_default();
    fs::write(place.join(RUN_FILE), format!("{} {began}\n", std::process::id()))?;
    let code = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(enter(&place));
    cgroup::remove(&run);
    if !place.join(KEEP_FILE).exists() {
        let _ = fs::remove_dir_all(&place);
    }
    Ok(ExitCode::from(code?))
}

async fn enter(place: &Path) -> Result<u8> {
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--pid", "--ipc", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "--"]).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(STAGE, "init").env(PLACE, place);
    let mut child = command.kill_on_drop(true).spawn().context("start setpriv and unshare (util-linux)")?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?.code().map_or(1, |code| code as u8)),
            // The terminal has told everybody: the run ends in order.
            _ = interrupt.recv() => {}
            _ = terminate.recv() => child.start_kill()?,
        }
    }
}

/// PID 1: starts the run, collects orphans, ends with the run.
fn init() -> Result<ExitCode> {
    let mut command = Command::new(std::env::current_exe()?);
    let run = command.args(std::env::args_os().skip(1)).env(STAGE, "inside").spawn()?;
    let run = Pid::from_raw(run.id() as i32);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == run => return Ok(ExitCode::from(code as u8)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == run => bail!("the run ended by {signal}"),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// When a process began, in ticks since the machine did.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Removes what killed runs have left: their processes went with their sandbox, files and cgroups did not.
fn sweep() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(PREFIX) && is_left_over(&entry.path()) {
            cgroup::remove(&name);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a place's run has ended without cleaning up. One that is kept on purpose stays.
fn is_left_over(place: &Path) -> bool {
    let Ok(text) = fs::read_to_string(place.join(RUN_FILE)) else { return false };
    let mut words = text.split_whitespace();
    let (pid, began) = (words.next(), words.next());
    let Some(pid) = pid.and_then(|pid| pid.parse::<i32>().ok()) else { return false };
    let runs = processes::is_alive(pid) && started(pid).map(|ticks| ticks.to_string()).as_deref() == began;
    !runs && !place.join(KEEP_FILE).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_place_of_an_ended_run_is_left_over() {
        let me = std::process::id();
        let place = std::env::temp_dir().join(format!("chaos-sandbox-{me}"));
        fs::create_dir_all(&place).expect("writable");
        assert!(!is_left_over(&place));
        let began = started(me as i32).expect("we run");
        fs::write(place.join(RUN_FILE), format!("{me} {began}\n")).expect("writable");
        assert!(!is_left_over(&place));
        fs::write(place.join(RUN_FILE), format!("{me} {}\n", began + 1)).expect("writable");
        assert!(is_left_over(&place));
        keep(&place);
        assert!(!is_left_over(&place));
        fs::remove_dir_all(&place).expect("ours");
    }
}
