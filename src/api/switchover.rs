//! Switchover and failover: check, write the key `failover`, wake the loop, and wait for what comes of it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::answer::Answer;
use super::{operate, wire};
use crate::agent::Handle;
use crate::model::{ClusterView, FailoverRequest, MemberName, PeerAnswer, StandbyKind, SyncMode, WallTime};
use crate::os::clock;

/// How often the published view is looked at: it follows the watch, so this costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often etcd itself is read, in case the watch is behind.
const READ_EVERY: Duration = Duration::from_secs(1);

/// Which of the two was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Names the leader that gives up.
    Switchover,
    /// Names only who takes over.
    Failover,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Kind::Switchover => "switchover",
            Kind::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Switchover => "Switchover",
            Kind::Failover => "Failover",
        }
    }

    /// The deed, at the beginning of a sentence and within one.
    fn done(self) -> (&'static str, &'static str) {
        match self {
            Kind::Switchover => ("Switched over", "switched over"),
            Kind::Failover => ("Failed over", "failed over"),
        }
    }
}

/// POST /switchover and POST /failover.
pub(super) async fn request(
    handle: &Handle,
    kind: Kind,
    body: &Map<String, Value>,
) -> Result<Answer, Answer> {
    let (kind, request) = wanted(kind, body, clock::wall())?;
    let view = handle.read_cluster().await.map_err(|error| Answer::unavailable(&error))?;
    check(kind, &request, &view)?;
    if request.scheduled_at.is_none() {
        check_members(handle, kind, &request, &view).await?;
    }
    let scheduled = request.scheduled_at.is_some();
    let candidate = request.candidate.clone();
    let revision = view.failover.as_ref().map(|key| key.mod_revision);
    match handle.write_failover(Some(request), revision).await {
        Ok(true) => {}
        Ok(false) => {
            return Err(Answer::text(503, "failed to write failover key into DCS: it was changed meanwhile"));
        }
        Err(error) => {
            return Err(Answer::text(503, format!("failed to write failover key into DCS: {error}")));
        }
    }
    // The watch brings the key anyway; this only makes it sooner.
    let _ = handle.wake().await;
    if scheduled {
        return Ok(Answer::text(202, "Switchover scheduled"));
    }
    let from = view.leader.map(|leader| leader.name);
    let wait = Wait { handle, kind, from, candidate, checked_at: view.revision, key_seen: false };
    Ok(wait.outcome().await)
}

/// DELETE /switchover.
pub(super) async fn cancel(handle: &Handle) -> Result<Answer, Answer> {
    let view = handle.read_cluster().await.map_err(|error| Answer::unavailable(&error))?;
    let Some(key) = view.failover.filter(|key| key.request.scheduled_at.is_some()) else {
        return Err(Answer::text(404, "no switchover is scheduled"));
    };
    match handle.write_failover(None, Some(key.mod_revision)).await {
        Ok(true) => Ok(Answer::text(200, "scheduled switchover deleted")),
        Ok(false) => Err(Answer::text(409, "the switchover was changed or has begun")),
        Err(error) => Err(Answer::unavailable(&error)),
    }
}

/// What the body asks for, as far as the body alone can be wrong.
fn wanted(kind: Kind, body: &Map<String, Value>, now: WallTime) -> Result<(Kind, FailoverRequest), Answer> {
    let refused = |text: &str| Answer::text(400, text);
    let name = |key: &str| match body.get(key).and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) => MemberName::new(text).map(Some).map_err(|error| Answer::text(400, error.to_string())),
    };
    let leader = name("leader")?;
    let candidate = name("candidate")?.map_or_else(|| name("member"), |name| Ok(Some(name)))?;
    let schedule = body.get("scheduled_at").unwrap_or(&Value::Null);
    let wants_schedule = !matches!(schedule, Value::Null) && schedule != "";
    if kind == Kind::Failover && candidate.is_none() {
        return Err(refused("Failover could be performed only to a specific candidate"));
    }
    if kind == Kind::Switchover && leader.is_none() {
        return Err(refused("Switchover could be performed only from a specific leader"));
    }
    if kind == Kind::Failover && wants_schedule {
        return Err(refused("Failover can't be scheduled"));
    }
    let scheduled_at = operate::schedule_of(schedule, "switchover", now);
    let kind = if leader.is_some() { Kind::Switchover } else { kind };
    Ok((kind, FailoverRequest { leader, candidate, scheduled_at: scheduled_at? }))
}

