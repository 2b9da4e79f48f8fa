//! The measured systems and their modes.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::rig::{Mode, System};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    /// Ours, asynchronous.
    Matriarch,
    /// Ours, commits wait for a quorum.
    MatriarchQuorum,
    /// Ours, commits wait for a quorum, and only the lease replaces a leader.
    MatriarchLease,
    /// The peer as it comes, asynchronous.
    Patroni,
    /// The peer as it comes, commits wait for a quorum.
    PatroniQuorum,
    /// The peer as fast as it can be configured, asynchronous.
    PatroniFast,
}

impl Contestant {
    /// Its name.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The system under test.
    pub(crate) fn system(self, ttl: u64) -> System {
        match self {
            Contestant::Matriarch | Contestant::MatriarchQuorum | Contestant::MatriarchLease => {
                System::Matriarch { ttl }
            }
            Contestant::Patroni | Contestant::PatroniQuorum => System::PATRONI,
            Contestant::PatroniFast => System::PATRONI_FAST,
        }
    }

    /// How commits wait.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Contestant::Matriarch | Contestant::Patroni | Contestant::PatroniFast => Mode::Async,
            Contestant::MatriarchQuorum | Contestant::PatroniQuorum => Mode::Quorum,
            Contestant::MatriarchLease => Mode::QuorumLease,
        }
    }

    /// What a reader of the table reads.
    pub(crate) fn title(self, ttl: u64) -> String {
        let mode = match self.mode() {
            Mode::Async => "async",
            Mode::Quorum => "quorum",
            Mode::QuorumLease => "quorum, by the lease",
            Mode::On => "synchronous",
            Mode::OnLease => "synchronous, by the lease",
        };
        format!("{}, {mode}", self.system(ttl).name())
    }
}
