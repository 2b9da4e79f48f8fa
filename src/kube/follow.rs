//! Pods as they are and as they change: a list, then a watch from there, and again when the watch ends.

use std::pin::pin;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::WatchEvent;

use super::api::{Api, Selector};
use super::backoff::Backoff;
use super::facts::Facts;
use super::failure::Failure;
use crate::model::{PodFailure, PodTask};
use crate::os::clock;

/// Tells what it sees for as long as it is polled: the pods that are there or have changed; none when one is gone.
pub(super) async fn follow(api: &Api, facts: &Facts, selector: &Selector, mut tell: impl FnMut(Vec<Pod>)) {
    let mut backoff = Backoff::default();
    loop {
        let Err(failure) = list_and_watch(api, facts, selector, &mut backoff, &mut tell).await else {
            continue;
        };
        if failure.kind != PodFailure::Gone {
            facts.failed(PodTask::Watch, &failure);
        }
        backoff.failed(&failure, clock::now());
        if let Some(at) = backoff.not_before() {
            clock::sleep_until(at).await;
        }
    }
}

async fn list_and_watch(
    api: &Api,
    facts: &Facts,
    selector: &Selector,
    backoff: &mut Backoff,
    tell: &mut impl FnMut(Vec<Pod>),
) -> Result<(), Failure> {
    let (mut version, pods) = api.list(selector).await?;
    tell(pods);
    loop {
        let mut changes = pin!(api.watch(selector, &version).await?);
        backoff.succeeded();
        facts.well(PodTask::Watch);
        while let Some(change) = changes.next().await {
            let newest = match change? {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    let newest = pod.metadata.resource_version.clone();
                    tell(vec![pod]);
                    newest
                }
                WatchEvent::Deleted(pod) => {
                    let newest = pod.metadata.resource_version.clone();
                    tell(Vec::new());
                    newest
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    return Err(Failure::refused(status.code, None, status.message.as_bytes()));
                }
            };
            version = newest.unwrap_or(version);
        }
    }
}
