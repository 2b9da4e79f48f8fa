//! `kubectl matriarch`: the same program, which runs its command in a pod of the cluster.

use std::ffi::OsString;
use std::io::{self, Read};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::dispatch::on_one_thread;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::kubectl::{self, KubectlCall};
use crate::cli::ui::Ui;
use crate::kube::{PodSearch, RemoteError, RemotePods, RemoteStreams};

/// The program in a member's image.
const PROGRAM: &str = "matriarch";
/// Pieces of input on their way: further input stays in its pipe.
const INPUT_MAX: usize = 4;

/// Runs a command line; the result is the exit code of the command in the pod.
pub(super) fn execute(ui: Ui, words: Vec<OsString>) -> Result<u8, CliError> {
    let call = match kubectl::parse(words) {
        Ok(call) => call,
        Err(error) => {
            // Help and version arrive here, too, with code 0.
            let _ = error.print();
            return Ok(error.exit_code().clamp(0, 255) as u8);
        }
    };
    on_one_thread(run(ui, call))?
}

async fn run(ui: Ui, call: KubectlCall) -> Result<u8, CliError> {
    let args = call.args;
    let search = PodSearch {
        kubeconfig: args.kubeconfig,
        context: args.context,
        namespace: args.namespace,
        selector: args.selector,
        scope: args.scope,
        pod: args.pod,
    };
    let pods = RemotePods::connect(search).await.map_err(explained)?;
    let words = [PROGRAM.to_owned()].into_iter().chain(call.words).collect();
    // With a terminal on both sides the command can ask. Its streams would be one, so that a pipe behind this program
    // means: no terminal.
    let terminal = ui.is_conversation().then(|| ui.raw()).transpose()?;
    let stdin = (terminal.is_some() || !ui.reads_terminal()).then(read_stdin);
    let streams = RemoteStreams { stdin, terminal: terminal.as_ref().map(|_| sizes(ui)).transpose()? };
    pods.run(words, streams, &mut io::stdout().lock(), &mut io::stderr().lock()).await.map_err(explained)
}

/// Standard input. The thread ends with the process: nothing can interrupt its read.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(INPUT_MAX);
    std::thread::spawn(move || {
        let mut piece = vec![0; 4096];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut piece) {
            if sender.blocking_send(piece[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The size of the terminal, and its changes.
fn sizes(ui: Ui) -> Result<watch::Receiver<(u16, u16)>, CliError> {
    let mut changes = signal(SignalKind::window_change())?;
    let (sender, receiver) = watch::channel(ui.size());
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            sender.send_replace(ui.size());
        }
    });
    Ok(receiver)
}

fn explained(error: RemoteError) -> CliError {
    let exit = match &error {
        RemoteError::Kubeconfig(_) | RemoteError::Client { .. } => Exit::Configuration,
        RemoteError::SeveralClusters { .. } | RemoteError::UnknownPod { .. } => Exit::Usage,
        RemoteError::List { .. }
        | RemoteError::NoPods { .. }
        | RemoteError::NoneRuns { .. }
        | RemoteError::Exec { .. }
        | RemoteError::Lost(..) => Exit::Failed,
    };
    let explained = CliError::of(&error).exit(exit);
    match error.remedy() {
        Some(remedy) => explained.hint(remedy),
        None => explained,
    }
}
