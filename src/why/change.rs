//! The records of the journal, joined: what the new leader recorded, and what the one before it did.

use std::collections::BTreeMap;

use crate::model::{
    JournalEntry, JournalFact, JournalRecord, LossBound, MemberName, Sighting, Term, TermBegan, TermEnded,
    WallTime,
};

/// One change of leadership, or an attempt.
#[derive(Clone, Debug)]
pub struct LeaderChange {
    /// The term that began; of an attempt: the term that went on.
    pub term: Term,
    /// All records about it.
    pub records: Vec<JournalRecord>,
}

/// The changes in the order of their terms. The end of a term belongs to the change after it.
pub fn changes(records: &[JournalRecord]) -> Vec<LeaderChange> {
    let mut began: BTreeMap<Term, Vec<JournalRecord>> = BTreeMap::new();
    for record in records {
        if let JournalEntry::Began(_) = record.entry {
            began.entry(record.term).or_default().push(record.clone());
        }
    }
    let mut all: BTreeMap<(Term, WallTime), LeaderChange> = began
        .iter()
        .map(|(term, records)| ((*term, WallTime(0)), LeaderChange { term: *term, records: records.clone() }))
        .collect();
    for record in records {
        let change = match &record.entry {
            JournalEntry::Began(_) => continue,
            JournalEntry::Ended(_) => successor(&began, record),
            JournalEntry::Discarded { .. } => began.contains_key(&record.term).then_some(record.term),
            JournalEntry::Refused { .. } => None,
        };
        let key = change.map_or((record.term, record.at), |term| (term, WallTime(0)));
        let own = || LeaderChange { term: record.term, records: Vec::new() };
        all.entry(key).or_insert_with(own).records.push(record.clone());
    }
    all.into_values().collect()
}

/// The term that began after the one that ended. The new leader names it, if it has seen it.
fn successor(began: &BTreeMap<Term, Vec<JournalRecord>>, ended: &JournalRecord) -> Option<Term> {
    let names_it = |record: &JournalRecord| match &record.entry {
        JournalEntry::Began(began) => began.from.as_ref().is_some_and(|from| from.term == ended.term),
        JournalEntry::Ended(_) | JournalEntry::Refused { .. } | JournalEntry::Discarded { .. } => false,
    };
    let named = began.iter().find(|(_, records)| records.iter().any(names_it));
    let (next, records) = named.or_else(|| began.iter().find(|(term, _)| ended.term < **term))?;
    // A term of which nobody kept a record may lie between.
    let same_leader = |record: &JournalRecord| match &record.entry {
        JournalEntry::Began(began) => began.from.as_ref().is_none_or(|from| from.name == ended.by),
        JournalEntry::Ended(_) | JournalEntry::Refused { .. } | JournalEntry::Discarded { .. } => false,
    };
    records.iter().any(same_leader).then_some(*next)
}

impl LeaderChange {
    /// How the term began, and by whom it is recorded.
    pub fn began(&self) -> Option<(&JournalRecord, &TermBegan)> {
        self.records.iter().find_map(|record| match &record.entry {
            JournalEntry::Began(began) => Some((record, &**began)),
            JournalEntry::Ended(_) | JournalEntry::Refused { .. } | JournalEntry::Discarded { .. } => None,
        })
    }

    /// How the term before ended.
    pub fn ended(&self) -> Option<(&JournalRecord, &TermEnded)> {
        self.records.iter().find_map(|record| match &record.entry {
            JournalEntry::Ended(ended) => Some((record, &**ended)),
            JournalEntry::Began(_) | JournalEntry::Refused { .. } | JournalEntry::Discarded { .. } => None,
        })
    }

    /// Why a hand-over did not happen.
    pub fn refused(&self) -> Option<(&JournalRecord, &str)> {
        self.records.iter().find_map(|record| match &record.entry {
            JournalEntry::Refused { why, .. } => Some((record, why.as_str())),
            JournalEntry::Began(_) | JournalEntry::Ended(_) | JournalEntry::Discarded { .. } => None,
        })
    }

    /// The leader before.
    pub fn former(&self) -> Option<&MemberName> {
        let named = self.began().and_then(|(_, began)| began.from.as_ref()).map(|from| &from.name);
        named.or_else(|| self.ended().map(|(record, _)| &record.by))
    }

    /// When the new leader served; without one: when it was recorded.
    pub fn at(&self) -> WallTime {
        let began = self.began().map(|(record, _)| record.at);
        began.or(self.records.first().map(|record| record.at)).unwrap_or_default()
    }

    /// What may be lost.
    pub fn loss(&self) -> Option<&LossBound> {
        self.began().map(|(_, began)| &began.loss)
    }

    /// Every fact and decision, with who recorded it, in the order of the clocks.
    pub fn course(&self) -> Vec<(WallTime, &MemberName, String)> {
        let mut all: Vec<(WallTime, &MemberName, String)> = Vec::new();
        for record in &self.records {
            let (seen, steps): (&[Sighting], &[_]) = match &record.entry {
                JournalEntry::Began(began) => (&began.seen, &began.steps),
                JournalEntry::Ended(ended) => (&ended.seen, &ended.steps),
                JournalEntry::Refused { steps, .. } => (&[], steps),
                JournalEntry::Discarded { .. } => (&[], &[]),
            };
            let sentence = |it: &Sighting| (it.at, &record.by, format!("saw: {}", it.what));
            all.extend(seen.iter().map(sentence));
            all.extend(steps.iter().map(|step| (step.at, &record.by, step.because.clone())));
            if let JournalEntry::Began(_) = record.entry {
                all.push((record.at, &record.by, "serves as the leader".to_owned()));
            }
        }
        all.sort_by_key(|(at, ..)| *at);
        all
    }

    /// From the first sign of trouble until the new leader served, in milliseconds.
    pub fn took_ms(&self) -> Option<i64> {
        let (record, _) = self.began()?;
        let is_long_before = |at: WallTime| 600_000 < record.at.0 - at.0;
        let first = self.course().into_iter().map(|(at, ..)| at).find(|at| !is_long_before(*at))?;
        Some(record.at.0 - first.0)
    }

    /// How far its time is from this one, in milliseconds.
    pub fn distance_from(&self, at: WallTime) -> u64 {
        let end = self.at().0;
        let begin = end - self.took_ms().unwrap_or_default();
        match at.0 {
            at if at < begin => begin.abs_diff(at),
            at if end < at => at.abs_diff(end),
            _within => 0,
        }
    }

    /// The facts that the former leader recorded.
    pub fn own_account(&self) -> Vec<&JournalFact> {
        self.ended().into_iter().flat_map(|(_, ended)| &ended.seen).map(|sighting| &sighting.what).collect()
    }

    /// The facts that the new leader recorded.
    pub fn witnessed(&self) -> Vec<&JournalFact> {
        self.began().into_iter().flat_map(|(_, began)| &began.seen).map(|sighting| &sighting.what).collect()
    }
}
