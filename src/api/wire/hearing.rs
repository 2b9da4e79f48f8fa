//! What a standby hears of its leader, as `/patroni` shows it.

use serde_json::{Map, Value, json};

use crate::model::{HearingFacts, LeaderHearing, Suspicion};

/// Adds `leader_heartbeats`, where the leader has sent any. A leader is suspected when it is silent and no WAL of it
/// arrives, either.
pub(super) fn insert(body: &mut Map<String, Value>, facts: &HearingFacts, suspicion: Suspicion) {
    let (state, term) = match (suspicion, facts.hearing) {
        (Suspicion::Unknown, _) => return,
        (Suspicion::Suspects(term), _) => ("suspected", term),
        (Suspicion::Hears(term), LeaderHearing::Silent { .. }) => ("silent", term),
        (Suspicion::Hears(term), _) => ("heard", term),
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
        let shown = |hearing, suspicion| {
            let mut body = Map::new();
            let suspect_after = Duration::from_millis(750);
            insert(
                &mut body,
                &HearingFacts { hearing, heard_at: None, suspect_after, received: 0 },
                suspicion,
            );
            Value::Object(body)
        };
        assert_eq!(shown(LeaderHearing::Unknown, Suspicion::Unknown), json!({}));
        let (term, last) = (Term(7), Moment::default());
        let (heard, silent) = (LeaderHearing::Heard { term }, LeaderHearing::Silent { term, last });
        let cases = [
            (heard, Suspicion::Hears(term), "heard"),
            (silent, Suspicion::Hears(term), "silent"),
            (silent, Suspicion::Suspects(term), "suspected"),
        ];
        for (hearing, suspicion, state) in cases {
            let expected = json!({"state": state, "term": 7, "suspect_after_ms": 750});
            assert_eq!(shown(hearing, suspicion), json!({ "leader_heartbeats": expected }));
        }
    }
}
