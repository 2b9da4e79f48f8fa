//! A failing API server: labels are delayed, operators are informed, and retries become rare.

use std::time::Duration;

use matriarch::model::{PodFailure, PodRole, PodTask, Term};
use serde_json::json;

use super::stand::{Labeller, Leads, Stand, WITHIN, annotation, role};
use crate::support::kubernetes::{Asked, Effect, Ending, Fault, Passage};
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

fn patches(stand: &Stand) -> Vec<Asked> {
    let mut asked = stand.kubernetes.faulty().asked_by("pg-0");
    asked.retain(|asked| asked.method == "PATCH");
    asked
}

#[tokio::test]
async fn every_refusal_is_reported_and_retried() {
    let stand = Stand::faulty().await;
    stand.kubernetes.faulty().grant("pg-0", ROLE);
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    let refusals = [
        (Effect::Status(403), PodFailure::Forbidden, "forbidden"),
        (Effect::Status(500), PodFailure::Server, "server error"),
        (Effect::Status(503), PodFailure::Server, "server error"),
        (Effect::TooMany(1), PodFailure::TooMany, "too many requests"),
        (Effect::Swallowed, PodFailure::Silent, "no answer"),
    ];
    for (turn, (effect, kind, words)) in refusals.into_iter().enumerate() {
        let before = count(&labeller, kind);
        let fault = stand.kubernetes.faulty().inject(Fault::always(effect).of("pg-0").on("patch"));
        labeller.kube.want(if turn % 2 == 0 { PodRole::Follower } else { PodRole::Nothing });
        labeller.complains(Some(&format!("label: {words}"))).await;
        assert!(before + 2 <= count(&labeller, kind), "{words} is counted");
        stand.kubernetes.faulty().lift(fault);
        let wanted = (turn % 2 == 0).then_some("replica");
        stand.sees("pg-0", words, |pod| role(pod) == wanted).await;
        labeller.complains(None).await;
    }
}

#[tokio::test]
async fn retries_become_rare_and_respect_retry_after() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    stand.kubernetes.faulty().inject(Fault::always(Effect::Status(500)).of("pg-0").on("patch").times(5));
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    let asked = patches(&stand);
    assert_eq!(asked.len(), 6);
    let pauses: Vec<Duration> = asked.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (tries, pause) in pauses.iter().enumerate() {
        let least = Duration::from_millis(100 << tries);
        assert!(least <= *pause, "pause {tries} of {pauses:?} is at least {least:?}");
    }
    stand.kubernetes.faulty().inject(Fault::always(Effect::TooMany(2)).of("pg-0").on("patch").times(1));
    labeller.kube.want(PodRole::Nothing);
    let facts = labeller.kube.facts();
    let refusal = (PodTask::Label, PodFailure::TooMany);
    let refused = until(WITHIN, async || facts.borrow().failures.contains_key(&refusal).then_some(()));
    refused.await.expect("it asks, and takes note");
    // A new wanted state does not shorten the delay.
    labeller.kube.want(PodRole::Bootstrapping);
    stand.sees("pg-0", "nothing", |pod| role(pod).is_none()).await;
    let asked = patches(&stand);
    let last = asked.len() - 1;
    assert_eq!(asked[last - 1].code, Some(429));
    assert!(Duration::from_secs(2) <= asked[last].at - asked[last - 1].at, "it came back after 2 s");
}

/// The API server returns. The watch that works again shows it: failed tasks are tried at once.
#[tokio::test]
async fn a_restored_watch_leads_to_a_retry() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    let fault = stand.kubernetes.faulty().inject(Fault::always(Effect::Status(500)).of("pg-0").on("patch"));
    labeller.kube.want(PodRole::Follower);
    let facts = labeller.kube.facts();
    let refusal = (PodTask::Label, PodFailure::Server);
    let often = async || (facts.borrow().failures.get(&refusal) >= Some(&6)).then_some(());
    until(WITHIN, often).await.expect("it is refused again and again");
    let last = patches(&stand).last().expect("it was asked").at;
    stand.kubernetes.faulty().lift(fault);
    stand.kubernetes.faulty().compact();
    stand.kubernetes.faulty().end_watches(Ending::Expired);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    let pause = patches(&stand).last().expect("it was asked").at - last;
    assert!(pause < Duration::from_secs(3), "after {pause:?}, and not the 3.2 s that six failures ask for");
}

