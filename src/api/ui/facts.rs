//! What the pages are made of: the published status, the journal in etcd, and the lag that was seen.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lag_history::{LagHistory, SAMPLE_EVERY};
use super::token::FormToken;
use crate::agent::{Handle, Status};
use crate::model::Term;
use crate::os::clock;
use crate::why::{LeaderChange, changes};

/// The journal is read again when it is older, or when another term has begun.
const JOURNAL_AGE_MAX: Duration = Duration::from_secs(10);
/// The same while the leader has not recorded yet how its term began.
const UNRECORDED_AGE_MAX: Duration = Duration::from_secs(2);
/// A page waits no longer for the journal: it shows the one that was read before.
const JOURNAL_WITHIN: Duration = Duration::from_secs(1);

/// The sources of the pages, for as long as the server runs.
pub(in crate::api) struct UiFacts {
    /// The loop.
    pub(super) handle: Handle,
    /// In every form.
    pub(super) token: FormToken,
    lags: Mutex<Arc<LagHistory>>,
    journal: tokio::sync::Mutex<SeenJournal>,
}

/// The journal as it was last read.
#[derive(Clone, Debug, Default)]
pub(super) struct SeenJournal {
    /// The changes of leadership, the oldest first.
    pub(super) changes: Arc<Vec<LeaderChange>>,
    /// Why it could not be read lately.
    pub(super) trouble: Option<String>,
    asked: Option<(Instant, Option<Term>)>,
}

/// Everything that a page shows, at one time.
pub(super) struct PageFacts<'a> {
    /// This member's status.
    pub(super) status: Arc<Status>,
    /// The journal.
    pub(super) journal: SeenJournal,
    /// The lag of the last hour.
    pub(super) lags: Arc<LagHistory>,
    /// The token for the forms.
    pub(super) token: &'a str,
}

impl UiFacts {
    pub(in crate::api) fn new(handle: Handle) -> UiFacts {
        let (lags, journal) = (Mutex::default(), tokio::sync::Mutex::default());
        UiFacts { handle, token: FormToken::new(), lags, journal }
    }

    /// Notes the lag of all members again and again, for as long as it is polled.
    pub(in crate::api) async fn keep_sampling(&self) {
        loop {
            let status = self.handle.status();
            Arc::make_mut(&mut self.lock_lags()).add(clock::wall(), status.view.as_deref());
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }

    fn lock_lags(&self) -> MutexGuard<'_, Arc<LagHistory>> {
        self.lags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything as it is now.
    pub(super) async fn now(&self) -> PageFacts<'_> {
        let journal = self.journal().await;
        PageFacts {
            status: self.handle.status(),
            journal,
            lags: self.lock_lags().clone(),
            token: self.token.as_str(),
        }
    }

    async fn journal(&self) -> SeenJournal {
        let mut seen = self.journal.lock().await;
        let status = self.handle.status();
        let term = status.view.as_ref().and_then(|view| view.leader.as_ref()).map(|leader| leader.term);
        let is_recorded =
            seen.changes.iter().any(|change| Some(change.term) == term && change.began().is_some());
        let age_max = if is_recorded { JOURNAL_AGE_MAX } else { UNRECORDED_AGE_MAX };
        let is_new = |(at, of): (Instant, Option<Term>)| at.elapsed() < age_max && of == term;
        if !seen.asked.is_some_and(is_new) {
            let read = tokio::time::timeout(JOURNAL_WITHIN, self.handle.read_journal()).await;
            match read {
                Ok(Ok(records)) => (seen.changes, seen.trouble) = (Arc::new(changes(&records)), None),
                Ok(Err(error)) => seen.trouble = Some(error.to_string()),
                Err(_) => seen.trouble = Some("etcd does not answer".to_owned()),
            }
            seen.asked = Some((Instant::now(), term));
        }
        seen.clone()
    }
}
