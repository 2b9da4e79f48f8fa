//! The phases of a switchover or failover.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use matriarch_proto::v1::{LeadershipPhase, LeadershipProgress};
use serde_json::{Map, Value};
use tonic::Status;

use super::stream::MessageSender;
use super::{messages, refusal};
use crate::agent::{HandOverStatus, Handle};
use crate::api::switchover::{self, AcceptedRequest, ChangeOutcome, LeadershipRequest};
use crate::model::{HandOverStep, MemberName, MemberState, Moment, OperationId, Role};
use crate::os::clock;

/// How long the new leader's PostgreSQL is waited for.
const PROMOTED_WITHIN: Duration = Duration::from_secs(60);

/// The caller of a change. It may be gone: the change goes on.
pub(super) struct ProgressReport<T> {
    began_at: Moment,
    /// Known once it is written.
    operation: OnceLock<OperationId>,
    message: fn(LeadershipProgress) -> T,
    sender: MessageSender<T>,
}

impl<T> ProgressReport<T> {
    pub(super) fn new(sender: MessageSender<T>, message: fn(LeadershipProgress) -> T) -> ProgressReport<T> {
        ProgressReport { began_at: clock::now(), operation: OnceLock::new(), message, sender }
    }

    async fn phase(&self, phase: LeadershipPhase, text: impl Into<String>) {
        let elapsed_ms = messages::milliseconds(clock::now().since(self.began_at));
        let operation = self.operation.get().copied().unwrap_or_default();
        let progress = LeadershipProgress { phase: phase.into(), elapsed_ms, text: text.into(), operation };
        self.sender.send((self.message)(progress)).await;
    }
}

/// Checks the request, writes it, and reports its phases to the end.
pub(super) async fn change<T>(
    handle: &Handle,
    kind: LeadershipRequest,
    body: &Map<String, Value>,
    report: &ProgressReport<T>,
) {
    let checking = format!("checking whether a {} is possible", kind.noun());
    report.phase(LeadershipPhase::Checking, checking).await;
    let wait = match switchover::begin(handle, kind, body).await {
        Err(why) => return report.sender.fail(refusal::status(&why)).await,
        Ok(AcceptedRequest { operation, wait }) => {
            // It is set once: a report is of one request.
            let _ = report.operation.set(operation);
            wait
        }
    };
    let Some(wait) = wait else {
        return report.phase(LeadershipPhase::Scheduled, switchover::SCHEDULED).await;
    };
    report.phase(LeadershipPhase::Requested, "the request is written to etcd").await;
    let outcome = tokio::select! {
        outcome = wait.outcome() => outcome,
        never = report_steps(handle, report) => match never {},
    };
    match outcome {
        ChangeOutcome::Changed { leader, text } => {
            report.phase(LeadershipPhase::LeaderChanged, text).await;
            report_promotion(handle, &leader, report).await;
        }
        ChangeOutcome::Failed { text } => report.sender.fail(Status::aborted(text)).await,
        ChangeOutcome::Unknown { text } => report.sender.fail(Status::deadline_exceeded(text)).await,
    }
}

/// Reports each step that this member takes as the leader.
async fn report_steps<T>(handle: &Handle, report: &ProgressReport<T>) -> Infallible {
    let mut statuses = handle.statuses();
    let mut reported = None;
    loop {
        let hand_over = statuses.borrow_and_update().hand_over.clone();
        if let Some(HandOverStatus::UnderWay(step)) = hand_over
            && reported.as_ref() != Some(&step)
        {
            report.phase(phase_of(&step), step.to_string()).await;
            reported = Some(step);
        }
        if statuses.changed().await.is_err() {
            // The loop has ended; the wait for the outcome ends by its own deadline.
            std::future::pending().await
        }
    }
}

fn phase_of(step: &HandOverStep) -> LeadershipPhase {
    match step {
        HandOverStep::Choosing => LeadershipPhase::Choosing,
        HandOverStep::Checkpoint { .. } => LeadershipPhase::Checkpoint,
        HandOverStep::Stopping { .. } => LeadershipPhase::Stopping,
        HandOverStep::Proving { .. } => LeadershipPhase::Proving,
        HandOverStep::Moving { .. } => LeadershipPhase::Moving,
    }
}

/// Waits until the record of the new leader says that its PostgreSQL accepts writes, or leads a standby cluster.
async fn report_promotion<T>(handle: &Handle, leader: &MemberName, report: &ProgressReport<T>) {
    let mut statuses = handle.statuses();
    let promoted = statuses.wait_for(|status| {
        let member = status.view.as_deref().and_then(|view| view.leader_member());
        member.is_some_and(|(name, member)| {
            let role = member.record.role;
            name == leader
                && matches!(role, Role::Primary | Role::StandbyLeader)
                && member.record.state == MemberState::Running
        })
    });
    let promoted = tokio::time::timeout(PROMOTED_WITHIN, promoted).await.is_ok_and(|found| found.is_ok());
    if promoted {
        return report.phase(LeadershipPhase::Promoted, format!("{leader} is promoted")).await;
    }
    let text = format!("{leader} leads, and its PostgreSQL is not known to be promoted yet");
    report.sender.fail(Status::deadline_exceeded(text)).await;
}
