use super::*;
use crate::api::tests::{primary, replica, synchronous_member};
use crate::model::{JobKind, Leading as Lease, SyncMode, Tags};
use serde_json::json;

const NOW: Moment = Moment::from_millis(1_000_000);

type Change = fn(&mut Status);

fn demoted(status: &mut Status) {
    status.lease.leading = Lease::No;
}

fn silent(status: &mut Status) {
    status.postgres.sql_trouble = Some("timeout".to_owned());
}

fn unpromoted(status: &mut Status) {
    let sql = replica(NOW).postgres.sql;
    status.postgres.sql = sql;
    status.role = Role::Promoted;
}

fn stale(status: &mut Status) {
    let sql = status.postgres.sql.as_mut().expect("set");
    sql.at = NOW - PROOF_AGE_MAX - Duration::from_millis(1);
}

fn being_stopped(status: &mut Status) {
    status.job = Some(JobKind::Stop);
}

fn at_the_fence(status: &mut Status) {
    status.lease.deadline = Some(NOW + Duration::from_millis(999));
}

fn standby_cluster(status: &mut Status) {
    status.role = Role::StandbyLeader;
    status.settings.standby_cluster = Some(Default::default());
    status.postgres.sql = replica(NOW).postgres.sql;
}

fn etcd_away(status: &mut Status) {
    status.view = None;
}

fn etcd_away_in_pause(status: &mut Status) {
    status.view = None;
    status.settings.pause = true;
    status.lease.leading = Lease::Unknown;
}

fn sync_standby(status: &mut Status) {
    synchronous_member(status, SyncMode::On, 0, &["n2"]);
}

fn quorum_standby(status: &mut Status) {
    synchronous_member(status, SyncMode::Quorum, 0, &["n2"]);
}

fn not_named(status: &mut Status) {
    synchronous_member(status, SyncMode::On, 0, &["n3"]);
}

fn mode_off(status: &mut Status) {
    synchronous_member(status, SyncMode::Off, 0, &["n2"]);
}

fn named_and_not_balanced(status: &mut Status) {
    sync_standby(status);
    not_balanced(status);
}

fn not_balanced(status: &mut Status) {
    status.me.tags = tags();
    status.me.tags.0.insert("noloadbalance".to_owned(), true.into());
}

fn starting(status: &mut Status) {
    status.state = MemberState::Starting;
}

fn tags() -> Tags {
    serde_json::from_value(json!({"dc": "b", "n": 1.4, "nofailover": true})).expect("an object")
}

fn as_is(_: &mut Status) {}

/// Every situation with every path; the expectation lists the paths that answer 200.
#[test]
fn every_path_in_every_situation() {
    let paths = [
        "/",
        "/leader",
        "/primary",
        "/standby-leader",
        "/replica",
        "/read-only",
        "/read-write",
        "/health",
        "/sync",
        "/async",
        "/read-only-sync",
        "/nonsense",
    ];
    let leads = "/ /leader /primary /read-only /read-write /health /read-only-sync";
    let follows = "/replica /read-only /health /async";
    let cases: [(&str, Status, Change, &str); 16] = [
        ("leader", primary(NOW), as_is, leads),
        ("leader without its lease", primary(NOW), demoted, "/health"),
        ("leader whose Postgres does not answer", primary(NOW), silent, "/leader"),
        (
            "leader before promotion ended",
            primary(NOW),
            unpromoted,
            "/leader /replica /read-only /health /async",
        ),
        ("leader with an old proof", primary(NOW), stale, "/leader /health"),
        ("leader that is being stopped", primary(NOW), being_stopped, "/leader /health"),
        ("leader whose lease runs out", primary(NOW), at_the_fence, "/leader /health"),
        (
            "leader with etcd away",
            primary(NOW),
            etcd_away,
            "/ /leader /primary /read-only /read-write /health",
        ),
        (
            "paused primary, etcd away",
            primary(NOW),
            etcd_away_in_pause,
            "/ /leader /primary /read-only /read-write /health",
        ),
        (
            "standby leader",
            primary(NOW),
            standby_cluster,
            "/leader /standby-leader /read-only /health /read-only-sync",
        ),
        ("replica", replica(NOW), as_is, follows),
        ("replica with etcd away", replica(NOW), etcd_away, "/replica /read-only /health"),
        ("paused replica, etcd away", replica(NOW), etcd_away_in_pause, "/replica /read-only /health"),
        ("replica whose Postgres does not answer", replica(NOW), silent, ""),
        ("replica that wants no load", replica(NOW), not_balanced, "/health"),
        ("replica that is starting", replica(NOW), starting, ""),
    ];
    for (situation, mut status, change, expected) in cases {
        change(&mut status);
        let well: Vec<&str> =
            paths.into_iter().filter(|path| health(&status, path, &Query::default(), NOW) == OK).collect();
        assert_eq!(well.join(" "), expected, "{situation}");
    }
}

