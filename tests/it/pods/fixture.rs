//! The foundation of these tests: a namespace with pods, and labellers that run in the pods.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch::kube::{Kube, KubeSetup};
use matriarch::model::{Moment, PodEnd, PodNames, PodRole, PrimaryRoute, Term};
use matriarch::os::clock;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::kubernetes::Kubernetes;
use crate::support::{Place, until};

/// Long enough for an overloaded machine; every wait ends when its condition holds.
pub(super) const WITHIN: Duration = Duration::from_secs(30);
pub(super) const TERM: &str = "matriarch.io/term";

/// A namespace of its own.
pub(super) struct PodFixture {
    pub(super) kubernetes: Kubernetes,
    place: Place,
}

impl PodFixture {
    /// In a real cluster if one is named, otherwise in the double.
    pub(super) async fn new() -> PodFixture {
        PodFixture { kubernetes: Kubernetes::start().await, place: Place::new() }
    }

    /// In the double, where faults can be injected.
    pub(super) async fn faulty() -> PodFixture {
        PodFixture { kubernetes: Kubernetes::double().await, place: Place::new() }
    }

    /// Makes a pod of the cluster `main`, with these additional labels and annotations.
    pub(super) async fn make(&self, name: &str, labels: Value, annotations: Value) -> Value {
        let pod = self.kubernetes.create_pod(name, json!({"cluster-name": "main"})).await;
        // At once, as if the pod had been created so: there are no watchers yet.
        self.change(name, json!({"labels": labels, "annotations": annotations})).await;
        pod
    }

    pub(super) async fn pod(&self, name: &str) -> Value {
        self.kubernetes.pod(name).await
    }

    /// Another client changes labels.
    pub(super) async fn relabel(&self, name: &str, labels: Value) {
        self.change(name, json!({"labels": labels})).await;
    }

    async fn change(&self, name: &str, metadata: Value) {
        let patch = json!({"metadata": metadata});
        let (code, answer) = self.kubernetes.patch("merge-patch", &format!("pods/{name}"), &patch).await;
        assert_eq!(code, 200, "{answer}");
    }

    /// Deletes a pod as `kubectl` does. The deletion lasts until its kubelet has learned of it.
    pub(super) async fn ask_to_end(&self, name: &str) {
        let path = format!("pods/{name}");
        let (code, answer) =
            self.kubernetes.patch("merge-patch", &path, &json!({"spec": {"nodeName": "n-1"}})).await;
        assert_eq!(code, 200, "{answer}");
        let (path, grace) = (self.kubernetes.path(&path), json!({"gracePeriodSeconds": 30}));
        let (code, answer) = self.kubernetes.send("DELETE", &path, "application/json", &grace).await;
        assert_eq!(code, 200, "{answer}");
    }

    /// Takes a pod away at once.
    pub(super) async fn remove(&self, name: &str) {
        self.kubernetes.delete_pod(name).await;
        let gone = until(WITHIN, async || {
            (self.kubernetes.get(&format!("pods/{name}")).await.0 == 404).then_some(())
        });
        gone.await.expect("it goes");
    }

    /// Waits until the pod is as `level` wants it.
    pub(super) async fn sees(&self, name: &str, what: &str, level: impl Fn(&Value) -> bool) -> Value {
        let seen = until(WITHIN, async || {
            let pod = self.pod(name).await;
            level(&pod).then_some(pod)
        });
        match seen.await {
            Some(pod) => pod,
            None => panic!("{what}: {}", self.pod(name).await["metadata"]),
        }
    }

