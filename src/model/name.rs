//! Names of members, and of the replication slots made from them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A member's name: the last part of its key in etcd, its `application_name` and the source of its slot's name.
/// Never empty, holds no `/` and no control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberName(String);

impl MemberName {
    /// Takes `name` if it can be a key and an application name.
    pub fn new(name: impl Into<String>) -> Result<MemberName, NameError> {
        let name = name.into();
        if name.is_empty() || name.contains('/') || name.chars().any(char::is_control) || name == RESERVED {
            return Err(NameError(name));
        }
        Ok(MemberName(name))
    }

    /// True for the same name. PostgreSQL compares application names without regard to case, and so does the matching
    /// of standbys here.
    pub fn is_same(&self, other: &MemberName) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Patroni's placeholder in `synchronous_standby_names`; no member may have this name.
pub(super) const RESERVED: &str = "__patroni_strict_sync_replica_placeholder__";

/// The text cannot name a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be a member's name: it must not be empty, contain `/` or control characters, or be a reserved name"
)]
pub struct NameError(pub String);

impl TryFrom<String> for MemberName {
    type Error = NameError;

    fn try_from(name: String) -> Result<MemberName, NameError> {
        MemberName::new(name)
    }
}

impl From<MemberName> for String {
    fn from(name: MemberName) -> String {
        name.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The physical slot of the member `name`: lower case, `-` and `.` become `_`, any other character outside
/// `[a-z0-9_]` becomes `u` and its code point in four digits, cut to 63 characters.
pub fn slot_name(name: &MemberName) -> String {
    let mut slot = String::new();
    for c in name.as_str().to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => slot.push(c),
            '-' | '.' => slot.push('_'),
            other => slot.push_str(&format!("u{:04}", other as u32)),
        }
    }
    slot.truncate(63);
    slot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names_are_valid_identifiers() {
        let slot = |name: &str| slot_name(&MemberName::new(name).expect("a valid name"));
        assert_eq!(slot("Node-1.example"), "node_1_example");
        assert_eq!(slot("a b"), "au0032b");
        assert_eq!(slot(&"x".repeat(80)).len(), 63);
    }

    #[test]
    fn invalid_names_are_refused() {
        for name in ["", "a/b", "a\nb", RESERVED] {
            assert!(MemberName::new(name).is_err(), "{name:?}");
        }
    }
}
