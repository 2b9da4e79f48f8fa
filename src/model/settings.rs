//! The dynamic settings as decisions use them: complete, within bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FailoverBy, SlotSettings, StandbyCluster, SyncSettings};

/// The settings in the key `config`, with defaults for those that are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Lease TTL; at least [`Settings::TTL_MIN`].
    pub ttl: Duration,
    /// Longest pause between two ticks.
    pub loop_wait: Duration,
    /// Deadline of one etcd operation other than a renewal, and of SQL (half of it).
    pub retry_timeout: Duration,
    /// A standby further behind the leader's last published position does not take over by itself. Bytes.
    pub maximum_lag_on_failover: u64,
    /// A standby on an older timeline than the cluster's does not take over.
    pub check_timeline: bool,
    /// How long a crashed primary may take to come back before another takes over; zero: at once.
    pub primary_start_timeout: Duration,
    /// How long a planned hand-over may take before the old primary serves again.
    pub primary_stop_timeout: Duration,
    /// No automatic action.
    pub pause: bool,
    /// While etcd does not answer, the leader goes on as long as all members promise not to take the leader key.
    #[serde(default)]
    pub failsafe_mode: bool,
    /// How a leader that may be dead is replaced.
    #[serde(default)]
    pub failover: FailoverBy,
    /// A leader without a heartbeat for this long is suspected. What a slow link shows may lengthen it.
    #[serde(default = "suspect_after")]
    pub suspect_after: Duration,
    /// Members stream through physical slots.
    pub use_slots: bool,
    /// A slot of a member that is away is kept this long.
    pub member_slots_ttl: Duration,
    /// Slots that stay although no member needs them.
    #[serde(default)]
    pub slots: SlotSettings,
    /// A diverged member is repaired by `pg_rewind`.
    pub use_pg_rewind: bool,
    /// A member is cloned anew when `pg_rewind` fails.
    pub remove_data_directory_on_rewind_failure: bool,
    /// A member is cloned anew when its timeline diverged and `pg_rewind` cannot be used.
    pub remove_data_directory_on_diverged_timelines: bool,
    /// `history` keeps this many entries; zero keeps all.
    pub max_timelines_history: usize,
    /// Synchronous replication.
    pub sync: SyncSettings,
    /// The section `standby_cluster`; `None`: this is a cluster of its own.
    #[serde(default)]
    pub standby_cluster: Option<StandbyCluster>,
}

impl Settings {
    /// A shorter lease has no room for a renewal, a demotion and a kill.
    pub const TTL_MIN: Duration = Duration::from_secs(3);
    /// A shorter time would be several lost heartbeats at most.
    pub const SUSPECT_AFTER_MIN: Duration = Duration::from_millis(300);
    /// A longer time gains nothing over the lease.
    pub const SUSPECT_AFTER_MAX: Duration = Duration::from_secs(2);
}

fn suspect_after() -> Duration {
    Duration::from_millis(600)
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ttl: Duration::from_secs(10),
            loop_wait: Duration::from_secs(10),
            retry_timeout: Duration::from_secs(10),
            maximum_lag_on_failover: 1 << 20,
            check_timeline: false,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: Duration::from_secs(60),
            pause: false,
            failsafe_mode: false,
            failover: FailoverBy::default(),
            suspect_after: suspect_after(),
            use_slots: true,
            member_slots_ttl: Duration::from_secs(1800),
            slots: SlotSettings::default(),
            use_pg_rewind: true,
            remove_data_directory_on_rewind_failure: false,
            remove_data_directory_on_diverged_timelines: false,
            max_timelines_history: 0,
            sync: SyncSettings::default(),
            standby_cluster: None,
        }
    }
}
