//! The sentences of the answers to orders, in one table. Clients of Patroni look for its words, so they are used where
//! Patroni has an answer. Everywhere else in this program an answer is a value.

use super::answer::HttpAnswer;
use super::switchover::LeadershipRequest;
use crate::agent::OrderError;
use crate::model::{FailsafeRefusal, Ineligible, ReinitializeRefusal, Reply, RestartRefusal};

/// The answer to a restart, a reinitialization or a question in failsafe mode.
pub(super) fn answer_of(reply: &Reply) -> HttpAnswer {
    let (status, text): (u16, String) = match reply {
        Reply::Restarted => (200, "restarted successfully".into()),
        Reply::RestartScheduled => (202, "Restart scheduled".into()),
        Reply::ScheduleDeleted => (200, "scheduled restart deleted".into()),
        Reply::Reinitializing => (200, "reinitialize started".into()),
        Reply::Promised => (200, "Accepted".into()),
        Reply::NotPromised(why @ FailsafeRefusal::Off) => (502, no_promise(why)),
        Reply::NotPromised(why) => (500, no_promise(why)),
        Reply::AlreadyScheduled => (409, "another restart is already scheduled".into()),
        Reply::NotScheduled => (404, "no restart is scheduled".into()),
        Reply::RestartRefused(why) => (503, no_restart(*why)),
        Reply::ReinitializeRefused(why) => (503, no_reinitialization(*why)),
        Reply::RestartNotBegun(because) => (503, format!("not restarted: {because}")),
        Reply::RestartUnfinished => (503, "restart initiated but PostgreSQL is still starting".into()),
        Reply::StartFails { why } => (503, format!("PostgreSQL does not start, it is tried again: {why}")),
        Reply::CandidatesJudged { unfit } => {
            let unfit: Vec<String> = unfit.iter().map(|(name, why)| format!("{name} {why}")).collect();
            (200, unfit.join("; "))
        }
        Reply::SwitchoverRefused(why) => (503, why.to_string()),
        Reply::Unanswered => (503, OrderError::Gone.to_string()),
    };
    HttpAnswer::text(status, text)
}

fn no_restart(why: RestartRefusal) -> String {
    match why {
        RestartRefusal::Busy(job) => format!("{job} already in progress"),
        RestartRefusal::AlreadyAsked => "restart or switchover already in progress".into(),
        RestartRefusal::NotRunning => "PostgreSQL is not running".into(),
        RestartRefusal::Silent => "PostgreSQL runs and does not answer: it recovers, or hangs".into(),
        RestartRefusal::OtherRole => "host role mismatch".into(),
        RestartRefusal::OtherVersion => "postgres version mismatch".into(),
        RestartRefusal::NotPending => "pending restart flag is not set".into(),
    }
}

fn no_reinitialization(why: ReinitializeRefusal) -> String {
    match why {
        ReinitializeRefusal::NotLookedYet => "the data directory has not been looked at yet".into(),
        ReinitializeRefusal::ForeignData => "the data directory belongs to another cluster".into(),
        ReinitializeRefusal::Busy(job) => format!("{job} already in progress"),
        ReinitializeRefusal::NoLeader => "Cluster has no leader, can not reinitialize".into(),
        ReinitializeRefusal::Leads => "I am the leader, can not reinitialize".into(),
    }
}

fn no_promise(why: &FailsafeRefusal) -> String {
    match why {
        FailsafeRefusal::Off => "failsafe_mode is not enabled".into(),
        FailsafeRefusal::NotAsked { scope, member } => {
            format!("this is not {member} of the cluster {scope}")
        }
        FailsafeRefusal::Leads => "Running as a leader".into(),
        FailsafeRefusal::TakesLeadership => "the leader key is being taken".into(),
        FailsafeRefusal::AnotherLeads { leader } => format!("{leader} leads"),
        FailsafeRefusal::PromisedToAnother { leader } => format!("{leader} was promised the same"),
    }
}

/// A candidate may not lead; `who` is the candidate, or the possible candidates.
pub(super) fn not_eligible(kind: LeadershipRequest, who: &str, why: &Ineligible) -> HttpAnswer {
    let because = match why {
        Ineligible::NotSynchronous => {
            return HttpAnswer::text(412, "candidate name does not match with sync_standby");
        }
        Ineligible::NoMember => return HttpAnswer::text(412, "candidate does not exists"),
        Ineligible::Leads => "candidate leads already".to_owned(),
        Ineligible::NotStreaming { from } => format!(
            "{who} does not stream from {from}, the leader, and would lack what it writes last. See its PostgreSQL's \
             log, and whether pg_hba.conf and the replication user there let it in"
        ),
        Ineligible::Silent { .. }
        | Ineligible::NoFailoverTag
        | Ineligible::WatchdogFailed
        | Ineligible::PodEnds
        | Ineligible::NotStandby
        | Ineligible::Yields
        | Ineligible::NotInFailsafe
        | Ineligible::TooFarBehind { .. }
        | Ineligible::OtherTimeline
        | Ineligible::NotVouchedFor => "no good candidates have been found".to_owned(),
    };
    HttpAnswer::text(412, format!("{} is not possible: {because}", kind.noun()))
}
