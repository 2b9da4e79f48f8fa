//! A failing API server: labels are delayed, operators are informed, and retries become rare.

use std::time::Duration;

use matriarch::model::{PodFailure, PodRole, PodTask, Term};
use serde_json::json;

use super::fixture::{Labeller, Leads, PodFixture, WITHIN, annotation, role};
use crate::support::kubernetes::{Asked, Effect, Ending, Fault, PortState};
use crate::support::until;

/// Exactly the rights that a member of a cluster needs.
const ROLE: &[(&str, &str, &[&str])] =
    &[("", "pods", &["get", "list", "watch", "patch"]), ("events.k8s.io", "events", &["create"])];

/// The count of `failure`, over all tasks.
fn count(labeller: &Labeller, failure: PodFailure) -> u64 {
    let facts = labeller.kube.facts();
    let facts = facts.borrow();
    facts.failures.iter().filter(|((_, kind), _)| *kind == failure).map(|(_, count)| count).sum()
}

fn patches(fixture: &PodFixture) -> Vec<Asked> {
    let mut asked = fixture.kubernetes.faulty().asked_by("pg-0");
    asked.retain(|asked| asked.method == "PATCH");
    asked
}

#[tokio::test]
async fn every_refusal_is_reported_and_retried() {
    let fixture = PodFixture::faulty().await;
    fixture.kubernetes.faulty().grant("pg-0", ROLE);
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    let refusals = [
        (Effect::Status(403), PodFailure::Forbidden, "forbidden"),
        (Effect::Status(500), PodFailure::Server, "server error"),
        (Effect::Status(503), PodFailure::Server, "server error"),
        (Effect::TooMany(1), PodFailure::TooMany, "too many requests"),
        (Effect::Swallowed, PodFailure::Silent, "no answer"),
    ];
    for (turn, (effect, kind, words)) in refusals.into_iter().enumerate() {
        let before = count(&labeller, kind);
        let fault = fixture.kubernetes.faulty().inject(Fault::always(effect).of("pg-0").on("patch"));
        labeller.kube.want(if turn % 2 == 0 { PodRole::Follower } else { PodRole::Nothing });
        labeller.complains(Some(&format!("label: {words}"))).await;
        assert!(before + 2 <= count(&labeller, kind), "{words} is counted");
        fixture.kubernetes.faulty().lift(fault);
        let wanted = (turn % 2 == 0).then_some("replica");
        fixture.sees("pg-0", words, |pod| role(pod) == wanted).await;
        labeller.complains(None).await;
    }
}

#[tokio::test]
async fn retries_become_rare_and_respect_retry_after() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    fixture.kubernetes.faulty().inject(Fault::always(Effect::Status(500)).of("pg-0").on("patch").times(5));
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    let asked = patches(&fixture);
    assert_eq!(asked.len(), 6);
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (tries, pause) in pauses.iter().enumerate() {
        let least = Duration::from_millis(100 << tries);
        assert!(least <= *pause, "pause {tries} of {pauses:?} is at least {least:?}");
    }
    fixture.kubernetes.faulty().inject(Fault::always(Effect::TooMany(2)).of("pg-0").on("patch").times(1));
    labeller.kube.want(PodRole::Nothing);
    let facts = labeller.kube.facts();
    let refusal = (PodTask::Label, PodFailure::TooMany);
    let refused = until(WITHIN, async || facts.borrow().failures.contains_key(&refusal).then_some(()));
    refused.await.expect("it asks, and takes note");
    // A new wanted state does not shorten the delay.
    labeller.kube.want(PodRole::Bootstrapping);
    fixture.sees("pg-0", "nothing", |pod| role(pod).is_none()).await;
    let asked = patches(&fixture);
    let last = asked.len() - 1;
    assert_eq!(asked[last - 1].code, Some(429));
    assert!(Duration::from_secs(2) <= asked[last].at - asked[last - 1].at, "it came back after 2 s");
}

/// The API server returns. The watch that works again shows it: failed tasks are tried at once.
#[tokio::test]
async fn a_restored_watch_leads_to_a_retry() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    let fault = fixture.kubernetes.faulty().inject(Fault::always(Effect::Status(500)).of("pg-0").on("patch"));
    labeller.kube.want(PodRole::Follower);
    let facts = labeller.kube.facts();
    let refusal = (PodTask::Label, PodFailure::Server);
    let often = async || (facts.borrow().failures.get(&refusal) >= Some(&6)).then_some(());
    until(WITHIN, often).await.expect("it is refused again and again");
    let last = patches(&fixture).last().expect("it was asked").at;
    fixture.kubernetes.faulty().lift(fault);
    fixture.kubernetes.faulty().compact();
    fixture.kubernetes.faulty().end_watches(Ending::Expired);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    let pause = patches(&fixture).last().expect("it was asked").at - last;
    assert!(pause < Duration::from_secs(3), "after {pause:?}, and not the 3.2 s that six failures ask for");
}

