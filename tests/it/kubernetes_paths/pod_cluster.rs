//! Three members in their pods, a Service, and a task that checks that the label is true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::kubernetes::{Api, Effect, Fault, Kubernetes, Proxy, Service};
use crate::support::rbac::{CALLS, SERVICE_CALLS};
use crate::support::{Cluster, Member, Plan, Writer, query};

/// Of `Plan::new`.
pub(super) const TTL: Duration = Duration::from_secs(5);
/// The limit of changes that need no lease to expire, on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// The limit of a failover that waits for the lease to expire, on a busy machine.
pub(super) const FAILS_OVER_WITHIN: Duration = Duration::from_secs(40);
/// The longest time from a promotion to the label of its pod, even on a busy machine. Elsewhere it is less than 50 ms.
const LABELLED_WITHIN: Duration = Duration::from_secs(5);
/// The delay of the API server's answers.
const API_LATENCY: Duration = Duration::from_millis(5);
/// The interval between two checks whether a label is true.
const LOOKS_EVERY: Duration = Duration::from_millis(50);
/// The read-write Service.
const PRIMARY: &str = "herd-rw";

/// A cluster in pods.
pub(super) struct PodCluster {
    label_check: LabelCheck,
    service: Service,
    pub(super) cluster: Cluster,
    pub(super) kubernetes: Kubernetes,
}

impl PodCluster {
    /// Three healthy members with labels, `m1` leading, in a double that answers as slowly as a real API server.
    pub(super) async fn start(dynamic: Value) -> PodCluster {
        let mut pod_cluster = PodCluster::prepare(Kubernetes::double().await, dynamic).await;
        pod_cluster.begin().await;
        pod_cluster
    }

    /// The same for tests without faults of the API server, which may be a real one.
    pub(super) async fn start_anywhere(dynamic: Value) -> PodCluster {
        let mut pod_cluster = PodCluster::prepare(Kubernetes::start().await, dynamic).await;
        pod_cluster.begin().await;
        pod_cluster
    }

    /// Pods and members; none is started.
    pub(super) async fn prepare(kubernetes: Kubernetes, dynamic: Value) -> PodCluster {
        kubernetes.create_service(PRIMARY).await;
        let labels = json!({ "application": "herd" });
        let section =
            json!({ "namespace": kubernetes.namespace, "labels": labels, "primary_service": PRIMARY });
        let all = json!({ "kubernetes": section, "postgresql": { "parameters": { "log_timezone": "UTC" } } });
        let mut cluster = Plan::new(3).dynamic(dynamic).all(all).prepare().await;
        for member in &mut cluster.members {
            create_pod(&kubernetes, &member.name).await;
            let kubeconfig = kubernetes.kubeconfig(&member.folder, &member.name);
            member.environment.push(("KUBECONFIG".to_owned(), kubeconfig.into()));
            if let Some(double) = kubernetes.double_or_none() {
                double.grant(&member.name, &[CALLS, SERVICE_CALLS].concat());
                double.inject(Fault::always(Effect::Late(API_LATENCY)).of(&member.name));
            }
        }
        let ports: BTreeMap<String, u16> =
            cluster.members.iter().map(|member| (member.name.clone(), member.postgres)).collect();
        let service = Service::follow(kubernetes.clone(), PRIMARY, ports.clone(), Proxy::Idle);
        let label_check = LabelCheck::watch(kubernetes.clone(), ports);
        PodCluster { label_check, service, cluster, kubernetes }
    }

    /// Starts the members, and waits until all are healthy and labelled, and synchronous if they are to be: before the
    /// key `sync` names them, none may take the place of the leader.
    pub(super) async fn begin(&mut self) {
        self.cluster.start().await;
        self.wait_until_labelled(0).await;
        let etcd = &self.cluster.etcd;
        let config = etcd.get("/service/herd/config").await.unwrap_or_default();
        if config.contains("quorum") {
            let named = async || etcd.get("/service/herd/sync").await.is_some_and(|it| it.contains("m2,m3"));
            self.cluster.wait_until(SOON, "two synchronous standbys", named).await;
        }
    }

