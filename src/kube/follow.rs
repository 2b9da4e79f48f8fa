//! Objects and their changes: a list, then a watch from its version, and a new list when the watch ends.

use std::pin::pin;

use futures::StreamExt;
use kube::api::WatchEvent;

use super::api::{Api, Object, Selector};
use super::backoff::Backoff;
use super::facts::Facts;
use super::failure::KubeFailure;
use crate::model::{PodFailure, PodTask};
use crate::os::clock;

/// A change that was seen.
pub(super) enum Seen<K> {
    /// All objects, at this version.
    All(Vec<K>, String),
    /// An object that is new or has changed.
    Changed(K),
    /// An object that was deleted or is not selected any more, in its last state.
    Gone(K),
}

/// Reports changes for as long as it is polled.
pub(super) async fn follow<K: Object>(
    (api, facts, task): (&Api, &Facts, PodTask),
    selector: &Selector,
    mut announce: impl FnMut(Seen<K>),
) {
    let mut backoff = Backoff::default();
    loop {
        let followed = list_and_watch((api, facts, task), selector, &mut backoff, &mut announce).await;
        let Err(failure) = followed else { continue };
        if failure.kind != PodFailure::Gone {
            facts.failed(task, &failure);
        }
        backoff.failed(&failure, clock::now());
        if let Some(at) = backoff.not_before() {
            clock::sleep_until(at).await;
        }
    }
}

async fn list_and_watch<K: Object>(
    (api, facts, task): (&Api, &Facts, PodTask),
    selector: &Selector,
    backoff: &mut Backoff,
    announce: &mut impl FnMut(Seen<K>),
) -> Result<(), KubeFailure> {
    let (mut version, listed) = api.list(selector).await?;
    announce(Seen::All(listed, version.clone()));
    loop {
        let mut changes = pin!(api.watch::<K>(selector, &version).await?);
        backoff.succeeded();
        facts.well(task);
        while let Some(change) = changes.next().await {
            let seen = match change? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Seen::Changed(object),
                WatchEvent::Deleted(object) => Seen::Gone(object),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => {
                    return Err(KubeFailure::refused(status.code, None, status.message.as_bytes()));
                }
            };
            if let Seen::Changed(object) | Seen::Gone(object) = &seen {
                version = object.metadata().resource_version.clone().unwrap_or(version);
            }
            announce(seen);
        }
    }
}
