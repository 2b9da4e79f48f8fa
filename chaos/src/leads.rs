//! The leader of a cluster: of two simultaneous primaries, the primary with the older timeline is surplus.
//!
//! An act on an older timeline counts only if it *began* after an act on a newer one had *ended*: then there is no
//! order of the two in which the older primary had stepped down first.

use std::collections::BTreeMap;

/// Acts of primaries, by timeline.
#[derive(Debug, Default)]
pub(crate) struct Leads {
    /// For each timeline, who acted on it and when the first act ended.
    first: BTreeMap<u32, (usize, u64)>,
    /// Acts of one too many.
    pub(crate) doubly: u64,
    /// The longest time from the first act on a newer timeline to the last on an older one.
    pub(crate) overlap_us: u64,
    last_overlap_us: u64,
}

impl Leads {
    /// Takes in an act of a member on a timeline, from and to. Says what is wrong with it, if anything.
    pub(crate) fn see(&mut self, member: usize, timeline: u32, (from, to): (u64, u64)) -> Option<String> {
        let newer =
            self.first.range(timeline + 1..).map(|(newer, (who, ended))| (*ended, *newer, *who)).min();
        if let Some((ended, newer, who)) = newer.filter(|(ended, _, _)| *ended < from) {
            self.doubly += 1;
            self.last_overlap_us = self.last_overlap_us.max(from - ended);
            self.overlap_us = self.overlap_us.max(from - ended);
            return Some(format!(
                "m{} acted on timeline {timeline} at {from} us, m{} had on timeline {newer} at {ended} us",
                member + 1,
                who + 1
            ));
        }
        let (who, ended) = *self.first.entry(timeline).or_insert((member, to));
        if who != member {
            self.doubly += 1;
            let what = format!("m{} and m{} both act on timeline {timeline}", member + 1, who + 1);
            return Some(what);
        }
        self.first.insert(timeline, (who, ended.min(to)));
        None
    }

    /// The longest overlap since it was forgotten.
    pub(crate) fn last_overlap_us(&self) -> u64 {
        self.last_overlap_us
    }

    /// Begins anew with that.
    pub(crate) fn forget_last_overlap(&mut self) {
        self.last_overlap_us = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_timeline_after_a_newer_one_is_one_too_many() {
        let mut leads = Leads::default();
        assert!(leads.see(0, 2, (0, 10)).is_none());
        assert!(leads.see(1, 3, (5, 20)).is_none());
        // It began before the newer one ended its first act: it may have come first.
        assert!(leads.see(0, 2, (15, 30)).is_none());
        assert!(leads.see(0, 2, (25, 40)).expect("two lead").contains("m2 had on timeline 3"));
        assert_eq!((leads.doubly, leads.overlap_us), (1, 5));
        leads.forget_last_overlap();
        assert_eq!(leads.last_overlap_us(), 0);
    }

    #[test]
    fn one_timeline_has_one_primary() {
        let mut leads = Leads::default();
        assert!(leads.see(0, 2, (0, 10)).is_none());
        assert!(leads.see(0, 2, (11, 12)).is_none());
        assert!(leads.see(1, 2, (20, 30)).is_some());
    }
}
