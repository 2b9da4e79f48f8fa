//! Primaries that run without a supervisor, and so without a fence.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterView, Lsn, MemberName, SessionId, Term, Timeline};

/// The key `unfenced`: which supervisors ended in pause and left a primary running. Ours: Patroni neither writes nor
/// heeds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedKey {
    /// Each by the member's name.
    pub primaries: BTreeMap<MemberName, UnfencedPrimary>,
    /// For compare-and-swap.
    pub mod_revision: i64,
}

/// A primary as its supervisor left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedPrimary {
    /// In which its member led.
    #[serde(default)]
    pub term: Term,
    /// What it had flushed.
    #[serde(default)]
    pub position: Lsn,
    /// On which timeline.
    #[serde(default)]
    pub timeline: Option<Timeline>,
    /// The supervisor that left it.
    #[serde(default)]
    pub session: SessionId,
}

/// A write to the key `unfenced`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfencedWrite {
    /// Only if I still lead in it, where one is given.
    pub term: Option<Term>,
    /// The value; where it is empty the key is deleted.
    pub primaries: BTreeMap<MemberName, UnfencedPrimary>,
    /// The revision that was read; zero: there was no key.
    pub mod_revision: i64,
}

/// What a primary without a fence, or one that may be left so, keeps a member from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnfencedReason {
    /// Nobody is promoted beside it.
    Bars {
        /// Whose it is.
        member: MemberName,
        /// As it was left.
        left: UnfencedPrimary,
    },
    /// Nobody leads, and WAL comes in all the same.
    Streams,
    /// I am to end in pause: etcd hears first that my primary goes on.
    Leaving,
    /// And etcd cannot be told.
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
    /// The primaries without a fence, but for the one of `but`.
    pub fn unfenced(
        &self,
        but: Option<&MemberName>,
    ) -> impl Iterator<Item = (&MemberName, &UnfencedPrimary)> {
        let primaries = self.unfenced.iter().flat_map(|key| &key.primaries);
        primaries.filter(move |(name, _)| Some(*name) != but)
    }

    /// What an operator has to know of a primary without a fence, as a sentence.
    pub fn unfenced_text(name: &MemberName, left: &UnfencedPrimary) -> String {
        format!(
            "{name} was left running as a primary in pause, at {} in term {}: no member is promoted before its \
             supervisor is back; if its PostgreSQL is down, confirm that: `matriarch failover --candidate NAME \
             --confirm-down {name}`",
            left.position, left.term.0
        )
    }
}
