//! `GET /preflight`: this member's facts for a switchover. `GET /switchover/check`: the findings for a switchover from
//! this leader, which is not begun.

use std::collections::BTreeMap;

use serde_json::json;

use super::answer::HttpAnswer;
use super::query::Query;
use super::sentences::answer_of;
use super::switchover::{self, LeadershipRequest};
use crate::agent::Handle;
use crate::model::{
    Ask, ClusterView, FailoverRequest, Finding, MemberName, PeerAnswer, Preflight, PreflightCandidate, Reply,
};

/// The facts of this member.
pub(super) async fn facts(handle: &Handle) -> HttpAnswer {
    match handle.preflight_facts().await {
        Ok(facts) => HttpAnswer::json(200, &json!(facts)),
        Err(why) => HttpAnswer::text(503, why),
    }
}

/// The findings, as JSON.
pub(super) async fn check(handle: &Handle, query: &Query) -> HttpAnswer {
    let findings = async {
        let candidate = query.first("candidate").map(MemberName::new).transpose();
        let candidate = candidate.map_err(|error| HttpAnswer::text(400, error.to_string()))?;
        findings(handle, candidate).await
    };
    match findings.await {
        Ok(findings) => HttpAnswer::json(200, &json!(findings)),
        Err(refusal) => refusal,
    }
}

/// Checks a switchover from this leader to `candidate`, or to the best standby.
///
/// # Errors
/// This member cannot check: it does not lead, or etcd does not answer.
pub(super) async fn findings(
    handle: &Handle,
    candidate: Option<MemberName>,
) -> Result<Vec<Finding>, HttpAnswer> {
    let view = handle.read_cluster().await.map_err(|error| HttpAnswer::unavailable(&error))?;
    let leader = handle.status().me.name.clone();
    leads(&leader, &view)?;
    let request = FailoverRequest { leader: Some(leader.clone()), candidate, ..FailoverRequest::default() };
    let (facts, answers) =
        tokio::join!(handle.preflight_facts(), switchover::ask_candidates(handle, &request, &view));
    let known = std::future::ready(answers.clone());
    let facts_of = async |(name, _): &(MemberName, PeerAnswer)| {
        let api_url = view.members.get(name).and_then(|member| member.record.api_url.as_deref());
        handle.preflight_facts_of(api_url.unwrap_or_default()).await
    };
    let (others, refused, judged) = tokio::join!(
        futures::future::join_all(answers.iter().map(facts_of)),
        switchover::may_request(handle, LeadershipRequest::Switchover, &request, &view, known),
        handle.ask(Ask::JudgeCandidates { answers: answers.clone() }),
    );
    let (unfit, refusal) = match judged {
        Reply::CandidatesJudged { unfit } => (unfit, None),
        refused => (BTreeMap::new(), Some(answer_of(&refused))),
    };
    let refusal = refused.err().or(refusal);
    let status = handle.status();
    let candidate = |((name, answer), facts): ((MemberName, PeerAnswer), _)| PreflightCandidate {
        unfit: unfit.get(&name).cloned(),
        name,
        answer,
        facts,
    };
    let preflight = Preflight {
        leader,
        timeline: status.postgres.answering().and_then(|sql| sql.timeline),
        facts,
        refusal: refusal.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()),
        candidates: answers.into_iter().zip(others).map(candidate).collect(),
        lag_bytes_max: status.settings.maximum_lag_on_failover,
        stop_within: status.settings.primary_stop_timeout,
    };
    Ok(preflight.findings())
}

/// Only the leader knows what a switchover from it meets.
fn leads(me: &MemberName, view: &ClusterView) -> Result<(), HttpAnswer> {
    match view.leader_member() {
        Some((name, _)) if name == me => Ok(()),
        Some((name, member)) => {
            let at = member.record.api_url.as_deref().unwrap_or("its REST interface");
            Err(HttpAnswer::text(412, format!("{me} does not lead: ask the leader, {name}, at {at}")))
        }
        None => Err(HttpAnswer::text(412, "the cluster has no leader, and a switchover needs one")),
    }
}
