//! Switchover and failover: check the request, write the key `failover`, wake the loop, and wait for the result.

use std::time::Duration;

use serde_json::{Map, Value};

use super::answer::HttpAnswer;
use super::{operate, rebuild, sentences, wire};
use crate::agent::Handle;
use crate::model::{
    ClusterView, FailoverRequest, Ineligible, MemberName, PeerAnswer, PeerIdentity, SyncMode, WallTime,
    gets_wal,
};
use crate::os::clock;

/// The interval between checks of the published view, which follows the watch and costs nothing.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The interval between reads of etcd itself, in case the watch lags.
const READ_EVERY: Duration = Duration::from_secs(1);

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeadershipRequest {
    /// Names the leader that gives up leadership.
    Switchover,
    /// Names only the next leader.
    Failover,
}

impl LeadershipRequest {
    pub(super) fn noun(self) -> &'static str {
        match self {
            LeadershipRequest::Switchover => "switchover",
            LeadershipRequest::Failover => "failover",
        }
    }

    fn title(self) -> &'static str {
        match self {
            LeadershipRequest::Switchover => "Switchover",
            LeadershipRequest::Failover => "Failover",
        }
    }

    /// The past tense, at the beginning of a sentence and within one.
    fn past_tense(self) -> (&'static str, &'static str) {
        match self {
            LeadershipRequest::Switchover => ("Switched over", "switched over"),
            LeadershipRequest::Failover => ("Failed over", "failed over"),
        }
    }
}

/// POST /switchover and POST /failover.
pub(super) async fn request(
    handle: &Handle,
    kind: LeadershipRequest,
    body: &Map<String, Value>,
) -> Result<HttpAnswer, HttpAnswer> {
    let (kind, request) = wanted(kind, body, clock::wall())?;
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    check(kind, &request, &view)?;
    // For a rebuild the candidate's PostgreSQL need not run yet.
    if request.scheduled_at.is_none() && !request.rebuild {
        check_members(handle, kind, &request, &view).await?;
    }
    let scheduled = request.scheduled_at.is_some();
    let candidate = request.candidate.clone();
    let revision = view.failover.as_ref().map(|key| key.mod_revision);
    match handle.write_failover(Some(request), revision).await {
        Ok(true) => {}
        Ok(false) => {
            return Err(HttpAnswer::text(
                503,
                "failed to write failover key into DCS: it was changed meanwhile",
            ));
        }
        Err(error) => {
            return Err(HttpAnswer::text(503, format!("failed to write failover key into DCS: {error}")));
        }
    }
    // The watch brings the key anyway; this is only faster.
    let _ = handle.wake().await;
    if scheduled {
        return Ok(HttpAnswer::text(202, "Switchover scheduled"));
    }
    let from = view.leader.map(|leader| leader.name);
    let wait = Wait { handle, kind, from, candidate, checked_at: view.revision, key_seen: false };
    Ok(wait.outcome().await)
}

/// DELETE /switchover.
pub(super) async fn cancel(handle: &Handle) -> Result<HttpAnswer, HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let Some(key) = view.failover.filter(|key| key.request.scheduled_at.is_some()) else {
        return Err(HttpAnswer::text(404, "no switchover is scheduled"));
    };
    match handle.write_failover(None, Some(key.mod_revision)).await {
        Ok(true) => Ok(HttpAnswer::text(200, "scheduled switchover deleted")),
        Ok(false) => Err(HttpAnswer::text(409, "the switchover was changed or has begun")),
        Err(error) => Err(HttpAnswer::unavailable(&error)),
    }
}

/// Parses the body, with the faults that the body alone can have.
fn wanted(
    kind: LeadershipRequest,
    body: &Map<String, Value>,
    now: WallTime,
) -> Result<(LeadershipRequest, FailoverRequest), HttpAnswer> {
    let refused = |text: &str| HttpAnswer::text(400, text);
    let name = |key: &str| match body.get(key).and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) => {
            MemberName::new(text).map(Some).map_err(|error| HttpAnswer::text(400, error.to_string()))
        }
    };
    let leader = name("leader")?;
    let candidate = name("candidate")?.map_or_else(|| name("member"), |name| Ok(Some(name)))?;
    let schedule = body.get("scheduled_at").unwrap_or(&Value::Null);
    let wants_schedule = !matches!(schedule, Value::Null) && schedule != "";
    if kind == LeadershipRequest::Failover && candidate.is_none() {
        return Err(refused("Failover could be performed only to a specific candidate"));
    }
    if kind == LeadershipRequest::Switchover && leader.is_none() {
        return Err(refused("Switchover could be performed only from a specific leader"));
    }
    if kind == LeadershipRequest::Failover && wants_schedule {
        return Err(refused("Failover can't be scheduled"));
    }
    let scheduled_at = operate::schedule_of(schedule, "switchover", now);
    let kind = if leader.is_some() { LeadershipRequest::Switchover } else { kind };
    let confirmed_down = confirmed_down(body)?;
    let rebuild = match body.get("rebuild") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) if kind == LeadershipRequest::Failover => true,
        Some(_) => return Err(refused("rebuild is true or false, and of a failover")),
    };
    Ok((kind, FailoverRequest { leader, candidate, scheduled_at: scheduled_at?, confirmed_down, rebuild }))
}

