//! Patroni's sentences for a candidate that may not lead: clients look for these words.

use super::answer::HttpAnswer;
use super::switchover::LeadershipRequest;
use crate::model::Ineligible;

/// `who` is the candidate, or the possible candidates.
pub(super) fn answer(kind: LeadershipRequest, who: &str, why: &Ineligible) -> HttpAnswer {
    HttpAnswer::text(412, sentence(kind, who, why))
}

fn sentence(kind: LeadershipRequest, who: &str, why: &Ineligible) -> String {
    let because = match why {
        Ineligible::NotSynchronous => return "candidate name does not match with sync_standby".to_owned(),
        Ineligible::NoMember => return "candidate does not exists".to_owned(),
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
    format!("{} is not possible: {because}", kind.noun())
}
