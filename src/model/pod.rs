//! The pod of a member, as far as decisions and the REST interface know it. Labels only route clients; no safety
//! depends on them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Moment, Term};

/// The role that the labels of a member's pod show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodRole {
    /// Its Postgres has proved that it accepts writes, in the term in which it leads.
    Leader(Term),
    /// Its Postgres replays, and it leads a standby cluster in this term.
    StandbyLeader(Term),
    /// Its Postgres replays.
    Follower,
    /// Its data is being bootstrapped or cloned.
    Bootstrapping,
    /// None: a client that connects here finds no usable Postgres.
    Nothing,
}

impl PodRole {
    /// The term in which its member leads.
    pub fn term(self) -> Option<Term> {
        match self {
            PodRole::Leader(term) | PodRole::StandbyLeader(term) => Some(term),
            PodRole::Follower | PodRole::Bootstrapping | PodRole::Nothing => None,
        }
    }
}

/// The leader's change to the Service of the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrimaryRoute {
    /// My address replaces all others, in the term in which I lead.
    Here(Term),
    /// No change: the next leader replaces the address in one write. Until then connections are refused or come here.
    #[default]
    Unchanged,
    /// My address is removed: sessions here would not reach the leader's Postgres.
    NotHere,
}

/// The end of a member's pod, as the API server has confirmed it. A silent API server confirms nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodEnd {
    /// Its deletion was requested: SIGTERM comes once the kubelet learns of it.
    Deleting,
    /// It no longer exists: no Service leads here.
    Gone,
    /// Another pod has its name: a member with my name will run there.
    Replaced,
}

impl fmt::Display for PodEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PodEnd::Deleting => "this pod is being deleted",
            PodEnd::Gone => "this pod was deleted, and its container still runs",
            PodEnd::Replaced => {
                "this pod was deleted, its container still runs, and another pod has its name"
            }
        })
    }
}

/// The labels and conditions that are written on pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNames {
    /// Labels that every pod of the cluster has.
    pub selector: BTreeMap<String, String>,
    /// The label that Services select by.
    pub role_label: String,
    /// Its value on the pod of a primary.
    pub leader: String,
    /// Its value on the pod of a standby.
    pub follower: String,
    /// Its value on the pod of the leader of a standby cluster.
    pub standby_leader: String,
    /// A second label, always `primary` or `replica`, for the time in which users move from one pair of values to
    /// another.
    pub tmp_role_label: Option<String>,
    /// Labels of the pod while its data is being bootstrapped or cloned.
    pub bootstrap_labels: BTreeMap<String, String>,
    /// The condition that is true while the pod has a role; `None`: there is no such readiness gate.
    pub readiness_gate: Option<String>,
}

impl PodNames {
    /// Patroni's default name of the label with the scope.
    pub const SCOPE_LABEL: &str = "cluster-name";
}

impl Default for PodNames {
    /// Patroni's default names.
    fn default() -> PodNames {
        PodNames {
            selector: BTreeMap::new(),
            role_label: "role".to_owned(),
            leader: "primary".to_owned(),
            follower: "replica".to_owned(),
            standby_leader: "primary".to_owned(),
            tmp_role_label: None,
            bootstrap_labels: BTreeMap::new(),
            readiness_gate: None,
        }
    }
}

/// The state of the pod and of the API that shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The value of the role's label as last seen; `None` when there is none.
    pub role: Option<String>,
    /// The pod is being deleted, or is gone.
    pub end: Option<PodEnd>,
    /// The tasks that fail now.
    pub trouble: BTreeMap<PodTask, PodTrouble>,
    /// Failed requests by task and kind since the start.
    pub failures: BTreeMap<(PodTask, PodFailure), u64>,
}

impl PodFacts {
    /// All troubles on one line, for the operator; `None` when there is none.
    pub fn complaint(&self) -> Option<String> {
        let lasting = self.trouble.iter().filter(|(_, trouble)| trouble.lasts());
        let troubles = lasting.map(|(task, trouble)| format!("{}: {}", task.as_str(), trouble.kind.as_str()));
        let texts: Vec<String> = self.end.map(|end| end.to_string()).into_iter().chain(troubles).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// A task of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodTask {
    /// Maintain the labels of this member's pod.
    Label,
    /// Watch pods.
    Watch,
    /// Remove the leader's label from other pods.
    Strip,
    /// Write an event about a change of leadership.
    Event,
    /// Maintain the condition of the readiness gate.
    Gate,
    /// Point the Service of the primary here, or away from here.
    Service,
    /// Watch the target of the Service of the primary.
    ServiceWatch,
}

impl PodTask {
    /// The word for it in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            PodTask::Label => "label",
            PodTask::Watch => "watch",
            PodTask::Strip => "strip",
            PodTask::Event => "event",
            PodTask::Gate => "gate",
            PodTask::Service => "service",
            PodTask::ServiceWatch => "service watch",
        }
    }
}

/// Why a task of the API failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodFailure {
    /// Client configuration is missing or unusable.
    Unconfigured,
    /// No connection.
    Unreachable,
    /// Connected, but no answer in time.
    Silent,
    /// 401: the token is not accepted.
    Unauthorized,
    /// 403: the role does not allow it.
    Forbidden,
    /// 404: no such pod.
    NotFound,
    /// The pod with this name is not the one in which this member runs.
    OtherPod,
    /// 409: another writer was faster.
    Conflict,
    /// 410: the revision is too old to continue from.
    Gone,
    /// 429.
    TooMany,
    /// 5xx.
    Server,
    /// Another pod was labelled in a newer term.
    NewerTerm,
    /// Anything else.
    Other,
}

impl PodFailure {
    /// The words for it in metrics and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            PodFailure::Unconfigured => "unconfigured",
            PodFailure::Unreachable => "unreachable",
            PodFailure::Silent => "no answer",
            PodFailure::Unauthorized => "unauthorized",
            PodFailure::Forbidden => "forbidden",
            PodFailure::NotFound => "not found",
            PodFailure::OtherPod => "another pod",
            PodFailure::Conflict => "conflict",
            PodFailure::Gone => "gone",
            PodFailure::TooMany => "too many requests",
            PodFailure::Server => "server error",
            PodFailure::NewerTerm => "newer term",
            PodFailure::Other => "refused",
        }
    }
}

/// Another writer may be changing the pod at the same time.
const CONFLICTS_MAX: u64 = 10;

/// Failures in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// The newest kind.
    pub kind: PodFailure,
    /// The time of the first failure.
    pub since: Moment,
    /// How often in a row.
    pub count: u64,
    /// The message of the newest failure, for the operator.
    pub text: String,
}

impl PodTrouble {
    /// Whether it is worth reporting. One failure is not (a token had to be read anew, for example), nor are a few
    /// conflicts.
    pub fn lasts(&self) -> bool {
        self.count > if self.kind == PodFailure::Conflict { CONFLICTS_MAX } else { 1 }
    }
}
