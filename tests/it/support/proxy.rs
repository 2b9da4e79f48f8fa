//! A connection for one client to a server on loopback, which can be cut or made to hang.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::free_port;

/// Forwards the data that is sent to its port, until it is dropped.
pub(crate) struct Proxy {
    /// `host:port` for the client.
    pub(crate) host: String,
    cut: Arc<watch::Sender<bool>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy for the server at `target`, `host:port`.
    pub(crate) async fn before(target: String) -> Proxy {
        let host = format!("127.0.0.1:{}", free_port());
        let listener = TcpListener::bind(&host).await.expect("the port is ours");
        let cut = Arc::new(watch::Sender::new(false));
        let task = tokio::spawn(serve(listener, host.clone(), target, cut.subscribe()));
        Proxy { host, cut, task }
    }

    /// Cuts all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn serve(first: TcpListener, host: String, target: String, mut cut: watch::Receiver<bool>) {
    let mut first = Some(first);
    while cut.wait_for(|cut| !*cut).await.is_ok() {
        let listener = match first.take() {
            Some(listener) => listener,
            None => TcpListener::bind(&host).await.expect("the port is ours"),
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Ok((client, _)) = listener.accept() => drop(connections.spawn(join(client, target.clone()))),
                Some(_) = connections.join_next() => {}
                _ = cut.wait_for(|cut| *cut) => break,
            }
        }
    }
}

async fn join(mut client: TcpStream, target: String) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    // Either end may disappear at any time.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
