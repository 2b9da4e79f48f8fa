//! The postmaster: its start and its end. Down is reported only when no process of that Postgres is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::{ChildStdin, Command};

use super::adoption::{clear_stale_locks, started_by};
use super::control::PidFile;
use super::handle::{PostgresInner, Started, Stopped};
use super::postmaster::LOOK_EVERY;
use super::program::bare;
use super::{
    Error, Parameters, Setup, archive, config_copies, control, files, rewind, slot_copies, sockets, timelines,
};
use crate::model::{ControlFile, DataDirectory, FollowTarget, Process, StopMode};
use crate::os::child::{self, Child, OnOwnerExit};
use crate::os::file_id::FileId;
use crate::os::pidfd::Pidfd;
use crate::os::postgres_processes::PostgresProcesses;
use crate::os::text::PathText;
use crate::os::{clock, process};

/// The second step. Shorter than the 5 s after which a postmaster kills its children itself.
const IMMEDIATE_WITHIN: Duration = Duration::from_secs(3);

/// Program and directory of a setup; the postmaster is not known yet. Only the directory has to exist.
pub(super) fn resolve(setup: &Setup) -> Result<PostgresProcesses, Error> {
    let text = |path: PathBuf| {
        PathText::try_from(path).map_err(|path| Error::Unfit(format!("{} is too long", path.display())))
    };
    let find = |path: &Path| path.canonicalize().map_err(Error::file("find", path));
    let program = setup.program("postgres");
    let program = text(find(&program).unwrap_or(program))?;
    let directory = find(&setup.data_dir)?;
    if !directory.is_dir() {
        return Err(Error::Unfit(format!("{} is no directory", directory.display())));
    }
    let place = FileId::of(&directory).map_err(Error::file("look at", &directory))?;
    Ok(PostgresProcesses { pid: 0, started_ticks: 0, program, directory: text(directory)?, place })
}

impl PostgresInner {
    /// Takes a postmaster over and watches over it.
    pub(super) fn watch_adopted(
        self: &Arc<Self>,
        processes: PostgresProcesses,
        held: Pidfd,
        standby_start: bool,
    ) {
        let ready = PidFile::find(&self.setup.data_dir).ok().flatten().is_some_and(|file| file.ready);
        if !standby_start && !ready {
            self.liveness().starts(processes.pid);
        }
        self.postmaster.began(processes, standby_start);
        self.access.adopt(self);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let exit = match held.exited().await {
                Ok(()) => None,
                Err(error) => Some(error.to_string()),
            };
            // The exit status is unknown; a clean shutdown removes the pid file.
            let clean = !inner.setup.data_dir.join("postmaster.pid").exists();
            inner.postmaster.ended(processes, exit, clean).await;
        });
    }
}

/// Starts a standby and waits until it accepts connections.
pub(super) async fn start_standby(
    inner: &Arc<PostgresInner>,
    follow: Option<&FollowTarget>,
    within: Duration,
) -> Result<Started, Error> {
    let setup = &inner.setup;
    let control = startable(inner).await?;
    if control.minimal_wal && !control.is_unfinished_copy() {
        tracing::info!(
            "the data here was written with wal_level=minimal: one start without clients raises it"
        );
        rewind::crash_recovery(inner).await?;
    }
    if let Some(source) = follow
        && control.is_of_primary()
        && !control.is_unfinished_copy()
    {
        archive::save_before_start(inner, source).await;
    }
    let parameters = prepare(inner).await?;
    files::write_all(inner, follow)?;
    slot_copies::install(inner, &parameters);
    let mut line =
        files::command_line(&parameters, &slot_copies::with_room(setup, &control.standby_minimums));
    line.extend(inner.access.argument());
    launch(inner, bare(setup, setup.program("postgres")), &line, true)?;
    await_start(inner, &line, within).await
}

/// What a start needs besides its own files.
pub(super) async fn prepare(inner: &Arc<PostgresInner>) -> Result<Parameters, Error> {
    let (setup, parameters) = (&inner.setup, inner.parameters());
    timelines::free_unused(setup)?;
    let statistics = parameters.parameters.get("stats_temp_directory").map(|path| setup.data_dir.join(path));
    sockets::create_missing(setup, &Vec::from_iter(statistics), 0o700);
    inner.access.prepare(inner).await;
    Ok(parameters)
}

/// Waits until what was started by `line` accepts connections, or for so long.
pub(super) async fn await_start(
    inner: &PostgresInner,
    line: &[String],
    within: Duration,
) -> Result<Started, Error> {
    match wait_until_ready(inner, within).await {
        Err(Error::EndedWhileStarting { exit }) => Err(Error::start_failed(&inner.setup, &exit, line).await),
        Ok(started) => {
            config_copies::save(&inner.setup);
            Ok(started)
        }
        Err(error) => Err(error),
    }
}

