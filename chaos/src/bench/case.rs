//! The measured cases: the faults that operators ask about.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// One of them, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Case {
    /// An operator switches over.
    Switchover,
    /// The postmaster of the primary is killed.
    KillPostmaster,
    /// The link is cut and everything killed.
    KillMember,
    /// The supervisor of the primary is killed and stays away.
    KillSupervisor,
    /// The supervisor of the primary is killed and started again within two seconds.
    RestartSupervisor,
    /// The supervisor of the primary stands still.
    FreezeSupervisor,
    /// PostgreSQL stands still, and goes on after a failover.
    FreezePostgres,
    /// The postmaster alone stands still: who is connected is served.
    FreezePostmaster,
    /// The link is cut.
    Partition,
    /// The link to the other members is cut; etcd and clients reach it.
    CutPeers,
    /// etcd is away for two fifths of a `ttl`.
    EtcdAway,
}

impl Case {
    /// Its name.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What a reader of the table reads.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Case::Switchover => "switchover",
            Case::KillPostmaster => "postmaster killed",
            Case::KillMember => "member dead",
            Case::KillSupervisor => "supervisor killed",
            Case::RestartSupervisor => "supervisor killed, restarted within 2 s",
            Case::FreezeSupervisor => "supervisor frozen",
            Case::FreezePostgres => "Postgres frozen, thawed after failover",
            Case::FreezePostmaster => "postmaster alone frozen",
            Case::Partition => "partition",
            Case::CutPeers => "cut off from the other members only",
            Case::EtcdAway => "etcd away for 0.4 ttl",
        }
    }

    /// How it is injected.
    pub(crate) fn fault(self) -> Fault {
        match self {
            Case::Switchover => Fault::Switchover,
            Case::KillPostmaster => Fault::KillPostmaster,
            Case::KillMember => Fault::KillMember,
            Case::KillSupervisor => Fault::KillSupervisor,
            Case::RestartSupervisor => Fault::RestartSupervisor,
            Case::FreezeSupervisor => Fault::FreezeSupervisor,
            Case::FreezePostgres => Fault::FreezePostgres,
            Case::FreezePostmaster => Fault::FreezePostmaster,
            Case::Partition => Fault::Partition,
            Case::CutPeers => Fault::CutPeers,
            Case::EtcdAway => Fault::EtcdAway,
        }
    }
}
