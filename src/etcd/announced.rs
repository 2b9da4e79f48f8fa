//! The client URLs that etcd's members announce, used beside the configured endpoints: one of those that answers is
//! enough to reach the others from then on.
//!
//! A configured endpoint comes first unless it fails and an announced one does not, and then it is the second: an
//! announced endpoint that is bad delays a request by one hedge, and costs no renewal. An URL is used only after the
//! etcd cluster in use has answered there, and has no say in which cluster that is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::Client;

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};

/// The most URLs that are taken over; an etcd cluster rarely has more than five members.
pub(super) const ANNOUNCED_MAX: usize = 16;
/// The interval between looks at the list of members.
const LOOK_EVERY: Duration = Duration::from_secs(300);
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long an endpoint has for the list before the next one is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(500);
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// How long an announced endpoint may take to prove that it is one.
const TRY_WITHIN: Duration = Duration::from_secs(5);

/// The URLs that were taken over. None is ever removed, so that an endpoint keeps its number.
#[derive(Debug, Default)]
pub(super) struct AnnouncedUrls(Mutex<Vec<String>>);

impl AnnouncedUrls {
    pub(super) fn urls(&self) -> Vec<String> {
        self.beyond(0)
    }

    /// Those after the first `taken`: none, as a rule.
    pub(super) fn beyond(&self, taken: usize) -> Vec<String> {
        let urls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        urls.get(taken..).unwrap_or_default().to_vec()
    }

    fn add(&self, url: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(url);
    }
}

/// Looks at the list of members now and then, until this process ends. The connections of a look are its own: what
/// fails there does not count against an endpoint.
pub fn follow_members(etcd: Etcd) {
    tokio::spawn(async move {
        let mut refused = BTreeSet::new();
        loop {
            let again = match look(&etcd.apart(), &mut refused).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::debug!(%error, "could not read the list of etcd's members");
                    AGAIN_AFTER
                }
            };
            tokio::time::sleep(again).await;
        }
    });
}

async fn look(etcd: &Etcd, refused: &mut BTreeSet<String>) -> Result<(), EtcdError> {
    let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
        let request = |mut client: Client| async move { client.member_list().await };
        let answer = etcd.call(&endpoint, request).await?;
        etcd.fresh(&endpoint, answer.header())?;
        let urls = answer.members().iter().flat_map(|member| member.client_urls().to_vec());
        Ok(urls.collect::<Vec<String>>())
    };
    let announced = etcd.hedged(HEDGE_AFTER, LOOK_WITHIN, ask).await?;
    for url in announced {
        let known = [etcd.endpoint_urls().to_vec(), etcd.announced().urls()].concat();
        let is_full = ANNOUNCED_MAX <= etcd.announced().urls().len();
        if is_full || known.iter().any(|known| normal(known) == normal(&url)) || refused.contains(&url) {
            continue;
        }
        if !is_usable(&url, etcd.endpoint_urls()) {
            tracing::info!(
                url,
                "etcd announces an endpoint that cannot be used here; the configured ones are"
            );
            refused.insert(url);
            continue;
        }
        match tokio::time::timeout(TRY_WITHIN, etcd.is_of_this_cluster(&url)).await {
            Ok(Ok(true)) => {
                tracing::info!(url, "etcd announces another endpoint, which is used as well");
                etcd.announced().add(normal(&url));
            }
            Ok(Ok(false)) => tracing::debug!(url, "an announced endpoint belongs to another etcd cluster"),
            Ok(Err(error)) => tracing::debug!(url, %error, "an announced endpoint does not answer"),
            Err(_) => tracing::debug!(url, "an announced endpoint does not answer"),
        }
    }
    Ok(())
}

fn normal(url: &str) -> String {
    url.trim_end_matches('/').to_ascii_lowercase()
}

/// Whether a member elsewhere can mean this endpoint: it has the scheme of the configured ones, so that what needs TLS
/// has it, and no address that only its own machine understands.
fn is_usable(url: &str, configured: &[String]) -> bool {
    let Some((scheme, host)) = parts(url) else { return false };
    let configured: Vec<(&str, &str)> = configured.iter().filter_map(|url| parts(url)).collect();
    let address = host.parse::<IpAddr>();
    !host.is_empty()
        && !address.is_ok_and(|address| address.is_unspecified())
        && configured.iter().all(|(other, _)| *other == scheme)
        && (!is_loopback(host) || configured.iter().all(|(_, host)| is_loopback(host)))
}

/// Scheme and host of a URL with a port.
fn parts(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (host, _port) = rest.trim_end_matches('/').rsplit_once(':')?;
    Some((scheme, host.trim_start_matches('[').trim_end_matches(']')))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdSetup;

    /// Two announced endpoints, of which the second request may go to the best at most.
    #[test]
    fn a_configured_endpoint_is_among_the_first_two() {
        let setup = EtcdSetup { endpoints: vec!["http://a:1".to_owned()], ..EtcdSetup::default() };
        let etcd = Etcd::connect(setup).expect("a sound setup");
        let lease = etcd.apart();
        ["http://b:1", "http://c:1"].into_iter().for_each(|url| etcd.announced().add(url.to_owned()));
        let order = |etcd: &Etcd| etcd.ranked().iter().map(|endpoint| endpoint.index).collect::<Vec<_>>();
        assert_eq!([order(&etcd), order(&lease)], [[0, 1, 2], [0, 1, 2]]);
        let fail = |index: usize| lease.endpoints()[index].failed();
        [0, 0].into_iter().for_each(fail);
        assert_eq!(order(&lease), [0, 1, 2]);
        fail(0);
        assert_eq!(order(&lease), [1, 0, 2], "and not behind both");
        fail(1);
        assert_eq!(order(&lease), [2, 0, 1]);
        [1, 2].into_iter().for_each(fail);
        assert_eq!(order(&lease), [0, 2, 1]);
        assert_eq!(order(&etcd), [0, 1, 2], "each has its own experience");
    }

    #[test]
    fn only_endpoints_that_can_be_meant_are_usable() {
        let usable = |url: &str, configured: &str| is_usable(url, &[configured.to_owned()]);
        let table = [
            ("http://10.0.0.2:2379", "http://10.0.0.1:2379", true),
            ("http://[fd00::2]:2379/", "http://etcd:2379", true),
            ("http://10.0.0.2:2379", "https://10.0.0.1:2379", false),
            ("https://10.0.0.2:2379", "http://10.0.0.1:2379", false),
            ("http://0.0.0.0:2379", "http://10.0.0.1:2379", false),
            ("http://[::]:2379", "http://127.0.0.1:2379", false),
            ("http://localhost:2379", "http://10.0.0.1:2379", false),
            ("http://127.0.0.1:2380", "http://localhost:2379", true),
            ("unix://socket:1", "http://localhost:2379", false),
            ("http://:2379", "http://10.0.0.1:2379", false),
            ("nonsense", "http://10.0.0.1:2379", false),
        ];
        for (url, configured, expected) in table {
            assert_eq!(usable(url, configured), expected, "{url} beside {configured}");
        }
    }
}
