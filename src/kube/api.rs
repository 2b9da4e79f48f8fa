//! The connection to the API server: each call once, with a deadline of its own.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::http::{Request, header};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use kube::Client;
use kube::api::{GetParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Mutex;

use super::failure::KubeFailure;
use super::objects::{PodObject, ServiceObject};
use crate::model::{PodFailure, PodNames};
use crate::os::error_chain::{self, ErrorChain};

/// An API server in the same cluster accepts a connection within milliseconds.
const CONNECT_WITHIN: Duration = Duration::from_millis(900);
/// It answers within milliseconds, too. A new leader waits no longer than this for a label.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// The response head of a watch may wait for the server's cache.
const WATCH_BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// A watch is restarted this often, because a dead one may give no sign for that long.
const WATCH_SECONDS: u32 = 60;
/// A watch that is silent beyond its duration is dead.
const WATCH_IDLE_MAX: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// The field owner that the API server records.
const FIELD_OWNER: &str = "matriarch";

/// The API, the pod, and the labels to write on it.
#[derive(Clone, Debug)]
pub struct KubeSetup {
    /// The namespace of the pods.
    pub namespace: String,
    /// The pod of this member.
    pub pod: String,
    /// Its uid, if it is configured.
    pub pod_uid: Option<String>,
    /// A kubeconfig. Without one: the default file if a context is given, else the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; the current one when `None`.
    pub context: Option<String>,
    /// A CA file instead of the default.
    pub cacert: Option<PathBuf>,
    /// Labels, annotations and conditions.
    pub names: PodNames,
    /// The Service without a selector that routes to the primary.
    pub primary_service: Option<String>,
    /// How long clients of the primary may still arrive here after no route leads here any more.
    pub routing_grace: Duration,
}

/// A kind of object that is requested.
pub(super) trait Object:
    Resource<Scope = NamespaceResourceScope>
    + Metadata<Ty = ObjectMeta>
    + Clone
    + DeserializeOwned
    + Send
    + 'static
{
}

impl Object for PodObject {}
impl Object for ServiceObject {}
impl Object for EndpointSlice {}
impl Object for Event {}

/// A selection of objects of one kind.
#[derive(Clone, Debug)]
pub(super) enum Selector {
    /// The object with this name.
    Named(String),
    /// The objects with these labels.
    Labelled(String),
}

pub(super) struct Api {
    setup: KubeSetup,
    client: Mutex<Option<Client>>,
}

#[derive(Deserialize)]
#[serde(bound = "K: DeserializeOwned")]
struct ListedObjects<K> {
    metadata: ListMeta,
    items: Vec<K>,
}

impl Api {
    pub(super) fn new(setup: KubeSetup) -> Api {
        Api { setup, client: Mutex::default() }
    }

    pub(super) fn setup(&self) -> &KubeSetup {
        &self.setup
    }

    /// The object with that name.
    pub(super) async fn get<K: Object>(&self, name: &str) -> Result<K, KubeFailure> {
        self.ask(self.all::<K>().get(name, &GetParams::default())).await
    }

    /// The objects of `selector`, and the version from which to watch them.
    pub(super) async fn list<K: Object>(&self, selector: &Selector) -> Result<(String, Vec<K>), KubeFailure> {
        let params = match selector {
            Selector::Named(name) => ListParams::default().fields(&named(name)),
            Selector::Labelled(labels) => ListParams::default().labels(labels),
        };
        let listed: ListedObjects<K> = self.ask(self.all::<K>().list(&params)).await?;
        Ok((listed.metadata.resource_version.unwrap_or_default(), listed.items))
    }

    /// Applies a merge patch.
    pub(super) async fn patch<K: Object>(&self, name: &str, patch: &Value) -> Result<K, KubeFailure> {
        self.ask(self.all::<K>().patch(name, &owned(), &Patch::Merge(patch))).await
    }

    /// Applies a strategic patch to a pod's conditions, which are merged by type.
    pub(super) async fn patch_status(&self, name: &str, patch: &Value) -> Result<PodObject, KubeFailure> {
        let patch = Patch::Strategic(patch);
        self.ask(self.all::<PodObject>().patch_subresource("status", name, &owned(), &patch)).await
    }

    /// Creates an object.
    pub(super) async fn create<K: Object + Serialize>(&self, object: &K) -> Result<K, KubeFailure> {
        let body = serde_json::to_vec(object).map_err(unreadable)?;
        self.ask(self.all::<K>().create(&PostParams::default(), body)).await
    }

    /// Changes after `version`; ends by itself after [`WATCH_SECONDS`].
    pub(super) async fn watch<K: Object>(
        &self,
        selector: &Selector,
        version: &str,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>, KubeFailure>> + use<K>, KubeFailure> {
        let params = WatchParams::default().timeout(WATCH_SECONDS);
        let params = match selector {
            Selector::Named(name) => params.fields(&named(name)),
            Selector::Labelled(labels) => params.labels(labels),
        };
        let request = self.all::<K>().watch(&params, version).map_err(unreadable)?;
        let client = self.client().await?;
        let begun = tokio::time::timeout(WATCH_BEGINS_WITHIN, client.request_events::<K>(request)).await;
        let begun = begun.map_err(|_| KubeFailure::silent(WATCH_BEGINS_WITHIN));
        let stream =
            self.forget_refused_token(begun.and_then(|begun| begun.map_err(KubeFailure::from))).await?;
        let stream = Box::pin(stream);
        Ok(futures::stream::unfold(Some(stream), |stream| async {
            let mut stream = stream?;
            match tokio::time::timeout(WATCH_IDLE_MAX, stream.next()).await {
                Ok(Some(event)) => Some((event.map_err(KubeFailure::from), Some(stream))),
                Ok(None) => None,
                Err(_) => Some((Err(KubeFailure::silent(WATCH_IDLE_MAX)), None)),
            }
        }))
    }

    fn all<K: Object>(&self) -> request::Request {
        let root = if K::GROUP.is_empty() { "/api".to_owned() } else { format!("/apis/{}", K::GROUP) };
        let namespace = &self.setup.namespace;
        let path = format!("{root}/{}/namespaces/{namespace}/{}", K::VERSION, K::URL_PATH_SEGMENT);
        request::Request::new(path)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: Result<Request<Vec<u8>>, request::Error>,
    ) -> Result<T, KubeFailure> {
        let request = request.map_err(unreadable)?;
        let client = self.client().await?;
        let answered = tokio::time::timeout(ANSWER_WITHIN, answer(&client, request)).await;
        let body = self
            .forget_refused_token(answered.unwrap_or_else(|_| Err(KubeFailure::silent(ANSWER_WITHIN))))
            .await?;
        serde_json::from_slice(&body).map_err(unreadable)
    }

    /// After a 401 the token is read anew.
    async fn forget_refused_token<T>(&self, answer: Result<T, KubeFailure>) -> Result<T, KubeFailure> {
        if let Err(KubeFailure { kind: PodFailure::Unauthorized, .. }) = &answer {
            *self.client.lock().await = None;
        }
        answer
    }

    async fn client(&self) -> Result<Client, KubeFailure> {
        let mut kept = self.client.lock().await;
        if let Some(client) = &*kept {
            return Ok(client.clone());
        }
        let client = connect(&self.setup).await?;
        *kept = Some(client.clone());
        Ok(client)
    }
}

async fn answer(client: &Client, request: Request<Vec<u8>>) -> Result<Vec<u8>, KubeFailure> {
    let response = client.send(request.map(Body::from)).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    if head.status.is_success() {
        return Ok(body.to_vec());
    }
    let seconds = head.headers.get(header::RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    Err(KubeFailure::refused(head.status.as_u16(), seconds.map(Duration::from_secs), &body))
}

/// The client of the requested kubeconfig, else of the service account.
async fn connect(setup: &KubeSetup) -> Result<Client, KubeFailure> {
    let unconfigured = |error: &dyn Error| {
        KubeFailure::new(PodFailure::Unconfigured, error_chain::messages(error).join(": "))
    };
    let options = KubeConfigOptions { context: setup.context.clone(), ..KubeConfigOptions::default() };
    let kubeconfig = match (&setup.kubeconfig, &setup.context) {
        (Some(path), _) => Some(Kubeconfig::read_from(path)),
        (None, Some(_)) => Some(Kubeconfig::read()),
        (None, None) => None,
    };
    let mut config = match kubeconfig.transpose().map_err(|error| unconfigured(&error))? {
        Some(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unconfigured(&error))?,
        None => Config::incluster().map_err(|error| unconfigured(&error))?,
    };
    config.connect_timeout = Some(CONNECT_WITHIN);
    // Retries have one place in this program. A watch is silent as long as nothing changes.
    config.default_retry = false;
    config.read_timeout = None;
    if setup.cacert.is_some() {
        config.root_cert_file = setup.cacert.clone();
    }
    Client::try_from(config).map_err(|error| unconfigured(&error))
}

fn named(name: &str) -> String {
    format!("metadata.name={name}")
}

fn owned() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_OWNER.to_owned()), ..PatchParams::default() }
}

fn unreadable(error: impl Error) -> KubeFailure {
    KubeFailure::new(PodFailure::Other, error.chain())
}
