//! The pods of clusters, as an operator's command needs them, and the choice among them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::objects::{PodObject, PodStatus};
use super::remote::RemoteError;
use crate::model::PodNames;

/// The container of a member, if its pod has several.
const CONTAINER: &str = "matriarch";
/// The label with the role, and its values on the primary's pod: ours, and the one of earlier Patronis.
const ROLE_LABEL: (&str, [&str; 2]) = ("role", ["primary", "master"]);

/// Where pods are, and which of them are meant.
#[derive(Clone, Debug)]
pub struct PodSearch {
    /// A kubeconfig instead of kubectl's default.
    pub kubeconfig: Option<PathBuf>,
    /// A context in it; the current one when `None`.
    pub context: Option<String>,
    /// The namespace; that of the context when `None`.
    pub namespace: Option<String>,
    /// Labels that members' pods have.
    pub selector: String,
    /// The cluster; the only one when `None`.
    pub scope: Option<String>,
    /// The pod; the most fitting one when `None`.
    pub pod: Option<String>,
}

impl PodSearch {
    /// The labels to ask for.
    pub(super) fn labels(&self) -> String {
        match &self.scope {
            Some(scope) => format!("{},{}={scope}", self.selector, PodNames::SCOPE_LABEL),
            None => self.selector.clone(),
        }
    }

    /// The pod for a command, among those that were found at `place`.
    pub(super) fn choose<'a>(
        &self,
        pods: &'a [MemberPod],
        place: &str,
    ) -> Result<&'a MemberPod, RemoteError> {
        let place = || place.to_owned();
        let texts =
            || pods.iter().map(|pod| format!("{} ({})", pod.name, pod.phase)).collect::<Vec<_>>().join(", ");
        if let Some(name) = &self.pod {
            let found = pods.iter().find(|pod| pod.name == *name);
            return found.ok_or_else(|| RemoteError::UnknownPod {
                pod: name.clone(),
                place: place(),
                pods: texts(),
            });
        }
        let clusters: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.scope.as_deref()).collect();
        if clusters.len() > 1 {
            let clusters = clusters.into_iter().collect::<Vec<_>>().join(", ");
            return Err(RemoteError::SeveralClusters { place: place(), clusters });
        }
        let best = pods.iter().min_by_key(|pod| (std::cmp::Reverse(pod.fitness), &pod.name));
        match best {
            None => Err(RemoteError::NoPods { place: place() }),
            Some(pod) if pod.fitness == Fitness::Stopped => {
                Err(RemoteError::NoneRuns { place: place(), pods: texts() })
            }
            Some(pod) => Ok(pod),
        }
    }
}

/// A pod that may hold a member.
#[derive(Clone, Debug)]
pub(super) struct MemberPod {
    pub(super) name: String,
    pub(super) container: Option<String>,
    scope: Option<String>,
    phase: String,
    fitness: Fitness,
}

/// How well a command runs in a pod: the last is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fitness {
    Stopped,
    Ending,
    Running,
    Ready,
    Leader,
}

impl MemberPod {
    pub(super) fn of(pod: PodObject) -> MemberPod {
        let labels = pod.metadata.labels.unwrap_or_default();
        let leads = labels.get(ROLE_LABEL.0).is_some_and(|role| ROLE_LABEL.1.contains(&role.as_str()));
        let status = pod.status;
        let phase =
            status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
        let fitness = if phase != "Running" {
            Fitness::Stopped
        } else if pod.metadata.deletion_timestamp.is_some() {
            Fitness::Ending
        } else if leads {
            Fitness::Leader
        } else if status.is_some_and(|status| is_ready(&status)) {
            Fitness::Ready
        } else {
            Fitness::Running
        };
        let containers = pod.spec.and_then(|spec| spec.containers).unwrap_or_default();
        let mut names = containers.into_iter().filter_map(|container| container.name);
        let first = names.next();
        let container = if names.any(|name| name == CONTAINER) { Some(CONTAINER.to_owned()) } else { first };
        let scope = labels.get(PodNames::SCOPE_LABEL).cloned();
        MemberPod { name: pod.metadata.name.unwrap_or_default(), container, scope, phase, fitness }
    }
}

fn is_ready(status: &PodStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn search() -> PodSearch {
        let selector = "app=matriarch".to_owned();
        PodSearch { kubeconfig: None, context: None, namespace: None, selector, scope: None, pod: None }
    }

    fn pod(name: &str, labels: Value, phase: &str, ready: bool) -> MemberPod {
        let pod = json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "containers": [{ "name": "sidecar" }, { "name": "matriarch" }] },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
        });
        MemberPod::of(serde_json::from_value(pod).expect("a pod"))
    }

    /// The chosen pod, or the error.
    fn chosen(search: &PodSearch, pods: &[MemberPod]) -> String {
        search.choose(pods, "here").map_or_else(|error| error.to_string(), |pod| pod.name.clone())
    }

    #[test]
    fn the_most_fitting_pod_is_chosen() {
        let (none, primary) = (json!({}), json!({"role": "primary"}));
        let mut ending = pod("pg-0", primary.clone(), "Running", true);
        ending.fitness = Fitness::Ending;
        let mut pods = vec![pod("pg-3", primary.clone(), "Pending", false), ending];
        assert_eq!(chosen(&search(), &pods), "pg-0");
        pods.push(pod("pg-4", none.clone(), "Running", false));
        assert_eq!(chosen(&search(), &pods), "pg-4");
        pods.extend([pod("pg-2", none.clone(), "Running", true), pod("pg-1", none, "Running", true)]);
        assert_eq!(chosen(&search(), &pods), "pg-1");
        pods.push(pod("pg-5", primary, "Running", false));
        assert_eq!(chosen(&search(), &pods), "pg-5");
        assert_eq!(chosen(&PodSearch { pod: Some("pg-2".to_owned()), ..search() }, &pods), "pg-2");
    }

    #[test]
    fn the_members_container_is_chosen() {
        assert_eq!(pod("pg-0", json!({}), "Running", true).container.as_deref(), Some("matriarch"));
        let other = json!({ "spec": { "containers": [{ "name": "postgres" }, { "name": "sidecar" }] } });
        let other = MemberPod::of(serde_json::from_value(other).expect("a pod"));
        assert_eq!(other.container.as_deref(), Some("postgres"));
    }

    #[test]
    fn what_cannot_be_chosen_is_named() {
        let of = |name: &str, scope: &str| pod(name, json!({ "cluster-name": scope }), "Running", true);
        assert_eq!(chosen(&search(), &[]), "there is no pod here");
        let two = [of("b-0", "b"), of("a-0", "a"), of("a-1", "a")];
        assert_eq!(chosen(&search(), &two), "there are several clusters here: a, b");
        let down = [pod("pg-0", json!({}), "Pending", false), pod("pg-1", json!({}), "Failed", false)];
        assert_eq!(chosen(&search(), &down), "none of the pods here runs: pg-0 (Pending), pg-1 (Failed)");
        let unknown = PodSearch { pod: Some("c".to_owned()), ..search() };
        assert_eq!(chosen(&unknown, &down), "there is no pod c here, but pg-0 (Pending), pg-1 (Failed)");
        assert_eq!(
            PodSearch { scope: Some("a".to_owned()), ..search() }.labels(),
            "app=matriarch,cluster-name=a"
        );
    }
}
