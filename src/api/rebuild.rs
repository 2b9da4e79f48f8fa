//! A failover in a cluster that etcd does not know.

use super::answer::HttpAnswer;
use crate::model::{ClusterView, FailoverRequest};

/// A cluster that etcd does not know is rebuilt from the candidate's data only with the explicit option.
pub(super) fn check(request: &FailoverRequest, view: &ClusterView) -> Result<(), HttpAnswer> {
    let Some(candidate) = request.candidate.as_ref().filter(|_| request.is_failover()) else { return Ok(()) };
    let unknown = view.leader.is_none() && view.system_id().is_none();
    let holds_data = view.members.get(candidate).is_none_or(|key| key.record.holds_data());
    let why = match (request.rebuild, unknown, view.initialize.as_deref()) {
        (false, false, _) => return Ok(()),
        (_, true, Some(_)) => "another member is creating the cluster".to_owned(),
        (true, true, None) if holds_data => return Ok(()),
        (true, true, None) => format!("{candidate} has no data"),
        (true, false, _) => "etcd knows the cluster, or somebody leads: nothing is to be rebuilt".to_owned(),
        (false, true, None) => format!(
            "etcd knows no cluster. To make it anew from the data of {candidate}, say so (`rebuild`: true; `matriarch \
             failover --candidate {candidate} --rebuild`): what other members hold beyond it is lost"
        ),
    };
    Err(HttpAnswer::text(412, format!("failover is not possible: {why}")))
}