    /// Writes through the Service, first to the present leader.
    pub(super) async fn writer(&self, leader: usize) -> Writer {
        let writer = Writer::start_through(&self.cluster.members[leader], self.service.ports()).await;
        writer.wait_for_more(20, SOON).await;
        writer
    }

    /// The ports to which a proxy leads clients of the primary while it is busy with the changes of other Services.
    pub(super) fn busy_proxy(&self) -> Service {
        let members = self.cluster.members.iter();
        let ports = members.map(|member| (member.name.clone(), member.postgres)).collect();
        Service::follow(self.kubernetes.clone(), PRIMARY, ports, Proxy::Busy)
    }

    /// The roles in the labels of the pods.
    pub(super) async fn roles(&self) -> BTreeMap<String, Option<String>> {
        roles(&self.kubernetes).await
    }

    /// The role in the label of a member's pod.
    pub(super) async fn role(&self, index: usize) -> Option<String> {
        self.roles().await.remove(&self.cluster.members[index].name).flatten()
    }

    /// Waits until this member's pod has the primary's label, and the others the replica's.
    pub(super) async fn wait_until_labelled(&self, leader: usize) {
        let expected: BTreeMap<_, _> = self
            .cluster
            .members
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let role = if index == leader { "primary" } else { "replica" };
                (member.name.clone(), Some(role.to_owned()))
            })
            .collect();
        let mut last = BTreeMap::new();
        let labelled = crate::support::until(SOON * 2, async || {
            last = self.roles().await;
            (last == expected).then_some(())
        });
        let labelled = labelled.await;
        assert!(labelled.is_some(), "labelled {last:?}, not {expected:?}\n{}", self.story());
    }

    /// Waits until this member's pod has the primary's label.
    pub(super) async fn wait_for_primary(&self, index: usize, within: Duration) {
        let what = format!("the pod of {} says that it is the primary", self.cluster.members[index].name);
        self.cluster
            .wait_until(within, &what, async || self.role(index).await.as_deref() == Some("primary"))
            .await;
    }

    /// Waits until a member other than `old` leads and its pod has the label; returns its index.
    pub(super) async fn wait_for_successor(&self, old: usize, within: Duration) -> usize {
        let successor = self.cluster.wait_for_successor(old, within).await;
        self.wait_for_primary(successor, SOON).await;
        successor
    }

    /// A member is started in a new pod of the same name, as a StatefulSet does.
    pub(super) async fn start_in_new_pod(&mut self, index: usize) {
        let name = self.cluster.members[index].name.clone();
        self.kubernetes.delete_pod(&name).await;
        create_pod(&self.kubernetes, &name).await;
        self.cluster.members[index].start();
    }

    /// Two pods never had the primary's label at once, and no pod with it had a Postgres that refuses writes.
    pub(super) fn assert_honest(&self) {
        let false_labels = self.label_check.false_labels.lock().expect("nobody panics with it").clone();
        assert!(false_labels.is_empty(), "{false_labels:#?}\n{}", self.story());
        let Some(double) = self.kubernetes.double_or_none() else { return };
        let overlap = double.longest_overlap("role", "primary");
        let history = double.labelled("role");
        assert_eq!(overlap, Duration::ZERO, "two primaries: {history:#?}\n{}", self.story());
    }

    /// The Service led to one pod at each moment: a hand-over was one change. Only a double records that.
    pub(super) fn assert_one_change_each(&self) {
        let Some(double) = self.kubernetes.double_or_none() else { return };
        let led = double.led(PRIMARY);
        let single = led.iter().all(|pods| pods.len() == 1);
        assert!(led.len() > 1 && single, "{led:?}\n{}", self.story());
    }

    /// The information for a failure report: the members' logs, and their requests to the double.
    pub(super) fn story(&self) -> String {
        let asked = |member: &Member| {
            let asked = self.kubernetes.double_or_none()?.story(&member.name);
            Some(format!("{} asked the API server:\n{asked}", member.name))
        };
        self.cluster.story() + &self.cluster.members.iter().filter_map(asked).collect::<String>()
    }

    /// In the log of the new leader: the label of `old` was removed before the promotion began.
    pub(super) fn assert_stripped_first(&self, leader: usize, old: usize) {
        let log = self.cluster.members[leader].log_text();
        let old = &self.cluster.members[old].name;
        let stripped = log.lines().rposition_of(&["removed the leader label", old]);
        let promoted = log.lines().rposition_of(&["received promote request"]);
        assert!(stripped.is_some() && stripped < promoted, "{stripped:?} {promoted:?}\n{}", self.story());
    }

    /// The pod of the new leader had the label soon after its Postgres accepted writes. Only a double records that.
    pub(super) fn assert_labelled_soon(&self, leader: usize) {
        let Some(double) = self.kubernetes.double_or_none() else { return };
        let member = &self.cluster.members[leader];
        let labelled = double.labelled("role");
        let labelled = labelled
            .iter()
            .rfind(|labelled| labelled.pod == member.name && labelled.value.as_deref() == Some("primary"));
        let (labelled, writable) = labelled.zip(writable_at(member)).expect("it was promoted, and labelled");
        let span = labelled.at.duration_since(writable).unwrap_or_default();
        println!("labelled {span:?} after Postgres took writes");
        assert!(span < LABELLED_WITHIN, "{span:?}\n{}", self.story());
    }
}

