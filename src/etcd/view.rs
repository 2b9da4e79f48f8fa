//! Reading the whole cluster, and following it.
//!
//! A list is the truth; the watch after it only makes it come sooner. Whatever is odd about a watch (compaction, a
//! cancel without a close, a lost leader, an event that a later list shows and the watch never told) ends it, and
//! everything starts from a list again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse, WatchStream,
};
use tokio::sync::watch;

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::core::store::StoredKey;
use crate::model::{ClusterView, Moment, View};
use crate::os::clock;

/// How long one endpoint may take for a list before the next is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// How long a list may take in all; also, how long an endpoint may take to open a watch.
const LIST_WITHIN: Duration = Duration::from_secs(3);
const WATCH_WITHIN: Duration = Duration::from_secs(1);
/// How long the endpoints may take to say of which etcd cluster they are, before the first of them is believed.
const CHOOSE_WITHIN: Duration = Duration::from_millis(500);
/// The wait after the first failure; it doubles up to the second value.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// The keys under the prefix at one revision.
struct ListedKeys {
    keys: BTreeMap<String, StoredKey>,
    revision: i64,
    /// Without the events of the watch since.
    listed: i64,
    cluster_id: u64,
    asked_at: Moment,
}

impl Etcd {
    /// The cluster as one linearizable read shows it.
    ///
    /// # Errors
    /// [`EtcdError::Corrupt`] when the leader key holds no name; otherwise no endpoint answered `within` that time.
    pub async fn read(&self, within: Duration) -> Result<ClusterView, EtcdError> {
        let listed = self.list(within).await?;
        self.decoded(&listed)
    }

    fn decoded(&self, listed: &ListedKeys) -> Result<ClusterView, EtcdError> {
        let view = self.keys().view(&listed.keys, listed.revision)?;
        Ok(ClusterView { listed: listed.listed, cluster_id: listed.cluster_id, ..view })
    }

    /// Whether etcd's alarm NOSPACE is on: it takes no writes.
    ///
    /// # Errors
    /// When it does not answer, or not to this user.
    pub async fn is_full(&self, within: Duration) -> Result<bool, EtcdError> {
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let request = |mut client: Client| async move {
                client.alarm(AlarmAction::Get, AlarmType::None, None).await
            };
            let answer = etcd.call(&endpoint, request).await?;
            Ok(answer.alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Nospace))
        };
        self.hedged(within / 4, within, ask).await
    }

    async fn list(&self, within: Duration) -> Result<ListedKeys, EtcdError> {
        if self.origin().is_unknown() {
            self.choose_cluster().await;
        }
        let asked_at = clock::now();
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let (base, sent_at) = (etcd.keys().base(), clock::now());
            let request = |mut client: Client| async move {
                client.get(base, Some(GetOptions::new().with_prefix())).await
            };
            let answer = etcd.call(&endpoint, request).await?;
            etcd.linearized(&endpoint, answer.header(), sent_at)?;
            let keys = answer.kvs().iter().map(named).collect();
            let store = answer.header().map_or((0, 0), |header| (header.revision(), header.cluster_id()));
            Ok((keys, store))
        };
        let (keys, (revision, cluster_id)) = self.hedged(HEDGE_AFTER, within, ask).await?;
        Ok(ListedKeys { keys, revision, listed: revision, cluster_id, asked_at })
    }

    /// Before any answer counts: asks all endpoints of which etcd cluster they are, and goes with most of those that
    /// answer.
    async fn choose_cluster(&self) {
        let ask = |endpoint: &Arc<Endpoint>| {
            let (etcd, endpoint) = (self.clone(), endpoint.clone());
            async move {
                let request = |mut client: Client| async move { client.status().await };
                let answer = tokio::time::timeout(CHOOSE_WITHIN, etcd.call(&endpoint, request)).await;
                if let Ok(Ok(status)) = answer
                    && let Some(header) = status.header()
                {
                    etcd.origin().note(endpoint.index, header.cluster_id());
                }
            }
        };
        if 1 < self.endpoint_count() {
            futures::future::join_all(self.endpoints().iter().map(ask)).await;
            self.origin().choose();
        }
    }
}

/// Follows the cluster until every receiver is gone. Events arrive as soon as etcd tells them; every `relist_every` the
/// whole is read anew. `None` until the first list. A view that grows old means that etcd does not answer.
pub fn watch(etcd: Etcd, relist_every: watch::Receiver<Duration>) -> watch::Receiver<Option<View>> {
    let (to_reader, reader) = watch::channel(None);
    tokio::spawn(async move {
        let closed = to_reader.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = follow_forever(etcd, relist_every, to_reader) => {}
        }
    });
    reader
}

