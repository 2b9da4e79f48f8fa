//! Plain values that every other layer uses.
//!
//! Nothing here reads a clock, touches a file or can fail, except parsing. A value that exists is valid: a
//! [`MemberName`] holds no slash, and a known [`Timeline`] is never zero. Deliberately absent: `tokio`, `HashMap` (its
//! order is random), randomness, and the current time.
//!
//! Read in this order: positions in the WAL ([`Lsn`], [`Timeline`]), time ([`Moment`]), names, the content of etcd
//! ([`ClusterView`]), the observation of a tick ([`Observation`]), the possible actions ([`Action`]) and their reasons
//! ([`Reason`]).

#![deny(clippy::disallowed_methods, clippy::wildcard_enum_match_arm)]

mod access;
mod action;
mod callback;
mod cluster;
mod eligibility;
mod failsafe;
mod failure;
mod guarantee;
mod hand_over;
mod heartbeat;
mod journal;
mod json;
mod lease;
mod listen;
mod liveness;
mod lsn;
mod member;
mod moment;
mod name;
mod nearest;
mod no_data_reason;
mod observation;
mod operation;
mod password;
mod peer;
mod pod;
mod postgres;
mod preflight;
mod progress;
mod reason;
mod recruit;
mod refusal;
mod request;
mod rewind_report;
mod role_settings;
mod script;
mod settings;
mod size;
mod slots;
mod standby_cluster;
mod standby_cluster_reason;
mod store;
mod sync;
mod sync_names;
mod sync_reason;
mod tags;
mod tally;
mod timeline;
mod unfenced;
mod words;

pub use access::{AccessWay, OwnAccess};
pub use action::{Action, ExitBecause, FollowTarget, Job, JobKind, StopMode, TakeLeadershipPreconditions};
pub use callback::{Callback, CallbackEvent};
pub use cluster::{
    ClusterStatus, ClusterView, ConfigKey, FailoverKey, FailoverRequest, HistoryLine, LeaderKey, MemberKey,
    TimelineClaim,
};
pub use eligibility::{HandingOver, Ineligible, OwnFault, gets_wal};
pub use failsafe::{FailsafeKey, FailsafeMembers, FailsafePlan, FailsafeQuestion, FailsafeRefusal, Promise};
pub use failure::Failure;
pub use guarantee::{Guarantee, StandbyKind};
pub use hand_over::{HandOverRefusal, HandOverStep};
pub use heartbeat::{FailoverBy, HearingFacts, Heartbeat, LeaderHearing};
pub use journal::{
    CandidateVerdict, ChangeKind, ChangeRequest, Considered, FormerLeader, JournalEntry, JournalFact,
    JournalRecord, JournalStep, LossBound, Sighting, TermBegan, TermEnd, TermEnded, short_sentence,
};
pub use json::{compact as json_compact, one_line as json_one_line, spaced as json_spaced};
pub use lease::{Leading, LeaseFacts, LeaseId, LeaseTiming, Term};
pub use listen::{ListenAddress, local_host};
pub use liveness::{
    Death, Liveness, LivenessFacts, LivenessTiming, LivenessVerdict, Proof, StoppedPart, Unfit,
};
pub use lsn::{Lsn, LsnParseError};
pub use member::{MemberRecord, MemberState, Role};
pub use moment::{Moment, WallTime};
pub use name::{MemberName, NameError, slot_name};
pub use nearest::nearest;
pub use no_data_reason::NoDataReason;
pub use observation::{Finished, LeaderBranch, Me, Observation, Outcome, RunningJob, View, WriteFacts};
pub use operation::{HandOverProgress, Operation, OperationId, OperationPhase, OperationState};
pub use password::{FirstPassword, KnownPassword};
pub use peer::{PeerAnswer, PeerIdentity, SessionId};
pub use pod::{PodEnd, PodFacts, PodFailure, PodNames, PodRole, PodTask, PodTrouble, PrimaryRoute};
pub use postgres::{
    ControlFile, ControlState, DataDirectory, PostgresFacts, Process, SlotFacts, SqlFacts, Standby,
    WalReceiver,
};
pub use preflight::{
    ArchiverFacts, Finding, FindingKind, FindingUnit, FindingVerdict, FreeSpace, OpenTransaction, Preflight,
    PreflightCandidate, PreflightFacts, PreflightSlot, PreparedTransactions, StandbyDelay,
};
pub use progress::CloneProgress;
pub use reason::{Obstacle, Reason, WaitingOn};
pub use recruit::{Deposal, RecruitKey, RecruitPromise, RecruitReason, RecruitWrite, Suspicion};
pub use refusal::{ReinitializeRefusal, RestartRefusal};
pub use request::{Ask, Reply, Request, RequestId, RestartFilter};
pub use rewind_report::RewindReport;
pub use role_settings::{RoleSettings, SettingsByRole, SettingsRole};
pub use script::{
    BootstrapRecovery, CloneMethods, CustomBootstrap, RECOVERY_PARAMETERS, ReplicaMethod, ReplicaScript,
    ScriptWords, ScriptsInUse,
};
pub use settings::Settings;
pub use size::size;
pub use slots::{
    LeaderSlots, LeaderSlotsQuestion, LogicalAdvance, LogicalSlotChanges, SlotChanges, SlotKind, SlotPattern,
    SlotSettings, Xid,
};
pub use standby_cluster::{PRIMARY_ONLY, StandbyCluster};
pub use standby_cluster_reason::StandbyClusterReason;
pub use store::{
    GenerationKey, GenerationWrite, StoreChange, StoreGeneration, StoreKeys, StoreMark, StoreReason,
    StoreSeen,
};
pub use sync::{
    CommitWait, SyncFacts, SyncKey, SyncMode, SyncOwner, SyncRecord, SyncSettings, SyncState, Walsender,
};
pub use sync_names::SyncNames;
pub use sync_reason::SyncReason;
pub use tags::Tags;
pub use tally::{Histogram, Tally};
pub use timeline::{Branch, Divergence, HistoryParseError, Switch, Timeline, TimelineHistory};
pub use unfenced::{UnfencedKey, UnfencedPrimary, UnfencedReason, UnfencedWrite};
pub use words::shell_words;
