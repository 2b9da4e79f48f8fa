//! The results of a client that constantly opens new connections to the primary.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::pod_cluster::{PodCluster, SOON};
use crate::support::query;

/// Connects by the present route, runs one query, and disconnects. The answers are counted.
struct Visitor {
    answers: Arc<Mutex<BTreeMap<String, u32>>>,
    task: JoinHandle<()>,
}

impl Visitor {
    fn start(route: watch::Receiver<Vec<u16>>) -> Visitor {
        let answers: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let count = answers.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let Some(port) = route.borrow().first().copied() else { continue };
                let answer = match query(port, "SELECT pg_is_in_recovery()").await {
                    Ok(rows) if rows == [["f"]] => "primary".to_owned(),
                    Ok(rows) => format!("{rows:?}"),
                    Err(error) => error,
                };
                *count.lock().expect("nobody panics with it").entry(answer).or_default() += 1;
            }
        });
        Visitor { answers, task }
    }

    fn answers(&self) -> BTreeMap<String, u32> {
        self.answers.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A slow proxy leads to the former primary when another already leads: connections are refused there, and drivers try
/// again after that. No client gets a session in which it cannot write, and no client gets the error that it may not
/// log in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_accepts_no_sessions_for_the_primary() {
    let pod_cluster = PodCluster::start_anywhere(json!({ "synchronous_mode": "quorum", "ttl": 60 })).await;
    let proxy = pod_cluster.busy_proxy();
    let mut route = proxy.ports();
    route.wait_for(|ports| !ports.is_empty()).await.expect("it leads somewhere");
    let visitor = Visitor::start(proxy.ports());
    let words = ["switchover", "--leader", "m1", "--candidate", "m2", "--force"];
    let output = pod_cluster.cluster.members[2].command(&words).await;
    assert!(output.status.success(), "{output:?}\n{}", pod_cluster.story());
    let new = pod_cluster.cluster.members[1].postgres;
    let led = tokio::time::timeout(SOON, route.wait_for(|ports| *ports == [new])).await;
    assert!(led.is_ok(), "{}", pod_cluster.story());
    pod_cluster.cluster.wait_until_well().await;
    pod_cluster.wait_until_labelled(1).await;
    let answers = visitor.answers();
    println!("clients on the way to the primary got {answers:#?}");
    // Refused, reset, or answered that this server is not available now.
    let retried =
        |answer: &str| ["primary", "Os {", "closed", "E57P0"].iter().any(|one| answer.contains(one));
    let others: Vec<_> = answers.keys().filter(|answer| !retried(answer)).collect();
    assert!(others.is_empty() && answers.contains_key("primary"), "{others:?}\n{}", pod_cluster.story());
    assert!(answers.len() > 1, "nobody came to the former primary: {answers:?}");
    pod_cluster.assert_honest();
}