/// The pod of a member, as the StatefulSet would create it.
pub(super) async fn create_pod(api: &Api, name: &str) -> Value {
    api.create_pod(name, json!({ "application": "herd", "cluster-name": "herd" })).await;
    api.give_address(name).await
}

async fn roles(api: &Api) -> BTreeMap<String, Option<String>> {
    let (code, list) = api.get("pods?labelSelector=application%3Dherd").await;
    assert_eq!(code, 200, "{list}");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let pods = list["items"].as_array().into_iter().flatten().map(|pod| &pod["metadata"]);
    pods.filter_map(|metadata| Some((text(&metadata["name"])?, text(&metadata["labels"]["role"])))).collect()
}

/// The last time at which this Postgres logged that it is ready. A promoted one does so when it accepts writes.
fn writable_at(member: &Member) -> Option<SystemTime> {
    let log = member.log_text();
    let line =
        log.lines().rev().find(|line| line.contains("database system is ready to accept connections"))?;
    let (time, _) = line.split_once(" UTC ")?;
    let time: jiff::civil::DateTime = time.replace(' ', "T").parse().ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().into())
}

trait LastPosition {
    /// The position of the last line that contains all these texts.
    fn rposition_of(self, texts: &[&str]) -> Option<usize>;
}

impl LastPosition for std::str::Lines<'_> {
    fn rposition_of(self, texts: &[&str]) -> Option<usize> {
        let meant = |line: &str| texts.iter().all(|text| line.contains(text));
        self.enumerate().filter(|(_, line)| meant(line)).map(|(index, _)| index).last()
    }
}

/// Checks continuously that a pod with the primary's label has a Postgres that accepts writes.
struct LabelCheck {
    false_labels: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl LabelCheck {
    fn watch(api: Api, ports: BTreeMap<String, u16>) -> LabelCheck {
        let false_labels = Arc::new(Mutex::new(Vec::new()));
        let found = false_labels.clone();
        let task = tokio::spawn(async move {
            loop {
                for (pod, port) in primaries(&api, &ports).await {
                    let asked =
                        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
                    let answer = query(port, asked).await;
                    let still = primaries(&api, &ports).await.contains_key(&pod);
                    if still && answer.is_ok_and(|rows| rows == [["t"]]) {
                        let false_label = format!(
                            "{pod} is labelled primary and takes no writes, at {}",
                            jiff::Timestamp::now()
                        );
                        found.lock().expect("nobody panics with it").push(false_label);
                    }
                }
                tokio::time::sleep(LOOKS_EVERY).await;
            }
        });
        LabelCheck { false_labels, task }
    }
}

async fn primaries(api: &Api, ports: &BTreeMap<String, u16>) -> BTreeMap<String, u16> {
    let primary = |(pod, role): (String, Option<String>)| {
        (role.as_deref() == Some("primary")).then_some(pod).and_then(|pod| ports.get_key_value(&pod))
    };
    let named = roles(api).await.into_iter().filter_map(primary);
    named.map(|(pod, port)| (pod.clone(), *port)).collect()
}

impl Drop for LabelCheck {
    fn drop(&mut self) {
        self.task.abort();
    }
}
