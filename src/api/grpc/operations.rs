//! Operations and the check of a switchover, as messages: what REST answers as JSON.

use matriarch_proto::v1::{self, FindingVerdict, OperationState};
use serde_json::Value;

use crate::model::{self, Finding};

/// A finding of `switchover --check`.
pub(super) fn finding(finding: &Finding) -> v1::Finding {
    let word =
        |value: Option<Value>| value.and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default();
    let verdict = match finding.verdict {
        model::FindingVerdict::Fine => FindingVerdict::Fine,
        model::FindingVerdict::Warns => FindingVerdict::Warns,
        model::FindingVerdict::Refuses => FindingVerdict::Refuses,
    };
    v1::Finding {
        what: word(serde_json::to_value(finding.what).ok()),
        member: finding.member.to_string(),
        value: finding.value,
        unit: word(serde_json::to_value(finding.unit).ok()),
        limit: finding.limit,
        verdict: verdict.into(),
        text: finding.text.clone(),
    }
}

/// The body of `GET /operations/{id}`, which another member may have written.
pub(super) fn operation(body: &Value) -> v1::Operation {
    let text = |body: &Value, key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = |key: &str| text(body, key);
    let state = match own("state").as_str() {
        "scheduled" => OperationState::Scheduled,
        "under_way" => OperationState::UnderWay,
        "done" => OperationState::Done,
        "refused" => OperationState::Refused,
        _newer => OperationState::Unspecified,
    };
    let phase = |phase: &Value| v1::OperationPhase {
        phase: text(phase, "phase"),
        at: text(phase, "at"),
        by: text(phase, "by"),
        text: text(phase, "text"),
    };
    let phases = body.get("phases").and_then(Value::as_array);
    v1::Operation {
        id: body.get("id").and_then(Value::as_i64).unwrap_or_default(),
        kind: own("kind"),
        state: state.into(),
        from: own("from"),
        candidate: own("candidate"),
        requested_by: own("requested_by"),
        leader: own("leader"),
        because: own("because"),
        scheduled_at: own("scheduled_at"),
        ended_at: own("ended_at"),
        phases: phases.into_iter().flatten().map(phase).collect(),
    }
}
