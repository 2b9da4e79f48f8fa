//! The source addresses of members, cached so that no connection waits for a DNS lookup.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::wire;
use crate::agent::Handle;
use crate::model::{ClusterView, Moment};
use crate::os::clock;

/// The interval between checks for changed hosts of members.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval between lookups of names: a replaced pod has another address.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// The limit for a lookup; a slower name has no address.
pub(super) const RESOLVE_WITHIN: Duration = Duration::from_secs(2);

/// The hosts of the members' addresses, for REST and PostgreSQL. The key of a leader that etcd does not answer expires:
/// the members that may lead stand in a key that does not.
pub(super) fn hosts(view: &ClusterView) -> BTreeSet<String> {
    let members = view.members.values();
    let urls = members.flat_map(|member| [&member.record.api_url, &member.record.conn_url]).flatten();
    let failsafe = view.failsafe.iter().flat_map(|key| key.members.values());
    urls.chain(failsafe).filter_map(|url| Some(wire::address(url)?.0)).collect()
}

/// The addresses of a host: the literal one, or those of its name.
pub(super) async fn resolve(host: &str) -> Vec<IpAddr> {
    if let Ok(literal) = host.parse::<IpAddr>() {
        return vec![literal.to_canonical()];
    }
    match tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|found| found.ip().to_canonical()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The members' addresses by the last lookup.
#[derive(Default)]
pub(super) struct MemberAddresses(Mutex<BTreeSet<IpAddr>>);

impl MemberAddresses {
    /// Whether the address belongs to a member, as far as known.
    pub(super) fn hold(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }

    /// Updates them for as long as it is polled. Without a view the last addresses stay.
    pub(super) async fn follow(&self, handle: &Handle) {
        let mut known = BTreeSet::new();
        let mut resolved_at: Option<Moment> = None;
        loop {
            let hosts = handle.status().view.as_deref().map(hosts);
            let is_old = resolved_at.is_none_or(|at| RESOLVE_EVERY < clock::now().since(at));
            if let Some(hosts) = hosts.filter(|hosts| is_old || *hosts != known) {
                let found = futures::future::join_all(hosts.iter().map(|host| resolve(host))).await;
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                    found.into_iter().flatten().collect();
                known = hosts;
                resolved_at = Some(clock::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
