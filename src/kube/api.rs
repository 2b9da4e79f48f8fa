//! The connection to the API server: each call once, with a deadline of its own.

use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper::body::Incoming;
use hyper::http::{Method, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;

use super::access::Access;
use super::connection::{self, Call, Connection};
use super::failure::KubeFailure;
use super::object::{Object, ObjectList, Pod, WatchEvent};
use crate::model::{PodFailure, PodNames};

/// An API server in the same cluster answers within milliseconds; longer than this a new leader waits for no label.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The head of a watch may wait for the server's cache.
const WATCH_BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// A watch is begun anew this often: so long one may be dead without a sign of it.
const WATCH_SECONDS: u32 = 60;
/// A watch that says nothing for longer than it should last is dead.
const WATCH_IDLE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// Who the API server shall remember as the owner of the fields.
const FIELD_OWNER: &str = "fieldManager=matriarch";

/// Which API, which pod, and which words are written on it.
#[derive(Clone, Debug)]
pub struct KubeSetup {
    /// Where the pods are.
    pub namespace: String,
    /// The pod of this member.
    pub pod: String,
    /// Its uid, if it was told.
    pub pod_uid: Option<String>,
    /// A kubeconfig; the usual one where only a context is given, and the pod's service account where neither is.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one when `None`.
    pub context: Option<String>,
    /// Whom to trust instead.
    pub cacert: Option<PathBuf>,
    /// Labels, annotations and conditions.
    pub names: PodNames,
    /// The Service without selector that leads to the primary.
    pub primary_service: Option<String>,
    /// For how long clients of the primary still come here after nothing leads them here any more.
    pub routing_grace: Duration,
}

/// Which of a kind.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// The one of this name.
    Named(String),
    /// Those with these labels.
    Labelled(String),
}

impl Selector {
    fn query(&self) -> String {
        let (key, value) = match self {
            Selector::Named(name) => ("fieldSelector", format!("metadata.name={name}")),
            Selector::Labelled(labels) => ("labelSelector", labels.clone()),
        };
        format!("{key}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC))
    }
}

pub(super) struct Api {
    setup: KubeSetup,
    connection: Mutex<Option<Connection>>,
}

impl Api {
    pub(super) fn new(setup: KubeSetup) -> Api {
        Api { setup, connection: Mutex::default() }
    }

    pub(super) fn setup(&self) -> &KubeSetup {
        &self.setup
    }

    /// The one of that name.
    pub(super) async fn get<K: Object>(&self, name: &str) -> Result<K, KubeFailure> {
        self.ask(read(self.one::<K>(name))).await
    }

    /// Those that `selector` names, as they are now, and the version from which to watch them.
    pub(super) async fn list<K: Object>(&self, selector: &Selector) -> Result<(String, Vec<K>), KubeFailure> {
        let listed: ObjectList<K> =
            self.ask(read(format!("{}?{}", self.all::<K>(), selector.query()))).await?;
        Ok((listed.metadata.resource_version.unwrap_or_default(), listed.items))
    }

    /// A merge patch.
    pub(super) async fn patch<K: Object>(&self, name: &str, patch: &Value) -> Result<K, KubeFailure> {
        let path = format!("{}?{FIELD_OWNER}", self.one::<K>(name));
        self.ask(write(Method::PATCH, path, "application/merge-patch+json", patch)).await
    }

    /// A strategic patch of a pod's conditions, which are merged by type.
    pub(super) async fn patch_status(&self, name: &str, patch: &Value) -> Result<Pod, KubeFailure> {
        let path = format!("{}/status?{FIELD_OWNER}", self.one::<Pod>(name));
        self.ask(write(Method::PATCH, path, "application/strategic-merge-patch+json", patch)).await
    }

    /// A new one.
    pub(super) async fn create<K: Object + Serialize>(&self, object: &K) -> Result<K, KubeFailure> {
        let mut body = serde_json::to_value(object).map_err(unreadable)?;
        body["apiVersion"] = K::API_VERSION.into();
        body["kind"] = K::KIND.into();
        self.ask(write(Method::POST, self.all::<K>(), "application/json", &body)).await
    }

    /// Changes of those after `version`; ends by itself after [`WATCH_SECONDS`].
    pub(super) async fn watch<K: Object>(
        &self,
        selector: &Selector,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>, KubeFailure>> + use<K>, KubeFailure> {
        let (all, version) = (self.all::<K>(), utf8_percent_encode(version, NON_ALPHANUMERIC));
        let path = format!(
            "{all}?watch=true&timeoutSeconds={WATCH_SECONDS}&{}&allowWatchBookmarks=true&resourceVersion={version}",
            selector.query()
        );
        let begun = tokio::time::timeout(WATCH_BEGINS_WITHIN, self.begin(read(path))).await;
        let body = begun.unwrap_or_else(|_| Err(KubeFailure::silent(WATCH_BEGINS_WITHIN)))?;
        let lines = Box::pin(connection::lines(body));
        Ok(futures::stream::unfold(Some(lines), |lines| async {
            let mut lines = lines?;
            match tokio::time::timeout(WATCH_IDLE_MAX, lines.next()).await {
                Ok(Some(line)) => match line.map(|line| serde_json::from_str(&line)) {
                    Ok(Ok(event)) => Some((Ok(event), Some(lines))),
                    // Its last line, without an end.
                    Ok(Err(error)) if error.is_eof() => None,
                    Ok(Err(error)) => Some((Err(unreadable(error)), None)),
                    Err(failure) => Some((Err(failure), None)),
                },
                Ok(None) => None,
                Err(_) => Some((Err(KubeFailure::silent(WATCH_IDLE_MAX)), None)),
            }
        }))
    }

    /// The path of a kind.
    fn all<K: Object>(&self) -> String {
        let root = if K::API_VERSION.contains('/') { "/apis" } else { "/api" };
        format!("{root}/{}/namespaces/{}/{}", K::API_VERSION, self.setup.namespace, K::PLURAL)
    }

    fn one<K: Object>(&self, name: &str) -> String {
        format!("{}/{name}", self.all::<K>())
    }

    async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, KubeFailure> {
        let whole = async { connection::body(self.begin(call).await?).await };
        let answered = tokio::time::timeout(ANSWER_WITHIN, whole).await;
        let body = answered.unwrap_or_else(|_| Err(KubeFailure::silent(ANSWER_WITHIN)))?;
        serde_json::from_slice(&body).map_err(unreadable)
    }

    /// The body of a success, when it begins.
    async fn begin(&self, call: Call) -> Result<Incoming, KubeFailure> {
        let (head, body) = self.connection().await?.send(call).await?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let seconds =
            head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let body = connection::body(body).await?;
        Err(KubeFailure::refused(head.status.as_u16(), seconds.map(Duration::from_secs), &body))
    }

    async fn connection(&self) -> Result<Connection, KubeFailure> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| !connection.was_refused()) {
            return Ok(connection.clone());
        }
        let access =
            Access::of(&self.setup).map_err(|why| KubeFailure::new(PodFailure::Unconfigured, why))?;
        let connection = Connection::new(access);
        *kept = Some(connection.clone());
        Ok(connection)
    }
}

fn read(path: String) -> Call {
    Call { method: Method::GET, path, content_type: "", body: Vec::new() }
}

fn write(method: Method, path: String, content_type: &'static str, body: &Value) -> Call {
    Call { method, path, content_type, body: body.to_string().into_bytes() }
}

fn unreadable(error: serde_json::Error) -> KubeFailure {
    KubeFailure::new(PodFailure::Other, error.to_string())
}
