//! The status that the loop publishes after every tick. The REST interface answers only from it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::{
    CloneProgress, ClusterView, HandOverProgress, HandOverRefusal, HandOverStep, HearingFacts, JobKind,
    LeaseFacts, Me, MemberRecord, MemberState, Moment, PodFacts, PostgresFacts, Request, Role, Settings,
    StoreMark, Suspicion, Tally,
};

/// The complete result of one tick.
#[derive(Clone, Debug)]
pub struct Status {
    /// This member.
    pub me: Me,
    /// The cluster's name.
    pub scope: String,
    /// The settings in force.
    pub settings: Settings,
    /// The text of the dynamic configuration in force; `None` without data of a cluster.
    pub config: Option<String>,
    /// The newest view of the cluster; `None` before the first, or when it is older than `ttl`.
    pub view: Option<Arc<ClusterView>>,
    /// The newest view, however old.
    pub last_view: Option<Arc<ClusterView>>,
    /// When etcd last answered, seconds since the Unix epoch; zero before the first answer.
    pub etcd_last_seen: i64,
    /// The state of etcd's store that I have seen.
    pub store: StoreMark,
    /// My lease.
    pub lease: LeaseFacts,
    /// What I hear of the leader.
    pub hearing: HearingFacts,
    /// My Postgres, as last seen.
    pub postgres: PostgresFacts,
    /// When my Postgres was last seen streaming, as far as this supervisor knows.
    pub streamed_at: Option<Moment>,
    /// State as published.
    pub state: MemberState,
    /// Role as published.
    pub role: Role,
    /// The member record as published, with tags, pending restart and scheduled restart.
    pub record: MemberRecord,
    /// The long action of PostgreSQL under way.
    pub job: Option<JobKind>,
    /// The reason of the last decision, as the sentence for the operator.
    pub because: String,
    /// The hand-over under way, or the last requested one if it was refused.
    pub hand_over: Option<HandOverStatus>,
    /// The operator's change of leadership that I perform.
    pub operation: Option<HandOverProgress>,
    /// A restart that is scheduled.
    pub scheduled_restart: Option<Request>,
    /// The watchdog is required and cannot be used.
    pub watchdog_failed: bool,
    /// Why etcd refuses writes, while it does.
    pub writes_refused: Option<String>,
    /// Failsafe mode is at work: I lead by the members' promises, or have promised a leader to let it lead on.
    pub failsafe_active: bool,
    /// What I say of the leader's heartbeats.
    pub suspicion: Suspicion,
    /// The attempt to replace the leader that I have promised.
    pub recruited: Option<i64>,
    /// I lead, and a restart of my Postgres would begin as a standby: on a new timeline, without the rows of unlogged
    /// tables.
    pub restart_begins_as_standby: bool,
    /// I gave the leader key away because I cannot serve, or am too far behind: other members need not wait for me.
    pub yields: bool,
    /// The leader has removed WAL that this standby needs to continue.
    pub lacks_removed_wal: bool,
    /// The guard's process id, while there is one.
    pub guard: Option<i32>,
    /// The pod, where there is one.
    pub kubernetes: Option<PodFacts>,
    /// When recovery was last seen to advance, in a PostgreSQL that does not answer yet.
    pub recovered_at: Option<Moment>,
    /// Progress of a running clone.
    pub clone_progress: Option<CloneProgress>,
    /// When the loop last finished a tick.
    pub ticked_at: Moment,
    /// The latest time of the next tick.
    pub next_tick_by: Moment,
    /// Counters for `/metrics`, by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// What was counted and measured since the start.
    pub tally: Tally,
}

/// The state of a hand-over. Its `Display` is the sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandOverStatus {
    /// It is under way.
    UnderWay(HandOverStep),
    /// It was requested and refused, for this reason.
    Refused(HandOverRefusal),
}

impl fmt::Display for HandOverStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandOverStatus::UnderWay(step) => step.fmt(f),
            HandOverStatus::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl Status {
    /// Whether my lease certainly holds the leader key at `now`. The probe `/primary` checks this, not the role.
    pub fn is_leader(&self, now: Moment) -> bool {
        self.lease.leading_at(now).is_some()
    }

    /// The status before the first tick, without any facts.
    pub(super) fn starting(me: &Me, scope: &str, settings: &Settings, now: Moment) -> Status {
        let record = serde_json::from_value(serde_json::json!({"state": "stopped", "role": "uninitialized"}));
        let record: MemberRecord = record.expect("a record with every other field absent");
        Status {
            me: me.clone(),
            scope: scope.to_owned(),
            settings: settings.clone(),
            config: None,
            view: None,
            last_view: None,
            etcd_last_seen: 0,
            store: StoreMark::default(),
            lease: LeaseFacts::default(),
            hearing: HearingFacts::default(),
            postgres: PostgresFacts::default(),
            streamed_at: None,
            state: record.state,
            role: record.role,
            record,
            job: None,
            because: "starting".to_owned(),
            hand_over: None,
            operation: None,
            scheduled_restart: None,
            watchdog_failed: false,
            writes_refused: None,
            failsafe_active: false,
            suspicion: Suspicion::Unknown,
            recruited: None,
            restart_begins_as_standby: false,
            yields: false,
            lacks_removed_wal: false,
            guard: None,
            kubernetes: None,
            recovered_at: None,
            clone_progress: None,
            ticked_at: now,
            next_tick_by: now + settings.loop_wait,
            counters: BTreeMap::new(),
            tally: Tally::default(),
        }
    }
}
