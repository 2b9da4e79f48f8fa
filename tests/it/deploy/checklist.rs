//! The production checklist as a test: all of it for the production overlays; for dev, the part that dev does not
//! relax.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::objects::{BUNDLES, Bundle};
use super::pods::pods;

const ROLE_LABEL: &str = "role";

/// No pod of any overlay has more rights on its node than it needs.
#[test]
fn pods_are_confined() {
    for bundle in BUNDLES.iter() {
        for pod in pods(bundle) {
            let what = format!("{}: {}", bundle.name, pod.owner);
            let context = pod.spec.security_context.as_ref().expect("it has one");
            assert_eq!(context.run_as_non_root, Some(true), "{what}");
            assert!(context.run_as_user.is_some_and(|user| user > 0), "{what}");
            assert!(context.run_as_group.is_some_and(|group| group > 0), "{what}");
            let seccomp = context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
            assert_eq!(seccomp, Some("RuntimeDefault"), "{what}");
            for shared in [pod.spec.host_network, pod.spec.host_pid, pod.spec.host_ipc] {
                assert_ne!(shared, Some(true), "{what}");
            }
            assert!(pod.spec.volumes.iter().flatten().all(|volume| volume.host_path.is_none()), "{what}");
            for container in pod.containers() {
                confined(container, &what);
                bounded(container, &what);
            }
        }
    }
}

fn confined(container: &Container, what: &str) {
    let context = container.security_context.as_ref().expect("it has one");
    assert_eq!(context.allow_privilege_escalation, Some(false), "{what}");
    assert_eq!(context.read_only_root_filesystem, Some(true), "{what}");
    assert_ne!(context.privileged, Some(true), "{what}");
    let capabilities = context.capabilities.as_ref().expect("they are dropped");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{what}");
    assert!(capabilities.add.is_none(), "{what}");
}

/// Requests for CPU and memory, a memory limit, and no CPU limit for pods that hold or grant a lease.
fn bounded(container: &Container, what: &str) {
    let resources = container.resources.as_ref().expect("it has some");
    let of = |list: &Option<std::collections::BTreeMap<String, _>>, key: &str| {
        list.as_ref().is_some_and(|list| list.contains_key(key))
    };
    assert!(of(&resources.requests, "cpu") && of(&resources.requests, "memory"), "{what}");
    assert!(of(&resources.limits, "memory"), "{what}");
    assert!(!of(&resources.limits, "cpu"), "{what}: throttled");
}

/// Settings that keep data, and keep the service up while nodes come and go.
#[test]
fn production_passes_the_checklist() {
    for bundle in BUNDLES.iter().filter(|bundle| !bundle.name.starts_with("dev")) {
        for set in bundle.all::<StatefulSet>("StatefulSet") {
            let name = format!("{}: {}", bundle.name, set.metadata.name.clone().unwrap_or_default());
            keeps_data(&set, bundle, &name);
            let spec = set.spec;
            assert_eq!(spec.replicas, Some(3), "{name}");
            assert_eq!(spec.pod_management_policy.as_deref(), Some("Parallel"), "{name}");
            let strategy = spec.update_strategy.and_then(|strategy| strategy.type_);
            assert_eq!(strategy.as_deref(), Some("RollingUpdate"), "{name}");
            let pod = spec.template.spec.expect("it has one");
            lies_apart(&pod, &name);
            for container in &pod.containers {
                assert!(container.liveness_probe.is_some(), "{name}");
            }
            assert!(pod.containers[0].startup_probe.is_some() && pod.containers[0].readiness_probe.is_some());
        }
    }
}

fn keeps_data(set: &StatefulSet, bundle: &Bundle, name: &str) {
    let spec = &set.spec;
    let policy = spec.persistent_volume_claim_retention_policy.as_ref().expect("it has one");
    assert_eq!(policy.when_deleted.as_deref(), Some("Retain"), "{name}");
    assert_eq!(policy.when_scaled.as_deref(), Some("Retain"), "{name}");
    let classes = bundle.all::<StorageClass>("StorageClass");
    for claim in spec.volume_claim_templates.iter().flatten() {
        let claim = claim.spec.as_ref().expect("it has one");
        assert_eq!(claim.access_modes.as_deref(), Some(&["ReadWriteOncePod".to_owned()][..]), "{name}");
        let class = classes.iter().find(|class| class.metadata.name == claim.storage_class_name);
        let class = class.unwrap_or_else(|| panic!("{name}: no class {:?}", claim.storage_class_name));
        assert_eq!(class.reclaim_policy.as_deref(), Some("Retain"), "{name}");
        assert_eq!(class.volume_binding_mode.as_deref(), Some("WaitForFirstConsumer"), "{name}");
        assert_eq!(class.allow_volume_expansion, Some(true), "{name}");
    }
}

/// Pods on different nodes, spread over the zones.
fn lies_apart(pod: &PodSpec, name: &str) {
    let apart = pod.affinity.as_ref().and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let required = apart.and_then(|apart| apart.required_during_scheduling_ignored_during_execution.as_ref());
    assert!(required.is_some_and(|terms| terms[0].topology_key == "kubernetes.io/hostname"), "{name}");
    let spread = pod.topology_spread_constraints.as_ref().expect("it has some");
    assert_eq!(spread[0].topology_key, "topology.kubernetes.io/zone", "{name}");
}

/// A disruption budget over all members: one over the primary alone would block drains for ever.
#[test]
fn drains_are_never_blocked() {
    for bundle in BUNDLES.iter() {
        for budget in bundle.all::<PodDisruptionBudget>("PodDisruptionBudget") {
            let name = format!("{}: {:?}", bundle.name, budget.metadata.name);
            let spec = budget.spec.expect("it has one");
            assert_eq!(spec.max_unavailable, Some(IntOrString::Int(1)), "{name}");
            let labels = spec.selector.and_then(|selector| selector.match_labels).expect("it selects");
            assert!(!labels.contains_key(ROLE_LABEL), "{name}");
        }
        let budgets = bundle.objects.iter().filter(|object| object.kind == "PodDisruptionBudget");
        let sets = bundle.objects.iter().filter(|object| object.kind == "StatefulSet");
        assert!(budgets.count() >= sets.count(), "{}", bundle.name);
    }
}

/// Time for a hand-over, a clean stop, and a reserve: longer than the program gives PostgreSQL to stop.
#[test]
fn a_member_is_given_time_to_end() {
    let stop = matriarch::model::Settings::default().primary_stop_timeout;
    for bundle in BUNDLES.iter() {
        let pods = pods(bundle);
        let member = pods.iter().find(|pod| pod.owner == "StatefulSet pg").expect("it is there");
        let grace = member.spec.termination_grace_period_seconds.expect("it is set");
        assert!(grace as u64 >= stop.as_secs() + 30, "{}: {grace} s", bundle.name);
        let probe = member.spec.containers[0].liveness_probe.as_ref().expect("it has one");
        let kills_after = probe.period_seconds.unwrap_or(0) * probe.failure_threshold.unwrap_or(0);
        let ttl = matriarch::model::Settings::default().ttl.as_secs();
        assert!(kills_after as u64 > ttl, "{}: a restart before the lease has ended", bundle.name);
    }
}
