//! A Service without a selector, as its clients see it: the ports of the pods in its EndpointSlices, as a proxy applies
//! them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::client::Api;

/// The limit for the next event of a watch, which is restarted every minute.
const WITHIN: Duration = Duration::from_secs(60);
/// kube-proxy's minimum sync period: a change within it takes effect at its end.
const PROXY_PAUSE: Duration = Duration::from_secs(1);

/// The proxy's other work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// None: it applies a change at once.
    Idle,
    /// Other Services change all the time: a change waits for a whole sync period.
    Busy,
}

/// Follows a Service until it is dropped.
pub(crate) struct Service {
    ports: watch::Receiver<Vec<u16>>,
    tasks: [JoinHandle<()>; 2],
}

impl Service {
    /// The pods, among these with their ports, to which the Service leads.
    pub(crate) fn follow(api: Api, name: &str, pods: BTreeMap<String, u16>, load: Proxy) -> Service {
        let query = format!("labelSelector=kubernetes.io%2Fservice-name%3D{name}");
        let (seen, changes) = watch::channel(Vec::new());
        let follow = tokio::spawn(async move {
            loop {
                // A watch that broke is restarted with a list, as in every client of the API.
                let _ = follow_once(&api, &query, &pods, &seen).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let (sender, ports) = watch::channel(Vec::new());
        let tasks = [follow, tokio::spawn(proxy(changes, sender, load))];
        Service { ports, tasks }
    }

    /// The present ports, and their changes.
    pub(crate) fn ports(&self) -> watch::Receiver<Vec<u16>> {
        self.ports.clone()
    }
}

/// A change is applied at once, and the next one only after a second; all changes in the meantime are applied together.
async fn proxy(mut changes: watch::Receiver<Vec<u16>>, applied: watch::Sender<Vec<u16>>, load: Proxy) {
    while changes.changed().await.is_ok() {
        if load == Proxy::Busy {
            sleep_until(Instant::now() + PROXY_PAUSE).await;
        }
        let ports = changes.borrow_and_update().clone();
        let changed = applied.send_if_modified(|known| std::mem::replace(known, ports.clone()) != ports);
        if changed && load == Proxy::Idle {
            sleep_until(Instant::now() + PROXY_PAUSE).await;
        }
    }
}

async fn follow_once(
    api: &Api,
    query: &str,
    pods: &BTreeMap<String, u16>,
    sender: &watch::Sender<Vec<u16>>,
) -> Result<(), String> {
    let name = |slice: &Value| slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let path = api.slices(&format!("?{query}"));
    let (_, list) = api.send("GET", &path, "application/json", &Value::Null).await;
    let items = list["items"].as_array().into_iter().flatten();
    let mut slices: BTreeMap<String, Value> = items.map(|slice| (name(slice), slice.clone())).collect();
    let version = list["metadata"]["resourceVersion"].as_str().ok_or("no version")?;
    let mut watch =
        api.watch_path(&api.slices(&format!("?watch=1&{query}&resourceVersion={version}"))).await?;
    loop {
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
        let endpoints = slices.values().flat_map(|slice| slice["endpoints"].as_array()).flatten();
        let targets = endpoints.filter(ready).filter_map(|endpoint| endpoint["targetRef"]["name"].as_str());
        sender.send_replace(targets.filter_map(|pod| pods.get(pod).copied()).collect());
        let (kind, slice) = watch.next(WITHIN).await.ok_or("the watch ended")?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" => drop(slices.insert(name(&slice), slice)),
            "DELETED" => drop(slices.remove(&name(&slice))),
            _ => return Err(slice.to_string()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
