//! The cluster as etcd's keys show it: a list, and the watch that goes on from it.
//!
//! ```text
//!  Pause ──► List ──► Watch ──► Await ──► events: show ──► Await
//!    ▲         ▲        ▲         └─ a list is due: Check ──► show ──► Await
//!    │         └────────│────────── (it shows what the watch did not tell)
//!    └── whatever is odd
//! ```
//!
//! A list is the truth; the watch after it only makes it come sooner. Whatever is odd about a watch (compaction, a
//! cancel without a close, a lost leader, an event that a later list shows and the watch never told) ends it, and
//! everything starts from a list again. A view is as old as the list that it rests on: one that grows old means that
//! etcd does not answer.
//!
//! Where nothing was missed, a check is as good as a list, and costs etcd a fiftieth of the bytes: it reads which keys
//! were written since, and how many there are. In a store whose history goes on from the one that is known, keys that
//! are as many and were not written are the same. A store that was restored from a backup may have another history with
//! the same revisions, so now and then the whole is read all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::store::{CorruptKey, Keys, StoredKey};
use crate::model::{ClusterView, Moment, View};

/// The pause after the first failure; it doubles up to the second value.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How old the last reading of all keys may become before a check does not do.
const WHOLE_EVERY: Duration = Duration::from_secs(300);

/// All keys of a cluster, as one linearizable read shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyList {
    /// By full path.
    pub keys: BTreeMap<String, StoredKey>,
    /// The store's revision that they show.
    pub revision: i64,
    /// Of the etcd cluster that answered.
    pub cluster_id: u64,
    /// Read before the request was sent.
    pub asked_at: Moment,
}

impl KeyList {
    /// What the keys say.
    ///
    /// # Errors
    /// [`CorruptKey`] when the leader key holds no name.
    pub fn cluster(&self, keys: &Keys) -> Result<ClusterView, CorruptKey> {
        Ok(ClusterView { cluster_id: self.cluster_id, ..keys.view(&self.keys, self.revision)? })
    }
}

/// The keys that were written after a revision, as one linearizable read shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyCheck {
    /// Full path and revision of each.
    pub written: BTreeMap<String, i64>,
    /// How many keys there are in all.
    pub count: usize,
    /// The store's revision that they show.
    pub revision: i64,
    /// Of the etcd cluster that answered.
    pub cluster_id: u64,
    /// Read before the request was sent.
    pub asked_at: Moment,
}

/// One key written, or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// Its full path.
    pub path: String,
    /// In which revision of the store.
    pub revision: i64,
    /// As it is now; `None`: it was deleted.
    pub now: Option<StoredKey>,
}

/// What the driver does next: the effects in their order, then the question.
#[derive(Clone, Debug, PartialEq)]
pub struct ListWatchNext {
    /// To be done.
    pub effects: Vec<ListWatchEffect>,
    /// To be answered.
    pub ask: ListWatchQuestion,
}

/// What is done without an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ListWatchEffect {
    /// Show the cluster to everybody else.
    Show(Box<View>),
    /// Tell operators why etcd cannot be watched.
    Say(String),
}

/// What the driver finds the answer to. All but the pause may also be answered by [`ListWatchAnswer::Failed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListWatchQuestion {
    /// Close the watch, if one is open, and wait. Answer: [`ListWatchAnswer::Paused`].
    Pause(Duration),
    /// Read all keys, linearizable. Answer: [`ListWatchAnswer::Listed`].
    List,
    /// Read which keys were written after this revision, and how many there are, linearizable. Answer:
    /// [`ListWatchAnswer::Checked`].
    Check {
        /// The revision of the last list or check.
        after: i64,
    },
    /// Open a watch, in place of one that is open, for what comes after this revision. Answer:
    /// [`ListWatchAnswer::Opened`].
    Watch {
        /// The newest revision that is known.
        after: i64,
    },
    /// Wait for what the watch tells. Answer: [`ListWatchAnswer::Told`], [`ListWatchAnswer::Ended`];
    /// [`ListWatchAnswer::ListDue`] when that moment has come or somebody wants a list;
    /// [`ListWatchAnswer::IntervalChanged`].
    Await {
        /// When a list is due.
        until: Moment,
    },
}

