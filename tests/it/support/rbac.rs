//! What the supervisor asks of the API server. The Role of `deploy/base` grants exactly this, and the API server double
//! refuses everything else.

/// API group, resource and verbs of every call.
pub(crate) const CALLS: &[(&str, &str, &[&str])] =
    &[("", "pods", &["get", "list", "patch", "watch"]), ("events.k8s.io", "events", &["create"])];

/// With `kubernetes.primary_service`, as in `deploy/base`: what is called besides.
pub(crate) const SERVICE_CALLS: &[(&str, &str, &[&str])] = &[
    ("", "services", &["get"]),
    ("discovery.k8s.io", "endpointslices", &["create", "get", "list", "patch", "watch"]),
];

/// With `kubernetes.readiness_gate`: what is called besides.
pub(crate) const GATE_CALLS: &[(&str, &str, &[&str])] = &[("", "pods/status", &["patch"])];
