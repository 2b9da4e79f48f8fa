//! Every exit code of the program, with its meaning: the one table that scripts may rely on.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done, or nothing to do |
//! | 1 | refused, failed, or answered with no |
//! | 2 | wrong usage of the command line |
//! | 3 | a fault in the configuration |
//! | 4 | etcd cannot be reached or refuses the credentials |
//! | 5 | no member of the cluster answers over REST |
//! | 6 | `run`: a port is in use |
//! | 7 | `run`: started as root, and there is no user to become |
//! | 8 | `run`: the data directory is another cluster's or another major version's |
//! | 9 | `run`: a member of this name, or of one that becomes the same replication slot, already runs |
//! | 10 | `run`: the bootstrap failed |
//! | 11 | a needed program (etcd, PostgreSQL) is missing or of the wrong version |
//! | 12 | `demo --tour`: an acknowledged row is gone, or a replica did not catch up |
//! | 130 | interrupted |

use std::fmt;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success, or nothing to do.
    Done = 0,
    /// Refused, failed, or a negative answer.
    Failed = 1,
    /// Wrong usage of the command line.
    Usage = 2,
    /// A fault in the configuration.
    Configuration = 3,
    /// etcd cannot be reached or refuses the credentials.
    Etcd = 4,
    /// No member answers over REST.
    Unreachable = 5,
    /// A port is in use.
    PortInUse = 6,
    /// Started as root, and there is no other user.
    Root = 7,
    /// The data directory belongs to another cluster.
    ForeignDataDirectory = 8,
    /// A member with this name already runs.
    DuplicateName = 9,
    /// The bootstrap failed.
    BootstrapFailed = 10,
    /// A required program is missing.
    MissingProgram = 11,
    /// The tour found a lost row.
    Lost = 12,
    /// Interrupted by the user.
    Interrupted = 130,
}

impl Exit {
    /// The code.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.code())
    }
}