/// The answer to a [`ListWatchQuestion`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListWatchAnswer {
    /// The pause is over, or the machine begins.
    Paused,
    /// The keys.
    Listed(KeyList),
    /// What was written.
    Checked(KeyCheck),
    /// The watch is open.
    Opened,
    /// The watch tells this.
    Told {
        /// Of the etcd cluster that tells it, if it says so.
        cluster_id: Option<u64>,
        /// In the order of their revisions.
        events: Vec<KeyEvent>,
    },
    /// The watch is over: it was cancelled, or what it should tell is compacted.
    Ended,
    /// The whole is to be read anew.
    ListDue,
    /// Lists may be due more often, or less.
    IntervalChanged,
    /// It failed, for this reason.
    Failed(String),
}

/// Follows one cluster. It begins with [`ListWatchAnswer::Paused`].
#[derive(Clone, Debug)]
pub struct ListWatch {
    keys: Keys,
    phase: ListWatchPhase,
    /// When the present list and watch began.
    began_at: Moment,
    backoff: Duration,
    /// What ended the list and watch before, if it was trouble.
    trouble: Option<String>,
}

/// Which question is open.
#[derive(Clone, Debug, Default)]
enum ListWatchPhase {
    #[default]
    Pausing,
    Listing,
    Opening(WatchedKeys),
    Awaiting(WatchedKeys),
    Checking(WatchedKeys),
    Relisting(WatchedKeys),
}

/// A list, with what the watch has told since.
#[derive(Clone, Debug)]
struct WatchedKeys {
    list: KeyList,
    /// The revision of the last list or check alone.
    listed: i64,
    /// When all keys were read.
    whole_at: Moment,
}

impl ListWatch {
    /// Of the cluster that has these keys.
    pub fn new(keys: Keys) -> ListWatch {
        ListWatch {
            keys,
            phase: ListWatchPhase::Pausing,
            began_at: Moment::default(),
            backoff: BACKOFF.0,
            trouble: None,
        }
    }

    /// What comes next, given the answer to the question before; a list is due every `relist_every`.
    pub fn next(&mut self, answer: ListWatchAnswer, relist_every: Duration, now: Moment) -> ListWatchNext {
        match (std::mem::take(&mut self.phase), answer) {
            (ListWatchPhase::Pausing, ListWatchAnswer::Paused) => {
                self.began_at = now;
                self.ask(ListWatchPhase::Listing, ListWatchQuestion::List)
            }
            (ListWatchPhase::Listing, ListWatchAnswer::Listed(list)) => self.open(WatchedKeys::of(list), now),
            (ListWatchPhase::Opening(seen), ListWatchAnswer::Opened)
            | (ListWatchPhase::Awaiting(seen), ListWatchAnswer::IntervalChanged) => {
                self.watch(seen, relist_every)
            }
            (ListWatchPhase::Awaiting(mut seen), ListWatchAnswer::Told { cluster_id, events }) => {
                // A watch of another cluster than was listed tells nothing of this one.
                if cluster_id.is_some_and(|id| id != seen.list.cluster_id) {
                    return self.pause(None, now);
                }
                seen.take(events);
                self.show_and_watch(seen, relist_every, now)
            }
            (ListWatchPhase::Awaiting(_), ListWatchAnswer::Ended) => self.pause(None, now),
            (ListWatchPhase::Awaiting(seen), ListWatchAnswer::ListDue)
                if now < seen.whole_at + WHOLE_EVERY =>
            {
                let after = seen.listed;
                self.ask(ListWatchPhase::Checking(seen), ListWatchQuestion::Check { after })
            }
            (ListWatchPhase::Awaiting(seen), ListWatchAnswer::ListDue) => {
                self.ask(ListWatchPhase::Relisting(seen), ListWatchQuestion::List)
            }
            (ListWatchPhase::Checking(seen), ListWatchAnswer::Checked(check)) => match seen.shows(&check) {
                true => self.show_and_watch(seen.refreshed(&check), relist_every, now),
                false => self.ask(ListWatchPhase::Relisting(seen), ListWatchQuestion::List),
            },
            (ListWatchPhase::Relisting(seen), ListWatchAnswer::Listed(list)) => {
                // The list was faster than the watch, or the watch is deaf: a new one, from here.
                let missed = list.keys != seen.list.keys;
                match missed {
                    true => self.open(WatchedKeys::of(list), now),
                    false => self.show_and_watch(WatchedKeys::of(list), relist_every, now),
                }
            }
            (_, ListWatchAnswer::Failed(trouble)) => self.pause(Some(trouble), now),
            (_, answer) => self.pause(Some(format!("an answer out of turn: {answer:?}")), now),
        }
    }

