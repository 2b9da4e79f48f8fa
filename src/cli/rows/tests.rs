use super::*;
use crate::cli::output::Format;
use crate::model::{ConfigKey, LeaderKey, Term};

pub(in crate::cli) fn sample() -> ClusterView {
    let mut view = ClusterView { initialize: Some("7001".into()), ..ClusterView::default() };
    let records = [
        (
            "m1",
            r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running","role":"primary","timeline":2}"#,
        ),
        (
            "m2",
            r#"{"conn_url":"postgres://10.0.0.2:5433/postgres","state":"running","role":"replica","timeline":2,
            "receive_lsn":83886176,"replay_lsn":80740352,"xlog_location":83886176,"replication_state":"streaming"}"#,
        ),
        (
            "m3",
            r#"{"conn_url":"postgres://10.0.0.3:5432/postgres","state":"creating replica","role":"uninitialized",
            "tags":{"replicatefrom":"m2"},"clone_progress":{"bytes":12582912,"percent":40,"rate":2097152}}"#,
        ),
    ];
    for (name, text) in records {
        let record = serde_json::from_str(text).expect("a valid record");
        view.members.insert(MemberName::new(name).expect("a name"), MemberKey { record, lease: None });
    }
    let name = MemberName::new("m1").expect("a name");
    view.leader = Some(LeaderKey { name, lease: None, term: Term(5) });
    view.status = serde_json::from_str(r#"{"optime":83886176}"#).ok();
    view.config = Some(ConfigKey { text: r#"{"pause":true}"#.into(), mod_revision: 3 });
    view
}

#[test]
fn the_table_is_patronictls() {
    let text = members("demo", &sample(), Detail::default()).render(Format::Table).expect("a table");
    let expected = "\
+ Cluster: demo (7001) --+---------+------------------+----+-------------+-----+------------+-----+-------------------+----------------------+
| Member | Host          | Role    | State            | TL | Receive LSN | Lag | Replay LSN | Lag | Tags              | Progress             |
+--------+---------------+---------+------------------+----+-------------+-----+------------+-----+-------------------+----------------------+
| m1     | 10.0.0.1:5432 | Leader  | running          |  2 |             |     |            |     |                   |                      |
| m2     | 10.0.0.2:5433 | Replica | streaming        |  2 |   0/5000060 |   0 |  0/4D00000 |   3 |                   |                      |
| m3     | 10.0.0.3:5432 | Replica | creating replica |    |     unknown |     |    unknown |     | replicatefrom: m2 | 40% 12.0 MB 2.0 MB/s |
+--------+---------------+---------+------------------+----+-------------+-----+------------+-----+-------------------+----------------------+
 Asynchronous: a failover may lose the last commits
 Maintenance mode: on
";
    assert_eq!(text, expected);
}

/// The leader published its position before the others: a lag counts from its furthest known position.
#[test]
fn a_lag_counts_from_the_leaders_furthest_known_position() {
    let mut view = sample();
    let mut ahead = view.members[&MemberName::new("m2").expect("a name")].clone();
    ahead.record.receive_lsn = Some(Lsn(83_886_176 + 40 * MEGABYTE));
    view.members.insert(MemberName::new("m4").expect("a name"), ahead.clone());
    // A position on another timeline tells nothing about the leader.
    ahead.record.receive_lsn = Some(Lsn(83_886_176 + 900 * MEGABYTE));
    ahead.record.timeline = Some(crate::model::Timeline(1));
    view.members.insert(MemberName::new("m5").expect("a name"), ahead);
    let sheet = members("demo", &view, Detail::default());
    let lags: Vec<_> = sheet.rows.iter().map(|row| row[7].clone()).collect();
    assert_eq!(lags, [json!(null), json!(40), json!(null), json!(0), json!(0)]);
    let body = wire::cluster_body("demo", &view);
    assert_eq!(
        (&body["members"][1]["receive_lag"], &body["members"][3]["receive_lag"]),
        (&json!(40 * MEGABYTE), &json!(0))
    );
    view.status = None;
    assert_eq!(wire::cluster_body("demo", &view)["members"][1]["receive_lag"], "unknown");
}

#[test]
fn trouble_with_the_kubernetes_api_has_a_column_of_its_own() {
    let mut view = sample();
    let trouble = |member: &mut MemberKey| member.record.kubernetes = Some("label: forbidden".to_owned());
    view.members.values_mut().take(1).for_each(trouble);
    let text = members("demo", &view, Detail::default()).render(Format::Table).expect("a table");
    let cells = |line: usize| {
        text.lines().nth(line).unwrap_or_default().split('|').map(str::trim).collect::<Vec<_>>()
    };
    assert_eq!((cells(1)[12], cells(3)[12]), ("Kubernetes", "label: forbidden"), "{text}");
}

/// The sample in a synchronous mode (as JSON), with `m2` in the key `sync`.
pub(in crate::cli) fn synchronous(mode: &str, quorum: usize) -> ClusterView {
    let record = json!({"leader": "m1", "quorum": quorum, "voters": ["m2"]});
    let sync = serde_json::from_value(json!({"record": record, "mod_revision": 4})).ok();
    let config = ConfigKey { text: format!(r#"{{"synchronous_mode":{mode}}}"#), mod_revision: 3 };
    ClusterView { sync, config: Some(config), ..sample() }
}

#[test]
fn synchronous_standbys_have_their_role_in_the_table() {
    for (mode, role) in [("true", "Sync Standby"), (r#""quorum""#, "Quorum Standby"), ("false", "Replica")] {
        let sheet = members("demo", &synchronous(mode, 0), Detail::default());
        let roles: Vec<&Value> = sheet.rows.iter().map(|row| &row[3]).collect();
        assert_eq!(roles, ["Leader", role, "Replica"], "{mode}");
        let table = sheet.render(Format::Table).expect("a table");
        assert_eq!(table.contains("m2 confirms each commit; no acknowledged"), mode != "false", "{table}");
        for format in [Format::Json, Format::Yaml, Format::Tsv] {
            let text = sheet.render(format).expect("text");
            assert!(!text.contains("commit"), "{text}");
        }
    }
}

#[test]
fn the_tree_has_replicas_below_their_source() {
    let sheet = members("demo", &sample(), Detail { extended: false, tree: true });
    let names: Vec<&str> = sheet.rows.iter().filter_map(|row| row[1].as_str()).collect();
    assert_eq!(names, ["m1", "+ m2", "  + m3"]);
    assert_eq!(sheet.rows[2][10], json!("{replicatefrom: m2}"), "a tree has a line for each member");
}

#[test]
fn addresses() {
    assert_eq!(host(Some("postgres://u@h:1/p"), true), "h:1");
    assert_eq!(host(Some("postgres://[::1]/p"), false), "::1");
    assert_eq!(host(Some("postgres://[::1]/p"), true), "[::1]:5432");
}

/// The key `config`, which began or ended the pause, is gone: a member still applies the pause.
#[test]
fn without_a_configuration_the_members_show_a_pause() {
    let mut view = sample();
    view.config = None;
    assert!(!is_paused(&view));
    view.members.values_mut().take(1).for_each(|member| member.record.pause = Some(true));
    assert!(is_paused(&view));
    view.config = Some(ConfigKey { text: "{}".into(), mod_revision: 4 });
    assert!(!is_paused(&view));
    // As members read it.
    view.config = Some(ConfigKey { text: r#"{"pause": "on"}"#.into(), mod_revision: 5 });
    assert!(is_paused(&view));
}

#[test]
fn a_row_of_several_lines_has_a_border() {
    let mut view = sample();
    let tags = r#"{"state":"running","role":"replica","tags":{"a":1,"b":2}}"#;
    let name = MemberName::new("m3").expect("a name");
    let record = serde_json::from_str(tags).expect("a valid record");
    view.members.insert(name, MemberKey { record, lease: None });
    let text = members("demo", &view, Detail::default()).render(Format::Table).expect("a table");
    assert_eq!(text.lines().filter(|line| line.starts_with('+')).count(), 5, "{text}");
}
