//! Replication slots: those that settings name, and changes to those of a server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClusterView, FollowTarget, Lsn, MemberName, Moment, SlotFacts, slot_name};

/// The value of the keys `slots` and `ignore_slots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotSettings {
    /// The permanent slots under `slots`: they outlive failovers.
    pub permanent: BTreeMap<String, SlotKind>,
    /// Slots that the supervisor never touches.
    pub ignored: Vec<SlotPattern>,
}

/// The kind of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotKind {
    /// It retains WAL.
    Physical,
    /// Changes of one database are decoded through it.
    Logical {
        /// The database.
        database: String,
        /// The output plugin.
        plugin: String,
    },
}

/// An element of `ignore_slots`. A part that is absent matches every slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotPattern {
    /// Its name.
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub kind: Option<String>,
    /// A logical one's database.
    pub database: Option<String>,
    /// A logical one's output plugin.
    pub plugin: Option<String>,
}

/// Changes to the slots of a running server, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChanges {
    /// Slots to drop, unless a connection uses them.
    pub drop: Vec<String>,
    /// Physical slots to create. They retain WAL at once.
    pub create: Vec<String>,
    /// Physical slots to move forward, unless a connection uses them, each with the oldest WAL that is still needed.
    pub advance: BTreeMap<String, Lsn>,
}

/// Changes to the logical slots of a running server. They may take long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalSlotChanges {
    /// Slots to create on a primary.
    pub create: BTreeMap<String, SlotKind>,
    /// Slots to move forward, unless a connection uses them.
    pub advance: BTreeMap<String, LogicalAdvance>,
}

/// Where a logical slot is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogicalAdvance {
    /// Its database.
    pub database: String,
    /// What its reader has confirmed.
    pub to: Lsn,
}

/// What a standby asks the leader's PostgreSQL about its logical slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderSlotsQuestion {
    /// The leader.
    pub leader: FollowTarget,
    /// The physical slot through which this standby is supplied.
    pub through: String,
    /// The logical slots.
    pub slots: Vec<String>,
    /// Those of which this standby needs a copy.
    pub copy: Vec<String>,
}

/// The answer to a [`LeaderSlotsQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderSlots {
    /// The leader.
    pub leader: MemberName,
    /// When it was asked.
    pub asked_at: Moment,
    /// The oldest transaction whose catalog rows each logical slot needs.
    pub catalog_xmin: BTreeMap<String, Xid>,
    /// The same for the physical slot.
    pub held: Option<Xid>,
    /// The slots whose copies wait for the next start of this standby.
    pub copied: Vec<String>,
}

/// A transaction id. Ids are reused, so two are compared by the shorter way between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xid(pub u32);

impl Xid {
    /// Whether it is the same, or older.
    pub fn is_not_after(self, other: Xid) -> bool {
        other.0.wrapping_sub(self.0) < 1 << 31
    }
}

impl LogicalSlotChanges {
    /// Nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.advance.is_empty()
    }

    /// Whether both change the same slots in the same way; positions do not count.
    pub fn is_like(&self, other: &LogicalSlotChanges) -> bool {
        self.create == other.create && self.advance.keys().eq(other.advance.keys())
    }
}

impl SlotSettings {
    /// Whether the supervisor never touches it.
    pub fn ignores(&self, name: &str, facts: &SlotFacts) -> bool {
        self.ignored.iter().any(|pattern| pattern.fits(name, facts))
    }

    /// Permanent logical slots that cannot exist, because a member streams through a physical slot of that name.
    pub fn conflicts<'a>(&'a self, cluster: &'a ClusterView) -> BTreeMap<&'a str, &'a MemberName> {
        let logical = |slot: &str| {
            let (name, kind) = self.permanent.get_key_value(slot)?;
            (*kind != SlotKind::Physical).then_some(name.as_str())
        };
        cluster.members.keys().filter_map(|member| Some((logical(&slot_name(member))?, member))).collect()
    }
}

impl SlotKind {
    /// Whether an existing slot is of this kind.
    pub fn fits(&self, facts: &SlotFacts) -> bool {
        match self {
            SlotKind::Physical => facts.kind == "physical",
            SlotKind::Logical { database, plugin } => {
                facts.kind == "logical"
                    && facts.database.as_ref() == Some(database)
                    && facts.plugin.as_ref() == Some(plugin)
            }
        }
    }
}

impl SlotPattern {
    fn fits(&self, name: &str, facts: &SlotFacts) -> bool {
        let fits = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
        };
        fits(&self.name, Some(name))
            && fits(&self.kind, Some(&facts.kind))
            && fits(&self.database, facts.database.as_deref())
            && fits(&self.plugin, facts.plugin.as_deref())
    }
}

impl SlotChanges {
    /// Nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.create.is_empty() && self.advance.is_empty()
    }

    /// Whether both change the same slots in the same way; positions do not count.
    pub fn is_like(&self, other: &SlotChanges) -> bool {
        (&self.drop, &self.create) == (&other.drop, &other.create)
            && self.advance.keys().eq(other.advance.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_pattern_matches_by_all_its_parts() {
        let text = |text: &str| Some(text.to_owned());
        let logical = SlotFacts {
            kind: "logical".to_owned(),
            database: text("shop"),
            plugin: text("pgoutput"),
            ..SlotFacts::default()
        };
        let physical = SlotFacts { kind: "physical".to_owned(), ..SlotFacts::default() };
        let by_plugin = SlotPattern { plugin: text("pgoutput"), ..SlotPattern::default() };
        let by_all = SlotPattern {
            name: text("s"),
            kind: text("logical"),
            database: text("shop"),
            plugin: text("pgoutput"),
        };
        for (pattern, name, facts, fits) in [
            (&by_plugin, "a", &logical, true),
            (&by_plugin, "a", &physical, false),
            (&by_all, "s", &logical, true),
            (&by_all, "t", &logical, false),
            (&SlotPattern::default(), "a", &physical, true),
        ] {
            assert_eq!(pattern.fits(name, facts), fits, "{pattern:?} {name} {facts:?}");
        }
    }
}
