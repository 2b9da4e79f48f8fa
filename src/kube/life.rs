//! Whether the own pod is alive. Three things prove its end: its deletion, a list at least as new as the pod that does
//! not contain it, and another pod with its name. Errors prove nothing. An API server that went back in time proves
//! nothing either.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::PodEnd;

/// The life of the pod in which this supervisor runs, as seen.
#[derive(Debug, Default)]
pub(super) struct PodLife {
    /// The newest version seen of the pod, or of its end.
    version: Option<u128>,
    end: Option<PodEnd>,
}

impl PodLife {
    pub(super) fn end(&self) -> Option<PodEnd> {
        self.end
    }

    /// A pod with my name was read; `uid` is that of mine, if known.
    pub(super) fn read(&mut self, metadata: &ObjectMeta, uid: Option<&String>) {
        let version = metadata.resource_version.as_deref();
        if uid.is_none() || !self.is_news(version) {
            return;
        }
        self.version = number(version).or(self.version);
        self.end = match &metadata.deletion_timestamp {
            _other if uid != metadata.uid.as_ref() => Some(PodEnd::Replaced),
            Some(_) => Some(PodEnd::Deleting),
            None => None,
        };
    }

    /// A list of this version has no pod with my name.
    pub(super) fn missed(&mut self, version: &str, uid: Option<&String>) {
        // A list with version 0 may be arbitrarily old.
        if uid.is_some() && !matches!(version, "" | "0") && self.is_news(Some(version)) {
            self.end = Some(PodEnd::Gone);
        }
    }

    /// A pod with my name was deleted.
    pub(super) fn deleted(&mut self, metadata: &ObjectMeta, uid: Option<&String>) {
        let is_mine = uid.is_some() && uid == metadata.uid.as_ref();
        if is_mine || self.end == Some(PodEnd::Replaced) {
            self.version = number(metadata.resource_version.as_deref()).max(self.version);
            self.end = Some(PodEnd::Gone);
        }
    }

    /// If versions are not numbers, the last one received counts.
    fn is_news(&self, version: Option<&str>) -> bool {
        match (number(version), self.version) {
            (Some(version), Some(known)) => known <= version,
            (_, _) => true,
        }
    }
}

fn number(version: Option<&str>) -> Option<u128> {
    version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, version: &str, deleting: bool) -> ObjectMeta {
        let at = deleting.then_some("2026-01-01T00:00:00Z");
        let metadata = serde_json::json!({"uid": uid, "resourceVersion": version, "deletionTimestamp": at});
        serde_json::from_value(metadata).expect("metadata")
    }

    fn alive() -> (PodLife, String) {
        let (mut life, uid) = (PodLife::default(), "u-1".to_owned());
        life.read(&pod("u-1", "100", false), Some(&uid));
        assert_eq!(life.end(), None);
        (life, uid)
    }

    #[test]
    fn observations_that_prove_the_end_of_a_pod() {
        let (mut life, uid) = alive();
        life.read(&pod("u-1", "101", true), Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Deleting));
        life.deleted(&pod("u-1", "102", true), Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Gone));
        life.read(&pod("u-1", "100", false), Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Gone), "an answer that was long on its way is of before");
        life.read(&pod("u-2", "103", false), Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Replaced));
        life.deleted(&pod("u-2", "104", false), Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Gone));
        let (mut life, uid) = alive();
        life.missed("100", Some(&uid));
        assert_eq!(life.end(), Some(PodEnd::Gone));
    }

    #[test]
    fn observations_that_prove_nothing() {
        for version in ["", "0", "99"] {
            let (mut life, uid) = alive();
            life.missed(version, Some(&uid));
            assert_eq!(
                life.end(),
                None,
                "a list of version `{version}` may be of before, or of another time"
            );
        }
        let (mut life, uid) = alive();
        life.read(&pod("u-0", "7", false), Some(&uid));
        assert_eq!(life.end(), None, "a predecessor of the same name");
        life.deleted(&pod("u-0", "101", true), Some(&uid));
        assert_eq!(life.end(), None, "the end of another pod");
        let mut unknown = PodLife::default();
        unknown.missed("100", None);
        unknown.deleted(&pod("u-1", "101", true), None);
        assert_eq!(unknown.end(), None, "which pod is mine is not known");
    }
}
