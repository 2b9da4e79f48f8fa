//! A watch: the changes of the selected objects, as a stream of lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::client_port::{ClientPort, PortState};
use super::resource::Resource;
use super::selector::Selector;
use super::server::{Ending, Server};
use super::status::Reply;
use super::store::{Change, Store};

/// The selection, and the start.
pub(super) struct Start {
    pub(super) resource: &'static Resource,
    pub(super) namespace: String,
    pub(super) selector: Selector,
    /// After this version; `None`: the existing objects are sent first.
    pub(super) version: Option<u64>,
    pub(super) seconds: u64,
    pub(super) bookmarks: bool,
}

/// The time before its end at which a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

struct Watch {
    server: Arc<Server>,
    client_port: ClientPort,
    /// Of the request.
    number: usize,
    start: Start,
    /// Everything up to this version was sent; `None`: nothing yet.
    told: Option<u64>,
    until: Instant,
    bookmark_at: Instant,
    endings: usize,
    over: bool,
}

/// The lines, in chunks as they arise.
pub(super) fn stream(
    server: Arc<Server>,
    client_port: ClientPort,
    number: usize,
    start: Start,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let until = Instant::now() + Duration::from_secs(start.seconds);
    let (endings, _) = *server.endings.borrow();
    let bookmark_at = Instant::now() + *server.bookmarks_every.borrow();
    let watch =
        Watch { server, client_port, number, start, told: None, until, bookmark_at, endings, over: false };
    futures::stream::unfold(watch, |mut watch| async {
        let piece = watch.next().await?;
        Some((piece, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let (mut newest, mut state) = (self.server.newest.subscribe(), self.client_port.state());
        let (mut endings, mut faster) =
            (self.server.endings.subscribe(), self.server.bookmarks_every.subscribe());
        loop {
            if self.over || Instant::now() >= self.until {
                return None;
            }
            // A port lives as long as its connections.
            let _ = state.wait_for(|state| *state != PortState::Hangs).await;
            let (ended, ending) = *endings.borrow_and_update();
            if ended != self.endings {
                self.over = true;
                return Some(match ending {
                    Ending::Cut => Err(io::Error::other("cut")),
                    Ending::Expired => Ok(self.expired(1, 2)),
                });
            }
            newest.mark_unchanged();
            if let Some(piece) = self.news() {
                return Some(Ok(piece));
            }
            let every = *faster.borrow_and_update();
            self.bookmark_at = self.bookmark_at.min(Instant::now() + every);
            let last = self.until.checked_sub(LAST_BOOKMARK).filter(|at| *at > Instant::now());
            let bookmark_at = last.unwrap_or(self.bookmark_at).min(self.bookmark_at);
            tokio::select! {
                _ = newest.changed() => {}
                _ = state.changed() => {}
                _ = endings.changed() => {}
                _ = faster.changed() => {}
                () = sleep_until(self.until) => {}
                () = sleep_until(bookmark_at), if self.start.bookmarks => {
                    self.bookmark_at = Instant::now() + every;
                    let version = self.told.unwrap_or_default();
                    return Some(Ok(self.piece(vec![("BOOKMARK", self.start.resource.bookmark(version))])));
                }
            }
        }
    }

    /// The changes since the last call.
    fn news(&mut self) -> Option<Bytes> {
        let server = self.server.clone();
        let store = server.store.lock().expect("nobody panics with it");
        let since = match (self.told, self.start.version) {
            (Some(told), _) => told,
            (None, Some(version)) if version < store.oldest() => {
                self.over = true;
                return Some(self.expired(version, store.oldest()));
            }
            (None, Some(version)) => version,
            (None, None) => {
                self.told = Some(store.version());
                let Start { resource, namespace, selector, .. } = &self.start;
                let found = store.select(resource, namespace, selector);
                return (!found.is_empty())
                    .then(|| self.piece(found.into_iter().map(|object| ("ADDED", object)).collect()));
            }
        };
        let events: Vec<_> = self.events(&store, since);
        self.told = Some(store.version().max(since));
        (!events.is_empty()).then(|| self.piece(events))
    }

    fn events(&self, store: &Store, since: u64) -> Vec<(&'static str, Value)> {
        let first = store.changes().partition_point(|change| change.version <= since);
        store.changes()[first..].iter().filter_map(|change| self.event(change)).collect()
    }

    /// An object enters the view and leaves it as its labels change. An object that left is sent as it was.
    fn event(&self, change: &Change) -> Option<(&'static str, Value)> {
        let Start { resource, namespace, selector, .. } = &self.start;
        let any = change.after.as_ref().or(change.before.as_ref())?;
        if change.resource != *resource
            || (!namespace.is_empty() && any["metadata"]["namespace"] != json!(namespace))
        {
            return None;
        }
        let seen = |object: &Option<Value>| object.clone().filter(|object| selector.matches(object));
        match (seen(&change.before), seen(&change.after)) {
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(mut before), None) => {
                before["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(("DELETED", before))
            }
            (None, None) => None,
        }
    }

    fn expired(&self, version: u64, oldest: u64) -> Bytes {
        self.piece(vec![("ERROR", Reply::expired(version, oldest).body)])
    }

    fn piece(&self, events: Vec<(&'static str, Value)>) -> Bytes {
        let line = |(kind, object)| format!("{}\n", json!({ "type": kind, "object": object }));
        let text: String = events.into_iter().map(line).collect();
        self.server.note_more(self.number, |asked| asked.bytes += text.len());
        text.into()
    }
}
