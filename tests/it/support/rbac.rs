//! The supervisor's calls to the API server. The Role of `deploy/base` grants exactly these, and the API server double
//! refuses all others.

/// API group, resource and verbs of every call.
pub(crate) const CALLS: &[(&str, &str, &[&str])] =
    &[("", "pods", &["get", "list", "patch", "watch"]), ("events.k8s.io", "events", &["create"])];

/// The additional calls with `kubernetes.primary_service`, as in `deploy/base`.
pub(crate) const SERVICE_CALLS: &[(&str, &str, &[&str])] = &[
    ("", "services", &["get"]),
    ("discovery.k8s.io", "endpointslices", &["create", "get", "list", "patch", "watch"]),
];

/// The additional calls with `kubernetes.readiness_gate`.
pub(crate) const GATE_CALLS: &[(&str, &str, &[&str])] = &[("", "pods/status", &["patch"])];
