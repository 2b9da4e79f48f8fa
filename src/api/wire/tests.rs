use super::*;
use crate::api::tests;
use crate::api::tests::{name, primary, replica, synchronous, synchronous_member, view};
use crate::model::CloneProgress;
use crate::model::{FailoverKey, FailoverRequest, Moment, SyncMode, WallTime, json_spaced};
use std::time::Duration;

const NOW: Moment = Moment::from_millis(1_000_000);

#[test]
fn the_answer_of_a_primary_is_patronis() {
    let expected = concat!(
        r#"{"state": "running", "postmaster_start_time": "2026-11-22 21:50:10.915509+00:00", "role": "primary", "#,
        r#""server_version": 150018, "xlog": {"location": 1000}, "timeline": 2, "dcs_last_seen": 1795384262, "#,
        r#""database_system_identifier": "7711116464809554881", "#,
        r#""patroni": {"version": "4.1.5", "scope": "c", "name": "n1"}, "session": "0000000000c0ffee", "#,
        r#""position_is_exact": true, "receives_wal": false, "#,
        r#""store": {"cluster_id": 3, "revision": 80}, "#,
        r#""because": "all is well", "#,
        r#""guarantee": "Asynchronous: a failover may lose the last commits"}"#
    );
    assert_eq!(json_spaced(&patroni_body(&primary(NOW))), expected);
}

#[test]
fn the_answer_of_a_replica_is_patronis() {
    let mut status = replica(NOW);
    status.clone_progress = Some(CloneProgress { bytes: 50, total: 200, elapsed: Duration::from_secs(2) });
    let expected = concat!(
        r#"{"state": "running", "postmaster_start_time": "2026-11-22 21:50:10.915509+00:00", "role": "replica", "#,
        r#""server_version": 150018, "xlog": {"received_location": 900, "replayed_location": 800, "#,
        r#""replayed_timestamp": "2026-11-22 21:51:41.062250+00:00", "paused": false}, "timeline": 2, "#,
        r#""replication_state": "streaming", "dcs_last_seen": 1795384262, "tags": {"dc": "b"}, "#,
        r#""database_system_identifier": "7711116464809554881", "#,
        r#""patroni": {"version": "4.1.5", "scope": "c", "name": "n2"}, "session": "0000000000c0ffee", "#,
        r#""clone_progress": {"bytes": 50, "percent": 25, "rate": 25}, "position_is_exact": true, "receives_wal": true, "#,
        r#""store": {"cluster_id": 3, "revision": 80}, "#,
        r#""because": "all is well", "#,
        r#""guarantee": "Asynchronous: a failover may lose the last commits"}"#
    );
    assert_eq!(json_spaced(&patroni_body(&status)), expected);
}

#[test]
fn the_answer_shows_the_pods_role_and_trouble() {
    let mut status = primary(NOW);
    status.kubernetes = Some(tests::pod_in_trouble(NOW));
    let text = json_spaced(&patroni_body(&status));
    let expected = concat!(
        r#""kubernetes": {"role": "primary", "trouble": [{"task": "label", "failure": "forbidden", "in_a_row": 2, "#,
        r#""text": "pods is forbidden"}]}, "because""#
    );
    assert!(text.contains(expected), "{text}");
}

