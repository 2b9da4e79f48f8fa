//! Reads the body of `/patroni`, an answer of another member, which may run an older program.

use serde_json::Value;

use crate::model::{
    Lsn, MemberName, Moment, PeerAnswer, PeerIdentity, Role, SessionId, Suspicion, Term, Timeline,
};

/// The identity in an answer: Patroni's object `patroni`, its `database_system_identifier`, and Matriarch's `session`.
pub(super) fn identity(body: &Value) -> PeerIdentity {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let patroni = |key: &str| text(body.get("patroni").and_then(|patroni| patroni.get(key)));
    PeerIdentity {
        scope: patroni("scope"),
        name: patroni("name").and_then(|name| MemberName::new(name).ok()),
        system_id: text(body.get("database_system_identifier")).and_then(|id| id.parse().ok()),
        session: text(body.get("session")).and_then(|session| SessionId::try_from(session).ok()),
    }
}

/// Parses the body. Without `xlog` its Postgres did not answer, and the member does not count.
pub(super) fn read(asked_at: Moment, text: &str) -> PeerAnswer {
    let body: Value = match serde_json::from_str(text) {
        Ok(body) => body,
        Err(error) => return PeerAnswer::unreachable(asked_at, format!("its answer is no JSON: {error}")),
    };
    let read = |key: &str| body.get(key).cloned();
    let role = read("role").and_then(|role| serde_json::from_value(role).ok()).unwrap_or(Role::Uninitialized);
    let tags = read("tags").and_then(|tags| serde_json::from_value(tags).ok()).unwrap_or_default();
    let watchdog_failed = read("watchdog_failed") == Some(Value::Bool(true));
    let timeline = body.get("timeline").and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let mut answer = PeerAnswer {
        identity: identity(&body),
        role,
        tags,
        watchdog_failed,
        pod_ends: read("pod_ends").is_some(),
        no_data: read("no_data") == Some(Value::Bool(true)),
        store: read("store").and_then(|mark| serde_json::from_value(mark).ok()).unwrap_or_default(),
        promised: read("failsafe_mode_is_active") == Some(Value::Bool(true)),
        suspicion: suspicion(&body),
        recruited: body.get("recruited").and_then(Value::as_i64),
        yields: read("yields_leadership") == Some(Value::Bool(true)),
        timeline: timeline.filter(|number| *number > 0).map(Timeline),
        ..PeerAnswer::unreachable(asked_at, "its Postgres does not answer".to_owned())
    };
    let Some(xlog) = body.get("xlog").or_else(|| body.get("wal")).filter(|xlog| xlog.is_object()) else {
        return answer;
    };
    let position = |key: &str| xlog.get(key).and_then(Value::as_u64).map(Lsn);
    answer.reachable = true;
    answer.exact = read("position_is_exact") == Some(Value::Bool(true));
    answer.receives = read("receives_wal") != Some(Value::Bool(false));
    answer.standbys = standbys(&body);
    answer.trouble = None;
    match position("location") {
        Some(location) => answer.lsn = location,
        None => {
            answer.in_recovery = true;
            answer.replayed = position("replayed_location").unwrap_or_default();
            answer.lsn = position("received_location").unwrap_or_default().max(answer.replayed);
        }
    }
    answer
}

fn suspicion(body: &Value) -> Suspicion {
    let heartbeats = body.get("leader_heartbeats");
    let term = heartbeats.and_then(|it| it.get("term")).and_then(Value::as_i64).map(Term);
    let state = heartbeats.and_then(|it| it.get("state")).and_then(Value::as_str);
    match (term, state) {
        (Some(term), Some("suspected")) => Suspicion::Suspects(term),
        (Some(term), Some(_)) => Suspicion::Hears(term),
        (_, _) => Suspicion::Unknown,
    }
}

/// The rows of `pg_stat_replication` that stream.
fn standbys(body: &Value) -> Vec<String> {
    let rows = body.get("replication").and_then(Value::as_array).into_iter().flatten();
    let streaming = rows.filter(|row| row.get("state").and_then(Value::as_str) == Some("streaming"));
    streaming.filter_map(|row| Some(row.get("application_name")?.as_str()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> PeerAnswer {
        read(Moment::from_millis(1), text)
    }

    #[test]
    fn reads_a_primary_and_a_standby() {
        let primary = answer(
            r#"{"state": "running", "role": "master", "xlog": {"location": 83886176}, "timeline": 1, "replication": [
                {"application_name": "n2", "state": "streaming"}, {"application_name": "n3", "state": "backup"}, 7]}"#,
        );
        assert_eq!(primary.standbys, ["n2"]);
        assert!(primary.reachable && !primary.in_recovery);
        assert_eq!(
            (primary.role, primary.lsn, primary.timeline),
            (Role::Primary, Lsn(83_886_176), Some(Timeline(1)))
        );
        let standby = answer(
            r#"{"role": "replica", "wal": {"received_location": 5, "replayed_location": 7, "paused": false},
                "timeline": null, "tags": {"nofailover": true}, "watchdog_failed": true}"#,
        );
        assert!(
            standby.reachable && standby.in_recovery && standby.watchdog_failed && standby.tags.nofailover()
        );
        assert_eq!((standby.lsn, standby.replayed, standby.timeline), (Lsn(7), Lsn(7), None));
    }

    #[test]
    fn reads_what_it_says_of_the_leader() {
        let said = |text: &str| (answer(text).suspicion, answer(text).recruited);
        let of = |state: &str| format!(r#"{{"leader_heartbeats": {{"state": "{state}", "term": 9}}}}"#);
        assert_eq!(said(&of("suspected")).0, Suspicion::Suspects(Term(9)));
        assert_eq!(said(&of("heard")).0, Suspicion::Hears(Term(9)));
        assert_eq!(said(&of("silent")).0, Suspicion::Hears(Term(9)));
        assert_eq!(said(r#"{"recruited": 12}"#), (Suspicion::Unknown, Some(12)));
        for text in
            ["{}", r#"{"leader_heartbeats": "heard"}"#, r#"{"leader_heartbeats": {"state": "heard"}}"#]
        {
            assert_eq!(said(text), (Suspicion::Unknown, None), "{text}");
        }
    }

    #[test]
    fn reads_who_answered() {
        let matriarch = answer(
            r#"{"database_system_identifier": "7001", "patroni": {"version": "4.1.5", "scope": "c", "name": "n1"},
                "session": "00000000000000ff"}"#,
        );
        let expected = PeerIdentity {
            scope: Some("c".to_owned()),
            name: MemberName::new("n1").ok(),
            system_id: Some(7001),
            session: Some(SessionId(255)),
        };
        assert_eq!(matriarch.identity, expected);
        for text in ["{}", r#"{"patroni": "n1", "session": 5, "database_system_identifier": 7001}"#] {
            assert_eq!(answer(text).identity, PeerIdentity::default(), "{text}");
        }
    }

    #[test]
    fn without_a_position_a_member_does_not_count() {
        for text in ["", "[]", "{}", "<html>", r#"{"role": "replica", "xlog": null}"#] {
            let answer = answer(text);
            assert!(!answer.reachable && answer.trouble.is_some(), "{text}");
        }
    }
}
