//! The answer of another member over REST, and the check that the expected member answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterView, Lsn, MemberName, Moment, Role, StoreMark, Suspicion, Tags, Timeline};

/// The number of one supervisor process: random, and new with each start. Written as 16 hexadecimal digits, because
/// JSON readers lose bits of large numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<SessionId> for String {
    fn from(session: SessionId) -> String {
        session.to_string()
    }
}

impl TryFrom<String> for SessionId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<SessionId, std::num::ParseIntError> {
        u64::from_str_radix(&text, 16).map(SessionId)
    }
}

/// The identity of a process: its own claim in an answer, or the expected one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The cluster's name.
    pub scope: Option<String>,
    /// The member's name.
    pub name: Option<MemberName>,
    /// The system identifier of its database, if it is known.
    pub system_id: Option<u64>,
    /// The session of its supervisor process. Patroni and older versions of Matriarch have none.
    pub session: Option<SessionId>,
}

impl PeerIdentity {
    /// Why this is not the process that was asked; `None` when it is. Scope and name must be there and match. The
    /// system identifier must match where both are known, the session where the asked member registered one.
    pub fn mismatch(&self, asked: &PeerIdentity) -> Option<String> {
        let text =
            |value: Option<&str>| value.map_or_else(|| "nobody".to_owned(), |value| format!("`{value}`"));
        let name = |identity: &PeerIdentity| text(identity.name.as_ref().map(MemberName::as_str));
        if self.name.is_none() || self.name != asked.name {
            return Some(format!("{} answers at the address of {}", name(self), name(asked)));
        }
        if self.scope.is_none() || self.scope != asked.scope {
            let (theirs, mine) = (text(self.scope.as_deref()), text(asked.scope.as_deref()));
            return Some(format!(
                "a member of the cluster {theirs} answers at its address, and not of {mine}"
            ));
        }
        if let (Some(theirs), Some(known)) = (self.system_id, asked.system_id)
            && theirs != known
        {
            return Some(format!(
                "its database has the system identifier {theirs}, and the cluster has {known}"
            ));
        }
        match (self.session, asked.session) {
            (theirs, Some(registered)) if theirs != Some(registered) => Some(format!(
                "another process answers at its address than the one that registered in etcd (session {registered})"
            )),
            (_, _) => None,
        }
    }
}

impl ClusterView {
    /// The identity of the process that registered as `name`.
    pub fn identity_of(&self, scope: &str, name: &MemberName) -> PeerIdentity {
        PeerIdentity {
            scope: Some(scope.to_owned()),
            name: Some(name.clone()),
            system_id: self.system_id(),
            session: self.members.get(name).and_then(|key| key.record.session),
        }
    }
}

/// An answer to `GET /patroni`, or the lack of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerAnswer {
    /// When it was asked: the answer is at least that recent.
    pub asked_at: Moment,
    /// Which process answered.
    #[serde(default)]
    pub identity: PeerIdentity,
    /// False when it did not answer in time, or its Postgres does not, or another member answered.
    pub reachable: bool,
    /// Its Postgres is in recovery.
    pub in_recovery: bool,
    /// Its role.
    pub role: Role,
    /// Primary: location. Standby: received or replayed, whichever is further.
    pub lsn: Lsn,
    /// Whether `lsn` covers all WAL it has. It does not where the program does not say so.
    pub exact: bool,
    /// A standby that may be receiving WAL, from any earlier leader.
    pub receives: bool,
    /// The `application_name` of each standby that streams from it.
    #[serde(default)]
    pub standbys: Vec<String>,
    /// Standby: replayed.
    pub replayed: Lsn,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// Its tags.
    pub tags: Tags,
    /// It cannot use the watchdog that its configuration requires.
    pub watchdog_failed: bool,
    /// Its pod is being deleted, or is gone: it will not lead any more.
    #[serde(default)]
    pub pod_ends: bool,
    /// It gave the leader key away because it cannot serve, or is too far behind by its own judgement: other members do
    /// not wait for it.
    pub yields: bool,
    /// It has promised a leader that etcd does not answer not to take its place, or is that leader.
    #[serde(default)]
    pub promised: bool,
    /// What it says of the leader's heartbeats.
    #[serde(default)]
    pub suspicion: Suspicion,
    /// The attempt to replace the leader that it has promised, durably and with its receiver gone.
    #[serde(default)]
    pub recruited: Option<i64>,
    /// It read its data directory and found no usable data: it has no data that other members lack.
    #[serde(default)]
    pub no_data: bool,
    /// The state of etcd's store that it has seen.
    #[serde(default)]
    pub store: StoreMark,
    /// Why its answer does not count, when it is not reachable.
    pub trouble: Option<String>,
}

