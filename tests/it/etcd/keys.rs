//! The content of each key, and the comparison under which it changes.

use matriarch::core::store::Cas;
use matriarch::etcd::EtcdError;
use matriarch::model::{ClusterStatus, FailoverRequest, HistoryLine, LeaseId, Lsn, Timeline, WallTime};

use super::{ANY, BEFORE_ALL, Server, granted, is_done, keep, name, read, record, term};

#[tokio::test]
async fn every_key_reads_back() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keeper = keep(server.setup(), 10);
    let lease = granted(&keeper).await;
    let me = name("n-1");
    assert!(is_done(etcd.commit(&etcd.keys().win_initialize(lease, 0)).await));
    assert_eq!(etcd.commit(&etcd.keys().win_initialize(LeaseId(lease.0 + 1), 0)).await, Ok(Cas::Lost));
    assert_eq!(read(&etcd).await.initialize.as_deref(), Some(""));
    assert!(is_done(
        etcd.commit(&etcd.keys().finish_initialize(lease, 7_000_000_000_000_000_001, r#"{"ttl":30,"ä":1}"#))
            .await
    ));
    assert_eq!(etcd.commit(&etcd.keys().finish_initialize(lease, 5, "{}")).await, Ok(Cas::Lost));

    let term = term(etcd.commit(&etcd.keys().take_leadership(&me, lease, ANY)).await.expect("etcd is up"));
    assert_eq!(
        etcd.commit(&etcd.keys().take_leadership(&me, lease, ANY)).await,
        Ok(Cas::Done(term.0)),
        "a repetition is known"
    );
    let member = record(r#"{"state":"running","role":"primary","version":"4.1.5","tags":{"ö":"x"}}"#);
    assert!(is_done(etcd.commit(&etcd.keys().publish_member(&me, lease, &member)).await));
    let status = ClusterStatus { optime: Some(Lsn(117_441_192)), ..ClusterStatus::default() };
    assert!(is_done(etcd.commit(&etcd.keys().publish_status((term, lease), &status)).await));
    let history = vec![HistoryLine {
        parent: Timeline(1),
        lsn: Lsn(84_170_568),
        reason: "no recovery target specified".to_owned(),
        at: Some("2026-11-22T21:52:27.031702+00:00".to_owned()),
        promoted: Some("n-1".to_owned()),
    }];
    assert!(is_done(etcd.commit(&etcd.keys().publish_history((term, lease), &history)).await));
    let request = FailoverRequest {
        leader: Some(me.clone()),
        candidate: Some(name("n-2")),
        scheduled_at: Some(WallTime(1_795_384_347_031)),
        confirmed_down: vec![name("n-3")],
        rebuild: true,
        requested_by: None,
    };
    assert!(is_done(etcd.write_failover(Some(&request), Some(0)).await));
    let view = read(&etcd).await;
    let leader = view.leader.expect("a leader");
    assert_eq!((leader.name, leader.lease, leader.term), (me.clone(), Some(lease), term));
    assert_eq!(view.members[&me].record, member);
    assert_eq!(view.members[&me].lease, Some(lease));
    assert_eq!(view.initialize.as_deref(), Some("7000000000000000001"));
    assert_eq!((view.status, view.history), (Some(status), Some(history)));
    let config = view.config.expect("a configuration");
    assert_eq!(config.text, r#"{"ttl":30,"\u00e4":1}"#);
    let failover = view.failover.expect("a request");
    assert_eq!(failover.request, request);
    let stored = server.ctl(&["get", "--print-value-only", "/service/test/failover"]);
    assert_eq!(
        stored.trim(),
        r#"{"leader":"n-1","member":"n-2","scheduled_at":"2026-11-22T21:52:27.031+00:00","confirmed_down":["n-3"],"rebuild":true}"#
    );
}

#[tokio::test]
async fn a_change_over_an_older_revision_is_lost() {
    let server = Server::start().await;
    let etcd = server.connect();
    let keeper = keep(server.setup(), 10);
    let lease = granted(&keeper).await;
    let me = name("n-1");
    assert!(is_done(etcd.commit(&etcd.keys().win_initialize(lease, 0)).await));
    for former in ["sync", "status", "history", "generation"] {
        server.ctl(&["put", &etcd.keys().path(former), "{}"]);
    }
    assert!(is_done(etcd.commit(&etcd.keys().finish_initialize(lease, 7, r#"{"ttl":30}"#)).await));
    let made = read(&etcd).await;
    assert!(made.sync.is_none() && made.status.is_none() && made.history.is_none(), "of a former cluster");
    assert!(made.generation.is_none(), "of a former cluster");
    let term = term(etcd.commit(&etcd.keys().take_leadership(&me, lease, ANY)).await.expect("etcd is up"));
    let status = ClusterStatus { optime: Some(Lsn(7)), ..ClusterStatus::default() };
    assert!(is_done(etcd.commit(&etcd.keys().publish_status((term, lease), &status)).await));
    let request = FailoverRequest { candidate: Some(name("n-2")), ..FailoverRequest::default() };
    assert!(is_done(etcd.write_failover(Some(&request), Some(0)).await));
    let view = read(&etcd).await;
    let config = view.config.expect("a configuration");
    let failover = view.failover.expect("a request");
    assert_eq!(
        etcd.commit(&etcd.keys().write_config("{}", Some(config.mod_revision + 1))).await,
        Ok(Cas::Lost)
    );
    assert!(is_done(etcd.commit(&etcd.keys().write_config("{\"a\":1}", Some(config.mod_revision))).await));
    let path = etcd.keys().path("config");
    let now = etcd.get(&path).await.expect("etcd is up");
    assert_eq!(etcd.keys().restore_config((term, lease), "{}", now.as_ref()), None);
    server.ctl(&["put", "/service/test/config", "rubbish"]);
    assert_eq!(read(&etcd).await.config, None);
    let now = etcd.get(&path).await.expect("etcd is up");
    let restored = etcd.keys().restore_config((term, lease), "{\"b\":1}", now.as_ref());
    assert!(is_done(etcd.commit(&restored.expect("it holds rubbish")).await));
    assert!(is_done(etcd.commit(&etcd.keys().restore_initialize((term, lease), 6_000_000_000_000)).await));
    assert!(is_done(etcd.write_failover(None, Some(failover.mod_revision)).await));
    assert_eq!(server.ctl(&["get", "--print-value-only", "/service/test/failover"]).trim(), "{}");
    assert_eq!(read(&etcd).await.failover, None);
    assert!(is_done(etcd.write_failover(Some(&request), Some(0)).await), "an empty request is none");
    let other = FailoverRequest { candidate: Some(name("n-3")), ..FailoverRequest::default() };
    assert_eq!(etcd.write_failover(Some(&other), Some(0)).await, Ok(Cas::Lost));
    assert!(is_done(etcd.commit(&etcd.keys().release_leadership((term, lease), None)).await));
    assert_eq!(etcd.commit(&etcd.keys().take_leadership(&me, lease, BEFORE_ALL)).await, Ok(Cas::Lost));
    assert_eq!(
        etcd.commit(&etcd.keys().publish_member(&me, LeaseId(4711), &record("{}"))).await,
        Err(EtcdError::LeaseNotFound)
    );
}
