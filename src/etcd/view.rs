//! Reading the whole cluster, and following it: the lists and watches that [`ListWatch`] asks for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, Event, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse,
    WatchStream,
};
use tokio::sync::watch;

use super::EtcdError;
use super::endpoints::{Endpoint, Etcd};
use crate::core::list_watch::{
    KeyCheck, KeyEvent, KeyList, ListWatch, ListWatchAnswer, ListWatchEffect, ListWatchNext,
    ListWatchQuestion,
};
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

impl Etcd {
    /// The cluster as one linearizable read shows it.
    ///
    /// # Errors
    /// [`EtcdError::Corrupt`] when the leader key holds no name; otherwise no endpoint answered `within` that time.
    pub async fn read(&self, within: Duration) -> Result<ClusterView, EtcdError> {
        Ok(self.list(within).await?.cluster(self.keys())?)
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

    async fn list(&self, within: Duration) -> Result<KeyList, EtcdError> {
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
        Ok(KeyList { keys, revision, cluster_id, asked_at })
    }

    /// Which keys were written after this revision, and how many there are.
    async fn check(&self, after: i64, within: Duration) -> Result<KeyCheck, EtcdError> {
        let asked_at = clock::now();
        let ask = |etcd: Etcd, endpoint: Arc<Endpoint>| async move {
            let (base, sent_at) = (etcd.keys().base(), clock::now());
            let options = GetOptions::new().with_prefix().with_keys_only().with_min_mod_revision(after + 1);
            let request = |mut client: Client| {
                let options = options.clone();
                async move { client.get(base, Some(options)).await }
            };
            let answer = etcd.call(&endpoint, request).await?;
            etcd.linearized(&endpoint, answer.header(), sent_at)?;
            let written = answer.kvs().iter().map(|key| {
                let (path, key) = named(key);
                (path, key.mod_revision)
            });
            let store = answer.header().map_or((0, 0), |header| (header.revision(), header.cluster_id()));
            Ok((written.collect(), usize::try_from(answer.count()).unwrap_or_default(), store))
        };
        let (written, count, (revision, cluster_id)) = self.hedged(HEDGE_AFTER, within, ask).await?;
        Ok(KeyCheck { written, count, revision, cluster_id, asked_at })
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
        let endpoints = self.endpoints();
        if 1 < endpoints.len() {
            futures::future::join_all(endpoints.iter().map(ask)).await;
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
            never = follow_forever(etcd, relist_every, to_reader) => match never {},
        }
    });
    reader
}

async fn follow_forever(
    etcd: Etcd,
    mut relist_every: watch::Receiver<Duration>,
    to_reader: watch::Sender<Option<View>>,
) -> Infallible {
    let mut machine = ListWatch::new(etcd.keys().clone());
    let mut opened: Option<OpenWatch> = None;
    let mut answer = ListWatchAnswer::Paused;
    loop {
        let every = *relist_every.borrow_and_update();
        let ListWatchNext { effects, ask } = machine.next(answer, every, clock::now());
        effects.into_iter().for_each(|effect| carry_out(effect, &to_reader));
        answer = match ask {
            ListWatchQuestion::Pause(span) => {
                opened = None;
                tokio::time::sleep(span).await;
                ListWatchAnswer::Paused
            }
            ListWatchQuestion::List => match etcd.list(LIST_WITHIN).await {
                Ok(list) => ListWatchAnswer::Listed(list),
                Err(error) => failed(&error),
            },
            ListWatchQuestion::Check { after } => match etcd.check(after, LIST_WITHIN).await {
                Ok(check) => ListWatchAnswer::Checked(check),
                Err(error) => failed(&error),
            },
            ListWatchQuestion::Watch { after } => match open(&etcd, after + 1).await {
                Ok(open) => {
                    opened = Some(open);
                    ListWatchAnswer::Opened
                }
                Err(error) => failed(&error),
            },
            ListWatchQuestion::Await { until } => match &mut opened {
                Some(opened) => told(opened, until, &etcd, &mut relist_every).await,
                None => ListWatchAnswer::Ended,
            },
        };
    }
}

/// A view wakes its readers only when something in it is new.
fn carry_out(effect: ListWatchEffect, to_reader: &watch::Sender<Option<View>>) {
    match effect {
        ListWatchEffect::Show(view) => drop(to_reader.send_if_modified(|shown| {
            let news = shown.as_ref() != Some(&*view);
            *shown = Some(*view);
            news
        })),
        ListWatchEffect::Say(trouble) => tracing::warn!(trouble, "etcd cannot be watched"),
    }
}

fn failed(error: &EtcdError) -> ListWatchAnswer {
    ListWatchAnswer::Failed(error.to_string())
}

/// A watch, and the endpoint that it is on.
type OpenWatch = (Arc<Endpoint>, WatchStream);

async fn told(
    (endpoint, events): &mut OpenWatch,
    until: Moment,
    etcd: &Etcd,
    relist_every: &mut watch::Receiver<Duration>,
) -> ListWatchAnswer {
    tokio::select! {
        message = events.message() => match message {
            Ok(Some(message)) => news(&message),
            Ok(None) => ListWatchAnswer::Ended,
            Err(error) => {
                endpoint.failed();
                failed(&error.into())
            }
        },
        () = clock::sleep_until(until) => ListWatchAnswer::ListDue,
        () = etcd.look_again().notified() => ListWatchAnswer::ListDue,
        Ok(()) = relist_every.changed() => ListWatchAnswer::IntervalChanged,
    }
}

/// Opens the watch on the best endpoint that takes it.
async fn open(etcd: &Etcd, from: i64) -> Result<OpenWatch, EtcdError> {
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

fn news(message: &WatchResponse) -> ListWatchAnswer {
    if message.canceled() || message.compact_revision() != 0 {
        return ListWatchAnswer::Ended;
    }
    let cluster_id = message.header().map(|header| header.cluster_id());
    ListWatchAnswer::Told { cluster_id, events: message.events().iter().filter_map(key_event).collect() }
}

fn key_event(event: &Event) -> Option<KeyEvent> {
    let (path, key) = named(event.kv()?);
    let revision = key.mod_revision;
    let now = match event.event_type() {
        EventType::Put => Some(key),
        EventType::Delete => None,
    };
    Some(KeyEvent { path, revision, now })
}

fn named(key: &KeyValue) -> (String, StoredKey) {
    (String::from_utf8_lossy(key.key()).into_owned(), stored(key))
}

pub(super) fn stored(key: &KeyValue) -> StoredKey {
    StoredKey {
        value: key.value().to_vec(),
        lease: key.lease(),
        mod_revision: key.mod_revision(),
        create_revision: key.create_revision(),
    }
}
