//! Kubernetes events with the reasons for changes of leadership. Operators of a Kubernetes cluster look there first.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};

use super::backoff::Backoff;
use super::handle::KubeShared;
use super::objects::PodObject;
use super::pod::timestamp;
use crate::model::{PodFailure, PodTask, Term, WallTime};
use crate::os::clock;

/// An event that cannot be written is dropped after this many attempts: it is old by then.
const TRIES: usize = 3;
/// The longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest note that the API accepts.
const NOTE_MAX: usize = 1000;
const CONTROLLER: &str = "matriarch";

/// A change of leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadershipEvent {
    /// This member became the leader, and its Postgres the primary.
    Leads,
    /// Its pod lost the leader's label, as planned.
    HandsOver,
    /// Its pod lost the leader's label unexpectedly.
    LostLeadership,
}

impl LeadershipEvent {
    fn reason(self) -> &'static str {
        match self {
            LeadershipEvent::Leads => "Leads",
            LeadershipEvent::HandsOver => "HandsOver",
            LeadershipEvent::LostLeadership => "LostLeadership",
        }
    }

    fn kind(self) -> &'static str {
        match self {
            LeadershipEvent::Leads | LeadershipEvent::HandsOver => "Normal",
            LeadershipEvent::LostLeadership => "Warning",
        }
    }
}

/// Writes one event about the pod, and one about its owner.
pub(super) async fn announce(shared: &KubeShared, told: LeadershipEvent, term: Term, why: &str) {
    let setup = shared.api.setup();
    let pod = shared.own_pod().unwrap_or_default();
    let now = clock::wall();
    for regarding in regarding(&setup.namespace, &setup.pod, &pod) {
        let event = event(told, term, why, &setup.pod, regarding, now);
        let mut backoff = Backoff::default();
        for _ in 0..TRIES {
            match shared.api.create(&event).await {
                Ok(_) => {
                    shared.facts.well(PodTask::Event);
                    break;
                }
                // The name is unique to the event: an earlier attempt has succeeded.
                Err(failure) if failure.kind == PodFailure::Conflict => break,
                Err(failure) => {
                    shared.facts.failed(PodTask::Event, &failure);
                    backoff.failed(&failure, clock::now());
                }
            }
            let latest = clock::now() + PAUSE_MAX;
            clock::sleep_until(backoff.not_before().map_or(latest, |at| at.min(latest))).await;
        }
        // Dropped, and counted: a lasting trouble of this event does not count for the next one.
        shared.facts.forget_trouble(PodTask::Event);
    }
}

/// The pod and its owner, a StatefulSet or another controller.
fn regarding(namespace: &str, name: &str, pod: &PodObject) -> Vec<ObjectReference> {
    let namespace = Some(namespace.to_owned());
    let mut all = vec![ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(name.to_owned()),
        uid: pod.metadata.uid.clone(),
        namespace: namespace.clone(),
        ..ObjectReference::default()
    }];
    let owners = pod.metadata.owner_references.iter().flatten();
    all.extend(owners.filter(|owner| owner.controller == Some(true)).map(|owner: &OwnerReference| {
        ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            name: Some(owner.name.clone()),
            uid: Some(owner.uid.clone()),
            namespace: namespace.clone(),
            ..ObjectReference::default()
        }
    }));
    all
}

fn event(
    told: LeadershipEvent,
    term: Term,
    why: &str,
    pod: &str,
    regarding: ObjectReference,
    now: WallTime,
) -> Event {
    let name = format!(
        "{pod}.{}.{}.{:x}",
        regarding.kind.as_deref().unwrap_or_default().to_lowercase(),
        told.reason().to_lowercase(),
        term.0
    );
    let sentence = match told {
        LeadershipEvent::Leads => format!("{pod} leads in term {term}: {why}"),
        LeadershipEvent::HandsOver | LeadershipEvent::LostLeadership => {
            format!("{pod} ceases to lead in term {term}: {why}")
        }
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: timestamp(now).map(MicroTime),
        action: Some("ChangeLeadership".to_owned()),
        reason: Some(told.reason().to_owned()),
        type_: Some(told.kind().to_owned()),
        note: Some(sentence.chars().take(NOTE_MAX).collect()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(pod.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_regard_the_pod_and_its_owner() {
        let pod: PodObject = serde_json::from_value(serde_json::json!({"metadata": {
            "name": "pg-0", "uid": "u-1",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "o-1"},
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "pg", "uid": "s-1", "controller": true}
            ]
        }}))
        .expect("a pod");
        let about = regarding("db", "pg-0", &pod);
        let kinds: Vec<_> = about.iter().map(|about| (about.kind.as_deref(), about.uid.as_deref())).collect();
        assert_eq!(kinds, [(Some("Pod"), Some("u-1")), (Some("StatefulSet"), Some("s-1"))]);
        let event =
            event(LeadershipEvent::Leads, Term(255), "nobody led", "pg-0", about[1].clone(), WallTime(1000));
        let written = serde_json::to_value(&event).expect("it can be written");
        assert_eq!(written["metadata"]["name"], "pg-0.statefulset.leads.ff");
        assert_eq!(written["eventTime"], "1970-01-01T00:00:01.000000Z");
        assert_eq!(written["note"], "pg-0 leads in term 255: nobody led");
        assert_eq!(written["type"], "Normal");
    }
}