/// The control file of a server that is down and can be started.
pub(super) async fn startable(inner: &PostgresInner) -> Result<ControlFile, Error> {
    inner.postmaster.must_be_down("start")?;
    match control::look(&inner.setup).await.0 {
        DataDirectory::Ready(control) => Ok(control),
        other => Err(Error::Unfit(format!("start: the data directory is {other:?}"))),
    }
}

/// Spawns the postmaster by `command`, which is its program or starts it, and watches it. It outlives the supervisor.
/// Returns its standard input, if that is piped.
pub(super) fn launch(
    inner: &Arc<PostgresInner>,
    mut command: Command,
    line: &[String],
    standby_start: bool,
) -> Result<Option<ChildStdin>, Error> {
    let setup = &inner.setup;
    let processes = resolve(setup)?;
    clear_stale_locks(setup, &processes)?;
    command.arg("-D").arg(&setup.data_dir);
    command.arg(format!("--config-file={}", files::main_file(setup).display()));
    command.args(line).env("PG_GRANDPARENT_PID", std::process::id().to_string());
    let spawn = |source| Error::Spawn { program: "postgres".to_owned(), source };
    let mut child = child::spawn(&mut command, OnOwnerExit::Outlives).map_err(spawn)?;
    let stdin = child.take_stdin();
    let processes = processes.with_postmaster(child.pid());
    if !standby_start {
        inner.liveness().starts(processes.pid);
    }
    inner.postmaster.began(processes, standby_start);
    tokio::spawn(watch(Arc::clone(inner), processes, child));
    Ok(stdin)
}

async fn watch(inner: Arc<PostgresInner>, processes: PostgresProcesses, mut child: Child) {
    let (exit, clean) = match child.wait().await {
        Ok(status) => (status.to_string(), status.success()),
        Err(error) => (error.to_string(), false),
    };
    inner.postmaster.ended(inner.postmaster.processes().unwrap_or(processes), Some(exit), clean).await;
}

/// Waits until `postmaster.pid` shows that it accepts connections.
pub(super) async fn wait_until_ready(inner: &PostgresInner, within: Duration) -> Result<Started, Error> {
    let deadline = clock::now() + within;
    let mut seen = inner.postmaster.subscribe();
    loop {
        if let Process::Down { exit } = &*seen.borrow_and_update() {
            let exit = exit.clone().unwrap_or_else(|| "unknown".to_owned());
            return Err(Error::EndedWhileStarting { exit });
        }
        // A file that cannot be read is read again.
        let file = PidFile::find(&inner.setup.data_dir).ok().flatten();
        match (file, inner.postmaster.processes()) {
            (Some(file), Some(processes)) if file.pid == processes.pid && file.ready => {
                return Ok(Started::Ready);
            }
            (Some(file), Some(processes)) if file.pid != processes.pid => {
                if let Some(postmaster) = started_by(&processes, file.pid) {
                    inner.liveness().replaced(processes.pid, postmaster.pid);
                    inner.postmaster.replaced_by(postmaster);
                    continue;
                }
            }
            (Some(_) | None, Some(_) | None) => {}
        }
        if clock::now() >= deadline {
            return Ok(Started::StillRecovering);
        }
        let _ = tokio::time::timeout(LOOK_EVERY, seen.changed()).await;
    }
}

/// The title of the startup process, which names the present segment, and its CPU time.
pub(super) fn recovery_mark(inner: &PostgresInner) -> Option<String> {
    let postmaster = inner.postmaster.processes()?.pid;
    process::children_at_a_glance(postmaster).into_iter().find_map(|pid| {
        let title = process::title(pid).filter(|title| title.contains(": startup"))?;
        Some(format!("{title} {}", process::used_ticks(pid)?))
    })
}

/// Stops in steps of growing force: each step has its time, and the last cannot be refused.
pub(super) async fn stop(inner: &PostgresInner, mode: StopMode, within: Duration) -> Result<Stopped, Error> {
    let Some(processes) = inner.postmaster.processes() else { return Ok(Stopped::WasDown) };
    let steps = [
        (Stopped::Fast, Signal::SIGINT, within),
        (Stopped::Immediate, Signal::SIGQUIT, if mode == StopMode::Fast { IMMEDIATE_WITHIN } else { within }),
    ];
    let skipped = match mode {
        StopMode::Fast => 0,
        // One that is stopped takes no signal but SIGKILL.
        StopMode::Immediate if process::is_stopped(processes.pid) => 2,
        StopMode::Immediate => 1,
    };
    if mode == StopMode::Fast {
        inner.liveness().excuse_until(clock::now() + within);
    }
    for (step, signal, within) in steps.into_iter().skip(skipped) {
        processes.signal(signal);
        if inner.postmaster.is_down_within(within).await {
            return Ok(step);
        }
    }
    processes.kill_all();
    while !inner.postmaster.is_down_within(LOOK_EVERY).await {
        processes.kill_all();
    }
    Ok(Stopped::Killed)
}