/// The key is at Patroni's position, and only on a standby that the key `sync` lists while a mode is on.
#[test]
fn the_answer_of_a_synchronous_standby_shows_it() {
    for (mode, voters, expected) in [
        (SyncMode::On, &["N2"][..], Some("sync_standby")),
        (SyncMode::Quorum, &["n2"], Some("quorum_standby")),
        (SyncMode::On, &["n3"], None),
        (SyncMode::Off, &["n2"], None),
    ] {
        let mut status = replica(NOW);
        synchronous_member(&mut status, mode, 0, voters);
        let text = json_spaced(&patroni_body(&status));
        for word in ["sync_standby", "quorum_standby"] {
            let found = text.contains(&format!(r#""paused": false}}, "{word}": true, "timeline""#));
            assert_eq!(found, expected == Some(word), "{mode:?} {voters:?} {word}: {text}");
        }
        assert_eq!(text.contains("_standby\""), expected.is_some(), "{text}");
        let mut leader = primary(NOW);
        synchronous_member(&mut leader, mode, 0, &["n1", "n2"]);
        assert!(!json_spaced(&patroni_body(&leader)).contains("_standby\""));
    }
    let mut status = replica(NOW);
    synchronous_member(&mut status, SyncMode::On, 0, &["n2"]);
    let sentence = "Synchronous: n2 confirms each commit; no acknowledged commit is lost if 1 member is lost";
    assert_eq!(patroni_body(&status)["guarantee"], sentence);
    status.view = None;
    let body = patroni_body(&status);
    assert_eq!((body.get("sync_standby"), body.get("guarantee")), (None, None));
}

#[test]
fn cluster_names_the_role_of_synchronous_standbys() {
    for (mode, voters, role) in [
        ("on", &["n2"][..], "sync_standby"),
        ("Quorum", &["n2"], "quorum_standby"),
        ("on", &[], "replica"),
        ("off", &["n2"], "replica"),
        // No configuration has switched it off: the key `sync` binds.
        ("nonsense", &["n2"], "quorum_standby"),
    ] {
        let mut view = view();
        synchronous(&mut view, mode, "n1", 0, voters);
        let body = cluster_body("c", &view);
        assert_eq!(
            (&body["members"][0]["role"], &body["members"][1]["role"]),
            (&json!("leader"), &json!(role))
        );
        assert_eq!(body["members"][1]["state"], "streaming");
    }
}

#[test]
fn a_watchdog_that_fails_is_shown_to_the_others() {
    let mut status = replica(NOW);
    assert_eq!(patroni_body(&status).get("watchdog_failed"), None);
    status.watchdog_failed = true;
    assert_eq!(patroni_body(&status)["watchdog_failed"], json!(true));
}

#[test]
fn a_leader_that_cannot_restart_in_place_says_so() {
    let mut status = primary(NOW);
    assert_eq!(patroni_body(&status).get("restart_begins_as_standby"), None);
    status.restart_begins_as_standby = true;
    assert_eq!(patroni_body(&status)["restart_begins_as_standby"], json!(true));
}

#[test]
fn a_silent_postgres_has_no_position() {
    let mut status = primary(NOW);
    status.postgres.sql_trouble = Some("timeout".to_owned());
    status.view = None;
    let body = patroni_body(&status);
    assert_eq!((&body["state"], body.get("xlog")), (&json!("unknown"), None));
    assert_eq!(body["cluster_unlocked"], json!(true));
}

#[test]
fn the_answer_for_the_cluster_is_patronis() {
    let expected = concat!(
        r#"{"members": [{"name": "n1", "role": "leader", "state": "running", "api_url": "http://127.0.0.1:1/patroni", "#,
        r#""host": "10.0.0.1", "port": 5432, "timeline": 2}, "#,
        r#"{"name": "n2", "role": "replica", "state": "streaming", "api_url": "http://127.0.0.1:2/patroni", "#,
        r#""host": "fd00::2", "port": 5433, "timeline": 2, "tags": {"dc": "b"}, "receive_lag": 100, "#,
        r#""receive_lsn": "0/384", "replay_lag": 200, "replay_lsn": "0/320", "lag": 100, "lsn": "0/384"}], "#,
        r#""scope": "c"}"#
    );
    assert_eq!(json_spaced(&cluster_body("c", &view())), expected);
}

#[test]
fn missing_facts_are_unknown() {
    let mut view = view();
    view.leader = None;
    view.status = None;
    view.config.as_mut().expect("set").text = r#"{"pause":true}"#.to_owned();
    let request = FailoverRequest {
        leader: Some(tests::name("n1")),
        candidate: None,
        scheduled_at: Some(WallTime(1_796_032_800_000)),
        confirmed_down: Vec::new(),
        rebuild: false,
        requested_by: None,
    };
    view.failover = Some(FailoverKey { request, mod_revision: 1 });
    let body = cluster_body("c", &view);
    assert_eq!(body["members"][0]["lag"], json!("unknown"));
    assert_eq!(body["members"][0]["receive_lsn"], json!("unknown"));
    assert_eq!(body["members"][0]["role"], json!("replica"));
    assert_eq!(body["pause"], json!(true));
    assert_eq!(body["scheduled_switchover"], json!({"at": "2026-11-30T10:00:00+00:00", "from": "n1"}));
    assert_eq!(member_rows(&view)[1].name, name("n2"));
}

#[test]
fn reads_addresses() {
    let cases = [
        ("postgres://10.0.0.1:5433/postgres", Some(("10.0.0.1", 5433))),
        ("postgres://u:p@db.example/x?y=1", Some(("db.example", 5432))),
        ("http://[::1]:8008/patroni", Some(("::1", 8008))),
        ("http://[::1]/patroni", Some(("::1", 5432))),
        ("http://host:port/", None),
        ("nothing", None),
        ("http:///", None),
    ];
    for (url, expected) in cases {
        assert_eq!(address(url), expected.map(|(host, port)| (host.to_owned(), port)), "{url}");
    }
}
