//! The Service of the primary: one change for each hand-over, and no change of another manager's slice.

use std::time::{Duration, Instant};

use matriarch::kube::KubeSetup;
use matriarch::model::{PodRole, PrimaryRoute, Term};
use serde_json::{Value, json};

use super::fixture::{Labeller, Leads, PodFixture, TERM, WITHIN, role};
use crate::support::kubernetes::{Effect, Fault};
use crate::support::until;

const SERVICE: &str = "pg-rw";
const SLICE: &str = "pg-rw-ipv4";
/// The time that routers get to follow a change.
const GRACE: Duration = Duration::from_secs(5);

/// A member in a new pod with an address, which maintains the Service.
async fn member(fixture: &PodFixture, name: &str) -> Labeller {
    fixture.make(name, json!({}), json!({})).await;
    fixture.kubernetes.give_address(name).await;
    let primary_service = Some(SERVICE.to_owned());
    Labeller::start(KubeSetup { primary_service, routing_grace: GRACE, ..fixture.setup(name) })
}

async fn slice(fixture: &PodFixture) -> Value {
    let path = fixture.kubernetes.slices(&format!("/{SLICE}"));
    fixture.kubernetes.send("GET", &path, "application/json", &Value::Null).await.1
}

/// The pods that a slice leads to.
fn targets(slice: &Value) -> Vec<&str> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints.filter_map(|endpoint| endpoint["targetRef"]["name"].as_str()).collect()
}

async fn leads_to(fixture: &PodFixture, pods: &[&str]) -> Value {
    let seen = until(WITHIN, async || {
        let slice = slice(fixture).await;
        (slice["kind"] == "EndpointSlice" && targets(&slice) == pods).then_some(slice)
    });
    match seen.await {
        Some(slice) => slice,
        None => panic!("waited for {pods:?}: {}", slice(fixture).await),
    }
}

#[tokio::test]
async fn a_hand_over_is_one_change() {
    let fixture = PodFixture::new().await;
    let service = fixture.kubernetes.create_service(SERVICE).await;
    let (old, new) = (member(&fixture, "pg-0").await, member(&fixture, "pg-1").await);
    old.lead(5);
    let made = leads_to(&fixture, &["pg-0"]).await;
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], service["metadata"]["uid"], "goes with it");
    assert_eq!(made["metadata"]["annotations"][TERM], "5");
    assert_eq!(made["endpoints"][0]["addresses"][0], fixture.pod("pg-0").await["status"]["podIP"]);
    assert_eq!((&made["ports"][0]["name"], &made["ports"][0]["port"]), (&json!("postgres"), &json!(5432)));
    let version = made["metadata"]["resourceVersion"].as_str().expect("a version");
    let query = format!("?watch=1&fieldSelector=metadata.name%3D{SLICE}&resourceVersion={version}");
    let mut changes =
        fixture.kubernetes.watch_path(&fixture.kubernetes.slices(&query)).await.expect("it begins");
    // The old leader stops, as planned; it comes back as a standby after it was replaced.
    old.leads(Leads::Not);
    old.kube.want(PodRole::Nothing);
    old.kube.route(PrimaryRoute::Unchanged);
    old.kube.unlabelled(WITHIN).await;
    new.lead(8);
    let (_, changed) = changes.next(WITHIN).await.expect("a change");
    assert_eq!(
        (targets(&changed), changed["metadata"]["annotations"][TERM].as_str()),
        (vec!["pg-1"], Some("8"))
    );
    old.kube.want(PodRole::Follower);
    old.kube.route(PrimaryRoute::NotHere);
    old.kube.unlabelled(Duration::ZERO).await;
    new.kube.route(PrimaryRoute::NotHere);
    let (_, changed) = changes.next(WITHIN).await.expect("a change");
    assert!(targets(&changed).is_empty(), "the next change is the new one's own: {changed}");
}

/// A standby must not serve clients that want the primary.
#[tokio::test]
async fn a_deposed_leader_removes_its_address() {
    let fixture = PodFixture::new().await;
    fixture.kubernetes.create_service(SERVICE).await;
    let member = member(&fixture, "pg-0").await;
    member.lead(5);
    leads_to(&fixture, &["pg-0"]).await;
    member.leads(Leads::Not);
    member.kube.want(PodRole::Nothing);
    member.kube.route(PrimaryRoute::NotHere);
    member.kube.unlabelled(WITHIN).await;
    assert!(targets(&slice(&fixture).await).is_empty(), "it was waited for");
    member.complains(None).await;
}

