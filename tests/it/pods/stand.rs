//! What these tests stand on: a namespace with pods in it, and labellers that run in them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use matriarch::kube::{Kube, KubeSetup, Names};
use matriarch::model::{Moment, PodRole, Term};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::until;

/// Long enough for a starved machine; every wait ends when its level is reached.
pub(super) const WITHIN: Duration = Duration::from_secs(30);
pub(super) const TERM: &str = "matriarch.io/term";

/// A namespace of its own.
pub(super) struct Stand {
    kubeconfig: PathBuf,
    pub(super) namespace: String,
    client: kube::Client,
}

impl Stand {
    pub(super) async fn new() -> Stand {
        let kubeconfig = PathBuf::from(std::env::var_os("KUBECONFIG").expect("an API server"));
        let read = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.expect("a usable one")).expect("a client");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = json!({"metadata": {"generateName": "matriarch-test-"}});
        let namespace = serde_json::from_value(namespace).expect("a namespace");
        let made = namespaces.create(&PostParams::default(), &namespace).await.expect("it is made");
        Stand { kubeconfig, namespace: made.metadata.name.expect("it has one"), client }
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a pod of the cluster `main`.
    pub(super) async fn make(&self, name: &str, labels: Value, annotations: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"cluster-name": "main"}, "annotations": annotations},
            "spec": {"containers": [{"name": "pg", "image": "none"}], "automountServiceAccountToken": false}
        });
        for (key, value) in labels.as_object().expect("labels") {
            pod["metadata"]["labels"][key] = value.clone();
        }
        let pod = serde_json::from_value(pod).expect("a pod");
        self.api().create(&PostParams::default(), &pod).await.expect("it is made")
    }

    pub(super) async fn pod(&self, name: &str) -> Pod {
        self.api().get(name).await.expect("it is there")
    }

    /// Somebody else changes labels.
    pub(super) async fn relabel(&self, name: &str, labels: Value) {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let _pod: Pod = self.api().patch(name, &PatchParams::default(), &patch).await.expect("it is there");
    }

    /// Takes a pod away at once.
    pub(super) async fn remove(&self, name: &str) {
        let at_once = DeleteParams::default().grace_period(0);
        self.api::<Pod>().delete(name, &at_once).await.expect("it is there");
        let gone = until(WITHIN, async || {
            self.api::<Pod>().get_opt(name).await.expect("an answer").is_none().then_some(())
        });
        gone.await.expect("it goes");
    }

    /// Waits until the pod's labels and annotations are as `level` wants them.
    pub(super) async fn sees(&self, name: &str, what: &str, level: impl Fn(&Pod) -> bool) -> Pod {
        let seen = until(WITHIN, async || {
            let pod = self.pod(name).await;
            level(&pod).then_some(pod)
        });
        match seen.await {
            Some(pod) => pod,
            None => panic!("{what}: {:?}", self.pod(name).await.metadata),
        }
    }

    pub(super) fn setup(&self, name: &str) -> KubeSetup {
        KubeSetup {
            namespace: self.namespace.clone(),
            pod: name.to_owned(),
            pod_uid: None,
            kubeconfig: Some(self.kubeconfig.clone()),
            context: None,
            cacert: None,
            names: Names {
                selector: BTreeMap::from([("cluster-name".to_owned(), "main".to_owned())]),
                role_label: "role".to_owned(),
                leader: "primary".to_owned(),
                follower: "replica".to_owned(),
                tmp_role_label: None,
                bootstrap_labels: BTreeMap::new(),
                readiness_gate: None,
            },
        }
    }

    /// A labeller in the pod `name`.
    pub(super) fn labeller(&self, name: &str) -> Labeller {
        Labeller::start(self.setup(name))
    }
}

/// What etcd would say of a member's leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    Not,
    /// By a renewal of before: nothing that is seen now is confirmed.
    UnconfirmedIn(Term),
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
        kube.lead_by(Box::new(move |term, since: Option<Moment>| {
            count.send_modify(|count| *count += 1);
            match *answer.lock().expect("nobody panics with it") {
                Leads::Not => false,
                Leads::UnconfirmedIn(mine) => mine == term && since.is_none(),
                Leads::In(mine) => mine == term,
            }
        }));
        Labeller { kube, leads, asked }
    }

    pub(super) fn leads(&self, leads: Leads) {
        *self.leads.lock().expect("nobody panics with it") = leads;
    }

    /// Leads, and says so.
    pub(super) fn lead(&self, term: i64) {
        self.leads(Leads::In(Term(term)));
        self.kube.want(PodRole::Leader(Term(term)));
    }

    /// Waits until it has asked a few times more whether it leads.
    pub(super) async fn asks_the_lease(&self) {
        let mut asked = self.asked.clone();
        let before = *asked.borrow();
        let more = asked.wait_for(|now| before + 3 < *now);
        tokio::time::timeout(WITHIN, more).await.expect("it asks").expect("it lives");
    }

    /// Waits until the trouble is told, or gone.
    pub(super) async fn complains(&self, of: Option<&str>) {
        let mut facts = self.kube.facts();
        let told = facts.wait_for(|facts| facts.complaint().as_deref() == of);
        let seen = tokio::time::timeout(WITHIN, told).await.map(|seen| seen.map(|facts| facts.clone()));
        assert!(seen.is_ok(), "waited for {of:?}, and it is {:?}", self.kube.facts().borrow().complaint());
    }
}

pub(super) fn role(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("role").map(String::as_str)
}

pub(super) fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
