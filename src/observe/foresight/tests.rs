use super::*;
use crate::model::{LeaderKey, MemberKey, PeerIdentity, Role, SyncKey, SyncMode, SyncRecord, Tags, Term};

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a name")
}

/// m1 leads, and m2 and m3 are its standbys with positions.
fn cluster(positions: [u64; 2]) -> OutsideView {
    let record = |text: &str| serde_json::json!({"api_url": format!("http://{text}:8008/patroni"), "state": "running"});
    let key = |text: &str| MemberKey {
        record: serde_json::from_value(record(text)).expect("a record"),
        lease: None,
    };
    let view = ClusterView {
        revision: 10,
        listed: 10,
        leader: Some(LeaderKey { name: name("m1"), lease: Some(LeaseId(7)), term: Term(5) }),
        initialize: Some("42".to_owned()),
        members: ["m1", "m2", "m3"].map(|text| (name(text), key(text))).into(),
        ..ClusterView::default()
    };
    let answer = |text: &str, lsn: u64, in_recovery: bool| PeerAnswer {
        identity: PeerIdentity {
            scope: Some("herd".to_owned()),
            name: Some(name(text)),
            system_id: Some(42),
            session: None,
        },
        reachable: true,
        in_recovery,
        role: if in_recovery { Role::Replica } else { Role::Primary },
        lsn: Lsn(lsn),
        replayed: Lsn(lsn),
        exact: true,
        receives: in_recovery,
        timeline: Some(Timeline(1)),
        trouble: None,
        ..PeerAnswer::unreachable(START, String::new())
    };
    let [m2, m3] = positions;
    let answers = [("m1", 1000, false), ("m2", m2, true), ("m3", m3, true)];
    OutsideView {
        scope: "herd".to_owned(),
        view,
        answers: answers.map(|(text, lsn, standby)| (name(text), answer(text, lsn, standby))).into(),
        settings: Settings::default(),
        wall: WallTime(0),
    }
}

fn leaders(seen: &OutsideView) -> Vec<String> {
    let would = seen.without_leader();
    would.iter().filter(|(_, foresight)| foresight.leads).map(|(name, _)| name.to_string()).collect()
}

#[test]
fn the_standby_that_is_ahead_would_lead() {
    assert_eq!(leaders(&cluster([1000, 900])), ["m2"]);
    assert_eq!(leaders(&cluster([1000, 1000])), ["m2", "m3"], "etcd decides between equals");
    let behind = cluster([900, 1000]).without_leader();
    assert!(behind[&name("m2")].because.contains("m3"), "{behind:?}");
}

#[test]
fn tags_the_key_sync_and_silence_count_as_for_members() {
    let mut seen = cluster([1000, 900]);
    let tags: Tags = serde_json::from_value(serde_json::json!({"nofailover": true})).expect("tags");
    seen.answers.get_mut(&name("m2")).expect("it answers").tags = tags.clone();
    seen.view.members.get_mut(&name("m2")).expect("a member").record.tags = tags;
    assert_eq!(leaders(&seen), ["m3"]);
    let mut seen = cluster([1000, 1000]);
    seen.settings.sync.mode = SyncMode::On;
    let record = SyncRecord { leader: Some(name("m1")), quorum: 0, voters: [name("m3")].into() };
    seen.view.sync = Some(SyncKey { record, mod_revision: 3 });
    assert_eq!(leaders(&seen), ["m3"], "m2 is asynchronous");
    seen.answers.get_mut(&name("m3")).expect("it answers").reachable = false;
    assert_eq!(leaders(&seen), Vec::<String>::new());
}

#[test]
fn a_pause_keeps_everybody_from_leading() {
    let mut seen = cluster([1000, 1000]);
    seen.settings.pause = true;
    assert_eq!(leaders(&seen), Vec::<String>::new());
}
