//! The record that a member publishes in etcd under `members/NAME`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Lsn, SessionId, Tags, Timeline};

/// The state of a member's Postgres, in the words every reader of the key knows. The order is the value of the
/// metric `patroni_postgres_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is documented by its own text")]
pub enum MemberState {
    #[serde(rename = "initializing new cluster")]
    InitializingNewCluster,
    #[serde(rename = "initdb failed")]
    InitdbFailed,
    #[serde(rename = "running custom bootstrap script")]
    RunningCustomBootstrapScript,
    #[serde(rename = "custom bootstrap failed")]
    CustomBootstrapFailed,
    #[serde(rename = "creating replica")]
    CreatingReplica,
    #[serde(rename = "running")]
    Running,
    #[serde(rename = "starting")]
    Starting,
    #[serde(rename = "starting after custom bootstrap")]
    StartingAfterCustomBootstrap,
    #[serde(rename = "start failed")]
    StartFailed,
    #[serde(rename = "restarting")]
    Restarting,
    #[serde(rename = "restart failed")]
    RestartFailed,
    #[serde(rename = "stopping")]
    Stopping,
    #[serde(rename = "stopped")]
    Stopped,
    #[serde(rename = "stop failed")]
    StopFailed,
    #[serde(rename = "crashed")]
    Crashed,
    /// A state written by a newer version or another program.
    #[serde(rename = "unknown", other)]
    Unknown,
}

impl MemberState {
    /// Every state that is published, by its metric value.
    pub const ALL: [MemberState; 15] = [
        MemberState::InitializingNewCluster,
        MemberState::InitdbFailed,
        MemberState::RunningCustomBootstrapScript,
        MemberState::CustomBootstrapFailed,
        MemberState::CreatingReplica,
        MemberState::Running,
        MemberState::Starting,
        MemberState::StartingAfterCustomBootstrap,
        MemberState::StartFailed,
        MemberState::Restarting,
        MemberState::RestartFailed,
        MemberState::Stopping,
        MemberState::Stopped,
        MemberState::StopFailed,
        MemberState::Crashed,
    ];

    /// The published text.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::InitializingNewCluster => "initializing new cluster",
            MemberState::InitdbFailed => "initdb failed",
            MemberState::RunningCustomBootstrapScript => "running custom bootstrap script",
            MemberState::CustomBootstrapFailed => "custom bootstrap failed",
            MemberState::CreatingReplica => "creating replica",
            MemberState::Running => "running",
            MemberState::Starting => "starting",
            MemberState::StartingAfterCustomBootstrap => "starting after custom bootstrap",
            MemberState::StartFailed => "start failed",
            MemberState::Restarting => "restarting",
            MemberState::RestartFailed => "restart failed",
            MemberState::Stopping => "stopping",
            MemberState::Stopped => "stopped",
            MemberState::StopFailed => "stop failed",
            MemberState::Crashed => "crashed",
            MemberState::Unknown => "unknown",
        }
    }

    /// The value of `patroni_postgres_state`; -1 for [`MemberState::Unknown`].
    pub fn metric(self) -> i64 {
        MemberState::ALL.iter().position(|state| *state == self).map_or(-1, |index| index as i64)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role of a member's Postgres, as published. It does not say which member leads; the leader key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Accepts writes (older writers say `master`).
    #[serde(alias = "master")]
    Primary,
    /// Promotion was ordered; Postgres has not been seen read-write yet.
    Promoted,
    /// A standby.
    Replica,
    /// The leader of a standby cluster.
    StandbyLeader,
    /// A former primary that is being stopped, or was.
    Demoted,
    /// No usable data directory, or a role this version does not know.
    #[serde(other)]
    Uninitialized,
}

