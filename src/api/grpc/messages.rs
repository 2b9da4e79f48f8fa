//! The published status and the view of etcd as messages: pure functions.

use std::time::Duration;

use matriarch_proto::{Timestamp, v1};

use crate::agent::Status;
use crate::api::probes;
use crate::api::query::Query;
use crate::api::wire::{self, MemberRow};
use crate::model::{ClusterView, Guarantee, HistoryLine, Lsn, Moment, Role, SqlFacts, Standby, WallTime};

/// The status of this member at `now`.
pub(super) fn status(status: &Status, now: Moment) -> v1::Status {
    let answering = status.postgres.answering();
    v1::Status {
        scope: status.scope.clone(),
        name: status.me.name.to_string(),
        session: status.me.session.to_string(),
        state: wire::state_now(status).as_str().to_owned(),
        role: postgres_role(wire::role_now(status)).into(),
        primary: probes::health(status, "/primary", &Query::default(), now) == 200,
        postgres: answering.map(|sql| postgres(sql, now)),
        lease: Some(lease(status, now)),
        cluster: status.view.as_deref().map(|view| cluster(&status.scope, view)),
        paused: status.settings.pause,
        because: status.because.clone(),
        hand_over: status.hand_over.as_ref().map(ToString::to_string).unwrap_or_default(),
        failsafe_active: status.failsafe_active,
        pending_restart: status.record.pending_restart == Some(true),
    }
}

fn postgres(sql: &SqlFacts, now: Moment) -> v1::Postgres {
    let known = |lsn: Lsn| lsn.is_known().then_some(lsn.0);
    let (flushed_lsn, received_lsn, replayed_lsn) = match &sql.standby {
        Standby::No => (known(sql.flushed), None, None),
        Standby::Yes { received, replayed, .. } => (None, known(*received), known(*replayed)),
    };
    v1::Postgres {
        age_ms: milliseconds(now.since(sql.at)),
        server_version: sql.server_version,
        timeline: sql.timeline.map(|timeline| timeline.0),
        flushed_lsn,
        received_lsn,
        replayed_lsn,
        replication_state: wire::replication_state(sql).unwrap_or_default().to_owned(),
    }
}

