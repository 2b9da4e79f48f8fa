//! The ports of the double: one port for each client, so that each can be cut off separately.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::answer;
use super::server::Server;
use crate::support::free_port;

/// The treatment of the connections at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortState {
    /// Answered.
    Open,
    /// Connections are accepted and never answered. Requests that were sent in the meantime arrive when the port opens
    /// again.
    Hangs,
    /// New connections are refused, and existing ones are cut.
    Shut,
}

/// One port of the API server.
#[derive(Clone)]
pub(crate) struct ClientPort {
    /// On loopback.
    pub(crate) port: u16,
    state: watch::Sender<PortState>,
}

impl ClientPort {
    /// Opens one more; it listens on return.
    pub(super) fn open(server: &Arc<Server>, runtime: &tokio::runtime::Handle) -> ClientPort {
        let client_port = ClientPort { port: free_port(), state: watch::Sender::new(PortState::Open) };
        let listener = client_port.listen();
        runtime.spawn(client_port.clone().serve(server.clone(), listener));
        client_port
    }

    /// Opens, hangs or shuts it.
    pub(crate) fn set(&self, state: PortState) {
        self.state.send_replace(state);
    }

    /// The present treatment, and its changes.
    pub(super) fn state(&self) -> watch::Receiver<PortState> {
        self.state.subscribe()
    }

    fn listen(&self) -> std::net::TcpListener {
        let listener = std::net::TcpListener::bind(("127.0.0.1", self.port)).expect("the port is ours");
        listener.set_nonblocking(true).expect("a listener can be asked without waiting");
        listener
    }

    async fn serve(self, server: Arc<Server>, first: std::net::TcpListener) {
        let mut state = self.state();
        let mut listener = Some(first);
        loop {
            if state.wait_for(|state| *state != PortState::Shut).await.is_err() {
                return;
            }
            let listener = listener.take().unwrap_or_else(|| self.listen());
            let listener = TcpListener::from_std(listener).expect("it does not wait");
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        connections.spawn(self.clone().converse(server.clone(), stream));
                    }
                    Some(_) = connections.join_next() => {}
                    _ = state.wait_for(|state| *state == PortState::Shut) => break,
                }
            }
        }
    }

    async fn converse(self, server: Arc<Server>, stream: tokio::net::TcpStream) {
        // An answer is one small packet; it must not wait until the client has acknowledged the previous packet.
        let _ = stream.set_nodelay(true);
        let router = Router::new().fallback(move |request: Request| {
            // In a separate task: the sender of a request may be gone before it is done.
            let answered = tokio::spawn(answer::answer(server.clone(), self.clone(), request));
            async move {
                answered.await.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
            }
        });
        let service = TowerToHyperService::new(router);
        // A cut connection is handled by the client.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }
}
