//! From sockets to requests: connections with their limits, and the bodies of unsafe requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::addresses::MemberAddresses;
use super::dispatch::{Caller, Routes};
use super::request_limits::{Connection, WaitingConnections};
use super::{ApiError, ApiSetup};
use crate::agent::Handle;

/// The limit for the head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long open requests may take when the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// The pause after a failed accept: the process has no free descriptor, and an immediate retry would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens on the address of `setup`.
pub async fn bind(setup: &ApiSetup) -> Result<TcpListener, ApiError> {
    let (host, port) = setup.listen.clone();
    let outcome = match host.as_str() {
        "" | "*" => match TcpListener::bind(("::", port)).await {
            Ok(listener) => Ok(listener),
            // There is no IPv6 on this machine, or the port is in use there, as IPv4 will report.
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
        },
        host => TcpListener::bind((host.trim_matches(['[', ']']), port)).await,
    };
    outcome.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ApiError::PortInUse { host, port, source },
        _ => ApiError::Listen { host, port, source },
    })
}

/// Serves until `shutdown` ends; then requests under way get a moment to finish. Each request uses the newest `setup`,
/// but the listen address stays as in [`bind`].
pub async fn serve(
    listener: TcpListener,
    setup: watch::Receiver<Arc<ApiSetup>>,
    handle: Handle,
    shutdown: impl Future<Output = ()>,
) {
    let members = Arc::new(MemberAddresses::default());
    let routes = Arc::new(Routes::new(handle.clone()));
    let mut beside = JoinSet::new();
    beside.spawn({
        let (members, routes) = (members.clone(), routes.clone());
        async move { tokio::join!(members.follow(&handle), routes.keep_looking()) }
    });
    let waiting = WaitingConnections::default();
    let (ending_sender, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &waiting) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let caller = caller(&stream, address, &members);
        let visit = Arc::new(waiting.enter(caller.is_member));
        let (routes, setup, ending) = (routes.clone(), setup.clone(), ending.clone());
        connections.spawn(async move {
            tokio::select! {
                () = handshake(stream, caller, &visit, routes, setup, ending) => {}
                () = visit.idle_too_long() => {
                    tracing::trace!(address = %caller.address, "closed a connection that was idle for too long");
                }
            }
        });
    }
    drop(listener);
    ending_sender.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
        tracing::debug!("the shutdown of the REST interface aborted requests");
    }
}

async fn accept(listener: &TcpListener, waiting: &WaitingConnections) -> Option<(TcpStream, SocketAddr)> {
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection to the REST interface");
            waiting.cut_one();
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Performs the TLS handshake if TLS is on, then serves the connection.
async fn handshake(
    stream: TcpStream,
    caller: Caller,
    visit: &Arc<Connection>,
    routes: Arc<Routes>,
    setup: watch::Receiver<Arc<ApiSetup>>,
    ending: watch::Receiver<bool>,
) {
    let Some(tls) = setup.borrow().tls.clone() else {
        return converse(stream, caller, visit, routes, setup, ending).await;
    };
    // Boxed: connections without TLS need not have its size.
    let secured = Box::pin(async {
        match TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => {
                let certified = stream.get_ref().1.peer_certificates().is_some();
                converse(stream, Caller { certified, ..caller }, visit, routes, setup, ending).await;
            }
            Err(error) => tracing::debug!(%error, address = %caller.address, "TLS handshake failed"),
        }
    });
    secured.await;
}

fn caller(stream: &TcpStream, address: SocketAddr, members: &MemberAddresses) -> Caller {
    let address = address.ip().to_canonical();
    // This machine owns its own address, so no other machine can communicate from it.
    let is_here = || stream.local_addr().is_ok_and(|here| here.ip().to_canonical() == address);
    let is_local = address.is_loopback() || is_here();
    Caller { address, is_local, is_member: members.hold(address), certified: false }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    visit: &Arc<Connection>,
    routes: Arc<Routes>,
    setup: watch::Receiver<Arc<ApiSetup>>,
    mut ending: watch::Receiver<bool>,
) {
    let visit = visit.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, setup, visit) = (routes.clone(), setup.borrow().clone(), visit.clone());
        async move {
            visit.answer();
            let answer = routes.answer(request, caller, &setup).await;
            visit.wait();
            Ok::<_, Infallible>(answer.into_response(&setup))
        }
    });
    // The time for a head is limited by `visit`.
    let mut connection = pin!(
        http1::Builder::new()
            .header_read_timeout(None)
            .max_buf_size(HEAD_BYTES_MAX)
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = async { ending.wait_for(|ending| *ending).await.is_ok() };
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        _ = ended => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::trace!(%error, "a connection to the REST interface broke");
    }
}