/// A former primary starts as a standby only when clients are no longer led here and the proxies have had time to
/// follow. A member that was never led to, and a leader, wait for nothing.
#[tokio::test]
async fn a_former_primary_waits_until_clients_are_routed_elsewhere() {
    let fixture = PodFixture::new().await;
    fixture.kubernetes.create_service(SERVICE).await;
    let (old, new) = (member(&fixture, "pg-0").await, member(&fixture, "pg-1").await);
    new.kube.unrouted(|| false).await;
    old.lead(5);
    leads_to(&fixture, &["pg-0"]).await;
    fixture.sees("pg-0", "a leader", |pod| role(pod) == Some("primary")).await;
    old.kube.unrouted(|| true).await;
    old.leads(Leads::Not);
    old.kube.want(PodRole::Nothing);
    old.kube.route(PrimaryRoute::Unchanged);
    let waits = async {
        old.kube.unrouted(|| false).await;
        (Instant::now(), slice(&fixture).await)
    };
    let replaced = async {
        let before = Instant::now();
        new.lead(8);
        before
    };
    let ((over_at, slice), replaced_after) = tokio::join!(waits, replaced);
    assert_eq!(targets(&slice), ["pg-1"]);
    assert!(GRACE <= over_at - replaced_after, "{:?}", over_at - replaced_after);
}

/// The slice shows that another member led in a newer term. It is left alone until etcd confirms, after that, that this
/// member leads.
#[tokio::test]
async fn a_slice_of_a_newer_term_stays_until_etcd_confirms_leadership() {
    let fixture = PodFixture::new().await;
    fixture.kubernetes.create_service(SERVICE).await;
    let (old, new) = (member(&fixture, "pg-0").await, member(&fixture, "pg-1").await);
    new.lead(9);
    leads_to(&fixture, &["pg-1"]).await;
    old.leads(Leads::UnconfirmedIn(Term(7)));
    old.kube.route(PrimaryRoute::Here(Term(7)));
    old.complains(Some("service: newer term")).await;
    assert_eq!(targets(&slice(&fixture).await), ["pg-1"]);
    new.leads(Leads::Not);
    old.leads(Leads::In(Term(7)));
    leads_to(&fixture, &["pg-0"]).await;
    old.complains(None).await;
}

/// The write of a former leader is delayed while the next one writes.
#[tokio::test]
async fn a_late_write_of_a_former_leader_fails() {
    let fixture = PodFixture::faulty().await;
    fixture.kubernetes.create_service(SERVICE).await;
    let (old, new) = (member(&fixture, "pg-0").await, member(&fixture, "pg-1").await);
    old.lead(5);
    leads_to(&fixture, &["pg-0"]).await;
    let double = fixture.kubernetes.faulty();
    let fault = double.inject(Fault::always(Effect::Held).of("pg-0").on("patch"));
    let sent = |code: Option<u16>| {
        let asked = double.asked_by("pg-0");
        let mut slices = asked.iter().filter(|asked| asked.method == "PATCH" && asked.path.ends_with(SLICE));
        slices.any(|asked| asked.code == code)
    };
    old.kube.route(PrimaryRoute::Here(Term(6)));
    old.leads(Leads::In(Term(6)));
    until(WITHIN, async || sent(None).then_some(())).await.expect("it writes");
    old.leads(Leads::Not);
    new.lead(8);
    leads_to(&fixture, &["pg-1"]).await;
    double.lift(fault);
    until(WITHIN, async || sent(Some(409)).then_some(())).await.expect("its write comes");
    assert_eq!(targets(&slice(&fixture).await), ["pg-1"]);
    assert_eq!(double.led(SERVICE).last().map(Vec::len), Some(1));
}

/// One slice of the same name, and one of the same Service, both created by another client.
#[tokio::test]
async fn slices_of_others_are_not_touched() {
    let fixture = PodFixture::new().await;
    fixture.kubernetes.create_service(SERVICE).await;
    let create = async |name: &str, labels: Value| {
        let endpoints = json!([{ "addresses": ["10.9.9.9"], "targetRef": { "kind": "Pod", "name": "x" } }]);
        let body = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": name, "labels": labels }, "endpoints": endpoints,
        });
        let path = fixture.kubernetes.slices("");
        let (code, slice) = fixture.kubernetes.send("POST", &path, "application/json", &body).await;
        assert_eq!(code, 201, "{slice}");
        slice
    };
    let same_name = create(SLICE, json!({ "app": "x" })).await;
    let service =
        json!({ "kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": "x" });
    let same_service = create("pg-rw-abcde", service).await;
    let member = member(&fixture, "pg-0").await;
    member.lead(5);
    member.complains(Some("service: refused")).await;
    assert_eq!(slice(&fixture).await, same_name);
    let remove = fixture.kubernetes.slices(&format!("/{SLICE}"));
    assert_eq!(fixture.kubernetes.send("DELETE", &remove, "application/json", &Value::Null).await.0, 200);
    leads_to(&fixture, &["pg-0"]).await;
    member.complains(None).await;
    let path = fixture.kubernetes.slices("/pg-rw-abcde");
    let (_, still) = fixture.kubernetes.send("GET", &path, "application/json", &Value::Null).await;
    assert_eq!(still, same_service);
}
