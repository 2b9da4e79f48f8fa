//! etcd: one member or three, frozen, thawed, restarted; and an endpoint that accepts and never answers.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Place, command_as, free_port, processes, request, until};

/// A running etcd.
pub(crate) struct Etcd {
    folder: PathBuf,
    servers: Vec<Server>,
    /// The limit of its database; `None`: etcd's default.
    quota_bytes: Option<u64>,
}

struct Server {
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Etcd {
    /// Starts `size` servers and waits until they answer.
    pub(crate) async fn start(place: &Place, size: usize) -> Etcd {
        Etcd::start_within(place, size, None).await
    }

    /// The same, with a quota.
    pub(crate) async fn start_within(place: &Place, size: usize, quota_bytes: Option<u64>) -> Etcd {
        let servers =
            (0..size).map(|_| Server { client: free_port(), peer: free_port(), process: None }).collect();
        let mut etcd = Etcd { folder: place.folder("etcd"), servers, quota_bytes };
        for index in 0..size {
            etcd.spawn(index);
        }
        etcd.wait_until_healthy().await;
        etcd
    }

    /// `host:port` of each server, in the form of `etcd3.hosts`.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.servers.iter().map(|server| format!("127.0.0.1:{}", server.client)).collect()
    }

    fn spawn(&mut self, index: usize) {
        let cluster: Vec<String> = self
            .servers
            .iter()
            .enumerate()
            .map(|(number, server)| format!("e{number}=http://127.0.0.1:{}", server.peer))
            .collect();
        let server = &mut self.servers[index];
        let (client, peer) =
            (format!("http://127.0.0.1:{}", server.client), format!("http://127.0.0.1:{}", server.peer));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("e{index}.log")))
            .expect("our own place is writable");
        let child = command_as("etcd", &self.folder)
            .args(["--name", &format!("e{index}"), "--data-dir", &format!("e{index}.data")])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(","), "--heartbeat-interval", "50"])
            .args(["--election-timeout", "500", "--log-level", "warn", "--logger", "zap"])
            .args(self.quota_bytes.map(|bytes| format!("--quota-backend-bytes={bytes}")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be copied"))
            .stderr(log)
            .spawn()
            .expect("etcd starts: see `make setup`");
        server.process = Some(child);
    }

    /// Waits until every server reports that it is healthy, which needs a quorum.
    pub(crate) async fn wait_until_healthy(&self) {
        for server in &self.servers {
            let second = Duration::from_secs(1);
            let healthy = until(Duration::from_secs(20), async || {
                let answer = request(server.client, "GET", "/health", None, None, second).await?;
                (answer.status == 200 && answer.body.contains("true")).then_some(())
            });
            assert!(healthy.await.is_some(), "etcd on port {} does not become healthy", server.client);
        }
    }

    /// Stops the servers without ending them, like a paused machine.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Stops one server: its endpoint accepts connections and never answers.
    pub(crate) fn freeze_one(&self, index: usize) {
        let process = self.servers[index].process.as_ref().expect("it runs");
        processes::signal(process.id(), Signal::SIGSTOP);
    }

    /// Lets frozen servers continue.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        for process in self.servers.iter().filter_map(|server| server.process.as_ref()) {
            processes::signal(process.id(), signal);
        }
    }

    /// Ends all servers at once.
    pub(crate) fn kill(&mut self) {
        for mut process in self.servers.iter_mut().filter_map(|server| server.process.take()) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Kills one server, frozen or not, and starts it again on its data.
    ///
    /// A server that led when it was frozen must not simply be thawed: before 3.4.31 and 3.5.13 it revokes, through the
    /// new leader, the leases that ran out on its own clock (etcd#15247, mended by etcd#17465 and etcd#17425).
    pub(crate) async fn restart_one(&mut self, index: usize) {
        if let Some(mut process) = self.servers[index].process.take() {
            // It may be gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
        self.spawn(index);
        self.wait_until_healthy().await;
    }

    /// Saves the content of the first server, like a backup.
    pub(crate) fn save_snapshot(&self) {
        let endpoint = format!("http://127.0.0.1:{}", self.servers[0].client);
        self.etcdctl(&["--endpoints", &endpoint, "snapshot", "save", "backup.db"]);
    }

    /// Deletes the data of the servers, which must not be running.
    pub(crate) fn wipe(&self) {
        for index in 0..self.servers.len() {
            std::fs::remove_dir_all(self.folder.join(format!("e{index}.data"))).expect("it has run");
        }
    }

    /// Restores the saved content to a cluster of one server, which must not be running.
    pub(crate) fn restore_snapshot(&self) {
        let peer = format!("http://127.0.0.1:{}", self.servers[0].peer);
        std::fs::remove_dir_all(self.folder.join("e0.data")).expect("it has run");
        let cluster = format!("e0={peer}");
        let where_to = ["--name", "e0", "--data-dir", "e0.data", "--initial-cluster", &cluster];
        let words = ["snapshot", "restore", "backup.db", "--initial-advertise-peer-urls", &peer];
        self.etcdctl(&[&words[..], &where_to[..]].concat());
    }

    fn etcdctl(&self, words: &[&str]) {
        let output = command_as("etcdctl", &self.folder).env("ETCDCTL_API", "3").args(words).output();
        let output = output.expect("etcdctl starts: see `make setup`");
        assert!(output.status.success(), "etcdctl {words:?}: {output:?}");
    }

    /// Starts all servers again on their data.
    pub(crate) async fn start_again(&mut self) {
        for index in 0..self.servers.len() {
            self.spawn(index);
        }
        self.wait_until_healthy().await;
    }

    /// The value of a key, through etcd's own JSON gateway; `None` when it does not exist.
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let answer = self.call("/v3/kv/range", &json!({ "key": encode(key) })).await?;
        decode(answer.pointer("/kvs/0/value")?.as_str()?)
    }

    /// The TTL that was granted to the lease of a key, in seconds; `None` when there is none.
    pub(crate) async fn ttl(&self, key: &str) -> Option<u64> {
        let answer = self.call("/v3/kv/range", &json!({ "key": encode(key) })).await?;
        let lease = answer.pointer("/kvs/0/lease")?;
        let lives = self.call("/v3/lease/timetolive", &json!({ "ID": lease })).await?;
        lives.get("grantedTTL")?.as_str()?.parse().ok()
    }

    /// Any writing call of the JSON gateway.
    pub(crate) async fn write(&self, path: &str, body: &Value) {
        assert!(self.call(path, body).await.is_some(), "etcd takes {path}");
    }

    /// Writes a key.
    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.write("/v3/kv/put", &json!({ "key": encode(key), "value": encode(value) })).await;
    }

    /// Fills etcd until it refuses writes; it still answers reads.
    pub(crate) async fn fill(&self) {
        let put = json!({ "key": encode("/fill"), "value": encode(&"x".repeat(1 << 19)) });
        let full = until(Duration::from_secs(60), async || {
            self.call("/v3/kv/put", &put).await.is_none().then_some(())
        });
        assert!(full.await.is_some(), "its quota is small");
        assert!(self.get("/fill").await.is_some(), "it answers reads");
    }

    /// Frees the space that [`Etcd::fill`] used, so that etcd accepts writes again.
    pub(crate) async fn free(&self) {
        self.write("/v3/kv/deleterange", &json!({ "key": encode("/fill") })).await;
        let read =
            self.call("/v3/kv/range", &json!({ "key": encode("/fill") })).await.expect("it answers reads");
        let revision = &read["header"]["revision"];
        self.write("/v3/kv/compaction", &json!({ "revision": revision, "physical": true })).await;
        self.write("/v3/maintenance/defragment", &json!({})).await;
        let alarms = self.call("/v3/maintenance/alarm", &json!({ "action": "GET" })).await;
        for alarm in alarms.expect("it tells its alarms")["alarms"].as_array().into_iter().flatten() {
            let (member, kind) = (&alarm["memberID"], &alarm["alarm"]);
            let disarm = json!({ "action": "DEACTIVATE", "memberID": member, "alarm": kind });
            self.write("/v3/maintenance/alarm", &disarm).await;
        }
    }

    /// Deletes a key.
    pub(crate) async fn delete(&self, key: &str) {
        self.write("/v3/kv/deleterange", &json!({ "key": encode(key) })).await;
    }

    /// Deletes all keys under a prefix, in one revision.
    pub(crate) async fn delete_below(&self, directory: &str) {
        let (first, end) = (format!("{directory}/"), format!("{directory}0"));
        let range = json!({ "key": encode(&first), "range_end": encode(&end) });
        self.write("/v3/kv/deleterange", &range).await;
    }

    async fn call(&self, path: &str, body: &Value) -> Option<Value> {
        for server in &self.servers {
            let within = Duration::from_secs(3);
            if let Some(answer) = request(server.client, "POST", path, None, Some(body), within).await
                && answer.status == 200
            {
                return Some(answer.json());
            }
        }
        None
    }
}

fn encode(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn decode(text: &str) -> Option<String> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// An endpoint that accepts connections and never answers, for as long as it lives.
pub(crate) struct BlackHole {
    port: u16,
    _listener: std::net::TcpListener,
}

impl BlackHole {
    /// Opens one. The kernel accepts connections; no process reads from them.
    pub(crate) fn open() -> BlackHole {
        let port = free_port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is ours");
        BlackHole { port, _listener: listener }
    }

    /// `host:port`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