/// The members whose PostgreSQL is down, as the operator confirms: one name, or several.
fn confirmed_down(body: &Map<String, Value>) -> Result<Vec<MemberName>, HttpAnswer> {
    let names = match body.get("confirm_down") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(names)) => names.clone(),
        Some(name) => vec![name.clone()],
    };
    let name = |value: Value| {
        let text = value.as_str().ok_or_else(|| HttpAnswer::text(400, "confirm_down names members"))?;
        MemberName::new(text).map_err(|error| HttpAnswer::text(400, error.to_string()))
    };
    names.into_iter().map(name).collect()
}

/// Checks the request against the cluster, before any member is asked.
fn check(kind: LeadershipRequest, request: &FailoverRequest, view: &ClusterView) -> Result<(), HttpAnswer> {
    let paused = wire::paused(view);
    let (leader, candidate) = (request.leader.as_ref(), request.candidate.as_ref());
    if paused && request.scheduled_at.is_some() {
        return Err(HttpAnswer::text(400, "Can't schedule switchover in the paused state"));
    }
    if paused && candidate.is_none() {
        return Err(HttpAnswer::text(
            400,
            "Switchover is possible only to a specific candidate in a paused state",
        ));
    }
    if candidate.is_some() && leader == candidate {
        return Err(HttpAnswer::text(400, "Switchover target and source are the same"));
    }
    if request.scheduled_at.is_some() {
        return Ok(());
    }
    let left: Vec<String> = view
        .unfenced(candidate)
        .filter(|(name, _)| !request.confirmed_down.contains(name))
        .map(|(name, left)| ClusterView::unfenced_text(name, left))
        .collect();
    if !left.is_empty() {
        return Err(HttpAnswer::text(412, format!("{} is not possible: {}", kind.noun(), left.join("; "))));
    }
    rebuild::check(request, view)?;
    let current = view.leader.as_ref().map(|key| &key.name);
    if leader.is_some() && leader != current {
        return Err(HttpAnswer::text(412, "leader name does not match"));
    }
    if let Some(candidate) = candidate {
        eligible(kind, candidate, view)
            .map_err(|why| sentences::not_eligible(kind, candidate.as_str(), &why))?;
    }
    Ok(())
}

/// Whether the candidate can take over, by what etcd shows.
fn eligible(kind: LeadershipRequest, candidate: &MemberName, view: &ClusterView) -> Result<(), Ineligible> {
    if kind == LeadershipRequest::Switchover {
        view.eligible_in(wire::sync_settings(view).mode, candidate)?;
    }
    view.eligible(candidate)
}

/// Whether each commit waits for certain standbys, so that only they can take over without a loss.
fn only_sync(view: &ClusterView) -> bool {
    wire::sync_settings(view).mode == SyncMode::On
}

