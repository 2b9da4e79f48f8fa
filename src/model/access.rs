//! The methods by which a supervisor connects to its own Postgres.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A way in. The earlier in [`AccessWay::ALL`], the less of what users configure can close it.
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
    /// All, the best first.
    pub const ALL: [AccessWay; 3] =
        [AccessWay::PrivateSocket, AccessWay::PrivateSocketAsSuperuser, AccessWay::Address];

    /// As metrics label it.
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
    /// The way; `None` before the first try, and where every one was refused.
    pub way: Option<AccessWay>,
    /// Why each better way was not it.
    pub refused: Vec<String>,
}

impl OwnAccess {
    /// For `list`, where the best way is not it.
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
