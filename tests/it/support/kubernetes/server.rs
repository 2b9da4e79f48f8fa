//! The shared state of all listeners: the store, permissions, injected faults, and received requests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use super::access::Access;
use super::faults::{Effect, Fault};
use super::store::Store;

/// One request, as received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The time.
    pub(crate) at: Instant,
    /// The token's subject.
    pub(crate) subject: Option<String>,
    /// HTTP method.
    pub(crate) method: String,
    /// Path.
    pub(crate) path: String,
    /// Query, as sent.
    pub(crate) query: String,
    /// Body; `Null` when there was none.
    pub(crate) body: Value,
    /// HTTP status of the answer, once there is one.
    pub(crate) code: Option<u16>,
    /// Bytes of the answer's body so far.
    pub(crate) bytes: usize,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Asked { at, method, path, query, body, code, .. } = self;
        write!(f, "{:?} ago {method} {path}?{query} {body}: ", at.elapsed())?;
        match code {
            Some(code) => write!(f, "{code}"),
            None => f.write_str("no answer yet"),
        }
    }
}

/// How a watch ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection breaks.
    Cut,
    /// An `ERROR` event with status 410.
    Expired,
}

/// The state of the API server.
pub(crate) struct Server {
    /// The objects.
    pub(crate) store: Mutex<Store>,
    /// Changes with the store's version.
    pub(crate) newest: watch::Sender<u64>,
    /// Tokens and grants.
    pub(crate) access: Mutex<Access>,
    /// The injected faults, by number.
    pub(crate) faults: watch::Sender<BTreeMap<usize, Fault>>,
    /// All requests.
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// Changes when all watches end; a counter.
    pub(crate) endings: watch::Sender<(usize, Ending)>,
    /// The folder with the programs of all containers.
    pub(crate) programs: Mutex<PathBuf>,
    /// The interval between two bookmarks.
    pub(crate) bookmarks_every: watch::Sender<Duration>,
}

impl Server {
    /// An empty server. A plain API server sends bookmarks once a minute.
    pub(crate) fn new() -> Server {
        Server {
            store: Mutex::default(),
            newest: watch::Sender::new(0),
            access: Mutex::default(),
            faults: watch::Sender::default(),
            asked: Mutex::default(),
            endings: watch::Sender::new((0, Ending::Cut)),
            programs: Mutex::default(),
            bookmarks_every: watch::Sender::new(Duration::from_secs(60)),
        }
    }

    /// Calls a function with the store, and wakes the watches.
    pub(crate) fn with_store<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store.lock().expect("nobody panics with it");
        let done = act(&mut store);
        self.newest.send_if_modified(|newest| std::mem::replace(newest, store.version()) != store.version());
        done
    }

    /// Records a request, and returns its number.
    pub(crate) fn note(&self, asked: Asked) -> usize {
        let mut all = self.asked.lock().expect("nobody panics with it");
        all.push(asked);
        all.len() - 1
    }

    /// Adds to the record of a request.
    pub(crate) fn note_more(&self, number: usize, more: impl FnOnce(&mut Asked)) {
        more(&mut self.asked.lock().expect("nobody panics with it")[number]);
    }

    /// Applies the faults for this request. `Some`: the answer is this status, and nothing is done.
    pub(crate) async fn suffer(&self, subject: &str, verb: &str, path: &str) -> Option<Effect> {
        let mut passed = 0;
        loop {
            let mut hit = None;
            self.faults.send_if_modified(|faults| {
                let mut meant = faults.iter_mut().filter(|(number, _)| **number >= passed);
                hit = meant.find_map(|(number, fault)| {
                    fault.hits(subject, verb, path).then(|| (*number, fault.effect.clone()))
                });
                false
            });
            let (number, effect) = hit?;
            passed = number + 1;
            match effect {
                Effect::Late(span) => tokio::time::sleep(span).await,
                Effect::Held => {
                    let mut faults = self.faults.subscribe();
                    // The sender is our own.
                    let _ = faults.wait_for(|faults| !faults.contains_key(&number)).await;
                }
                Effect::Swallowed => std::future::pending().await,
                effect => return Some(effect),
            }
        }
    }
}
