//! The wait for the result of a switchover or failover.

use std::time::Duration;

use super::LeadershipRequest;
use crate::agent::Handle;
use crate::api::answer::HttpAnswer;
use crate::api::wire::ChangeEnd;
use crate::model::{ClusterView, MemberName};
use crate::os::clock;

/// The interval between checks of the published view, which follows the watch and costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The interval between reads of etcd itself, in case the watch lags.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The wait for the result of a request in etcd.
pub(in crate::api) struct Wait<'a> {
    pub(super) handle: &'a Handle,
    pub(super) kind: LeadershipRequest,
    pub(super) from: Option<MemberName>,
    pub(super) candidate: Option<MemberName>,
    /// The revision of the check: an older view has older leaders.
    pub(super) checked_at: i64,
    /// A view had the key: when a later one does not, the request was cleared.
    pub(super) key_seen: bool,
}

/// The result of a change of leadership, with its sentence.
pub(in crate::api) enum ChangeOutcome {
    /// Another member leads.
    Changed { leader: MemberName, text: String },
    /// Nothing has changed.
    Failed { text: String },
    /// Nothing is known within the patience; the change goes on.
    Unknown { text: String },
}

impl ChangeOutcome {
    pub(super) fn answer(self) -> HttpAnswer {
        match self {
            ChangeOutcome::Changed { text, .. } => HttpAnswer::text(200, text),
            ChangeOutcome::Failed { text } | ChangeOutcome::Unknown { text } => HttpAnswer::text(503, text),
        }
    }
}

impl Wait<'_> {
    /// Waits until the leader has changed, the request is cleared, or the patience ends.
    pub(in crate::api) async fn outcome(mut self) -> ChangeOutcome {
        let patience = self.handle.status().settings.loop_wait.max(Duration::from_secs(10)) * 2;
        let give_up_at = clock::now() + patience;
        let mut read_at = clock::now() + READ_EVERY;
        while clock::now() < give_up_at {
            tokio::time::sleep(LOOK_EVERY).await;
            let status = self.handle.status();
            let gone = match status.view.as_deref().filter(|view| view.revision >= self.checked_at) {
                Some(view) => {
                    if let Some(answer) = self.changed(view) {
                        return answer;
                    }
                    self.key_seen |= view.failover.is_some();
                    self.key_seen && view.failover.is_none()
                }
                None => false,
            };
            if (gone || clock::now() >= read_at)
                && let Some(answer) = self.read().await
            {
                return answer;
            }
            if clock::now() >= read_at {
                read_at = clock::now() + READ_EVERY;
            }
        }
        self.read().await.unwrap_or_else(|| self.unknown())
    }

    /// The result from etcd itself: only that proves that the key was cleared and nothing changed.
    async fn read(&self) -> Option<ChangeOutcome> {
        let view = self.handle.read_cluster().await.ok()?;
        self.changed(&view).or_else(|| view.failover.is_none().then(|| self.failed()))
    }

    fn changed(&self, view: &ClusterView) -> Option<ChangeOutcome> {
        let leader = view.leader.as_ref().map(|key| &key.name)?;
        if self.from.as_ref() == Some(leader) {
            return None;
        }
        let (upper, lower) = self.kind.past_tense();
        let text = match &self.candidate {
            Some(candidate) if candidate != leader => {
                format!("{upper} to \"{leader}\" instead of \"{candidate}\"")
            }
            Some(_) | None => format!("Successfully {lower} to \"{leader}\""),
        };
        Some(ChangeOutcome::Changed { leader: leader.clone(), text })
    }

    fn failed(&self) -> ChangeOutcome {
        let status = self.handle.status();
        let why = status.hand_over.as_ref().map_or_else(|| status.because.clone(), ToString::to_string);
        ChangeOutcome::Failed { text: format!("{} failed: {why}", self.kind.title()) }
    }

    /// The answer for an unknown result, in the words that clients look for.
    fn unknown(&self) -> ChangeOutcome {
        let status = self.handle.status();
        let so_far = status.hand_over.as_ref().map(|hand_over| format!("{hand_over}. ")).unwrap_or_default();
        ChangeOutcome::Unknown { text: format!("{so_far}{}", ChangeEnd::unknown_text(self.kind.title())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{HandOverStatus, handle};
    use crate::api::tests::{name, primary};
    use crate::model::{HandOverStep, Lsn};

    #[test]
    fn a_timeout_ends_with_the_words_clients_look_for() {
        let mut status = primary(clock::now());
        let step = HandOverStep::Proving { to: Some(name("n2")), checkpoint: Lsn(0x3000060) };
        status.hand_over = Some(HandOverStatus::UnderWay(step));
        let (handle, _orders) = handle(status);
        let wait = Wait {
            handle: &handle,
            kind: LeadershipRequest::Switchover,
            from: Some(name("n1")),
            candidate: None,
            checked_at: 0,
            key_seen: true,
        };
        let text = "waiting until n2 has replayed 0/3000060. Switchover status unknown";
        assert_eq!(wait.unknown().answer(), HttpAnswer::text(503, text));
    }
}