#[tokio::test]
async fn an_expired_token_is_read_anew_from_its_file() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    stand.kubernetes.faulty().expire_tokens("pg-0");
    stand.kubernetes.faulty().rotate_token(&stand.folder("pg-0"), "pg-0");
    labeller.lead(5);
    stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    assert!(count(&labeller, PodFailure::Unauthorized) > 0, "it was refused once");
    labeller.complains(None).await;
    // Also when the file comes later than the refusal.
    stand.kubernetes.faulty().expire_tokens("pg-0");
    labeller.kube.want(PodRole::Nothing);
    labeller.complains(Some("label: unauthorized")).await;
    stand.kubernetes.faulty().rotate_token(&stand.folder("pg-0"), "pg-0");
    stand.sees("pg-0", "nothing", |pod| role(pod).is_none()).await;
}

/// A wait for the API server lasts as long as its limit, and no longer; and the label follows when the server is back.
#[tokio::test]
async fn a_hanging_server_delays_no_task_for_more_than_a_second() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({"role": "replica"}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    labeller.kube.publish("{}".to_owned());
    stand.sees("pg-0", "its status", |pod| annotation(pod, "status").is_some()).await;
    for passage in [Passage::Hangs, Passage::Shut] {
        stand.kubernetes.faulty().set_door("pg-0", passage);
        labeller.leads(Leads::In(Term(5)));
        let begun = std::time::Instant::now();
        labeller.kube.strip(Term(5), Duration::from_secs(1)).await;
        labeller.kube.unlabelled(Duration::from_secs(1)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{passage:?}: two waits of a second took {took:?}");
        labeller.lead(5);
        labeller.complains(Some(&complaint(&labeller, passage).await)).await;
        stand.kubernetes.faulty().set_door("pg-0", Passage::Open);
        stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
        labeller.kube.want(PodRole::Follower);
        stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    }
}

/// Waits until the label is in trouble, and returns the whole sentence.
async fn complaint(labeller: &Labeller, passage: Passage) -> String {
    let mut facts = labeller.kube.facts();
    let told = facts.wait_for(|facts| {
        facts.trouble.get(&PodTask::Label).is_some_and(matriarch::model::PodTrouble::lasts)
    });
    let told = tokio::time::timeout(WITHIN, told).await;
    let told = told.unwrap_or_else(|_| panic!("{passage:?} is told")).expect("it lives");
    told.complaint().unwrap_or_default()
}

#[tokio::test]
async fn watches_that_end_or_are_too_old_are_begun_anew() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.kube.want(PodRole::Follower);
    stand.sees("pg-0", "a follower", |pod| role(pod) == Some("replica")).await;
    for ending in [Ending::Cut, Ending::Expired] {
        stand.kubernetes.faulty().compact();
        stand.kubernetes.faulty().end_watches(ending);
        stand.relabel("pg-0", json!({"role": "x"})).await;
        stand.sees("pg-0", "mended", |pod| role(pod) == Some("replica")).await;
    }
    labeller.complains(None).await;
}

/// Changes of other pods, in the namespace or in the cluster, are not sent to this member at all.
#[tokio::test]
async fn changes_of_other_pods_are_not_sent() {
    let stand = Stand::faulty().await;
    stand.make("pg-0", json!({}), json!({})).await;
    stand.make("pg-1", json!({"role": "replica"}), json!({})).await;
    let labeller = stand.labeller("pg-0");
    labeller.lead(5);
    stand.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    labeller.complains(None).await;
    let watching = |asked: &Vec<Asked>| asked.iter().filter(|asked| asked.query.contains("watch")).count();
    let asked = || stand.kubernetes.faulty().asked_by("pg-0");
    let both = until(WITHIN, async || (watching(&asked()) == 2).then_some(()));
    both.await.expect("it watches its own pod, and those that say that they lead");
    let before = asked();
    for count in 0..100 {
        stand.relabel("pg-1", json!({"count": count.to_string()})).await;
    }
    // When it has corrected this, it has seen everything up to here.
    stand.relabel("pg-0", json!({"role": "x"})).await;
    stand.sees("pg-0", "mended", |pod| role(pod) == Some("primary")).await;
    let more: Vec<_> = asked().split_off(before.len());
    assert!(more.len() <= 2, "one patch, and the watch of leaders at most: {more:?}");
    let bytes = |asked: &[Asked]| asked.iter().map(|asked| asked.bytes).sum::<usize>();
    let (then, now) = (bytes(&before), bytes(&asked()));
    assert!(now < then + 20_000, "{} bytes for changes of others", now - then);
}
