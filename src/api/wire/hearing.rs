//! What a standby hears of its leader, as `/patroni` shows it.

use serde_json::{Map, Value, json};

use crate::model::{HearingFacts, LeaderHearing};

/// Adds `leader_heartbeats`, where the leader has sent any.
pub(super) fn insert(body: &mut Map<String, Value>, facts: &HearingFacts) {
    let (state, term) = match facts.hearing {
        LeaderHearing::Unknown => return,
        LeaderHearing::Heard { term } => ("heard", term),
        LeaderHearing::Silent { term, .. } => ("silent", term),
    };
    let suspect_after_ms = u64::try_from(facts.suspect_after.as_millis()).unwrap_or(u64::MAX);
    let value = json!({"state": state, "term": term, "suspect_after_ms": suspect_after_ms});
    body.insert("leader_heartbeats".into(), value);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Moment, Term};

    #[test]
    fn a_leader_that_sends_none_is_not_mentioned() {
        let shown = |hearing| {
            let mut body = Map::new();
            let suspect_after = Duration::from_millis(750);
            insert(&mut body, &HearingFacts { hearing, heard_at: None, suspect_after });
            Value::Object(body)
        };
        assert_eq!(shown(LeaderHearing::Unknown), json!({}));
        let silent = LeaderHearing::Silent { term: Term(7), last: Moment::default() };
        for (hearing, state) in [(LeaderHearing::Heard { term: Term(7) }, "heard"), (silent, "silent")] {
            let expected = json!({"state": state, "term": 7, "suspect_after_ms": 750});
            assert_eq!(shown(hearing), json!({ "leader_heartbeats": expected }));
        }
    }
}