impl Role {
    /// The published text.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Promoted => "promoted",
            Role::Replica => "replica",
            Role::StandbyLeader => "standby_leader",
            Role::Demoted => "demoted",
            Role::Uninitialized => "uninitialized",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The JSON under `members/NAME`, its fields in the order in which they are written. Readers accept any valid JSON and
/// ignore fields that they do not know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// `postgres://HOST:PORT/DATABASE`, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conn_url: Option<String>,
    /// `http(s)://HOST:PORT/patroni`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// State of its Postgres.
    #[serde(default = "unknown_state")]
    pub state: MemberState,
    /// Role of its Postgres.
    #[serde(default = "no_role")]
    pub role: Role,
    /// The Patroni version this member is compatible with, digits and dots only.
    #[serde(default)]
    pub version: String,
    /// `postgres://HOST:PORT/DATABASE` of a connection pooler in front of this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// `false` while a leader has not finished its checkpoint after promotion; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_after_promote: Option<bool>,
    /// Published tags.
    #[serde(default, skip_serializing_if = "no_tags")]
    pub tags: Tags,
    /// `true` or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_restart: Option<bool>,
    /// Per parameter `{"old_value", "new_value"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_restart_reason: Option<Map<String, Value>>,
    /// Primary: flushed. Standby: received or replayed, whichever is further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xlog_location: Option<Lsn>,
    /// Standby: replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<Lsn>,
    /// Standby: received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<Lsn>,
    /// `streaming`, `in archive recovery`, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_state: Option<String>,
    /// The timeline it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// A restart that is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_restart: Option<Map<String, Value>>,
    /// `true` once this member saw the pause; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<bool>,
    /// Progress of a running clone: `{"bytes", "percent", "rate"}` (bytes a second). Ours; other readers ignore it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_progress: Option<Map<String, Value>>,
    /// What fails with the Kubernetes API. Ours, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
    /// The number of the supervisor process that wrote this record. Ours, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// How the supervisor reaches its own Postgres, or that it cannot; absent while the best way works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_access: Option<String>,
    /// The system identifier of this member's data, in decimal digits; absent where it has none. Ours, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// Why it neither leads nor follows until an operator acts. Ours, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What its program can do that other members may use, as [`MemberRecord::HEARTBEATS`]. Ours, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl MemberRecord {
    /// The capability to send heartbeats, and to hear them.
    pub const HEARTBEATS: &str = "heartbeats";

    /// Whether its program can do this.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|own| own == capability)
    }

    /// Whether it has data, by its record.
    pub fn holds_data(&self) -> bool {
        self.system_identifier.is_some() || self.role != Role::Uninitialized
    }

    /// The furthest position this member published.
    pub fn lsn(&self) -> Option<Lsn> {
        self.xlog_location.max(self.receive_lsn).max(self.replay_lsn)
    }
}

fn unknown_state() -> MemberState {
    MemberState::Unknown
}

fn no_role() -> Role {
    Role::Uninitialized
}

fn no_tags(tags: &Tags) -> bool {
    tags.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = concat!(
        r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","#,
        r#""state":"running","role":"primary","version":"4.1.5","tags":{"dc":"a"},"pending_restart":true,"#,
        r#""pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"101"}},"#,
        r#""xlog_location":84171080,"timeline":2}"#
    );

    #[test]
    fn writes_the_fields_in_the_known_order() {
        let record: MemberRecord = serde_json::from_str(PRIMARY).expect("a known sample");
        assert_eq!(serde_json::to_string(&record).expect("serializable"), PRIMARY);
    }

    #[test]
    fn reads_what_older_and_newer_writers_publish() {
        let record: MemberRecord =
            serde_json::from_str(r#"{"state":"dancing","role":"master","later":[1]}"#).expect("tolerant");
        assert_eq!((record.state, record.role), (MemberState::Unknown, Role::Primary));
    }

    #[test]
    fn every_state_reads_back() {
        for state in MemberState::ALL {
            let text = serde_json::to_string(&state).expect("serializable");
            assert_eq!(text, format!("\"{state}\""));
            assert_eq!(serde_json::from_str::<MemberState>(&text).expect("its own text"), state);
        }
        assert_eq!(MemberState::Crashed.metric(), 14);
        assert_eq!(MemberState::Unknown.metric(), -1);
    }
}