/// What the cluster has against it, before anybody is asked.
fn check(kind: Kind, request: &FailoverRequest, view: &ClusterView) -> Result<(), Answer> {
    let paused = wire::paused(view);
    let (leader, candidate) = (request.leader.as_ref(), request.candidate.as_ref());
    if paused && request.scheduled_at.is_some() {
        return Err(Answer::text(400, "Can't schedule switchover in the paused state"));
    }
    if paused && candidate.is_none() {
        return Err(Answer::text(
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ));
    }
    if candidate.is_some() && leader == candidate {
        return Err(Answer::text(400, "Switchover target and source are the same"));
    }
    if request.scheduled_at.is_some() {
        return Ok(());
    }
    let current = view.leader.as_ref().map(|key| &key.name);
    if leader.is_some() && leader != current {
        return Err(Answer::text(412, "leader name does not match"));
    }
    if let Some(candidate) = candidate {
        if kind == Kind::Switchover && only_sync(view) && !is_sync(view, candidate) {
            return Err(Answer::text(412, "candidate name does not match with sync_standby"));
        }
        if !view.members.contains_key(candidate) {
            return Err(Answer::text(412, "candidate does not exists"));
        }
        if current == Some(candidate) {
            return Err(Answer::text(
                412,
                format!("{} is not possible: candidate leads already", kind.noun()),
            ));
        }
    }
    Ok(())
}

/// Each commit waits for certain standbys, and only they can take over without a loss.
fn only_sync(view: &ClusterView) -> bool {
    wire::sync_settings(view).mode == SyncMode::On
}

fn is_sync(view: &ClusterView, name: &MemberName) -> bool {
    StandbyKind::of(SyncMode::On, view, name) == StandbyKind::Sync
}

/// Asks every member that could take over; one good one is enough.
async fn check_members(
    handle: &Handle,
    kind: Kind,
    request: &FailoverRequest,
    view: &ClusterView,
) -> Result<(), Answer> {
    let current = view.leader.as_ref().map(|key| &key.name);
    let eligible = view.members.iter().filter(|(name, _)| match &request.candidate {
        Some(candidate) => *name == candidate,
        None if only_sync(view) => is_sync(view, name),
        None => Some(*name) != current,
    });
    let scope = handle.status().scope.clone();
    let asked: Vec<_> = eligible
        .filter_map(|(name, member)| Some((member.record.api_url.clone()?, view.identity_of(&scope, name))))
        .collect();
    if asked.is_empty() && request.candidate.is_none() {
        let lacking = match only_sync(view) {
            true => "can not find sync_standby",
            false => "cluster does not have members except leader",
        };
        return Err(Answer::text(412, format!("{} is not possible: {lacking}", kind.noun())));
    }
    let answers =
        futures::future::join_all(asked.iter().map(|(url, who)| handle.ask_peer(url.clone(), who))).await;
    let good = |answer: &PeerAnswer| answer.reachable && !answer.tags.nofailover() && !answer.watchdog_failed;
    if answers.iter().flatten().any(good) {
        return Ok(());
    }
    let text = format!("{} is not possible: no good candidates have been found", kind.noun());
    Err(Answer::text(412, text))
}

/// Waiting for a request in etcd to be carried out.
struct Wait<'a> {
    handle: &'a Handle,
    kind: Kind,
    from: Option<MemberName>,
    candidate: Option<MemberName>,
    /// The revision that was checked: an older view shows older leaders.
    checked_at: i64,
    /// The key was in some view: when it is gone from a later one, somebody cleared it.
    key_seen: bool,
}

impl Wait<'_> {
    async fn outcome(mut self) -> Answer {
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

    /// What etcd itself says: only that proves that the key was cleared and nothing changed.
    async fn read(&self) -> Option<Answer> {
        let view = self.handle.read_cluster().await.ok()?;
        self.changed(&view).or_else(|| view.failover.is_none().then(|| self.failed()))
    }

    fn changed(&self, view: &ClusterView) -> Option<Answer> {
        let leader = view.leader.as_ref().map(|key| &key.name)?;
        if self.from.as_ref() == Some(leader) {
            return None;
        }
        let (upper, lower) = self.kind.done();
        let text = match &self.candidate {
            Some(candidate) if candidate != leader => {
                format!("{upper} to \"{leader}\" instead of \"{candidate}\"")
            }
            Some(_) | None => format!("Successfully {lower} to \"{leader}\""),
        };
        Some(Answer::text(200, text))
    }

    fn failed(&self) -> Answer {
        let status = self.handle.status();
        let why = status.hand_over.as_deref().unwrap_or(&status.because);
        Answer::text(503, format!("{} failed: {why}", self.kind.title()))
    }

    /// Ends with the words that clients look for.
    fn unknown(&self) -> Answer {
        let phase =
            self.handle.status().hand_over.as_ref().map(|phase| format!("{phase}. ")).unwrap_or_default();
        Answer::text(503, format!("{phase}{} status unknown", self.kind.title()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::handle;
    use crate::api::tests::{name, primary};

    #[test]
    fn a_timeout_ends_with_the_words_clients_look_for() {
        let mut status = primary(clock::now());
        status.hand_over = Some("waiting for n2 to receive the shutdown checkpoint".to_owned());
        let (handle, _orders) = handle(status);
        let wait = Wait {
            handle: &handle,
            kind: Kind::Switchover,
            from: Some(name("n1")),
            candidate: None,
            checked_at: 0,
            key_seen: true,
        };
        let text = "waiting for n2 to receive the shutdown checkpoint. Switchover status unknown";
        assert_eq!(wait.unknown(), Answer::text(503, text));
    }
}
