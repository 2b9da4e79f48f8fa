//! REST's refusals as status codes, with the same sentences.

use tonic::{Code, Status};

use crate::api::answer::HttpAnswer;
use crate::api::sentences::answer_of;
use crate::model::Reply;

/// The status for a refusal of REST.
pub(super) fn status(refusal: &HttpAnswer) -> Status {
    let code = match refusal.status {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        412 | 500 => Code::FailedPrecondition,
        400..=499 => Code::InvalidArgument,
        _ => Code::Unavailable,
    };
    Status::new(code, sentence(refusal))
}

/// The sentence of an answer of REST.
pub(super) fn sentence(answer: &HttpAnswer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The sentence for a success, or the status.
pub(super) fn outcome(reply: &Reply) -> Result<String, Status> {
    let text = sentence(&answer_of(reply));
    let code = match reply {
        Reply::Restarted
        | Reply::RestartScheduled
        | Reply::ScheduleDeleted
        | Reply::Reinitializing
        | Reply::Promised
        | Reply::CandidatesJudged { .. } => return Ok(text),
        Reply::NotPromised(_)
        | Reply::RestartRefused(_)
        | Reply::ReinitializeRefused(_)
        | Reply::SwitchoverRefused(_) => Code::FailedPrecondition,
        Reply::AlreadyScheduled => Code::AlreadyExists,
        Reply::NotScheduled => Code::NotFound,
        Reply::RestartNotBegun(_) | Reply::StartFails { .. } => Code::Aborted,
        Reply::RestartUnfinished => Code::DeadlineExceeded,
        Reply::Unanswered => Code::Unavailable,
    };
    Err(Status::new(code, text))
}
