//! Sockets in, requests out: connections with their limits, and the bodies of unsafe requests.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::dispatch::{Caller, Routes};
use super::{ApiError, ApiSetup};
use crate::agent::Handle;

/// More connections wait in the kernel. Enough for every prober of a large fleet, too few to run out of files.
const CONNECTIONS_MAX: usize = 512;
/// A client that takes longer to send its request, or to shake hands, has gone.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// What open requests get when the server ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);
/// After a failed accept: the process is out of files, and trying again at once does not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens where `setup` says.
pub async fn bind(setup: &ApiSetup) -> Result<TcpListener, ApiError> {
    let (host, port) = setup.listen.clone();
    let outcome = match host.as_str() {
        "" | "*" => match TcpListener::bind(("::", port)).await {
            Ok(listener) => Ok(listener),
            // No IPv6 on this machine, or it is in use there, which IPv4 will say too.
            Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
        },
        host => TcpListener::bind((host.trim_matches(['[', ']']), port)).await,
    };
    outcome.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ApiError::PortInUse { host, port, source },
        _ => ApiError::Listen { host, port, source },
    })
}

/// Serves until `shutdown` ends; then requests under way get a moment to finish. The newest `setup` counts for
/// every request, but what is listened on was decided by [`bind`].
pub async fn serve(
    listener: TcpListener,
    setup: watch::Receiver<Arc<ApiSetup>>,
    handle: Handle,
    shutdown: impl Future<Output = ()>,
) {
    let routes = Arc::new(Routes::new(handle));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (ending_sender, ending) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, address, place) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => match accepted {
                Some(accepted) => accepted,
                None => continue,
            },
        };
        let (routes, setup, ending) = (routes.clone(), setup.clone(), ending.clone());
        connections.spawn(async move {
            greet(stream, address, routes, setup, ending).await;
            drop(place);
        });
    }
    drop(listener);
    ending_sender.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_WITHIN, drained).await.is_err() {
        tracing::debug!("requests were cut off by the end of the REST interface");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            tracing::warn!(%error, "failed to accept a connection to the REST interface");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Shakes hands where TLS is on, then serves the connection.
async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    routes: Arc<Routes>,
    setup: watch::Receiver<Arc<ApiSetup>>,
    ending: watch::Receiver<bool>,
) {
    let caller = caller(&stream, address);
    let Some(tls) = setup.borrow().tls.clone() else {
        return converse(stream, caller, routes, setup, ending).await;
    };
    match tokio::time::timeout(REQUEST_WITHIN, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => {
            let certified = stream.get_ref().1.peer_certificates().is_some();
            converse(stream, Caller { certified, ..caller }, routes, setup, ending).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

fn caller(stream: &TcpStream, address: SocketAddr) -> Caller {
    let address = address.ip().to_canonical();
    // An address of this machine is answered to on this machine, so nobody else can hold a conversation from it.
    let here = stream.local_addr().is_ok_and(|here| here.ip().to_canonical() == address);
    Caller { address, is_local: address.is_loopback() || here, certified: false }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    caller: Caller,
    routes: Arc<Routes>,
    setup: watch::Receiver<Arc<ApiSetup>>,
    mut ending: watch::Receiver<bool>,
) {
    let router = Router::new().fallback(move |request: Request| {
        let (routes, setup) = (routes.clone(), setup.borrow().clone());
        async move { routes.answer(request, caller, &setup).await.into_response(&setup) }
    });
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_WITHIN)
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