    /// The paths of the kubeconfig and the token of the labeller in this pod.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.place.folder(name)
    }

    pub(super) fn setup(&self, name: &str) -> KubeSetup {
        KubeSetup {
            namespace: self.kubernetes.namespace.clone(),
            pod: name.to_owned(),
            pod_uid: None,
            kubeconfig: Some(self.kubernetes.kubeconfig(&self.folder(name), name)),
            context: None,
            cacert: None,
            names: PodNames {
                selector: BTreeMap::from([("cluster-name".to_owned(), "main".to_owned())]),
                ..PodNames::default()
            },
            primary_service: None,
            routing_grace: Duration::ZERO,
        }
    }

    /// A labeller in the pod `name`.
    pub(super) fn labeller(&self, name: &str) -> Labeller {
        Labeller::start(self.setup(name))
    }
}

/// etcd's answer about a member's leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    Not,
    /// By an older renewal: it confirms nothing that is seen now.
    UnconfirmedIn(Term),
    /// A requested renewal succeeds, a little later.
    In(Term),
}

pub(super) struct Labeller {
    pub(super) kube: Kube,
    leads: Arc<Mutex<Leads>>,
    asked: watch::Receiver<u32>,
}

impl Labeller {
    pub(super) fn start(setup: KubeSetup) -> Labeller {
        let kube = Kube::start(setup, None);
        let leads = Arc::new(Mutex::new(Leads::Not));
        let (count, asked) = watch::channel(0);
        let answer = leads.clone();
        let renewed_at = Mutex::new(clock::now());
        kube.lead_by(Box::new(move |term, since: Option<Moment>| {
            count.send_modify(|count| *count += 1);
            match *answer.lock().expect("nobody panics with it") {
                Leads::Not => false,
                Leads::UnconfirmedIn(mine) => mine == term && since.is_none(),
                Leads::In(mine) => {
                    let mut renewed_at = renewed_at.lock().expect("nobody panics with it");
                    let confirmed = since.is_none_or(|since| since <= *renewed_at);
                    *renewed_at = clock::now();
                    mine == term && confirmed
                }
            }
        }));
        Labeller { kube, leads, asked }
    }

    pub(super) fn leads(&self, leads: Leads) {
        *self.leads.lock().expect("nobody panics with it") = leads;
    }

    /// Leads, and sets the label.
    pub(super) fn lead(&self, term: i64) {
        self.leads(Leads::In(Term(term)));
        self.kube.want(PodRole::Leader(Term(term)));
        self.kube.route(PrimaryRoute::Here(Term(term)));
    }

    /// Waits until it has checked a few more times whether it leads.
    pub(super) async fn asks_the_lease(&self) {
        let mut asked = self.asked.clone();
        let before = *asked.borrow();
        let more = asked.wait_for(|now| before + 3 < *now);
        tokio::time::timeout(WITHIN, more).await.expect("it asks").expect("it lives");
    }

    /// Waits until that is known about the pod.
    pub(super) async fn ends(&self, end: PodEnd) {
        let mut facts = self.kube.facts();
        let known = facts.wait_for(|facts| facts.end == Some(end));
        let known = tokio::time::timeout(WITHIN, known).await.is_ok_and(|known| known.is_ok());
        assert!(known, "waited for {end:?}, and it is {:?}", self.kube.facts().borrow().end);
    }

    /// Waits until the trouble is reported, or gone.
    pub(super) async fn complains(&self, of: Option<&str>) {
        let mut facts = self.kube.facts();
        let told = facts.wait_for(|facts| match (facts.complaint(), of) {
            // Another task may fail as well.
            (Some(all), Some(of)) => all == of || all.split(", ").any(|one| one == of),
            (all, of) => all.as_deref() == of,
        });
        let seen = tokio::time::timeout(WITHIN, told).await.map(|seen| seen.map(|facts| facts.clone()));
        assert!(seen.is_ok(), "waited for {of:?}, and it is {:?}", self.kube.facts().borrow().complaint());
    }
}

pub(super) fn role(pod: &Value) -> Option<&str> {
    pod["metadata"]["labels"]["role"].as_str()
}

pub(super) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][key].as_str()
}

pub(super) fn version(pod: &Value) -> Option<u64> {
    pod["metadata"]["resourceVersion"].as_str()?.parse().ok()
}
