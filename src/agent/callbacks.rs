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

    /// Waits for the last script, so that a container does not end under it.
    pub(super) async fn await_callback(&mut self) {
        if let Some(running) = self.state.callbacks.running.take() {
            // It goes on without the supervisor.
            let _ = tokio::time::timeout(AT_EXIT_WITHIN, running.ended).await;
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
        if let Some(before) = place.take() {
            // It may have ended.
            let _ = before.replace.send(());
        }
        let (replace, replaced) = oneshot::channel();
        let ended = tokio::spawn(run(words.collect(), callback, replaced));
        *place = Some(RunningScript { replace, ended });
    }
}

/// Runs a script to its end, or until another replaces it.
async fn run(words: Vec<String>, callback: Callback, replaced: oneshot::Receiver<()>) {
    let Callback { event, role } = callback;
    tracing::info!(%event, %role, "calling a script");
    match execute(&words, replaced).await {
        Ok(Some(status)) if status.success() => {}
        Ok(Some(status)) => tracing::warn!(%event, %role, %status, "a callback script failed"),
        Ok(None) => tracing::warn!(%event, %role, "a callback script was killed: another event followed"),
        Err(error) => tracing::warn!(%event, %role, %error, program = words[0], "could not run a callback"),
    }
}

/// `None`: it was replaced, and killed with its children.
async fn execute(words: &[String], replaced: oneshot::Receiver<()>) -> std::io::Result<Option<ExitStatus>> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
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