impl PeerAnswer {
    /// The answer of a member that gave none, or none that counts.
    pub fn unreachable(asked_at: Moment, trouble: String) -> PeerAnswer {
        PeerAnswer {
            asked_at,
            identity: PeerIdentity::default(),
            reachable: false,
            in_recovery: false,
            role: Role::Uninitialized,
            lsn: Lsn(0),
            exact: false,
            receives: false,
            standbys: Vec::new(),
            replayed: Lsn(0),
            timeline: None,
            tags: Tags::default(),
            watchdog_failed: false,
            pod_ends: false,
            yields: false,
            promised: false,
            suspicion: Suspicion::Unknown,
            recruited: None,
            no_data: false,
            store: StoreMark::default(),
            trouble: Some(trouble),
        }
    }

    /// Why this answer comes from another process than the one that was asked; `None` when it comes from that process,
    /// or there is no answer.
    pub fn misdirected(&self, asked: &PeerIdentity) -> Option<String> {
        self.identity.mismatch(asked).filter(|_| self.reachable)
    }

    /// The answer, if it comes from the process that was asked. Any other answer counts as unreachable.
    #[must_use]
    pub fn of(self, asked: &PeerIdentity) -> PeerAnswer {
        match self.misdirected(asked) {
            Some(trouble) => PeerAnswer::unreachable(self.asked_at, trouble),
            None => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scope: &str, name: &str, system_id: Option<u64>, session: Option<u64>) -> PeerIdentity {
        PeerIdentity {
            scope: Some(scope.to_owned()),
            name: MemberName::new(name).ok(),
            system_id,
            session: session.map(SessionId),
        }
    }

    #[test]
    fn an_answer_counts_only_from_the_process_that_registered() {
        let asked = identity("herd", "m2", Some(7), Some(0xA));
        let cases = [
            (identity("herd", "m2", Some(7), Some(0xA)), None),
            (identity("herd", "m2", None, Some(0xA)), None),
            (identity("herd", "m3", Some(7), Some(0xA)), Some("`m3` answers at the address of `m2`")),
            (identity("crowd", "m2", Some(7), Some(0xA)), Some("cluster `crowd`")),
            (identity("herd", "m2", Some(8), Some(0xA)), Some("system identifier 8")),
            (identity("herd", "m2", Some(7), Some(0xB)), Some("another process")),
            (identity("herd", "m2", Some(7), None), Some("another process")),
            (PeerIdentity { name: None, ..asked.clone() }, Some("nobody answers")),
            (PeerIdentity { scope: None, ..asked.clone() }, Some("cluster nobody")),
            (PeerIdentity::default(), Some("nobody answers")),
        ];
        for (answered, trouble) in cases {
            let found = answered.mismatch(&asked);
            match trouble {
                None => assert_eq!(found, None, "{answered:?}"),
                Some(words) => {
                    assert!(
                        found.as_deref().is_some_and(|text| text.contains(words)),
                        "{answered:?}: {found:?}"
                    );
                }
            }
        }
        // Patroni and older versions of Matriarch register without a session, and there is no identifier before a
        // bootstrap.
        let without = identity("herd", "m2", None, None);
        assert_eq!(identity("herd", "m2", Some(7), Some(0xB)).mismatch(&without), None);
    }

    #[test]
    fn a_session_keeps_all_its_bits_in_json() {
        for session in [SessionId(u64::MAX), SessionId(0), SessionId(1 << 63)] {
            let text = serde_json::to_string(&session).expect("serializable");
            assert_eq!(text.len(), 18, "{text}");
            assert_eq!(serde_json::from_str::<SessionId>(&text).expect("its own text"), session);
        }
        assert!(serde_json::from_str::<SessionId>("\"tea\"").is_err());
    }
}