async fn follow_forever(
    etcd: Etcd,
    relist_every: watch::Receiver<Duration>,
    to_reader: watch::Sender<Option<View>>,
) {
    let mut backoff = BACKOFF.0;
    let mut told = None;
    loop {
        let started_at = clock::now();
        let trouble = follow(&etcd, &relist_every, &to_reader).await.err();
        if trouble.is_some() && trouble != told {
            tracing::warn!(trouble = trouble.as_ref().map(ToString::to_string), "etcd cannot be watched");
        }
        told = trouble;
        if started_at.until(clock::now()) > BACKOFF.1 {
            backoff = BACKOFF.0;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF.1);
    }
}

/// Lists, watches and lists again until something is odd. `Ok` when the watch ended or fell behind.
async fn follow(
    etcd: &Etcd,
    relist_every: &watch::Receiver<Duration>,
    to_reader: &watch::Sender<Option<View>>,
) -> Result<(), EtcdError> {
    let mut listed = etcd.list(LIST_WITHIN).await?;
    publish(etcd, &listed, to_reader)?;
    let (endpoint, mut events) = open(etcd, listed.revision + 1).await?;
    let mut relist_every = relist_every.clone();
    loop {
        let pause = *relist_every.borrow_and_update();
        let relist_at = listed.asked_at + pause;
        let due = async {
            tokio::select! {
                () = clock::sleep_until(relist_at) => {}
                () = etcd.look_again().notified() => {}
            }
        };
        tokio::select! {
            message = events.message() => {
                let going_on = match message {
                    Ok(Some(message)) => apply(&mut listed, &message),
                    Ok(None) => false,
                    Err(error) => {
                        endpoint.failed();
                        return Err(error.into());
                    }
                };
                if !going_on {
                    return Ok(());
                }
                publish(etcd, &listed, to_reader)?;
            }
            () = due => {
                let again = etcd.list(LIST_WITHIN).await?;
                let missed = again.keys != listed.keys;
                listed = again;
                publish(etcd, &listed, to_reader)?;
                if missed {
                    // The list was faster than the watch, or the watch is deaf: a new one, from here.
                    (_, events) = open(etcd, listed.revision + 1).await?;
                }
            }
            Ok(()) = relist_every.changed() => {}
        }
    }
}

/// Opens the watch on the best endpoint that takes it.
async fn open(etcd: &Etcd, from: i64) -> Result<(Arc<Endpoint>, WatchStream), EtcdError> {
    let mut last_error = EtcdError::Timeout(WATCH_WITHIN);
    for endpoint in etcd.ranked() {
        let base = etcd.keys().base();
        let request = |mut client: Client| async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify();
            client.watch(base, Some(options)).await
        };
        match tokio::time::timeout(WATCH_WITHIN, etcd.call(&endpoint, request)).await {
            Ok(Ok(events)) => return Ok((endpoint, events)),
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = EtcdError::Timeout(WATCH_WITHIN),
        }
        endpoint.failed();
    }
    Err(last_error)
}

/// Brings the keys up to date; false when the watch is over (cancelled, compacted) or is not of the cluster that was
/// listed.
fn apply(listed: &mut ListedKeys, message: &WatchResponse) -> bool {
    let foreign = message.header().is_some_and(|header| header.cluster_id() != listed.cluster_id);
    if message.canceled() || message.compact_revision() != 0 || foreign {
        return false;
    }
    for event in message.events() {
        let Some(key) = event.kv() else { continue };
        // What a later list already showed is not news.
        if key.mod_revision() <= listed.revision {
            continue;
        }
        let (path, stored) = named(key);
        match event.event_type() {
            EventType::Put => listed.keys.insert(path, stored),
            EventType::Delete => listed.keys.remove(&path),
        };
    }
    let last = message.events().iter().filter_map(|event| event.kv().map(KeyValue::mod_revision)).max();
    listed.revision = listed.revision.max(last.unwrap_or(0));
    true
}

/// Shows the view to the readers; they wake only when something in it is new.
fn publish(
    etcd: &Etcd,
    listed: &ListedKeys,
    to_reader: &watch::Sender<Option<View>>,
) -> Result<(), EtcdError> {
    let cluster = etcd.decoded(listed)?;
    let view = View { cluster, seen_at: listed.asked_at };
    to_reader.send_if_modified(|shown| {
        let news = shown.as_ref() != Some(&view);
        *shown = Some(view);
        news
    });
    Ok(())
}

fn named(key: &KeyValue) -> (String, StoredKey) {
    (String::from_utf8_lossy(key.key()).into_owned(), stored(key))
}

pub(super) fn stored(key: &KeyValue) -> StoredKey {
    StoredKey { value: key.value().to_vec(), lease: key.lease(), mod_revision: key.mod_revision() }
}
