//! A connection for one client to a server on loopback, which can be cut or made to hang.

use std::sync::Arc;

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Cluster, free_port};

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

    /// The only way of this member to etcd, from its next start on.
    pub(crate) async fn before_etcd_of(cluster: &Cluster, index: usize) -> Proxy {
        let proxy = Proxy::before(cluster.etcd.hosts()[0].clone()).await;
        let member = &cluster.members[index];
        let mut config = member.read_config();
        config["etcd3"]["hosts"] = json!([proxy.host]);
        // Without it, etcd is found at the address that it announces, behind the cut.
        config["etcd3"]["use_proxies"] = json!(true);
        member.write_config(&config);
        proxy
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