#[test]
fn paths_match_by_substring_and_in_order() {
    let cases = [
        ("/foo/leader", OK, UNAVAILABLE),
        ("/xmastery", OK, UNAVAILABLE),
        ("/xreplicay", UNAVAILABLE, OK),
        ("/standby_leader/replica", UNAVAILABLE, UNAVAILABLE),
        ("/leader/replica", OK, UNAVAILABLE),
        ("/Leader", UNAVAILABLE, UNAVAILABLE),
        ("/async/", UNAVAILABLE, UNAVAILABLE),
        ("/read-only-quorum", OK, UNAVAILABLE),
        ("/healthy", OK, OK),
    ];
    for (path, leader, follower) in cases {
        assert_eq!(health(&primary(NOW), path, &Query::default(), NOW), leader, "primary {path}");
        assert_eq!(health(&replica(NOW), path, &Query::default(), NOW), follower, "replica {path}");
    }
}

#[test]
fn query_parameters_restrict_a_check() {
    let cases = [
        ("/replica?lag=199", UNAVAILABLE),
        ("/replica?lag=200", OK),
        ("/replica?lag=1kB", OK),
        ("/replica?lag=lots", OK),
        ("/replica?replication_state=streaming", OK),
        ("/replica?replication_state=in+archive+recovery", UNAVAILABLE),
        ("/replica?tag_dc=b&tag_n=1.4&tag_nofailover=true", OK),
        ("/replica?tag_dc=a", UNAVAILABLE),
        ("/replica?tag_dc=b&tag_zone=1", UNAVAILABLE),
        ("/health?tag_dc=a", UNAVAILABLE),
    ];
    let mut status = replica(NOW);
    status.me.tags = tags();
    for (url, expected) in cases {
        let (path, query) = url.split_once('?').expect("has a query");
        assert_eq!(health(&status, path, &Query::parse(query), NOW), expected, "{url}");
    }
    let query = Query::parse("tag_dc=a");
    assert_eq!(health(&primary(NOW), "/primary", &query, NOW), OK, "tags do not filter the primary");
    assert_eq!(health(&primary(NOW), "/read-only", &query, NOW), UNAVAILABLE, "but they do on /read-only");
}

#[test]
fn a_lease_that_ended_a_nanosecond_ago_is_no_primary() {
    let status = primary(NOW);
    let deadline = status.lease.deadline.expect("set");
    for path in ["/leader", "/primary", "/"] {
        assert_eq!(health(&status, path, &Query::default(), deadline), UNAVAILABLE, "{path}");
    }
}

#[test]
fn liveness_depends_on_the_loop_alone() {
    let late = |status: &Status, by: u64| liveness(status, status.next_tick_by + Duration::from_secs(by));
    let (mut leader, mut follower) = (primary(NOW), replica(NOW));
    silent(&mut leader);
    etcd_away(&mut follower);
    assert_eq!((late(&leader, 9), late(&leader, 10)), (OK, UNAVAILABLE));
    assert_eq!((late(&follower, 19), late(&follower, 20)), (OK, UNAVAILABLE));
    leader.settings.pause = true;
    assert_eq!(late(&leader, 1000), OK);
}

#[test]
fn the_leader_and_close_standbys_are_ready() {
    let ready = |status: &Status, query: &str| readiness(status, &Query::parse(query), NOW);
    let mut leader = primary(NOW);
    silent(&mut leader);
    assert_eq!(ready(&leader, ""), OK);
    demoted(&mut leader);
    assert_eq!(ready(&leader, ""), UNAVAILABLE);
    let mut follower = replica(NOW);
    assert_eq!(ready(&follower, ""), OK);
    assert_eq!((ready(&follower, "lag=199"), ready(&follower, "lag=200")), (UNAVAILABLE, OK));
    assert_eq!(
        (ready(&follower, "lag=99&mode=write"), ready(&follower, "lag=100&mode=write")),
        (UNAVAILABLE, OK)
    );
    etcd_away(&mut follower);
    assert_eq!(ready(&follower, ""), OK, "the receiver still knows the end of WAL");
    starting(&mut follower);
    assert_eq!(ready(&follower, ""), UNAVAILABLE);
}

