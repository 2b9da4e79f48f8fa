//! What etcd holds, by the product's own watch.

use std::time::Duration;

use anyhow::Result;
use matriarch::etcd::{self, EtcdSetup};
use matriarch::model::View;
use tokio::sync::watch;

use super::etcd::Etcd;

/// A watch opens anew, and lists, at least so often.
const RELIST_EVERY: Duration = Duration::from_secs(3);

/// The newest view of the cluster's keys, for as long as it is held.
#[derive(Debug)]
pub(crate) struct KeyWatch {
    /// Each view replaces the one before.
    pub(crate) views: watch::Receiver<Option<View>>,
    _relist: watch::Sender<Duration>,
}

impl KeyWatch {
    /// Begins to watch.
    pub(crate) fn start(etcd: &Etcd) -> Result<KeyWatch> {
        let endpoints = etcd.hosts().iter().map(|host| format!("http://{host}")).collect();
        let base = "/service/herd/".to_owned();
        let etcd = etcd::Etcd::connect(EtcdSetup { endpoints, base, ..EtcdSetup::default() })?;
        let (relist, relist_every) = watch::channel(RELIST_EVERY);
        Ok(KeyWatch { views: etcd::watch(etcd, relist_every), _relist: relist })
    }
}
