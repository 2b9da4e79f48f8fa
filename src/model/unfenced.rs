//! Primaries that run without a supervisor, and so without a fence.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterView, Lsn, MemberName, SessionId, Term, Timeline};

/// The key `unfenced`: primaries that kept running when their supervisor ended in pause. Ours: Patroni neither writes
/// nor heeds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedKey {
    /// Unfenced primaries by their member's name.
    pub primaries: BTreeMap<MemberName, UnfencedPrimary>,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

/// A primary as its supervisor left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedPrimary {
    /// The term in which its member led.
    #[serde(default)]
    pub term: Term,
    /// The position it had flushed.
    #[serde(default)]
    pub position: Lsn,
    /// The timeline of that position.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// The supervisor that left it.
    #[serde(default)]
    pub session: SessionId,
}

/// A write to the key `unfenced`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedWrite {
    /// The term that guards the write, if one does.
    pub term: Option<Term>,
    /// The value; an empty one deletes the key.
    pub primaries: BTreeMap<MemberName, UnfencedPrimary>,
    /// The revision that was read; zero: there was no key.
    pub mod_revision: i64,
}

/// A restriction because of an unfenced primary, or of one that will be left so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnfencedReason {
    /// No member is promoted while it may run.
    Bars {
        /// Its member.
        member: MemberName,
        /// Its state when it was left.
        left: UnfencedPrimary,
    },
    /// No member leads, and WAL arrives all the same.
    Streams,
    /// This supervisor is to end in pause. First etcd records that its primary keeps running.
    Leaving,
    /// It is to end in pause, and etcd cannot record that.
    NotLeft,
}

impl fmt::Display for UnfencedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnfencedReason::Bars { member, left } => {
                write!(f, "nobody leads, and {}", ClusterView::unfenced_text(member, left))
            }
            UnfencedReason::Streams => {
                write!(
                    f,
                    "nobody leads, but this member still receives WAL: a primary that sends it still runs"
                )
            }
            UnfencedReason::Leaving => {
                write!(
                    f,
                    "shutdown requested in pause: recording in etcd that PostgreSQL continues without a guard"
                )
            }
            UnfencedReason::NotLeft => write!(
                f,
                "shutdown requested in pause, and etcd cannot record that PostgreSQL continues without a guard: stopping it"
            ),
        }
    }
}

impl ClusterView {
    /// The unfenced primaries except the one of `but`.
    pub fn unfenced(
        &self,
        but: Option<&MemberName>,
    ) -> impl Iterator<Item = (&MemberName, &UnfencedPrimary)> {
        let primaries = self.unfenced.iter().flat_map(|key| &key.primaries);
        primaries.filter(move |(name, _)| Some(*name) != but)
    }

    /// The sentence about an unfenced primary, for the operator.
    pub fn unfenced_text(name: &MemberName, left: &UnfencedPrimary) -> String {
        format!(
            "{name} was left running as a primary in pause, at {} in term {}: no member is promoted before its \
             supervisor is back; if its PostgreSQL is down, confirm that: `matriarch failover --candidate NAME \
             --confirm-down {name}`",
            left.position, left.term.0
        )
    }
}
