//! The scripts of an operator, as configured.

use serde::{Deserialize, Serialize};

/// The parameters of a recovery (PostgreSQL manual, "Write Ahead Log", Archive Recovery and Recovery Target; and
/// "Replication", Standby Servers).
pub const RECOVERY_PARAMETERS: [&str; 14] = [
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// A command line, with what the configuration adds to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptWords {
    /// The program and its first arguments.
    pub words: Vec<String>,
    /// Whether the script is told of cluster and data directory.
    pub is_told: bool,
    /// Further arguments: the keys of its section with their values.
    pub arguments: Vec<(String, String)>,
}

/// One way to make a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaMethod {
    /// pg_basebackup.
    Basebackup,
    /// A script.
    Script(ReplicaScript),
}

impl ReplicaMethod {
    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        match self {
            ReplicaMethod::Basebackup => "basebackup",
            ReplicaMethod::Script(script) => &script.name,
        }
    }

    /// Whether it starts from what is in the data directory.
    pub fn keeps_data(&self) -> bool {
        matches!(self, ReplicaMethod::Script(script) if script.keeps_data)
    }

    /// Whether it needs no member to copy from.
    pub fn needs_no_source(&self) -> bool {
        matches!(self, ReplicaMethod::Script(script) if script.needs_no_source)
    }
}

/// A script that makes a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaScript {
    /// The name of its section.
    pub name: String,
    /// Its command.
    pub command: ScriptWords,
    /// `keep_data`: the data directory is left to it as it is, before and after a failure.
    pub keeps_data: bool,
    /// `no_leader`: it needs no member to copy from.
    pub needs_no_source: bool,
}

/// A script that makes the data directory of a new cluster, and how PostgreSQL recovers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomBootstrap {
    /// Its name in the configuration.
    pub name: String,
    /// Its command.
    pub command: ScriptWords,
    /// The recovery.
    pub recovery: BootstrapRecovery,
}

/// How PostgreSQL recovers what a script has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapRecovery {
    /// By crash recovery: settings and signal files of the script are removed.
    Crash,
    /// As the script has written it (`keep_existing_recovery_conf`).
    AsMade,
    /// From an archive, with these parameters (`recovery_conf`).
    Archive {
        /// Names and values.
        parameters: Vec<(String, String)>,
        /// Until the target, however long the archive lacks it (`standby_mode`).
        standby: bool,
    },
}

/// The configured scripts that decisions depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptsInUse {
    /// A method makes a replica while no member leads.
    pub replica_without_leader: bool,
    /// A script makes a new cluster.
    pub custom_bootstrap: bool,
    /// A script runs before each promotion.
    pub pre_promote: bool,
}

/// Which methods may make a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloneMethods {
    /// The configured ones, in order.
    Configured,
    /// Only pg_basebackup.
    BasebackupOnly,
    /// Those with these names, in order: the ones of a standby cluster for its remote primary.
    Named(Vec<String>),
}
