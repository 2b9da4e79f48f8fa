//! The API server double for tests: permissions, injected faults, received requests, and the history of labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::access::Grants;
use super::client_port::{ClientPort, PortState};
use super::faults::Fault;
use super::resource::{pods, slices as slices_of_services};
use super::server::{Asked, Ending, Server};
use crate::support::user;

/// The number of each subject's requests in a failure report.
const STORY_LINES: usize = 30;

/// An API server in this process, in separate threads: a test that blocks does not delay it.
pub(crate) struct Double {
    server: Arc<Server>,
    client_ports: Mutex<BTreeMap<String, ClientPort>>,
    runtime: Option<Runtime>,
    faults: Mutex<usize>,
}

/// A pod's label, from some moment on.
#[derive(Clone, Debug)]
pub(crate) struct Labelled {
    /// The moment.
    pub(crate) at: SystemTime,
    /// The pod's name.
    pub(crate) pod: String,
    /// The label; `None`: the pod has none, or is gone.
    pub(crate) value: Option<String>,
}

impl Double {
    /// Starts an empty one.
    pub(crate) fn start() -> Double {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Double {
            server: Arc::new(Server::new()),
            client_ports: Mutex::default(),
            runtime: Some(runtime.expect("threads start")),
            faults: Mutex::new(0),
        }
    }

    /// The port of this subject, which is created on first use.
    pub(crate) fn client_port(&self, subject: &str) -> ClientPort {
        let mut client_ports = self.client_ports.lock().expect("nobody panics with it");
        let runtime = self.runtime.as_ref().expect("until it is dropped").handle();
        client_ports
            .entry(subject.to_owned())
            .or_insert_with(|| ClientPort::open(&self.server, runtime))
            .clone()
    }

