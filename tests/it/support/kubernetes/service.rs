//! A Service as its clients see it: the ports of the pods that a selector names now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::Api;

/// For the next event of a watch that is begun anew every minute.
const WITHIN: Duration = Duration::from_secs(60);

/// Follows a selector for as long as it lives.
pub(crate) struct Service {
    ports: watch::Receiver<Vec<u16>>,
    task: JoinHandle<()>,
}

impl Service {
    /// Which of these pods, each with its port, `labels` select.
    pub(crate) fn follow(api: Api, labels: &str, pods: BTreeMap<String, u16>) -> Service {
        let query = labels.replace('=', "%3D").replace(',', "%2C");
        let (sender, ports) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            loop {
                // A watch that broke is begun anew with a list, as every client of the API does.
                let _ = follow_once(&api, &query, &pods, &sender).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Service { ports, task }
    }

    /// The ports of the moment, and all that come.
    pub(crate) fn ports(&self) -> watch::Receiver<Vec<u16>> {
        self.ports.clone()
    }
}

async fn follow_once(
    api: &Api,
    query: &str,
    pods: &BTreeMap<String, u16>,
    sender: &watch::Sender<Vec<u16>>,
) -> Result<(), String> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (_, list) = api.get(&format!("pods?labelSelector={query}")).await;
    let mut selected: BTreeSet<String> = list["items"].as_array().into_iter().flatten().map(name).collect();
    let version = list["metadata"]["resourceVersion"].as_str().ok_or("no version")?;
    let mut watch = api.watch(&format!("labelSelector={query}&resourceVersion={version}")).await?;
    loop {
        sender.send_replace(selected.iter().filter_map(|name| pods.get(name).copied()).collect());
        let (kind, pod) = watch.next(WITHIN).await.ok_or("the watch ended")?;
        match kind.as_str() {
            "ADDED" | "MODIFIED" => drop(selected.insert(name(&pod))),
            "DELETED" => drop(selected.remove(&name(&pod))),
            _ => return Err(pod.to_string()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}