/// Asks all possible candidates; one good one is enough.
async fn check_members(
    handle: &Handle,
    kind: LeadershipRequest,
    request: &FailoverRequest,
    view: &ClusterView,
) -> Result<(), HttpAnswer> {
    let current = view.leader.as_ref().map(|key| &key.name);
    let eligible = view.members.iter().filter(|(name, _)| match &request.candidate {
        Some(candidate) => *name == candidate,
        None if only_sync(view) => view.eligible_in(SyncMode::On, name).is_ok(),
        None => Some(*name) != current,
    });
    let scope = handle.status().scope.clone();
    let asked: Vec<_> = eligible
        .filter_map(|(name, member)| {
            Some((name, member.record.api_url.clone()?, view.identity_of(&scope, name)))
        })
        .collect();
    if asked.is_empty() && request.candidate.is_none() {
        let lacking = match only_sync(view) {
            true => "can not find sync_standby",
            false => "cluster does not have members except leader",
        };
        return Err(HttpAnswer::text(412, format!("{} is not possible: {lacking}", kind.noun())));
    }
    let ask = async |(name, url, who): &(&MemberName, String, PeerIdentity)| {
        Some(((*name).clone(), handle.ask_peer(url.clone(), who).await?))
    };
    let answers = futures::future::join_all(asked.iter().map(ask)).await;
    let judged = answers.into_iter().flatten().map(|(name, answer)| (answer.eligible(), (name, answer)));
    let (good, bad): (Vec<_>, Vec<_>) = judged.partition(|(eligible, _)| eligible.is_ok());
    let good: Vec<_> = good.into_iter().map(|(_, member)| member).collect();
    if good.is_empty() {
        let why = bad.into_iter().find_map(|(eligible, (name, _))| Some((name, eligible.err()?)));
        let (name, why) = why.map_or((String::new(), Ineligible::Silent { trouble: None }), |(name, why)| {
            (name.to_string(), why)
        });
        return Err(sentences::not_eligible(kind, &name, &why));
    }
    check_streaming(handle, kind, &good, view).await
}

/// Checks that the leader's last WAL reaches the candidate: it streams from the leader, or from a member that does. A
/// leader without an answer is not waited for, because it checks this itself before it stops.
async fn check_streaming(
    handle: &Handle,
    kind: LeadershipRequest,
    good: &[(MemberName, PeerAnswer)],
    view: &ClusterView,
) -> Result<(), HttpAnswer> {
    let Some((leader, standbys)) = standbys_of_leader(handle, view).await else { return Ok(()) };
    let standbys: Vec<&str> = standbys.iter().map(String::as_str).collect();
    let receives = |(name, answer): &(MemberName, PeerAnswer)| {
        let through = answer.tags.replicatefrom().filter(|_| answer.receives);
        gets_wal(&standbys, name, through.as_ref())
    };
    if kind == LeadershipRequest::Failover || good.iter().any(receives) {
        return Ok(());
    }
    let names: Vec<&str> = good.iter().map(|(name, _)| name.as_str()).collect();
    Err(sentences::not_eligible(kind, &names.join(", "), &Ineligible::NotStreaming { from: leader }))
}

/// The standbys that stream from the leader, by its own PostgreSQL; `None` when it cannot be asked.
async fn standbys_of_leader(handle: &Handle, view: &ClusterView) -> Option<(MemberName, Vec<String>)> {
    let (name, member) = view.leader_member()?;
    let status = handle.status();
    if *name == status.me.name {
        let status = handle.look(Duration::ZERO).await.then(|| handle.status())?;
        let sql = status.postgres.answering()?;
        return Some((name.clone(), sql.sync.streaming().into_iter().map(str::to_owned).collect()));
    }
    let asked = view.identity_of(&status.scope, name);
    let answer = handle.ask_peer(member.record.api_url.clone()?, &asked).await?;
    (answer.reachable && !answer.in_recovery).then(|| (name.clone(), answer.standbys))
}

/// The wait for the result of a request in etcd.
struct Wait<'a> {
    handle: &'a Handle,
    kind: LeadershipRequest,
    from: Option<MemberName>,
    candidate: Option<MemberName>,
    /// The revision of the check: an older view has older leaders.
    checked_at: i64,
    /// A view had the key: when a later one does not, the request was cleared.
    key_seen: bool,
}

impl Wait<'_> {
    async fn outcome(mut self) -> HttpAnswer {
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
    async fn read(&self) -> Option<HttpAnswer> {
        let view = self.handle.read_cluster().await.ok()?;
        self.changed(&view).or_else(|| view.failover.is_none().then(|| self.failed()))
    }

    fn changed(&self, view: &ClusterView) -> Option<HttpAnswer> {
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
        Some(HttpAnswer::text(200, text))
    }

    fn failed(&self) -> HttpAnswer {
        let status = self.handle.status();
        let why = status.hand_over.as_ref().map_or_else(|| status.because.clone(), ToString::to_string);
        HttpAnswer::text(503, format!("{} failed: {why}", self.kind.title()))
    }

    /// The answer for an unknown result, in the words that clients look for.
    fn unknown(&self) -> HttpAnswer {
        let status = self.handle.status();
        let so_far = status.hand_over.as_ref().map(|hand_over| format!("{hand_over}. ")).unwrap_or_default();
        HttpAnswer::text(503, format!("{so_far}{}", wire::ChangeEnd::unknown_text(self.kind.title())))
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
        assert_eq!(wait.unknown(), HttpAnswer::text(503, text));
    }
}
