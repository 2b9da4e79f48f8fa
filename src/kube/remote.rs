//! A command in a pod of a cluster, for an operator's machine: `kubectl matriarch`.

use std::error::Error;
use std::io::{self, Write};
use std::time::Duration;

use futures::future::OptionFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Client;
use kube::api::{Api, AttachParams, AttachedProcess, ListParams, TerminalSize};
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::failure::KubeFailure;
use super::member_pod::{MemberPod, PodSearch};
use super::objects::PodObject;
use crate::model::PodFailure;

/// The API server may be far away.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// It asks the kubelet, and the kubelet asks the container's runtime, before a command starts.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Output is passed on in pieces of this size.
const PIECE: usize = 8192;

/// Why a command did not run, or what became of it is not known.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// There is no usable kubeconfig.
    #[error("failed to read the kubeconfig")]
    Kubeconfig(#[source] KubeconfigError),
    /// The kubeconfig's settings make no client.
    #[error("failed to prepare the connection to the API server ({context})")]
    Client {
        /// The context.
        context: String,
        /// The error.
        #[source]
        source: KubeFailure,
    },
    /// The pods cannot be listed.
    #[error("failed to list the pods {place}")]
    List {
        /// Labels, namespace and context.
        place: String,
        /// The answer.
        #[source]
        source: KubeFailure,
    },
    /// Nothing has these labels.
    #[error("there is no pod {place}")]
    NoPods {
        /// Labels, namespace and context.
        place: String,
    },
    /// The pod that was asked for is not among those with these labels.
    #[error("there is no pod {pod} {place}, but {pods}")]
    UnknownPod {
        /// Its name.
        pod: String,
        /// Labels, namespace and context.
        place: String,
        /// Those that exist.
        pods: String,
    },
    /// The labels fit several clusters.
    #[error("there are several clusters {place}: {clusters}")]
    SeveralClusters {
        /// Labels, namespace and context.
        place: String,
        /// Their names.
        clusters: String,
    },
    /// No container to run in.
    #[error("none of the pods {place} runs: {pods}")]
    NoneRuns {
        /// Labels, namespace and context.
        place: String,
        /// The pods and their phases.
        pods: String,
    },
    /// The command was not started.
    #[error("failed to run the command in the pod {pod}, chosen among those {place}")]
    Exec {
        /// The pod.
        pod: String,
        /// Labels, namespace and context.
        place: String,
        /// The answer.
        #[source]
        source: KubeFailure,
    },
    /// The connection ended before the command did.
    #[error("lost the connection to the command in the pod {0}")]
    Lost(String, #[source] Option<Box<dyn Error + Send + Sync>>),
}

impl RemoteError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            RemoteError::List { source, .. } if source.kind == PodFailure::Forbidden => {
                Some("your user needs a Role in that namespace with the verb `list` on `pods`")
            }
            RemoteError::Exec { source, .. } if source.kind == PodFailure::Forbidden => Some(
                "your user needs a Role in that namespace with the verbs `create` and `get` on `pods/exec`",
            ),
            RemoteError::NoPods { .. } => {
                Some("give the cluster's namespace with -n, its context with --context, its labels with -l")
            }
            RemoteError::SeveralClusters { .. } => Some("choose one with --scope CLUSTER"),
            RemoteError::NoneRuns { .. } => Some("`kubectl describe pod` says why"),
            RemoteError::Lost(..) => {
                Some("the command may have been carried out: see `kubectl matriarch list`")
            }
            RemoteError::Kubeconfig(_) => {
                Some("name it with --kubeconfig FILE or KUBECONFIG, and its context with --context")
            }
            RemoteError::Client { .. }
            | RemoteError::List { .. }
            | RemoteError::UnknownPod { .. }
            | RemoteError::Exec { .. } => None,
        }
    }
}

/// The streams of a command. Its output goes to the writers of [`RemotePods::run`].
#[derive(Debug, Default)]
pub struct RemoteStreams {
    /// Standard input, until the sender is dropped; `None`: the command has none.
    pub stdin: Option<mpsc::Receiver<Vec<u8>>>,
    /// Columns and rows of the terminal; `None`: the command gets no terminal.
    pub terminal: Option<watch::Receiver<(u16, u16)>>,
}

/// The pods that a search finds.
pub struct RemotePods {
    search: PodSearch,
    pods: Api<PodObject>,
    /// Labels, namespace and context, for messages.
    place: String,
}

