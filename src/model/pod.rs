//! The pod a member runs in, as far as decisions and the REST interface know of it. Labels route; nothing safe rests on
//! them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Moment, Term};

/// What a member's pod shall say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodRole {
    /// Its Postgres is proved to accept writes, in the term in which it leads.
    Leader(Term),
    /// Its Postgres replays.
    Follower,
    /// Its data is being made or copied.
    Bootstrapping,
    /// Nothing: whoever comes here finds no Postgres to talk to.
    Nothing,
}

/// What the leader writes into the Service of the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrimaryRoute {
    /// My address instead of all others, in the term in which I lead.
    Here(Term),
    /// The next leader replaces the address in one change; until then connections are refused, or end here as before.
    #[default]
    Unchanged,
    /// Not my address: sessions here would not be those of the leader's Postgres.
    NotHere,
}

/// The end of the pod that a member runs in, as the API server has proved it. Its silence proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodEnd {
    /// It was asked to end: SIGTERM comes once its kubelet hears of that.
    Deleting,
    /// It is not there any more: no Service leads here.
    Gone,
    /// Another one has its name: a member of my name is to run there.
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

/// The words that are written on pods.
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
    /// A second label, always `primary` or `replica`, while users move from one pair of values to another.
    pub tmp_role_label: Option<String>,
    /// On the pod while its data is being made or copied.
    pub bootstrap_labels: BTreeMap<String, String>,
    /// The condition that is true while the pod has a role; `None`: there is no such gate.
    pub readiness_gate: Option<String>,
}

impl Default for PodNames {
    /// As Patroni names them where nothing else is said.
    fn default() -> PodNames {
        PodNames {
            selector: BTreeMap::new(),
            role_label: "role".to_owned(),
            leader: "primary".to_owned(),
            follower: "replica".to_owned(),
            tmp_role_label: None,
            bootstrap_labels: BTreeMap::new(),
            readiness_gate: None,
        }
    }
}

/// What is known of the pod, and of the API that shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The value of the role's label, as last shown; `None` when there is none.
    pub role: Option<String>,
    /// The pod ends, or is gone.
    pub end: Option<PodEnd>,
    /// What does not work now, by what it was asked for.
    pub trouble: BTreeMap<PodTask, PodTrouble>,
    /// Answers that were no success, by task and kind, since the start.
    pub failures: BTreeMap<(PodTask, PodFailure), u64>,
}

impl PodFacts {
    /// Every trouble on one line, for the operator; `None` when all is well.
    pub fn complaint(&self) -> Option<String> {
        let lasting = self.trouble.iter().filter(|(_, trouble)| trouble.lasts());
        let troubles = lasting.map(|(task, trouble)| format!("{}: {}", task.as_str(), trouble.kind.as_str()));
        let texts: Vec<String> = self.end.map(|end| end.to_string()).into_iter().chain(troubles).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }
}

/// What the API is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodTask {
    /// Keep the labels of the own pod.
    Label,
    /// Watch pods.
    Watch,
    /// Take the leader's label off other pods.
    Strip,
    /// Say why leadership changed.
    Event,
    /// Keep the condition of the readiness gate.
    Gate,
    /// Lead the Service of the primary here, or away from here.
    Service,
    /// Watch where the Service of the primary leads.
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

/// Why the API did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodFailure {
    /// Client configuration is missing or unusable.
    Unconfigured,
    /// No connection.
    Unreachable,
    /// Connected, and no answer in time.
    Silent,
    /// 401: the token is not accepted.
    Unauthorized,
    /// 403: the role does not grant it.
    Forbidden,
    /// 404: there is no such pod.
    NotFound,
    /// There is one, and it is not the one this member runs in.
    OtherPod,
    /// 409: somebody else was faster.
    Conflict,
    /// 410: too old to go on from.
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

/// Somebody else may be busy with the pod.
const CONFLICTS_MAX: u64 = 10;

/// Failures in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTrouble {
    /// The newest.
    pub kind: PodFailure,
    /// Since the first.
    pub since: Moment,
    /// How often in a row.
    pub count: u64,
    /// What was said at the newest, for the operator.
    pub text: String,
}

impl PodTrouble {
    /// One failure is none: a token had to be read anew, say; nor are a few conflicts.
    pub fn lasts(&self) -> bool {
        self.count > if self.kind == PodFailure::Conflict { CONFLICTS_MAX } else { 1 }
    }
}
