//! One etcd on loopback, behind a proxy that counts the bytes of its clients.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::request;

const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// Both. They end with this.
pub(super) struct CountedEtcd {
    process: Child,
    folder: PathBuf,
    /// Where etcd itself listens.
    address: String,
    /// Where the proxy listens.
    port: u16,
    bytes: Arc<Bytes>,
}

/// Of all connections through the proxy, without the headers of TCP.
#[derive(Debug, Default)]
struct Bytes {
    to_etcd: AtomicU64,
    from_etcd: AtomicU64,
}

/// What etcd and the proxy have counted, or how much of it came in a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    proposals: f64,
    grpc_received: f64,
    grpc_sent: f64,
    to_etcd: f64,
    from_etcd: f64,
}

impl Counts {
    /// What came since, a minute.
    pub(super) fn since(&self, before: &Counts, minutes: f64) -> Counts {
        let rate = |of: fn(&Counts) -> f64| (of(self) - of(before)) / minutes;
        Counts {
            proposals: rate(|counts| counts.proposals),
            grpc_received: rate(|counts| counts.grpc_received),
            grpc_sent: rate(|counts| counts.grpc_sent),
            to_etcd: rate(|counts| counts.to_etcd),
            from_etcd: rate(|counts| counts.from_etcd),
        }
    }

    /// As the table shows them.
    pub(super) fn rows(&self) -> [(&'static str, f64); 5] {
        [
            ("proposals applied", self.proposals),
            ("bytes from clients on etcd's port", self.to_etcd),
            ("bytes to clients on etcd's port", self.from_etcd),
            ("bytes of gRPC messages received", self.grpc_received),
            ("bytes of gRPC messages sent", self.grpc_sent),
        ]
    }
}

impl CountedEtcd {
    /// Starts both on free ports.
    pub(super) async fn start(name: &str) -> Result<CountedEtcd> {
        let folder = std::env::temp_dir().join(format!("chaos-fleet-{}-{name}", std::process::id()));
        let (client, peer) = (free_port().await?, free_port().await?);
        let bytes = Arc::new(Bytes::default());
        // Clients that ask for the members of etcd are sent to the proxy, too.
        let port = proxy(client, bytes.clone()).await?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(&folder).args([
            "--name",
            "e1",
            "--log-level",
            "error",
            "--logger",
            "zap",
        ]);
        command.args(["--listen-client-urls", &url(client), "--advertise-client-urls", &url(port)]);
        command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        command.args(["--initial-cluster", &format!("e1={}", url(peer)), "--unsafe-no-fsync"]);
        // It refuses some architectures unless it is told their name.
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let process = command.stdin(Stdio::null()).spawn().context("start etcd")?;
        let etcd = CountedEtcd { process, folder, address: format!("127.0.0.1:{client}"), port, bytes };
        let deadline = Instant::now() + HEALTHY_WITHIN;
        while request(&etcd.address, "GET", "/health", None, ANSWERS_WITHIN).await.is_none() {
            ensure!(Instant::now() < deadline, "etcd does not answer");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(etcd)
    }

    /// Where members connect to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// How many member records and leader keys there are.
    pub(super) async fn keys(&self) -> Result<usize> {
        // From `/service/` on, and up to what comes after it.
        let range = json!({ "key": "L3NlcnZpY2Uv", "range_end": "L3NlcnZpY2Uw", "keys_only": true });
        let answer = request(&self.address, "POST", "/v3/kv/range", Some(&range), ANSWERS_WITHIN).await;
        let answer = answer.context("etcd does not answer")?.json();
        let keys = answer["kvs"].as_array().cloned().unwrap_or_default();
        let hangs_on_lease =
            |key: &&serde_json::Value| key["lease"].as_str().is_some_and(|lease| lease != "0");
        Ok(keys.iter().filter(hangs_on_lease).count())
    }

    /// What was counted so far.
    pub(super) async fn counts(&self) -> Result<Counts> {
        let answer = request(&self.address, "GET", "/metrics", None, ANSWERS_WITHIN).await;
        let text = answer.context("etcd does not answer")?.body;
        let metric = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("etcd shows no {name}"))
        };
        Ok(Counts {
            proposals: metric("etcd_server_proposals_applied_total")?,
            grpc_received: metric("etcd_network_client_grpc_received_bytes_total")?,
            grpc_sent: metric("etcd_network_client_grpc_sent_bytes_total")?,
            to_etcd: self.bytes.to_etcd.load(Ordering::Relaxed) as f64,
            from_etcd: self.bytes.from_etcd.load(Ordering::Relaxed) as f64,
        })
    }
}

impl Drop for CountedEtcd {
    fn drop(&mut self) {
        // It is gone, or will be.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port())
}

/// Passes on everything, and counts it.
async fn proxy(etcd: u16, bytes: Arc<Bytes>) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, etcd)).await?;
                let ((from_client, to_client), (from_server, to_server)) =
                    (client.into_split(), server.into_split());
                tokio::select! {
                    ended = pass(from_client, to_server, &bytes.to_etcd) => ended,
                    ended = pass(from_server, to_client, &bytes.from_etcd) => ended,
                }
            });
        }
    });
    Ok(port)
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            read => {
                count.fetch_add(read as u64, Ordering::Relaxed);
                to.write_all(&buffer[..read]).await?;
            }
        }
    }
}
