//! From sockets to requests: connections with their limits, and the bodies of unsafe requests.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Either;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::addresses::MemberAddresses;
use super::dispatch::{Caller, Routes};
use super::http2::{self, Resumed};
use super::request_limits::{Connection, WaitingConnections};
use super::{ApiError, ApiSetup, ui};
use crate::agent::Handle;

/// The protocols of a TLS client's choice. HTTP/1.0 is one of them: a handshake fails if none of the client's is here.
pub const PROTOCOLS: [&[u8]; 3] = [HTTP2, b"http/1.1", b"http/1.0"];
const HTTP2: &[u8] = b"h2";
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

/// One connection, with all that answers its requests.
#[derive(Clone)]
pub(super) struct Visit {
    pub(super) caller: Caller,
    pub(super) waits: Arc<Connection>,
    pub(super) routes: Arc<Routes>,
    /// The newest settings.
    pub(super) setup: watch::Receiver<Arc<ApiSetup>>,
    /// True when the server ends.
    pub(super) ending: watch::Receiver<bool>,
}

/// Serves until `shutdown` ends; then requests under way get a moment to finish. Each request uses the newest `setup`,
/// but the listen address stays as in [`bind`]. gRPC calls run in `calls`, so that they delay no health check.
pub async fn serve(
    listener: TcpListener,
    setup: watch::Receiver<Arc<ApiSetup>>,
    handle: Handle,
    calls: runtime::Handle,
    shutdown: impl Future<Output = ()>,
) {
    let members = Arc::new(MemberAddresses::default());
    let routes = Arc::new(Routes::new(handle.clone(), calls));
    let mut beside = JoinSet::new();
    beside.spawn({
        let (members, routes) = (members.clone(), routes.clone());
        async move { tokio::join!(members.follow(&handle), routes.keep_looking(), routes.ui.keep_sampling()) }
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
        let waits = Arc::new(waiting.enter(caller.is_member));
        let (routes, setup, ending) = (routes.clone(), setup.clone(), ending.clone());
        let visit = Visit { caller, waits: waits.clone(), routes, setup, ending };
        connections.spawn(async move {
            tokio::select! {
                () = handshake(stream, visit) => {}
                () = waits.idle_too_long() => {
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
async fn handshake(stream: TcpStream, visit: Visit) {
    let Some(tls) = visit.setup.borrow().tls.clone() else {
        return converse(stream, visit).await;
    };
    // Boxed: connections without TLS need not have its size.
    let secured = Box::pin(async {
        match TlsAcceptor::from(tls).accept(stream).await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let certified = session.peer_certificates().is_some();
                let chosen = session.alpn_protocol() == Some(HTTP2);
                let visit = Visit { caller: Caller { certified, ..visit.caller }, ..visit };
                match chosen {
                    true => http2::converse(stream, visit).await,
                    false => converse(stream, visit).await,
                }
            }
            Err(error) => {
                tracing::debug!(%error, address = %visit.caller.address, "TLS handshake failed");
            }
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

/// Serves HTTP/1, or HTTP/2 to a client that begins with it.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, visit: Visit) {
    let service = service_fn({
        let (caller, waits, routes) = (visit.caller, visit.waits.clone(), visit.routes.clone());
        let (setup, ending) = (visit.setup.clone(), visit.ending.clone());
        move |request: Request<Incoming>| {
            let (routes, setup, ending) = (routes.clone(), setup.borrow().clone(), ending.clone());
            let answering = waits.clone().answering();
            async move {
                let answer = match ui::is_stream(&request) {
                    true => match ui::stream(&routes, &setup, ending, answering) {
                        Ok(stream) => return Ok(stream.map(Either::Right)),
                        Err(refusal) => refusal,
                    },
                    false => {
                        let answer = routes.answer(request, caller, &setup).await;
                        drop(answering);
                        answer
                    }
                };
                Ok::<_, Infallible>(answer.into_response(&setup).map(Either::Left))
            }
        }
    });
    // The time for a head is limited by `waits`.
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut ending = visit.ending.clone();
    let ended = async { ending.wait_for(|ending| *ending).await.is_ok() };
    let outcome = tokio::select! {
        outcome = &mut connection => Some(outcome),
        _ = ended => None,
    };
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    match outcome {
        Ok(()) => {}
        // No answer is under way, and these bytes are no request of HTTP/1.
        Err(error) if error.is_parse_version_h2() => {
            let parts = connection.into_parts();
            let stream = Resumed::new(parts.read_buf, parts.io.into_inner());
            // Boxed: connections with HTTP/1 need not have its size.
            Box::pin(http2::converse(stream, visit)).await;
        }
        Err(error) => tracing::trace!(%error, "a connection to the REST interface broke"),
    }
}
