//! The REST interface of a member: built from the local configuration, and kept in line with it.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use super::certificates::Certificates;
use super::error::{RunError, system};
use crate::agent::{Handle, ParameterCheck};
use crate::api::{self, ApiSetup};
use crate::config::{Config, WriteAccess};
use crate::peer::Peers;

/// The interval between reads of the certificate files: a kubelet takes a minute to bring a change.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The running interface. It ends when this is dropped.
pub(super) struct RestServer {
    /// The client for other members, with the same certificates.
    pub(super) peers: Peers,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl RestServer {
    /// Serves the loop behind `handle`.
    pub(super) async fn start(
        local: watch::Receiver<Arc<Config>>,
        handle: Handle,
    ) -> Result<RestServer, RunError> {
        let config = local.borrow().clone();
        let mut setup = setup(&config);
        let certificates = Certificates::read(&config, &mut setup).map_err(RunError::Certificates)?;
        let listener = api::bind(&setup).await.map_err(RunError::Api)?;
        let (setup, newest) = watch::channel(Arc::new(setup));
        let (stop, stopped) = oneshot::channel();
        let ended = serve(listener, newest, handle, stopped)?;
        let peers = certificates.peers.clone();
        tokio::spawn(follow(config, local, certificates, setup));
        Ok(RestServer { peers, stop, ended })
    }

    /// Gives requests under way a moment to finish.
    pub(super) async fn end(self) {
        drop(self.stop);
        // Its sender is dropped. A panic of the server is logged; the exit code is the agent's.
        let _ = self.ended.await;
    }
}

/// Serves in a thread of its own, until `stopped`: what the loop and its jobs do delays no health check, and no number
/// of requests delays them. Only gRPC calls run beside the loop, a limited number of them.
fn serve(
    listener: TcpListener,
    setup: watch::Receiver<Arc<ApiSetup>>,
    handle: Handle,
    stopped: oneshot::Receiver<()>,
) -> Result<oneshot::Receiver<()>, RunError> {
    let calls = runtime::Handle::current();
    let failed = |source| system("start the thread of the REST interface", source);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let listener = listener.into_std().map_err(failed)?;
    let (ends, ended) = oneshot::channel();
    let serving = async move {
        let _ends: oneshot::Sender<()> = ends;
        let listener = TcpListener::from_std(listener)?;
        // The sender is dropped with the agent, even if the agent fails.
        api::serve(listener, setup, handle, calls, async { drop(stopped.await) }).await;
        Ok::<(), std::io::Error>(())
    };
    std::thread::Builder::new()
        .name("rest".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                tracing::error!(%error, "the REST interface does not serve");
            }
        })
        .map_err(failed)?;
    Ok(ended)
}

/// Applies every change of the local configuration, and of its certificate files. Runs until the interface or the agent
/// has ended.
async fn follow(
    mut config: Arc<Config>,
    mut local: watch::Receiver<Arc<Config>>,
    mut certificates: Certificates,
    api: watch::Sender<Arc<ApiSetup>>,
) {
    while !api.is_closed() {
        tokio::select! {
            changed = local.changed() => {
                if changed.is_err() {
                    return;
                }
                let before = std::mem::replace(&mut config, local.borrow_and_update().clone());
                api.send_modify(|now| {
                    let (tls, client_certificate) = (now.tls.clone(), now.client_certificate);
                    *now = Arc::new(ApiSetup { tls, client_certificate, ..setup(&config) });
                });
                certificates.rename(&config);
                let access = config.restapi.write_access();
                if before.restapi.write_access() != access {
                    warn_of_access(access);
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        certificates.read_again(&api);
    }
}

/// All settings except for the certificates.
fn setup(config: &Config) -> ApiSetup {
    let rest = &config.restapi;
    ApiSetup {
        listen: (rest.listen.host.clone(), rest.listen.port),
        credentials: rest.authentication.clone().map(|login| (login.username, login.password)),
        allowlist: rest.allowlist.clone(),
        allowlist_include_members: rest.allowlist_include_members,
        allow_unauthenticated_writes: rest.allow_unauthenticated_writes,
        web_page: rest.ui,
        extra_headers: rest.http_extra_headers.clone(),
        server_tokens: rest.server_tokens.parse().unwrap_or_default(),
        scope: config.scope.clone(),
        parameter_check: Some(ParameterCheck::of(config)),
        ..ApiSetup::default()
    }
}

/// Logs who may make changes over REST without a setting.
pub(super) fn warn_of_access(access: WriteAccess) {
    match access {
        WriteAccess::Configured => {}
        WriteAccess::LocalAndMembers | WriteAccess::Everybody => tracing::warn!("{access}"),
    }
}
