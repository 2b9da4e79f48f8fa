//! The check before a switchover, from the request to the findings.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Rig, name, primary, replica, rig};
use crate::model::{Ask, HandOverRefusal, Ineligible, PreflightFacts, Reply};
use crate::os::clock;

async fn findings(rig: &Rig, path: &str) -> Vec<Value> {
    let (status, body) = rig.call("GET", path, None).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("a list")
}

fn of<'a>(findings: &'a [Value], what: &str) -> &'a Value {
    findings.iter().find(|finding| finding["what"] == what).unwrap_or_else(|| panic!("{what}: {findings:?}"))
}

#[tokio::test]
async fn a_switchover_that_would_be_refused_is_not_requested() {
    let rig = rig(primary(clock::now())).await;
    let unfit = BTreeMap::from([(name("n2"), Ineligible::OtherTimeline)]);
    rig.world().reply = Reply::CandidatesJudged { unfit };
    let facts = json!(PreflightFacts { replay_paused: true, ..PreflightFacts::default() }).to_string();
    rig.world().peer_bodies.insert("http://127.0.0.1:2/preflight".to_owned(), (200, facts));
    let found = findings(&rig, "/switchover/check?candidate=n2").await;
    assert_eq!(of(&found, "request")["verdict"], "fine", "{found:?}");
    let candidate = of(&found, "candidate");
    assert_eq!((&candidate["verdict"], &candidate["member"]), (&json!("refuses"), &json!("n2")));
    assert_eq!(of(&found, "timeline")["verdict"], "refuses", "by the same judgement");
    assert_eq!(of(&found, "replay_held")["verdict"], "warns", "its own facts");
    rig.world().peer_bodies.clear();
    let without = findings(&rig, "/switchover/check?candidate=n2").await;
    assert!(
        of(&without, "facts")["text"].as_str().is_some_and(|text| text.ends_with("silent")),
        "{without:?}"
    );
    rig.world().asked.truncate(1);
    let world = rig.world();
    assert!(world.failover.is_empty(), "nothing was written");
    let [Ask::JudgeCandidates { answers }] = world.asked.as_slice() else { panic!("{:?}", world.asked) };
    assert_eq!(answers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["n2"]);
}

/// The refusals are those of `POST /switchover`, in its words.
#[tokio::test]
async fn a_request_is_refused_as_the_real_one() {
    let rig = rig(primary(clock::now())).await;
    rig.world().reply = Reply::CandidatesJudged { unfit: BTreeMap::new() };
    rig.world().leader_standbys = Vec::new();
    for candidate in ["n1", "n9", "n2"] {
        let body = json!({"leader": "n1", "candidate": candidate});
        rig.status.send_modify(|status| {
            let mut without = (**status).clone();
            without.postgres.sql.as_mut().expect("set").sync.walsenders.clear();
            *status = std::sync::Arc::new(without);
        });
        let (_, refusal) = rig.call("POST", "/switchover", Some(body)).await;
        let found = findings(&rig, &format!("/switchover/check?candidate={candidate}")).await;
        assert_eq!(of(&found, "request")["verdict"], "refuses", "{candidate}: {found:?}");
        assert_eq!(of(&found, "request")["text"], refusal);
    }
    rig.world().reply =
        Reply::SwitchoverRefused(HandOverRefusal::WritesRefused { why: "its disk is full".to_owned() });
    let found = findings(&rig, "/switchover/check").await;
    assert_eq!(of(&found, "request")["verdict"], "refuses");
}

#[tokio::test]
async fn only_the_leader_checks_and_each_member_tells_its_facts() {
    let rig = rig(replica(clock::now())).await;
    let (status, text) = rig.call("GET", "/switchover/check", None).await;
    assert_eq!(status, 412, "{text}");
    assert!(text.contains("ask the leader, n1, at http://127.0.0.1:1/patroni"), "{text}");
    assert_eq!(rig.call("GET", "/switchover/check?candidate=a%2Fb", None).await.0, 400);
    let (status, text) = rig.call("GET", "/preflight", None).await;
    let facts: PreflightFacts = serde_json::from_str(&text).expect("facts");
    assert_eq!((status, facts), (200, PreflightFacts::default()));
    rig.world().facts = Err("it does not answer".to_owned());
    assert_eq!(rig.call("GET", "/preflight", None).await, (503, "it does not answer".to_owned()));
    // What Patroni answers at any other path.
    assert_eq!(rig.call("GET", "/switchover", None).await.0, 503);
}