fn lease(status: &Status, now: Moment) -> v1::Lease {
    let lease = &status.lease;
    let term = lease.leading_at(now);
    v1::Lease {
        leading: term.is_some(),
        term: term.map(|term| term.0),
        remaining_ms: lease.deadline.map_or(0, |deadline| milliseconds(deadline.since(now))),
        ttl_ms: milliseconds(lease.ttl),
        trouble: lease.trouble.clone().unwrap_or_default(),
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn postgres_role(role: Role) -> v1::PostgresRole {
    match role {
        Role::Primary => v1::PostgresRole::Primary,
        Role::Promoted => v1::PostgresRole::Promoted,
        Role::Replica => v1::PostgresRole::Replica,
        Role::StandbyLeader => v1::PostgresRole::StandbyLeader,
        Role::Demoted => v1::PostgresRole::Demoted,
        Role::Uninitialized => v1::PostgresRole::Uninitialized,
    }
}

/// The cluster, as `view` shows it.
pub(super) fn cluster(scope: &str, view: &ClusterView) -> v1::Cluster {
    let name = |name: Option<&_>| name.map(ToString::to_string).unwrap_or_default();
    let scheduled = view.failover.as_ref().and_then(|key| {
        let request = &key.request;
        Some(v1::ScheduledSwitchover {
            at: Some(timestamp(request.scheduled_at?)),
            leader: name(request.leader.as_ref()),
            candidate: name(request.candidate.as_ref()),
        })
    });
    v1::Cluster {
        scope: scope.to_owned(),
        revision: view.revision,
        leader: name(view.leader.as_ref().map(|key| &key.name)),
        term: view.leader.as_ref().map(|key| key.term.0),
        members: wire::member_rows(view).into_iter().map(member).collect(),
        paused: wire::paused(view),
        scheduled_switchover: scheduled,
        guarantee: Guarantee::of(&wire::sync_settings(view), view).to_string(),
        unfenced: view.unfenced(None).map(|(name, _)| name.to_string()).collect(),
    }
}

fn member(row: MemberRow) -> v1::Member {
    let known = |lsn: Option<Lsn>| lsn.filter(|lsn| lsn.is_known()).map(|lsn| lsn.0);
    let (host, port) = row.address.unwrap_or_default();
    let record = row.record;
    v1::Member {
        name: row.name.to_string(),
        role: member_role(row.role).into(),
        state: row.state,
        api_url: record.api_url.unwrap_or_default(),
        host,
        port: port.into(),
        timeline: record.timeline.map(|timeline| timeline.0),
        lsn: known(record.xlog_location),
        lag_bytes: row.lag.and_then(|lag| lag.furthest.bytes),
        receive_lsn: known(record.receive_lsn),
        receive_lag_bytes: row.lag.and_then(|lag| lag.receive.bytes),
        replay_lsn: known(record.replay_lsn),
        replay_lag_bytes: row.lag.and_then(|lag| lag.replay.bytes),
        pending_restart: record.pending_restart == Some(true),
        tags: record.tags.0.iter().map(|(key, value)| (key.clone(), value.to_string())).collect(),
    }
}

/// The role with the word of `/cluster`.
fn member_role(word: &str) -> v1::MemberRole {
    match word {
        "leader" => v1::MemberRole::Leader,
        "standby_leader" => v1::MemberRole::StandbyLeader,
        "sync_standby" => v1::MemberRole::SyncStandby,
        "quorum_standby" => v1::MemberRole::QuorumStandby,
        "replica" => v1::MemberRole::Replica,
        _ => v1::MemberRole::Unspecified,
    }
}

/// A line of the history.
pub(super) fn history_entry(line: &HistoryLine) -> v1::HistoryEntry {
    v1::HistoryEntry {
        timeline: line.parent.0,
        lsn: line.lsn.0,
        reason: line.reason.clone(),
        at: line.at.clone().unwrap_or_default(),
        leader: line.promoted.clone().unwrap_or_default(),
    }
}

fn timestamp(at: WallTime) -> Timestamp {
    let nanos = i32::try_from(at.0.rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    Timestamp { seconds: at.0.div_euclid(1000), nanos }
}

/// A time as text, as REST reads it.
pub(super) fn text_of(at: &Timestamp) -> String {
    WallTime(at.seconds.saturating_mul(1000).saturating_add(i64::from(at.nanos / 1_000_000))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{primary, replica, view};
    use crate::os::clock;

    #[test]
    fn a_primary_and_its_cluster() {
        let now = clock::now();
        let found = status(&primary(now), now + Duration::from_millis(250));
        assert_eq!((found.name.as_str(), found.state.as_str()), ("n1", "running"));
        assert_eq!((found.role(), found.primary), (v1::PostgresRole::Primary, true));
        let lease = found.lease.expect("there is one");
        assert_eq!((lease.leading, lease.term, lease.remaining_ms), (true, Some(3), 9750));
        let postgres = found.postgres.expect("it answers");
        assert_eq!((postgres.age_ms, postgres.flushed_lsn, postgres.received_lsn), (250, Some(1000), None));
        let cluster = found.cluster.expect("etcd answers");
        assert_eq!((cluster.leader.as_str(), cluster.term, cluster.revision), ("n1", Some(3), 7));
        let [n1, n2] = &cluster.members[..] else { panic!("{cluster:?}") };
        assert_eq!((n1.role(), n1.lsn, n1.lag_bytes), (v1::MemberRole::Leader, Some(1000), None));
        assert_eq!((n2.role(), n2.state.as_str()), (v1::MemberRole::Replica, "streaming"));
        assert_eq!(
            (n2.lag_bytes, n2.receive_lag_bytes, n2.replay_lag_bytes),
            (Some(100), Some(100), Some(200))
        );
        assert_eq!((n2.host.as_str(), n2.port), ("fd00::2", 5433));
        assert_eq!(n2.tags.get("dc").map(String::as_str), Some("\"b\""));
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let now = clock::now();
        let mut standby = replica(now);
        standby.view = None;
        standby.postgres.sql_trouble = Some("it hangs".to_owned());
        let found = status(&standby, now);
        assert_eq!((found.postgres, found.cluster, found.primary), (None, None, false));
        assert_eq!(found.state, "unknown");
        let mut view = view();
        view.leader = None;
        for member in view.members.values_mut() {
            member.record.xlog_location = None;
            member.record.receive_lsn = None;
        }
        let cluster = cluster("c", &view);
        assert_eq!((cluster.leader.as_str(), cluster.term), ("", None));
        assert!(cluster.members.iter().all(|member| member.lsn.is_none() && member.receive_lsn.is_none()));
    }

    #[test]
    fn every_word_for_a_role_is_known() {
        for word in ["leader", "standby_leader", "sync_standby", "quorum_standby", "replica"] {
            let expected = format!("MEMBER_ROLE_{}", word.to_uppercase());
            assert_eq!(member_role(word).as_str_name(), expected);
        }
    }

    #[test]
    fn times_survive_both_ways() {
        for at in [1_795_384_347_031, 0, -1] {
            assert_eq!(text_of(&timestamp(WallTime(at))), WallTime(at).to_string());
        }
        assert_eq!(text_of(&Timestamp { seconds: i64::MAX, nanos: -1 }).parse::<i64>().ok(), Some(i64::MAX));
    }
}