impl RemotePods {
    /// Reads the kubeconfig. In a pod without one, its service account is used.
    ///
    /// # Errors
    /// A kubeconfig that is missing, wrong, or names credentials that cannot be had.
    pub async fn connect(search: PodSearch) -> Result<RemotePods, RemoteError> {
        let options = KubeConfigOptions { context: search.context.clone(), ..KubeConfigOptions::default() };
        let read = search.kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
        let (mut config, context) = match read {
            Ok(kubeconfig) => {
                let context = search.context.clone().or_else(|| kubeconfig.current_context.clone());
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                (config.map_err(RemoteError::Kubeconfig)?, format!("context {}", context.unwrap_or_default()))
            }
            Err(error) => match Config::incluster() {
                Ok(config) if search.kubeconfig.is_none() && search.context.is_none() => {
                    (config, "this pod's account".to_owned())
                }
                Ok(_) | Err(_) => return Err(RemoteError::Kubeconfig(error)),
            },
        };
        config.connect_timeout = Some(CONNECT_WITHIN);
        // A command may be silent for as long as it takes, and is never run twice.
        config.read_timeout = None;
        config.default_retry = false;
        let namespace = search.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let place = format!("with the labels {} in the namespace {namespace} ({context})", search.labels());
        let client = Client::try_from(config)
            .map_err(|error| RemoteError::Client { context, source: error.into() })?;
        Ok(RemotePods { search, pods: Api::namespaced(client, &namespace), place })
    }

    /// Runs `words` in the most fitting pod; the result is the command's exit code.
    ///
    /// # Errors
    /// No pod fits, the API server refuses, or the connection ends before the command.
    pub async fn run(
        &self,
        words: Vec<String>,
        streams: RemoteStreams,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> Result<u8, RemoteError> {
        let place = || self.place.clone();
        let listed = within(self.pods.list(&ListParams::default().labels(&self.search.labels()))).await;
        let listed = listed.map_err(|source| RemoteError::List { place: place(), source })?;
        let pods: Vec<MemberPod> = listed.items.into_iter().map(MemberPod::of).collect();
        let pod = self.search.choose(&pods, &self.place)?;
        let failed = |source| RemoteError::Exec { pod: pod.name.clone(), place: place(), source };
        let parameters = AttachParams {
            container: pod.container.clone(),
            stdin: streams.stdin.is_some(),
            // A terminal has one stream for both.
            stderr: streams.terminal.is_none(),
            tty: streams.terminal.is_some(),
            ..AttachParams::default()
        };
        let mut process = within(self.pods.exec(&pod.name, words, &parameters)).await.map_err(failed)?;
        let ended = process.take_status();
        pass(&mut process, streams, stdout, stderr).await;
        match OptionFuture::from(ended).await.flatten() {
            Some(status) => exit_code(&status).map_err(failed),
            None => Err(RemoteError::Lost(pod.name.clone(), process.join().await.err().map(Into::into))),
        }
    }
}

async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, KubeFailure> {
    let answered = tokio::time::timeout(ANSWER_WITHIN, call).await;
    answered.map_err(|_| KubeFailure::silent(ANSWER_WITHIN))?.map_err(KubeFailure::from)
}

/// Passes the streams on until the command has closed its output.
async fn pass(
    process: &mut AttachedProcess,
    streams: RemoteStreams,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) {
    let (out, err) = (process.stdout(), process.stderr());
    let (input, sizes) = (process.stdin(), process.terminal_size());
    let output = async { tokio::join!(copy(out, stdout), copy(err, stderr)) };
    let input = async {
        if let (Some(mut input), Some(mut stdin)) = (input, streams.stdin) {
            while let Some(bytes) = stdin.recv().await {
                // A command that has ended reads no more.
                if input.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = input.shutdown().await;
        }
        std::future::pending::<()>().await
    };
    let resize = async {
        if let (Some(mut sizes), Some(mut terminal)) = (sizes, streams.terminal) {
            loop {
                let (width, height) = *terminal.borrow_and_update();
                // A size that finds no room is followed by a later one.
                let _ = sizes.try_send(TerminalSize { width, height });
                if terminal.changed().await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await
    };
    tokio::select! { _ = output => {}, () = input => {}, () = resize => {} }
}

/// Copies a stream of the command. When the local reader has gone away (`| head`), the rest is read and dropped.
async fn copy(from: Option<impl AsyncRead + Unpin>, to: &mut dyn Write) {
    let Some(mut from) = from else { return };
    let (mut piece, mut is_read) = (vec![0; PIECE], true);
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        is_read = is_read && write(to, &piece[..length]).is_ok();
    }
}

fn write(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// The exit code in the final message of the API server.
fn exit_code(status: &Status) -> Result<u8, KubeFailure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|details| &details.causes).flatten();
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = codes.find_map(|cause| cause.message.as_ref()?.parse().ok());
    let text = || status.message.clone().unwrap_or_else(|| "the API server does not say why".to_owned());
    code.ok_or_else(|| KubeFailure::new(PodFailure::Other, text()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_final_message_has_the_exit_code() {
        let code = |status| {
            exit_code(&serde_json::from_value(status).expect("a status")).map_err(|failure| failure.text)
        };
        assert_eq!(code(json!({ "status": "Success" })), Ok(0));
        let details = json!({ "causes": [{ "reason": "ExitCode", "message": "130" }] });
        assert_eq!(
            code(json!({ "status": "Failure", "reason": "NonZeroExitCode", "details": details })),
            Ok(130)
        );
        let missing = "executable file not found in $PATH";
        assert_eq!(code(json!({ "status": "Failure", "message": missing })), Err(missing.to_owned()));
    }
}
