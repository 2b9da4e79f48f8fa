//! Switchover and failover: check the request, write the key `failover`, wake the loop, and wait for the result.

use std::time::Duration;

use serde_json::{Map, Value};

mod wait;

pub(super) use self::wait::{ChangeOutcome, Wait};
use super::answer::HttpAnswer;
use super::{operate, rebuild, sentences, wire};
use crate::agent::Handle;
use crate::model::{
    ClusterView, FailoverRequest, Ineligible, MemberName, OperationId, PeerAnswer, PeerIdentity, StoreReason,
    SyncMode, WallTime, gets_wal,
};
use crate::os::clock;

/// The answer to a request for a later time.
pub(super) const SCHEDULED: &str = "Switchover scheduled";

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

/// A request that stands in etcd.
pub(super) struct AcceptedRequest<'a> {
    /// Its identifier.
    pub(super) operation: OperationId,
    /// The wait for its result; `None`: it waits for its time.
    pub(super) wait: Option<Wait<'a>>,
}

impl AcceptedRequest<'_> {
    /// The answer at the end.
    async fn answer(self) -> HttpAnswer {
        let answer = match self.wait {
            None => HttpAnswer::text(202, SCHEDULED),
            Some(wait) => wait.outcome().await.answer(),
        };
        answer.with_operation(self.operation)
    }
}

/// POST /switchover and POST /failover.
pub(super) async fn request(
    handle: &Handle,
    kind: LeadershipRequest,
    body: &Map<String, Value>,
) -> Result<HttpAnswer, HttpAnswer> {
    Ok(begin(handle, kind, body).await?.answer().await)
}

/// Checks the request and writes it to etcd.
pub(super) async fn begin<'a>(
    handle: &'a Handle,
    kind: LeadershipRequest,
    body: &Map<String, Value>,
) -> Result<AcceptedRequest<'a>, HttpAnswer> {
    let (kind, request) = wanted(kind, body, clock::wall())?;
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    may_request(handle, kind, &request, &view, ask_candidates(handle, &request, &view)).await?;
    let scheduled = request.scheduled_at.is_some();
    let candidate = request.candidate.clone();
    let revision = view.failover.as_ref().map(|key| key.mod_revision);
    let operation = match handle.write_failover(Some(request), revision).await {
        Ok(Some(operation)) => operation,
        Ok(None) => {
            return Err(HttpAnswer::text(
                503,
                "failed to write failover key into DCS: it was changed meanwhile",
            ));
        }
        Err(error) => {
            return Err(HttpAnswer::text(503, format!("failed to write failover key into DCS: {error}")));
        }
    };
    // The watch brings the key anyway; this is only faster.
    let _ = handle.wake().await;
    if scheduled {
        return Ok(AcceptedRequest { operation, wait: None });
    }
    let from = view.leader.map(|leader| leader.name);
    let wait = Wait { handle, kind, from, candidate, checked_at: view.revision, key_seen: false };
    Ok(AcceptedRequest { operation, wait: Some(wait) })
}

/// Whether the request can be written: all that is checked before it is. `answers`: of [`ask_candidates`]; they are not
/// awaited where they do not matter.
pub(super) async fn may_request(
    handle: &Handle,
    kind: LeadershipRequest,
    request: &FailoverRequest,
    view: &ClusterView,
    answers: impl Future<Output = Vec<(MemberName, PeerAnswer)>>,
) -> Result<(), HttpAnswer> {
    check(kind, request, view)?;
    // For a rebuild the candidate's PostgreSQL need not run yet.
    if request.scheduled_at.is_some() || request.rebuild {
        return Ok(());
    }
    check_members(handle, kind, request, view, answers.await).await
}

/// DELETE /switchover.
pub(super) async fn cancel(handle: &Handle) -> Result<HttpAnswer, HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let Some(key) = view.failover.filter(|key| key.request.scheduled_at.is_some()) else {
        return Err(HttpAnswer::text(404, "no switchover is scheduled"));
    };
    match handle.write_failover(None, Some(key.mod_revision)).await {
        Ok(Some(_)) => Ok(HttpAnswer::text(200, "scheduled switchover deleted")),
        Ok(None) => Err(HttpAnswer::text(409, "the switchover was changed or has begun")),
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
    let requested_by = body.get("requested_by").and_then(Value::as_str).and_then(FailoverRequest::asker);
    let scheduled_at = scheduled_at?;
    let request = FailoverRequest { leader, candidate, scheduled_at, confirmed_down, rebuild, requested_by };
    Ok((kind, request))
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
    let confirmed = |name: &MemberName| request.confirmed_down.contains(name);
    let left = view.unfenced(candidate).filter(|(name, _)| !confirmed(name));
    let mut left: Vec<String> = left.map(|(name, left)| ClusterView::unfenced_text(name, left)).collect();
    // Of the others the candidate sees whether they are standbys.
    let gone = |name: &&MemberName| {
        request.is_failover() && !view.members.contains_key(*name) && Some(*name) != candidate
    };
    let members: Vec<MemberName> =
        view.may_go_on().into_iter().filter(gone).filter(|name| !confirmed(name)).cloned().collect();
    if !members.is_empty() {
        left.push(StoreReason::MayGoOn { members }.to_string());
    }
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

/// Judges the answers of all possible candidates; one good one is enough.
async fn check_members(
    handle: &Handle,
    kind: LeadershipRequest,
    request: &FailoverRequest,
    view: &ClusterView,
    answers: Vec<(MemberName, PeerAnswer)>,
) -> Result<(), HttpAnswer> {
    if answers.is_empty() && request.candidate.is_none() {
        let lacking = match only_sync(view) {
            true => "can not find sync_standby",
            false => "cluster does not have members except leader",
        };
        return Err(HttpAnswer::text(412, format!("{} is not possible: {lacking}", kind.noun())));
    }
    let judged = answers.into_iter().map(|(name, answer)| (answer.eligible(), (name, answer)));
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

/// The answers of all possible candidates.
pub(super) async fn ask_candidates(
    handle: &Handle,
    request: &FailoverRequest,
    view: &ClusterView,
) -> Vec<(MemberName, PeerAnswer)> {
    let current = view.leader.as_ref().map(|key| &key.name);
    let possible = view.members.iter().filter(|(name, _)| match &request.candidate {
        Some(candidate) => *name == candidate,
        None if only_sync(view) => view.eligible_in(SyncMode::On, name).is_ok(),
        None => Some(*name) != current,
    });
    let scope = handle.status().scope.clone();
    let asked = possible.filter_map(|(name, member)| {
        Some((name, member.record.api_url.clone()?, view.identity_of(&scope, name)))
    });
    let ask = async |(name, url, who): (&MemberName, String, PeerIdentity)| {
        Some((name.clone(), handle.ask_peer(url, &who).await?))
    };
    futures::future::join_all(asked.map(ask)).await.into_iter().flatten().collect()
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
