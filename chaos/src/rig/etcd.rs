//! Three etcd members, each in a network namespace of its own.

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::http::request;
use super::namespaces::Namespace;
use super::place::{Housing, Place};
use super::processes::{is_stopped, signal_all};

/// They elect a leader within this.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
const DISK_MEGABYTES: u32 = 1000;

/// The cluster.
#[derive(Debug)]
pub(crate) struct Etcd {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    name: String,
    namespace: Namespace,
    folder: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    /// Starts them and waits until they answer.
    pub(crate) async fn start(place: &Place, size: usize) -> Result<Etcd> {
        let mut servers = Vec::new();
        for number in 1..=size {
            let name = format!("e{number}");
            let namespace = Namespace::new(&name, &format!("10.77.0.{}", 10 + number))?;
            let folder = place.data_folder(&name, DISK_MEGABYTES)?;
            servers.push(Server { name, namespace, folder, process: None });
        }
        let mut etcd = Etcd { servers };
        for index in 0..size {
            etcd.spawn(place, index)?;
        }
        etcd.wait_until_healthy().await?;
        Ok(etcd)
    }

    /// How many there are.
    pub(crate) fn size(&self) -> usize {
        self.servers.len()
    }

    /// `host:port` of each.
    pub(crate) fn hosts(&self) -> Vec<String> {
        self.servers.iter().map(|server| format!("{}:2379", server.namespace.address)).collect()
    }

    /// The address of one.
    pub(crate) fn address(&self, index: usize) -> &str {
        &self.servers[index].namespace.address
    }

    /// The network of one.
    pub(crate) fn namespace(&self, index: usize) -> &Namespace {
        &self.servers[index].namespace
    }

    /// Starts one on what it had.
    pub(crate) fn spawn(&mut self, place: &Place, index: usize) -> Result<()> {
        let named = |server: &Server| format!("{}=http://{}:2380", server.name, server.namespace.address);
        let cluster: Vec<String> = self.servers.iter().map(named).collect();
        let server = &mut self.servers[index];
        let url = |port: u16| format!("http://{}:{port}", server.namespace.address);
        let housing = Housing { cgroup: None, folder: &server.folder, log: &server.name, clock_ahead: 0 };
        let mut command = place.command(housing, "etcd".as_ref())?;
        command.args(["--name", &server.name, "--data-dir", "data", "--logger", "zap"]);
        command.args(["--listen-client-urls", &url(2379), "--advertise-client-urls", &url(2379)]);
        command.args(["--listen-peer-urls", &url(2380), "--initial-advertise-peer-urls", &url(2380)]);
        command.args(["--initial-cluster", &cluster.join(","), "--log-level", "warn"]);
        // It refuses some architectures unless it is told their name.
        if cfg!(target_arch = "aarch64") {
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let child = server.namespace.enter(|| command.spawn().context("start etcd"))?;
        server.process = Some(child);
        Ok(())
    }

    /// Waits until each says that it is healthy, which needs a quorum.
    pub(crate) async fn wait_until_healthy(&self) -> Result<()> {
        let by = Instant::now() + HEALTHY_WITHIN;
        for host in self.hosts() {
            loop {
                let answer = request(&host, "GET", "/health", None, ANSWERS_WITHIN).await;
                if answer.is_some_and(|answer| answer.status == 200 && answer.body.contains("true")) {
                    break;
                }
                if Instant::now() > by {
                    bail!("etcd at {host} does not become healthy");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Which of them leads.
    pub(crate) async fn leader(&self) -> Option<usize> {
        for (index, host) in self.hosts().iter().enumerate() {
            let path = "/v3/maintenance/status";
            let Some(answer) = request(host, "POST", path, Some(&json!({})), ANSWERS_WITHIN).await else {
                continue;
            };
            let status = answer.json();
            let leader = status["leader"].as_str().filter(|leader| *leader != "0");
            if leader.is_some() && leader == status.pointer("/header/member_id").and_then(Value::as_str) {
                return Some(index);
            }
        }
        None
    }

    /// Proposals that they have committed so far, by the first one's count.
    pub(crate) async fn proposals(&self) -> Option<f64> {
        let answer = request(&self.hosts()[0], "GET", "/metrics", None, ANSWERS_WITHIN).await?;
        let name = "etcd_server_proposals_committed_total ";
        answer.body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Ends one at once.
    pub(crate) fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.servers[index].process.take() {
            // Gone already is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Whether one runs.
    pub(crate) fn runs(&self, index: usize) -> bool {
        self.servers[index].process.is_some()
    }

    /// Stops one without ending it, or lets it go on.
    pub(crate) fn freeze(&self, index: usize, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        signal_all(&[self.pid(index)], signal);
    }

    /// Whether one has stopped.
    pub(crate) fn is_frozen(&self, index: usize) -> bool {
        is_stopped(self.pid(index))
    }

    fn pid(&self, index: usize) -> i32 {
        self.servers[index].process.as_ref().map_or(0, |process| process.id() as i32)
    }

    /// Lets all of them run, connected.
    pub(crate) fn release(&mut self, place: &Place) -> Result<()> {
        for index in 0..self.servers.len() {
            let ended = self.servers[index].process.as_mut().map(|child| child.try_wait());
            if matches!(ended, Some(Ok(Some(_)))) {
                self.servers[index].process = None;
            }
            if !self.runs(index) {
                self.spawn(place, index)?;
            }
            self.freeze(index, false);
            // There may be no filter.
            let _ = self.namespace(index).unfilter();
            self.namespace(index).link(true)?;
        }
        Ok(())
    }
}
