//! Replication slots that stay although no member uses them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::SlotFacts;

/// The value of the keys `slots` and `ignore_slots`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlotSettings {
    /// The names under `slots`: these slots stay on every member.
    pub permanent: BTreeSet<String>,
    /// Slots that the supervisor never touches.
    pub ignored: Vec<SlotPattern>,
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

impl SlotSettings {
    /// Whether a slot stays that no member needs.
    pub fn keep(&self, name: &str, facts: &SlotFacts) -> bool {
        self.permanent.contains(name) || self.ignored.iter().any(|pattern| pattern.fits(name, facts))
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
