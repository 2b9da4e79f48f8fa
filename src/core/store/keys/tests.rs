//! Legacy forms, and values that cannot be read.

use super::*;

fn view(keys: &[(&str, &str)]) -> Result<ClusterView, CorruptKey> {
    let stored = |(name, value): &(&str, &str)| {
        let key =
            StoredKey { value: value.as_bytes().to_vec(), lease: 0, mod_revision: 3, create_revision: 3 };
        (format!("/service/x/{name}"), key)
    };
    Keys::new("//service/x").view(&keys.iter().map(stored).collect(), 9)
}

#[test]
fn everything_beyond_ascii_is_escaped() {
    assert_eq!(compact(&json!({ "ä": "😀\u{7f}\"" })), r#"{"\u00e4":"\ud83d\ude00\u007f\""}"#);
}

#[test]
fn legacy_forms_are_read() {
    let seen = view(&[
        ("optime/leader", "42"),
        ("members/a", "postgres://h:5432/postgres?application_name=http://h:8008/patroni"),
        ("failover", "a:"),
        ("status", "17"),
    ])
    .expect("nothing is corrupt");
    let member = &seen.members[&MemberName::new("a").expect("a valid name")].record;
    assert_eq!(member.conn_url.as_deref(), Some("postgres://h:5432/postgres"));
    assert_eq!(member.api_url.as_deref(), Some("http://h:8008/patroni"));
    assert_eq!(seen.status.expect("a status").optime, Some(Lsn(17)));
    assert!(seen.failover.is_some_and(|key| key.request.candidate.is_none()));
    let old = view(&[("optime/leader", "42")]).expect("nothing is corrupt");
    assert_eq!(old.status.expect("a status").optime, Some(Lsn(42)));
}

/// `conn_kwargs` counts where there is no `conn_url`.
#[test]
fn host_and_port_stand_for_a_conn_url() {
    let conn_url = |text: &str| member_record(text).conn_url;
    for (text, expected) in [
        (r#"{"conn_kwargs":{"host":"h","port":5433},"state":"running"}"#, Some("postgres://h:5433")),
        (r#"{"conn_kwargs":{"host":"h","port":"5433"}}"#, Some("postgres://h:5433")),
        (r#"{"conn_kwargs":{"host":"fe80::1"},"state":7}"#, Some("postgres://[fe80::1]:5432")),
        (r#"{"conn_kwargs":{"host":"h"},"conn_url":"postgres://other:1/d"}"#, Some("postgres://other:1/d")),
        (r#"{"conn_kwargs":{"port":5433}}"#, None),
        (r#"{"conn_kwargs":{"host":"h","port":"x"}}"#, None),
        (r#"{"conn_kwargs":"h"}"#, None),
    ] {
        assert_eq!(conn_url(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn a_status_may_hold_json_in_strings() {
    let text = r#"{"optime":"5","timeline":3,"slots":"{\"a\":7}","retain_slots":"[\"b\"]"}"#;
    let status = status(text);
    assert_eq!((status.optime, status.timeline), (Some(Lsn(5)), Some(Timeline(3))));
    assert_eq!(status.slots, Some(BTreeMap::from([("a".to_owned(), Lsn(7))])));
    assert_eq!(status.retain_slots, Some(vec!["b".to_owned()]));
}

#[test]
fn the_record_of_synchronous_replication_is_read_and_written() {
    let read = |text: &str| view(&[("sync", text)]).expect("nothing is corrupt").sync.expect("a key").record;
    for text in [
        r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#,
        r#"{"leader":"a","quorum":0,"sync_standby":null}"#,
        r#"{"leader":null,"quorum":0,"sync_standby":null}"#,
    ] {
        assert_eq!(sync_text(&read(text)), text);
    }
    let old = read(r#"{"leader":"a","quorum":"1","sync_standby":"c, b"}"#);
    assert_eq!(sync_text(&old), r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#);
    assert!(!read("[").is_in_force() && !read("{}").is_in_force());
}

#[test]
fn only_a_leader_key_without_a_name_is_corrupt() {
    for key in ["sync", "status", "history", "config", "failover", "members/a", "initialize"] {
        assert!(view(&[(key, "\u{1}{[")]).is_ok(), "{key}");
    }
    assert!(matches!(view(&[("leader", "")]), Err(CorruptKey { .. })));
}

#[test]
fn schedules_are_read_with_any_offset() {
    let at = |text: &str| wall_time(text).map(|at| at.0);
    assert_eq!(at("2026-11-22T23:52:27.031702+02:00"), at("2026-11-22T21:52:27.031Z"));
    assert_eq!(at("2026-11-22T21:52:27"), None);
}
