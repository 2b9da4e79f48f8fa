//! The identity of the etcd cluster that answers, for endpoints of several clusters.
//!
//! Answers of different clusters are never mixed. The answers of the cluster that was seen first count; those of
//! another are refused until most of the endpoints belong to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::EtcdError;
use super::announced::ANNOUNCED_MAX;

/// The identifiers of the etcd clusters that were seen; zero: none yet.
#[derive(Debug)]
pub(super) struct ClusterIds {
    known: Mutex<KnownClusters>,
    said: AtomicBool,
}

#[derive(Debug)]
struct KnownClusters {
    ours: u64,
    /// The configured endpoints, then others.
    by_endpoint: Vec<u64>,
    configured: usize,
}

impl ClusterIds {
    pub(super) fn new(configured: usize) -> ClusterIds {
        let by_endpoint = vec![0; configured + ANNOUNCED_MAX];
        ClusterIds {
            known: Mutex::new(KnownClusters { ours: 0, by_endpoint, configured }),
            said: AtomicBool::new(false),
        }
    }

    /// Sets the cluster that a previous incarnation of this process used.
    pub(super) fn expect(&self, cluster_id: u64) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).ours = cluster_id;
    }

    /// Whether no cluster has been chosen yet.
    pub(super) fn is_unknown(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).ours == 0
    }

    /// Whether this is the chosen cluster.
    pub(super) fn is_ours(&self, cluster_id: u64) -> bool {
        cluster_id != 0 && self.known.lock().unwrap_or_else(PoisonError::into_inner).ours == cluster_id
    }

    /// Records the cluster of an endpoint, without a choice.
    pub(super) fn note(&self, endpoint: usize, cluster_id: u64) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).by_endpoint[endpoint] = cluster_id;
    }

    /// Chooses the cluster of most of the recorded endpoints.
    pub(super) fn choose(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = known.by_endpoint[..known.configured].iter().filter(|id| **id != 0);
        let most = seen.max_by_key(|id| known.count(**id)).copied();
        known.ours = most.unwrap_or(0);
    }

    /// Whether this endpoint was last seen in another cluster than the chosen one.
    pub(super) fn is_foreign(&self, endpoint: usize) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let id = known.by_endpoint[endpoint];
        id != 0 && known.ours != 0 && id != known.ours
    }

    /// Whether the answer of an endpoint counts.
    ///
    /// # Errors
    /// When it comes from another cluster than earlier answers, and most endpoints do not belong to that cluster.
    pub(super) fn takes(&self, endpoint: usize, cluster_id: u64) -> Result<(), EtcdError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_endpoint[endpoint] = cluster_id;
        let is_most = known.configured < 2 * known.count(cluster_id);
        if endpoint < known.configured && (known.ours == 0 || is_most) {
            known.ours = cluster_id;
        }
        let ours = known.ours;
        drop(known);
        if ours == cluster_id {
            return Ok(());
        }
        let text = format!(
            "endpoint {endpoint} belongs to etcd cluster {cluster_id:x}, and {ours:x} is in use: its answers do not count \
             before most of the configured endpoints belong to it; correct `etcd3.hosts`"
        );
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!("the endpoints belong to more than one etcd cluster: {text}");
        }
        Err(EtcdError::Unknown(text))
    }
}

impl KnownClusters {
    fn count(&self, cluster_id: u64) -> usize {
        self.by_endpoint[..self.configured].iter().filter(|id| **id == cluster_id).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_endpoint_of_another_cluster_does_not_count() {
        let origin = ClusterIds::new(3);
        assert_eq!(origin.takes(0, 7), Ok(()));
        assert!(origin.takes(1, 8).is_err() && origin.is_foreign(1));
        assert_eq!(origin.takes(2, 7), Ok(()));
        assert!(origin.takes(1, 8).is_err());
    }

    #[test]
    fn another_cluster_counts_once_most_endpoints_belong_to_it() {
        let origin = ClusterIds::new(3);
        origin.expect(7);
        assert!(origin.takes(0, 8).is_err());
        assert_eq!(origin.takes(1, 8), Ok(()));
        assert!(!origin.is_foreign(0));
        assert!(origin.takes(2, 7).is_err(), "and the former one does not come back by one endpoint");
    }

    #[test]
    fn a_single_configured_endpoint_may_change_its_cluster() {
        let origin = ClusterIds::new(1);
        assert_eq!(origin.takes(0, 7), Ok(()));
        assert_eq!(origin.takes(0, 8), Ok(()));
    }

    #[test]
    fn an_announced_endpoint_has_no_say() {
        let origin = ClusterIds::new(1);
        assert_eq!(origin.takes(0, 7), Ok(()));
        assert!(origin.takes(1, 8).is_err() && origin.takes(2, 8).is_err() && origin.is_foreign(2));
        assert_eq!(origin.takes(1, 7), Ok(()));
        assert_eq!(origin.takes(0, 8), Ok(()), "the configured one alone decides");
        assert!(origin.is_foreign(1));
    }

    #[test]
    fn at_the_first_start_most_endpoints_decide() {
        let origin = ClusterIds::new(3);
        [(0, 8), (1, 7), (2, 7)].into_iter().for_each(|(endpoint, id)| origin.note(endpoint, id));
        origin.choose();
        assert!(origin.takes(0, 8).is_err());
        assert_eq!(origin.takes(1, 7), Ok(()));
    }
}
