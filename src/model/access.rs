//! The methods by which a supervisor connects to its own Postgres.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way in which the supervisor reaches its own PostgreSQL. The configuration of users can close an earlier way of
/// [`AccessWay::ALL`] less easily than a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessWay {
    /// The private socket directory, as the supervisor's own role.
    PrivateSocket,
    /// The private socket directory, as the configured superuser.
    PrivateSocketAsSuperuser,
    /// The configured address, as the configured superuser.
    Address,
}

impl AccessWay {
    /// All ways, the best first.
    pub const ALL: [AccessWay; 3] =
        [AccessWay::PrivateSocket, AccessWay::PrivateSocketAsSuperuser, AccessWay::Address];

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            AccessWay::PrivateSocket => "private_socket",
            AccessWay::PrivateSocketAsSuperuser => "private_socket_as_superuser",
            AccessWay::Address => "address",
        }
    }
}

impl fmt::Display for AccessWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AccessWay::PrivateSocket => "the private socket as its own role",
            AccessWay::PrivateSocketAsSuperuser => "the private socket as superuser",
            AccessWay::Address => "its address as superuser",
        })
    }
}

/// How the supervisor got in when it last tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnAccess {
    /// The way that worked; `None` before the first attempt, and when PostgreSQL refused every way.
    pub way: Option<AccessWay>,
    /// Why each better way failed.
    pub refused: Vec<String>,
}

impl OwnAccess {
    /// The sentence for `list`; `None` when the best way works.
    pub fn complaint(&self) -> Option<String> {
        let why = self.refused.join("; ");
        match self.way {
            Some(AccessWay::PrivateSocket) => None,
            Some(way) => Some(format!("reached by {way}: {why}")),
            None if self.refused.is_empty() => None,
            None => Some(format!("cannot reach its own PostgreSQL: {why}")),
        }
    }
}
