//! The answer of another member over REST, and the check that the expected member answered.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterView, Lsn, MemberName, Moment, Role, StoreMark, Tags, Timeline};

/// The number of one supervisor process, random, new with each start. Written as 16 hexadecimal digits: JSON readers
/// lose bits of large numbers.
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

/// Which process answered, in its own words; or which one was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The cluster's name.
    pub scope: Option<String>,
    /// The member's name.
    pub name: Option<MemberName>,
    /// Of its database, where one is known.
    pub system_id: Option<u64>,
    /// Of its supervisor process. Patroni has none, nor has an older Matriarch.
    pub session: Option<SessionId>,
}

impl PeerIdentity {
    /// Why this is not the process that was asked; `None` when it is. Scope and name have to be there and to match, the
    /// system identifier where both are known, the session where the asked member registered with one.
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
    /// How the process that registered as `name` identifies itself.
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
    /// When it was asked: the answer is at least that new.
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
    /// Whether `lsn` is all it holds. Programs that do not say so are not believed to.
    pub exact: bool,
    /// A standby into which WAL may be coming, from whoever led.
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
    /// It cannot use the watchdog it is required to use.
    pub watchdog_failed: bool,
    /// Its pod ends, or is gone: it does not lead any more.
    #[serde(default)]
    pub pod_ends: bool,
    /// It gave the leader key away because it cannot serve, or finds itself too far behind: nobody waits for it.
    pub yields: bool,
    /// It looked into its data directory and found nothing of use: there is nothing that only it holds.
    #[serde(default)]
    pub no_data: bool,
    /// How far it has seen etcd's store.
    #[serde(default)]
    pub store: StoreMark,
    /// Why it does not count, when it is not reachable.
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
            no_data: false,
            store: StoreMark::default(),
            trouble: Some(trouble),
        }
    }

    /// Why another process than the one that was asked gave this answer; `None` when it is the asked one, or nobody
    /// answered.
    pub fn misdirected(&self, asked: &PeerIdentity) -> Option<String> {
        self.identity.mismatch(asked).filter(|_| self.reachable)
    }

    /// The answer, if the process that was asked gave it: any other one does not count.
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
        // Patroni, and an older Matriarch, registers without a session, and before a bootstrap there is no identifier.
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