/// Without a leader no standby streams, and readers have no other server.
#[test]
fn a_standby_that_streamed_recently_is_ready() {
    let ready = |status: &Status, query: &str| readiness(status, &Query::parse(query), NOW);
    let mut orphan = replica(NOW);
    let sql = orphan.postgres.sql.as_mut().expect("set");
    let Standby::Yes { receiver, .. } = &mut sql.standby else { panic!("it is a standby") };
    *receiver = None;
    assert_eq!(ready(&orphan, ""), UNAVAILABLE, "it never streamed: how far behind it is nobody knows");
    orphan.streamed_at = Some(NOW - Duration::from_secs(20));
    assert_eq!(ready(&orphan, ""), OK);
    assert_eq!((ready(&orphan, "stale=20"), ready(&orphan, "stale=19.9")), (OK, UNAVAILABLE));
    assert_eq!(ready(&orphan, "lag=1"), UNAVAILABLE, "what was written when it streamed last counts");
    etcd_away(&mut orphan);
    assert_eq!(ready(&orphan, ""), OK, "and etcd is away, too");
    orphan.streamed_at = Some(NOW - STALE_MAX - Duration::from_millis(1));
    assert_eq!(ready(&orphan, ""), UNAVAILABLE);
    orphan.streamed_at = Some(NOW);
    assert_eq!(ready(&orphan, ""), OK);
    orphan.lacks_removed_wal = true;
    assert_eq!(ready(&orphan, ""), UNAVAILABLE, "it will not catch up");
    orphan.lacks_removed_wal = false;
    silent(&mut orphan);
    assert_eq!(ready(&orphan, ""), UNAVAILABLE, "it cannot answer");
}

#[test]
fn paths_for_synchronous_standbys() {
    let paths = [
        "/sync",
        "/synchronous",
        "/quorum",
        "/async",
        "/asynchronous",
        "/read-only-sync",
        "/read-only-synchronous",
        "/read-only-quorum",
        "/sync/",
        "/read-only",
    ];
    let sync = "/sync /synchronous /read-only-sync /read-only-synchronous /read-only";
    let asynchronous = "/async /asynchronous /read-only";
    let leads = "/read-only-sync /read-only-synchronous /read-only-quorum /read-only";
    let cases: [(&str, Status, Change, &str); 7] = [
        ("in mode on", replica(NOW), sync_standby, sync),
        ("in mode quorum", replica(NOW), quorum_standby, "/quorum /read-only-quorum /read-only"),
        ("not in the key", replica(NOW), not_named, asynchronous),
        ("mode off", replica(NOW), mode_off, asynchronous),
        ("no load, please", replica(NOW), named_and_not_balanced, ""),
        ("leader in mode on", primary(NOW), sync_standby, leads),
        ("leader in mode quorum", primary(NOW), quorum_standby, leads),
    ];
    for (situation, mut status, change, expected) in cases {
        change(&mut status);
        let well: Vec<&str> =
            paths.into_iter().filter(|path| health(&status, path, &Query::default(), NOW) == OK).collect();
        assert_eq!(well.join(" "), expected, "{situation}");
    }
    let mut status = replica(NOW);
    sync_standby(&mut status);
    for (query, expected) in
        [("lag=199", UNAVAILABLE), ("lag=200", OK), ("tag_dc=b", OK), ("tag_dc=a", UNAVAILABLE)]
    {
        assert_eq!(health(&status, "/sync", &Query::parse(query), NOW), expected, "{query}");
    }
}

#[test]
fn sizes_are_parsed() {
    let cases = [
        ("10", Some(10)),
        ("1.5kB", Some(1536)),
        ("2 GB", Some(2 << 30)),
        ("-1", Some(-1)),
        ("1mb", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(size_in_bytes(text), expected, "{text}");
    }
}

#[test]
fn startup_is_over_when_postgres_answers_or_advances() {
    let minute = Duration::from_secs(60);
    let recovering = |status: &mut Status, at: Moment| {
        silent(status);
        status.recovered_at = Some(at);
    };
    let down = |status: &mut Status| status.postgres.process = Process::Down { exit: None };
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Status), u16);
    let cases: [Case<'_>; 7] = [
        ("answers", &|_| {}, OK),
        ("silent", &|status| silent(status), UNAVAILABLE),
        ("recovers", &|status| recovering(status, NOW - minute), OK),
        ("recovers, and has stood still", &|status| recovering(status, NOW - minute * 5), UNAVAILABLE),
        ("down", &|status| down(status), UNAVAILABLE),
        (
            "down, and being cloned",
            &|status| {
                down(status);
                status.job = Some(JobKind::Clone);
            },
            OK,
        ),
        (
            "down, and waiting for etcd",
            &|status| {
                down(status);
                status.etcd_last_seen = 0;
            },
            OK,
        ),
    ];
    for (situation, change, expected) in cases {
        let mut status = replica(NOW);
        change(&mut status);
        assert_eq!(startup(&status, NOW), expected, "{situation}");
    }
}
