//! Members in pods, except the paths of clients.

use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::{TERM, annotation, role};
use crate::support::kubernetes::{Effect, Fault, Kubernetes};
use crate::support::{Cluster, Plan, until};

const WITHIN: Duration = Duration::from_secs(60);

/// A cluster whose members run in pods of their names.
async fn in_pods(members: usize) -> (Kubernetes, Cluster) {
    let kubernetes = Kubernetes::double().await;
    let section = json!({"kubernetes": {"namespace": kubernetes.namespace}});
    let mut cluster = Plan::new(members).all(section).dynamic(json!({"ttl": 10})).prepare().await;
    for member in &mut cluster.members {
        kubernetes.create_pod(&member.name, json!({"cluster-name": "herd"})).await;
        let file = kubernetes.kubeconfig(&member.folder, &member.name);
        member.environment.push(("KUBECONFIG".into(), file.into()));
    }
    cluster.start().await;
    (kubernetes, cluster)
}

async fn sees(kubernetes: &Kubernetes, cluster: &Cluster, name: &str, wanted: Option<&str>) -> Value {
    let seen = until(WITHIN, async || {
        let pod = kubernetes.pod(name).await;
        (role(&pod) == wanted).then_some(pod)
    });
    match seen.await {
        Some(pod) => pod,
        None => {
            panic!("{name} is no {wanted:?}: {}\n{}", kubernetes.pod(name).await["metadata"], cluster.story())
        }
    }
}

/// A restart of the supervisor leaves the label in place: its Postgres serves throughout.
#[tokio::test]
async fn a_supervisor_that_is_restarted_leaves_the_label_in_place() {
    let (kubernetes, mut cluster) = in_pods(2).await;
    let led = sees(&kubernetes, &cluster, "m1", Some("primary")).await;
    let followed = sees(&kubernetes, &cluster, "m2", Some("replica")).await;
    assert_eq!(annotation(&followed, TERM), annotation(&led, TERM), "claimed by the leader");
    let status = until(WITHIN, async || {
        let pod = kubernetes.pod("m2").await;
        let status: Value = serde_json::from_str(annotation(&pod, "status")?).expect("JSON");
        (status["role"] == "replica" && status["state"] == "running").then_some(status)
    });
    let status = status.await.expect("its record is on the pod");
    assert_eq!(status["version"], "4.1.5");
    let before = kubernetes.faulty().labelled("role").len();
    for index in 0..2 {
        cluster.members[index].kill_supervisor();
        cluster.members[index].start();
    }
    cluster.wait_until_well().await;
    let probe = cluster.wait_until(WITHIN, "it shows what its pod says", async || {
        let answer = cluster.members[0].get("/patroni").await;
        answer.is_some_and(|answer| answer.json()["kubernetes"]["role"] == "primary")
    });
    probe.await;
    let labelled = kubernetes.faulty().labelled("role");
    assert_eq!(labelled.len(), before, "{labelled:?}");
    assert_eq!(annotation(&kubernetes.pod("m1").await, TERM), annotation(&led, TERM), "in the same term");
}

/// No fault of the API server affects the database: it is reported, and the labels are corrected when the server is
/// healthy again.
#[tokio::test]
async fn trouble_with_the_api_server_is_reported_and_does_not_affect_postgres() {
    let (kubernetes, cluster) = in_pods(2).await;
    sees(&kubernetes, &cluster, "m1", Some("primary")).await;
    let leads = until(WITHIN, async || {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", kubernetes.namespace);
        let (_, listed) = kubernetes.send("GET", &path, "application/json", &Value::Null).await;
        listed["items"].as_array()?.iter().find(|event| event["reason"] == "Leads").cloned()
    });
    let leads = leads.await.expect("it was told who leads");
    assert!(leads["note"].as_str().is_some_and(|note| note.starts_with("m1 leads in term ")), "{leads}");
    let timeline = cluster.wait_until_well().await.timeline();
    let fault = kubernetes.faulty().inject(Fault::always(Effect::Status(403)).of("m1").on("patch"));
    let spoiled = json!({"metadata": {"labels": {"role": "spoiled"}}});
    assert_eq!(kubernetes.patch("merge-patch", "pods/m1", &spoiled).await.0, 200);
    let told = cluster.wait_until(WITHIN, "list says it", async || {
        let listed = cluster.members[1].command(&["list"]).await;
        String::from_utf8_lossy(&listed.stdout).contains("label: forbidden")
    });
    told.await;
    let answer = cluster.members[0].get("/patroni").await.expect("it answers").json();
    assert_eq!(answer["kubernetes"]["role"], "spoiled");
    assert_eq!(answer["kubernetes"]["trouble"][0]["failure"], "forbidden");
    cluster.members[0].sql("CREATE TABLE written ()").await.expect("it takes writes");
    kubernetes.faulty().lift(fault);
    sees(&kubernetes, &cluster, "m1", Some("primary")).await;
    let well = cluster.wait_until(WITHIN, "all is well again", async || {
        let listed = cluster.members[1].command(&["list"]).await;
        !String::from_utf8_lossy(&listed.stdout).contains("Kubernetes")
    });
    well.await;
    assert_eq!(cluster.wait_until_well().await.timeline(), timeline, "nobody was promoted meanwhile");
}
