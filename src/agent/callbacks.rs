//! The scripts of `postgresql.callbacks`: one at a time, beside the loop. A new one kills the one that still runs, and
//! `on_reload` has a place of its own, as in Patroni.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cycle::Cycle;
use crate::core::callbacks::Callbacks;
use crate::model::{Callback, CallbackEvent, Observation};
use crate::os::child::{self, OnOwnerExit};

/// A supervisor that ends waits so long for the last script. The script goes on then.
const AT_EXIT_WITHIN: Duration = Duration::from_secs(5);

/// What is due, and what runs.
#[derive(Default)]
pub(super) struct CallbackScripts {
    due: Callbacks,
    running: Option<RunningScript>,
    reload: Option<RunningScript>,
}

struct RunningScript {
    replace: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl RunningScript {
    /// Kills it, and waits for its end: what it does must not come after what the next one does.
    async fn replace(self) {
        // It may have ended.
        let _ = self.replace.send(());
        let _ = self.ended.await;
    }
}

impl CallbackScripts {
    /// Waits for the last script, so that a container does not end under it.
    pub(super) async fn finish(self) {
        if let Some(running) = self.running {
            // It goes on without the supervisor.
            let _ = tokio::time::timeout(AT_EXIT_WITHIN, running.ended).await;
        }
    }
}

impl Cycle {
    /// Calls what is due after a decision.
    pub(super) fn call_back(&mut self, seen: &Observation) {
        let restarting = self.core.memory().restart.is_some();
        if let Some(callback) = self.state.callbacks.due.due(seen, restarting) {
            self.call(callback);
        }
    }

    /// PostgreSQL has read new parameters.
    pub(super) fn call_back_reload(&mut self) {
        if let Some(callback) = self.state.callbacks.due.reloaded() {
            self.call(callback);
        }
    }

    fn call(&mut self, callback: Callback) {
        let Some(words) = self.dynamic.local().postgresql.callbacks.get(&callback.event) else { return };
        let words = words.iter().cloned().chain([
            callback.event.to_string(),
            callback.role.to_string(),
            self.scope.clone(),
        ]);
        let scripts = &mut self.state.callbacks;
        let place = match callback.event {
            CallbackEvent::Reload => &mut scripts.reload,
            _other => &mut scripts.running,
        };
        let before = place.take();
        let (replace, replaced) = oneshot::channel();
        let words: Vec<String> = words.collect();
        let ended = tokio::spawn(async move {
            if let Some(before) = before {
                before.replace().await;
            }
            run(&words, callback, replaced).await;
        });
        *place = Some(RunningScript { replace, ended });
    }
}

/// Runs a script to its end, or until another replaces it.
async fn run(words: &[String], callback: Callback, replaced: oneshot::Receiver<()>) {
    let (Callback { event, role }, program) = (callback, &words[0]);
    tracing::info!(%event, %role, program, "calling a script");
    match execute(words, replaced).await {
        Ok(Some(status)) if status.success() => {}
        Ok(Some(status)) => tracing::warn!(%event, %role, program, %status, "a callback script failed"),
        Ok(None) => {
            tracing::warn!(%event, %role, program, "a callback script was killed: another event followed");
        }
        Err(error) => tracing::warn!(%event, %role, program, %error, "could not run a callback"),
    }
}

/// `None`: it was replaced, and killed with its children. A shell starts it, because a program is started under a lock:
/// one on a file system that hangs would hang the supervisor.
async fn execute(
    words: &[String],
    mut replaced: oneshot::Receiver<()>,
) -> std::io::Result<Option<ExitStatus>> {
    if replaced.try_recv().is_ok() {
        return Ok(None);
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\""]).args(words).stdin(Stdio::null());
    let mut child = child::spawn(&mut command, OnOwnerExit::Outlives)?;
    let replaced = async {
        if replaced.await.is_err() {
            // The supervisor ends.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        status = child.wait() => return status.map(Some),
        () = replaced => child.kill(),
    }
    child.wait().await.map(|_| None)
}