#[tokio::test]
async fn an_expired_token_is_read_anew_from_its_file() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    fixture.kubernetes.faulty().expire_tokens("pg-0");
    fixture.kubernetes.faulty().rotate_token(&fixture.folder("pg-0"), "pg-0");
    labeller.lead(5);
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    assert!(count(&labeller, PodFailure::Unauthorized) > 0, "it was refused once");
    labeller.complains(None).await;
    // Also when the file comes later than the refusal.
    fixture.kubernetes.faulty().expire_tokens("pg-0");
    labeller.kube.want(PodRole::Nothing);
    labeller.complains(Some("label: unauthorized")).await;
    fixture.kubernetes.faulty().rotate_token(&fixture.folder("pg-0"), "pg-0");
    fixture.sees("pg-0", "nothing", |pod| role(pod).is_none()).await;
}

/// A wait for the API server lasts as long as its limit, and no longer; and the label follows when the server is back.
#[tokio::test]
async fn a_hanging_server_delays_no_task_for_more_than_a_second() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({"role": "replica"}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    labeller.kube.publish("{}".to_owned());
    fixture.sees("pg-0", "its status", |pod| annotation(pod, "status").is_some()).await;
    for state in [PortState::Hangs, PortState::Shut] {
        fixture.kubernetes.faulty().set_client_port("pg-0", state);
        labeller.leads(Leads::In(Term(5)));
        let begun = std::time::Instant::now();
        labeller.kube.strip(Term(5), Duration::from_secs(1)).await;
        labeller.kube.unlabelled(Duration::from_secs(1)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{state:?}: two waits of a second took {took:?}");
        labeller.lead(5);
        labeller.complains(Some(&complaint(&labeller, state).await)).await;
        fixture.kubernetes.faulty().set_client_port("pg-0", PortState::Open);
        fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
        labeller.kube.want(PodRole::Follower);
        fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    }
}

/// Waits until the label is in trouble, and returns the whole sentence.
async fn complaint(labeller: &Labeller, state: PortState) -> String {
    let mut facts = labeller.kube.facts();
    let told = facts.wait_for(|facts| {
        facts.trouble.get(&PodTask::Label).is_some_and(matriarch::model::PodTrouble::lasts)
    });
    let told = tokio::time::timeout(WITHIN, told).await;
    let told = told.unwrap_or_else(|_| panic!("{state:?} is told")).expect("it lives");
    told.complaint().unwrap_or_default()
}

#[tokio::test]
async fn watches_that_end_or_are_too_old_are_begun_anew() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    fixture.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    for ending in [Ending::Cut, Ending::Expired] {
        fixture.kubernetes.faulty().compact();
        fixture.kubernetes.faulty().end_watches(ending);
        fixture.relabel("pg-0", json!({"role": "x"})).await;
        fixture.sees("pg-0", "mended", |pod| role(pod) == Some("replica")).await;
    }
    labeller.complains(None).await;
}

/// Changes of other pods, in the namespace or in the cluster, are not sent to this member at all.
#[tokio::test]
async fn changes_of_other_pods_are_not_sent() {
    let fixture = PodFixture::faulty().await;
    fixture.make("pg-0", json!({}), json!({})).await;
    fixture.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let labeller = fixture.labeller("pg-0");
    labeller.lead(5);
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    labeller.complains(None).await;
    let watching = |asked: &Vec<Asked>| asked.iter().filter(|asked| asked.query.contains("watch")).count();
    let asked = || fixture.kubernetes.faulty().asked_by("pg-0");
    let both = until(WITHIN, async || (watching(&asked()) == 2).then_some(()));
    both.await.expect("it watches its own pod, and those that say that they lead");
    let before = asked();
    for count in 0..100 {
        fixture.relabel("pg-1", json!({"count": count.to_string()})).await;
    }
    // When it has corrected this, it has seen everything up to here.
    fixture.relabel("pg-0", json!({"role": "x"})).await;
    fixture.sees("pg-0", "mended", |pod| role(pod) == Some("primary")).await;
    let more: Vec<_> = asked().split_off(before.len());
    assert!(more.len() <= 2, "one patch, and the watch of leaders at most: {more:?}");
    let bytes = |asked: &[Asked]| asked.iter().map(|asked| asked.bytes).sum::<usize>();
    let (then, now) = (bytes(&before), bytes(&asked()));
    assert!(now < then + 20_000, "{} bytes for changes of others", now - then);
}