    fn open(&mut self, seen: WatchedKeys, now: Moment) -> ListWatchNext {
        let view = match seen.view(&self.keys) {
            Ok(view) => view,
            Err(error) => return self.pause(Some(error.to_string()), now),
        };
        let after = seen.list.revision;
        let next = self.ask(ListWatchPhase::Opening(seen), ListWatchQuestion::Watch { after });
        next.showing(view)
    }

    fn show_and_watch(&mut self, seen: WatchedKeys, relist_every: Duration, now: Moment) -> ListWatchNext {
        match seen.view(&self.keys) {
            Ok(view) => self.watch(seen, relist_every).showing(view),
            Err(error) => self.pause(Some(error.to_string()), now),
        }
    }

    fn watch(&mut self, seen: WatchedKeys, relist_every: Duration) -> ListWatchNext {
        let until = seen.list.asked_at + relist_every;
        self.ask(ListWatchPhase::Awaiting(seen), ListWatchQuestion::Await { until })
    }

    /// Everything starts from a list again, after a while. Trouble is told once.
    fn pause(&mut self, trouble: Option<String>, now: Moment) -> ListWatchNext {
        let news = trouble.clone().filter(|_| trouble != self.trouble);
        self.trouble = trouble;
        if BACKOFF.1 < self.began_at.until(now) {
            self.backoff = BACKOFF.0;
        }
        let span = self.backoff;
        self.backoff = (span * 2).min(BACKOFF.1);
        let next = self.ask(ListWatchPhase::Pausing, ListWatchQuestion::Pause(span));
        ListWatchNext { effects: news.map(ListWatchEffect::Say).into_iter().collect(), ..next }
    }

    fn ask(&mut self, phase: ListWatchPhase, ask: ListWatchQuestion) -> ListWatchNext {
        self.phase = phase;
        ListWatchNext { effects: Vec::new(), ask }
    }
}

impl ListWatchNext {
    fn showing(self, view: View) -> ListWatchNext {
        ListWatchNext { effects: vec![ListWatchEffect::Show(Box::new(view))], ..self }
    }
}

impl WatchedKeys {
    fn of(list: KeyList) -> WatchedKeys {
        WatchedKeys { listed: list.revision, whole_at: list.asked_at, list }
    }

    /// Whether the keys of this check are the known ones.
    fn shows(&self, check: &KeyCheck) -> bool {
        let is_known = |(path, revision): (&String, &i64)| {
            self.list.keys.get(path).is_some_and(|known| known.mod_revision == *revision)
        };
        check.cluster_id == self.list.cluster_id
            && self.list.revision <= check.revision
            && check.count == self.list.keys.len()
            && check.written.iter().all(is_known)
    }

    /// The same keys, as young as the check that showed them.
    fn refreshed(self, check: &KeyCheck) -> WatchedKeys {
        let KeyCheck { revision, asked_at, .. } = *check;
        WatchedKeys { listed: revision, list: KeyList { revision, asked_at, ..self.list }, ..self }
    }

    fn take(&mut self, events: Vec<KeyEvent>) {
        // What the list already showed is not news.
        let listed = self.list.revision;
        for KeyEvent { path, revision, now } in events.into_iter().filter(|event| listed < event.revision) {
            match now {
                Some(key) => self.list.keys.insert(path, key),
                None => self.list.keys.remove(&path),
            };
            self.list.revision = self.list.revision.max(revision);
        }
    }

    fn view(&self, keys: &Keys) -> Result<View, CorruptKey> {
        let cluster = ClusterView { listed: self.listed, ..self.list.cluster(keys)? };
        Ok(View { cluster, seen_at: self.list.asked_at })
    }
}

#[cfg(test)]
mod tests;
