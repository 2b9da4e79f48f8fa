//! A namespace for one test, and a client for it: in the double, or in the cluster that `KUBECONFIG` names.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::AsyncBufReadExt;
use futures::io::Lines;
use futures::{AsyncBufRead, StreamExt};
use http_body_util::BodyExt;
use hyper::http::Request;
use kube::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::double::Double;

/// The limit for any answer: a real API server may be slow on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The number of pods created, in all namespaces of this process.
static PODS: AtomicU32 = AtomicU32::new(0);
/// The double's name of the subject with all rights.
const ADMIN: &str = "admin";

/// The server of the test's pods.
pub(crate) struct Kubernetes {
    api: Api,
    double: Option<Double>,
}

/// A client for one namespace. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    /// The namespace of the test.
    pub(crate) namespace: String,
    client: Client,
}

impl std::ops::Deref for Kubernetes {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// An answer: HTTP status and JSON.
pub(crate) type Call = (u16, Value);

impl Kubernetes {
    /// A namespace in the cluster that `KUBECONFIG` names; in a double if it is not set.
    pub(crate) async fn start() -> Kubernetes {
        match real_config() {
            Some(_) => {
                let options = KubeConfigOptions::default();
                let config = Config::from_kubeconfig(&options).await.expect("KUBECONFIG can be read");
                Kubernetes::with(config, None).await
            }
            None => Kubernetes::double().await,
        }
    }

    /// A namespace in a double, for a test that needs faults.
    pub(crate) async fn double() -> Kubernetes {
        let double = Double::start();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": [{ "name": "double", "cluster": { "server": double.url(ADMIN) } }],
            "users": [{ "name": ADMIN, "user": { "token": double.token(ADMIN) } }],
            "contexts": [{ "name": "double", "context": { "cluster": "double", "user": ADMIN } }],
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).expect("is a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Kubernetes::with(config.expect("is complete"), Some(double)).await
    }

    async fn with(mut config: Config, double: Option<Double>) -> Kubernetes {
        config.default_retry = false;
        config.read_timeout = None;
        let client = Client::try_from(config).expect("the configuration is complete");
        let place = format!("{}-{:x}", std::process::id(), jiff::Timestamp::now().as_millisecond());
        let api = Api { namespace: format!("matriarch-test-{place}"), client };
        let namespace = json!({ "metadata": { "name": api.namespace } });
        let created = api.send("POST", "/api/v1/namespaces", "application/json", &namespace).await;
        assert_eq!(created.0, 201, "{}", created.1);
        if double.is_none() {
            // Without the account no pod is admitted, and only a whole cluster has a controller that creates it.
            let account = json!({ "metadata": { "name": "default" } });
            let (code, answer) =
                api.send("POST", &api.path("serviceaccounts"), "application/json", &account).await;
            assert!([201, 409].contains(&code), "{answer}");
        }
        Kubernetes { api, double }
    }

    /// The double, unless the server is a real cluster.
    pub(crate) fn double_or_none(&self) -> Option<&Double> {
        self.double.as_ref()
    }

    /// The double.
    pub(crate) fn faulty(&self) -> &Double {
        self.double.as_ref().expect("only a double goes wrong on demand")
    }

    /// A kubeconfig for this subject: in the double with its own port.
    pub(crate) fn kubeconfig(&self, folder: &Path, subject: &str) -> PathBuf {
        match &self.double {
            Some(double) => double.kubeconfig(folder, subject),
            None => {
                let file = folder.join("kubeconfig");
                std::fs::copy(real_config().expect("it is real"), &file).expect("KUBECONFIG can be copied");
                crate::support::user::give(&file);
                file
            }
        }
    }
}

impl Api {
    /// The path of a resource of the core group in the namespace, with a suffix: `pods/a/status`.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// The path of EndpointSlices in the namespace, with a suffix.
    pub(crate) fn slices(&self, rest: &str) -> String {
        format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices{rest}", self.namespace)
    }

    /// Any request.
    pub(crate) async fn send(&self, method: &str, path: &str, content_type: &str, body: &Value) -> Call {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let exchange = async {
            let request = request.body(kube::client::Body::from(body)).expect("is well-formed");
            let answer = self.client.send(request).await.expect("the API server answers");
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("the answer is complete").to_bytes();
            (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or(Value::Null))
        };
        timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(|_| panic!("no answer to {method} {path}"))
    }

    /// GET, below the namespace.
    pub(crate) async fn get(&self, rest: &str) -> Call {
        self.send("GET", &self.path(rest), "application/json", &Value::Null).await
    }

    /// PATCH, below the namespace; `kind` as in the content type: `merge-patch`, `strategic-merge-patch`, `json-patch`.
    pub(crate) async fn patch(&self, kind: &str, rest: &str, patch: &Value) -> Call {
        self.send("PATCH", &self.path(rest), &format!("application/{kind}+json"), patch).await
    }

