//! Kinds of other projects, as far as the manifests use them. Any other field in them is a fault here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Structs that are read and written and allow no other fields.
macro_rules! strict {
    ($($(#[$doc:meta])* $name:ident { $($(#[$rename:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name { $($(#[$rename])* pub(super) $field: $kind,)* }
    )*};
}

strict! {
    /// cert-manager: a certificate, stored in a Secret.
    Certificate { api_version: String, kind: String, metadata: ObjectMeta, spec: CertificateSpec, }
    CertificateSpec {
        secret_name: String, common_name: String, issuer_ref: IssuerRef, private_key: PrivateKey, duration: String,
        renew_before: Option<String>, usages: Option<Vec<String>>, dns_names: Option<Vec<String>>,
        ip_addresses: Option<Vec<String>>, #[serde(rename = "isCA")] is_ca: Option<bool>,
    }
    IssuerRef { kind: String, name: String, }
    PrivateKey { algorithm: String, size: u32, rotation_policy: Option<String>, }
    /// cert-manager: the issuer.
    Issuer { api_version: String, kind: String, metadata: ObjectMeta, spec: IssuerSpec, }
    IssuerSpec { self_signed: Option<SelfSigned>, ca: Option<Authority>, }
    SelfSigned {}
    Authority { secret_name: String, }
    /// Prometheus operator: the targets to scrape.
    PodMonitor { api_version: String, kind: String, metadata: ObjectMeta, spec: PodMonitorSpec, }
    PodMonitorSpec { selector: LabelSelector, pod_metrics_endpoints: Vec<MetricsEndpoint>, }
    MetricsEndpoint { port: String, path: String, interval: String, scrape_timeout: String, }
    /// Prometheus operator: the alert rules.
    PrometheusRule { api_version: String, kind: String, metadata: ObjectMeta, spec: RuleGroups, }
    RuleGroups { groups: Vec<RuleGroup>, }
    RuleGroup { name: String, rules: Vec<Rule>, }
    Rule {
        alert: String, expr: String, #[serde(rename = "for")] holds_for: Option<String>,
        labels: BTreeMap<String, String>, annotations: BTreeMap<String, String>,
    }
    /// A snapshot of a volume.
    VolumeSnapshot { api_version: String, kind: String, metadata: ObjectMeta, spec: VolumeSnapshotSpec, }
    VolumeSnapshotSpec { volume_snapshot_class_name: String, source: SnapshotSource, }
    SnapshotSource { persistent_volume_claim_name: String, }
    /// The class of a snapshot.
    VolumeSnapshotClass {
        api_version: String, kind: String, metadata: ObjectMeta, driver: String, deletion_policy: String,
    }
}