    /// Writes a kubeconfig for this subject: with its own port, and a token in a file that can be rotated.
    pub(crate) fn kubeconfig(&self, folder: &Path, subject: &str) -> PathBuf {
        let token = folder.join("token");
        self.rotate_token(folder, subject);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{ "name": "double", "cluster": { "server": self.url(subject) } }],
            "users": [{ "name": subject, "user": { "tokenFile": token } }],
            "contexts": [{ "name": "double", "context": { "cluster": "double", "user": subject } }],
        });
        let file = folder.join("kubeconfig");
        std::fs::write(&file, format!("{config:#}\n")).expect("our own place is writable");
        user::give(&file);
        file
    }

    /// Writes a new token to the file of the subject's kubeconfig. The old one stays valid until it expires.
    pub(crate) fn rotate_token(&self, folder: &Path, subject: &str) {
        let token = self.token(subject);
        let file = folder.join("token");
        std::fs::write(&file, token).expect("our own place is writable");
        user::give(&file);
    }

    /// A token of this subject.
    pub(crate) fn token(&self, subject: &str) -> String {
        self.server.access.lock().expect("nobody panics with it").issue(subject)
    }

    /// The address of the API server for this subject.
    pub(crate) fn url(&self, subject: &str) -> String {
        format!("http://127.0.0.1:{}", self.client_port(subject).port)
    }

    /// All tokens of this subject expire.
    pub(crate) fn expire_tokens(&self, subject: &str) {
        self.server.access.lock().expect("nobody panics with it").expire(subject);
    }

    /// This subject has the listed rights, and no others.
    pub(crate) fn grant(&self, subject: &str, grants: Grants<'_>) {
        self.server.access.lock().expect("nobody panics with it").grant(subject, grants);
    }

    /// Opens, hangs or shuts a subject's port.
    pub(crate) fn set_client_port(&self, subject: &str, state: PortState) {
        self.client_port(subject).set(state);
    }

    /// Injects this fault; returns the number with which it is lifted.
    pub(crate) fn inject(&self, fault: Fault) -> usize {
        let mut count = self.faults.lock().expect("nobody panics with it");
        *count += 1;
        self.server.faults.send_modify(|faults| drop(faults.insert(*count, fault)));
        *count
    }

    /// Ends the fault; requests that it held are carried out.
    pub(crate) fn lift(&self, number: usize) {
        self.server.faults.send_modify(|faults| drop(faults.remove(&number)));
    }

    /// All watches end in this way.
    pub(crate) fn end_watches(&self, ending: Ending) {
        self.server.endings.send_modify(|(count, how)| (*count, *how) = (*count + 1, ending));
    }

    /// Discards its history: a watch from an older version gets 410.
    pub(crate) fn compact(&self) {
        self.server.with_store(super::store::Store::compact);
    }

    /// Sends bookmarks at this interval.
    pub(crate) fn send_bookmarks_every(&self, span: Duration) {
        self.server.bookmarks_every.send_replace(span);
    }

    /// Commands in pods run the programs of this folder.
    pub(crate) fn set_programs(&self, folder: &Path) {
        *self.server.programs.lock().expect("nobody panics with it") = folder.to_owned();
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.server.asked.lock().expect("nobody panics with it").clone()
    }

    /// This subject's requests so far.
    pub(crate) fn asked_by(&self, subject: &str) -> Vec<Asked> {
        let mut asked = self.asked();
        asked.retain(|asked| asked.subject.as_deref() == Some(subject));
        asked
    }

    /// This subject's last requests, for a failure report.
    pub(crate) fn story(&self, subject: &str) -> String {
        let asked = self.asked_by(subject);
        asked[asked.len().saturating_sub(STORY_LINES)..]
            .iter()
            .map(|asked| format!("    {asked}\n"))
            .collect()
    }

    /// Every change of a label of the pods, in order.
    pub(crate) fn labelled(&self, label: &str) -> Vec<Labelled> {
        let value = |object: &Option<Value>| {
            let object = object.as_ref()?;
            object["metadata"]["labels"].get(label)?.as_str().map(str::to_owned)
        };
        let store = self.server.store.lock().expect("nobody panics with it");
        let of_pods = store.changes().iter().filter(|change| change.resource == pods());
        let changed = of_pods.filter(|change| {
            let uid =
                |object: &Option<Value>| object.as_ref().map(|object| object["metadata"]["uid"].clone());
            value(&change.before) != value(&change.after) || uid(&change.before) != uid(&change.after)
        });
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        changed
            .map(|change| {
                let metadata =
                    &change.after.as_ref().or(change.before.as_ref()).expect("has one")["metadata"];
                Labelled { at: change.at, pod: text(&metadata["name"]), value: value(&change.after) }
            })
            .collect()
    }

    /// The pods to which the slices of a Service led, in order, change by change.
    pub(crate) fn led(&self, service: &str) -> Vec<Vec<String>> {
        let (mut slices, mut led) = (BTreeMap::new(), Vec::new());
        let store = self.server.store.lock().expect("nobody panics with it");
        let is_of = |object: &&Value| object["metadata"]["labels"]["kubernetes.io/service-name"] == service;
        for change in store.changes().iter().filter(|change| change.resource == slices_of_services()) {
            let Some(any) = change.after.as_ref().or(change.before.as_ref()).filter(is_of) else { continue };
            slices.insert(any["metadata"]["name"].to_string(), change.after.clone());
            let endpoints =
                slices.values().flatten().flat_map(|slice| slice["endpoints"].as_array()).flatten();
            let pods = endpoints.filter_map(|endpoint| endpoint["targetRef"]["name"].as_str());
            let pods: Vec<String> = pods.map(str::to_owned).collect();
            if led.last() != Some(&pods) {
                led.push(pods);
            }
        }
        led
    }

    /// The longest time for which two pods or more had this value of a label at once.
    pub(crate) fn longest_overlap(&self, label: &str, value: &str) -> Duration {
        let (mut having, mut since, mut longest) = (BTreeSet::new(), None, Duration::ZERO);
        for change in self.labelled(label) {
            if change.value.as_deref() == Some(value) {
                having.insert(change.pod);
            } else {
                having.remove(&change.pod);
            }
            if having.len() > 1 {
                since.get_or_insert(change.at);
            } else if let Some(since) = since.take() {
                longest = longest.max(change.at.duration_since(since).unwrap_or_default());
            }
        }
        longest.max(since.and_then(|since: SystemTime| since.elapsed().ok()).unwrap_or_default())
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