    /// Creates a pod with these labels, which no kubelet will run, and returns it.
    pub(crate) async fn create_pod(&self, name: &str, labels: Value) -> Value {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
            "spec": { "automountServiceAccountToken": false, "containers": [{ "name": "postgres", "image": "none" }] },
        });
        // Admission sees the namespace's service account a moment after its creation.
        let created = crate::support::until(ANSWER_WITHIN, async || {
            let created = self.send("POST", &self.path("pods"), "application/json", &pod).await;
            (created.0 != 403).then_some(created)
        });
        let (code, pod) = created.await.expect("a pod may be created");
        assert_eq!(code, 201, "{pod}");
        pod
    }

    /// Gives an address to a pod, like a kubelet: a new one for each pod, even with the name of a former one.
    pub(crate) async fn give_address(&self, name: &str) -> Value {
        let number = PODS.fetch_add(1, Ordering::Relaxed);
        let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
        let patch = json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } });
        let (code, pod) = self.patch("strategic-merge-patch", &format!("pods/{name}/status"), &patch).await;
        assert_eq!(code, 200, "{pod}");
        pod
    }

    /// Creates a Service without a selector.
    pub(crate) async fn create_service(&self, name: &str) -> Value {
        let ports = json!([{ "name": "postgres", "port": 5432, "protocol": "TCP", "targetPort": 5432 }]);
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name }, "spec": { "ports": ports },
        });
        let (code, service) = self.send("POST", &self.path("services"), "application/json", &service).await;
        assert_eq!(code, 201, "{service}");
        service
    }

    /// The present pod.
    pub(crate) async fn pod(&self, name: &str) -> Value {
        let (code, pod) = self.get(&format!("pods/{name}")).await;
        assert_eq!(code, 200, "{pod}");
        pod
    }

    /// Sets the condition `Ready`, like a kubelet.
    pub(crate) async fn set_ready(&self, name: &str, ready: bool) {
        let status = if ready { "True" } else { "False" };
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": status }] } });
        let (code, answer) =
            self.patch("strategic-merge-patch", &format!("pods/{name}/status"), &patch).await;
        assert_eq!(code, 200, "{answer}");
    }

    /// Deletes a pod at once, like `--force`.
    pub(crate) async fn delete_pod(&self, name: &str) {
        let now = json!({ "gracePeriodSeconds": 0 });
        let path = self.path(&format!("pods/{name}"));
        let (code, answer) = self.send("DELETE", &path, "application/json", &now).await;
        assert_eq!(code, 200, "{answer}");
    }

    /// Watches pods; `query` without `watch=1`.
    pub(crate) async fn watch(&self, query: &str) -> Result<Watch, String> {
        self.watch_path(&self.path(&format!("pods?watch=1&{query}"))).await
    }

    /// Watches the objects at this path.
    pub(crate) async fn watch_path(&self, uri: &str) -> Result<Watch, String> {
        let request = Request::builder().uri(uri).body(Vec::new()).expect("is well-formed");
        let begun = timeout(ANSWER_WITHIN, self.client.request_stream(request)).await;
        let stream = begun.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        let stream: std::pin::Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(stream);
        Ok(Watch { lines: stream.lines() })
    }
}

/// The events of a watch.
pub(crate) struct Watch {
    lines: Lines<std::pin::Pin<Box<dyn AsyncBufRead + Send>>>,
}

impl Watch {
    /// The next event's type and object. `None`: none within that time, or the watch has ended.
    pub(crate) async fn next(&mut self, within: Duration) -> Option<(String, Value)> {
        let line = timeout(within, self.lines.next()).await.ok()??.ok()?;
        let mut event: Value = serde_json::from_str(&line).expect("an event is a line of JSON");
        Some((event["type"].as_str()?.to_owned(), event["object"].take()))
    }

    /// The same in short form: type and name.
    pub(crate) async fn next_brief(&mut self, within: Duration) -> Option<(String, String)> {
        let (kind, object) = self.next(within).await?;
        Some((kind, object["metadata"]["name"].as_str().unwrap_or_default().to_owned()))
    }
}

/// The file that names a real cluster.
fn real_config() -> Option<PathBuf> {
    std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        if self.double.is_some() {
            return;
        }
        // The test's runtime may be shutting down: this is another one, for the last request.
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let client = Client::try_default().await.map_err(std::io::Error::other)?;
                let request = Request::delete(path).body(Vec::new()).map_err(std::io::Error::other)?;
                client.request_text(request).await.map_err(std::io::Error::other)
            })
        });
        if let Ok(Err(error)) = removal.join() {
            eprintln!("the namespace {} is left over: {error}", self.namespace);
        }
    }
}
