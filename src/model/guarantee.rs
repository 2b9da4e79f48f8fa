//! The current guarantee of synchronous replication, as a sentence and as numbers.

use std::collections::BTreeSet;
use std::fmt;

use super::{ClusterView, MemberName, SyncMode, SyncSettings};

/// How a standby takes part in a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyKind {
    /// It does not take part.
    Asynchronous,
    /// It confirms every commit.
    Sync,
    /// It belongs to a quorum: a part of its members confirms every commit.
    Quorum,
}

impl StandbyKind {
    /// The kind of the standby `name`: its place in the key `sync` counts only while a mode is on.
    pub fn of(mode: SyncMode, view: &ClusterView, name: &MemberName) -> StandbyKind {
        let votes = view.sync_record().is_some_and(|record| record.is_voter(name));
        match (mode, votes) {
            (SyncMode::Off, _) | (_, false) => StandbyKind::Asynchronous,
            (SyncMode::On, true) => StandbyKind::Sync,
            (SyncMode::Quorum, true) => StandbyKind::Quorum,
        }
    }
}

/// The guarantee for acknowledged commits when members are lost. Its `Display` is the sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guarantee {
    /// No synchronous mode is on.
    Asynchronous,
    /// A mode is on, but the key `sync` does not name the present leader.
    NotInForce,
    /// The leader commits alone; strict: commits wait.
    Unconfirmed {
        /// Commits wait rather than being confirmed by no standby.
        strict: bool,
    },
    /// Standbys confirm.
    Confirmed {
        /// How many confirm each commit, at least.
        count: usize,
        /// Those standbys; if there are `count` of them, all confirm.
        by: BTreeSet<MemberName>,
        /// The mode.
        quorum: bool,
        /// The number that the configuration asks for.
        wanted: usize,
    },
    /// No member leads, so nothing commits.
    Leaderless {
        /// Any this many of `holders` include one with every acknowledged commit.
        among: usize,
        /// The former leader and its voters.
        holders: BTreeSet<MemberName>,
    },
}

impl Guarantee {
    /// What is promised under `settings`, by what `view` shows.
    pub fn of(settings: &SyncSettings, view: &ClusterView) -> Guarantee {
        let quorum = match settings.mode {
            SyncMode::Off => return Guarantee::Asynchronous,
            SyncMode::On => false,
            SyncMode::Quorum => true,
        };
        let Some(record) = view.sync_record() else { return Guarantee::NotInForce };
        let holders: BTreeSet<MemberName> = record.voters.iter().chain(&record.leader).cloned().collect();
        let Some(leader) = view.leader.as_ref().map(|key| &key.name) else {
            return Guarantee::Leaderless { among: record.quorum + 1, holders };
        };
        let by: BTreeSet<MemberName> =
            holders.iter().filter(|holder| !holder.is_same(leader)).cloned().collect();
        if by.len() == holders.len() {
            return Guarantee::NotInForce;
        }
        match by.len().saturating_sub(record.quorum) {
            0 => Guarantee::Unconfirmed { strict: settings.strict },
            count => Guarantee::Confirmed { count, by, quorum, wanted: settings.node_count },
        }
    }

    /// The number of members, the leader included, that can be lost without losing an acknowledged commit.
    pub fn failures_tolerated(&self) -> usize {
        match self {
            Guarantee::Asynchronous | Guarantee::NotInForce | Guarantee::Unconfirmed { .. } => 0,
            Guarantee::Confirmed { count, .. } => *count,
            Guarantee::Leaderless { among, holders } => holders.len().saturating_sub(*among),
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Guarantee::Asynchronous => write!(f, "Asynchronous: a failover may lose the last commits"),
            Guarantee::NotInForce => {
                write!(f, "Synchronous: not in force yet; a failover may lose the last commits")
            }
            Guarantee::Unconfirmed { strict: false } => {
                write!(f, "Synchronous: no standby confirms commits now; a failover may lose the last ones")
            }
            Guarantee::Unconfirmed { strict: true } => {
                write!(f, "Synchronous: no standby confirms commits now; they wait until one does (strict)")
            }
            Guarantee::Confirmed { count, by, quorum, wanted } => {
                let mode = if *quorum { "quorum, " } else { "" };
                let who = match (by.len() == *count, *count) {
                    (true, 1) => format!("{} confirms", listed(by)),
                    (true, _) => format!("{} confirm", joined(by)),
                    (false, 1) => format!("any 1 of {} confirms", listed(by)),
                    (false, _) => format!("any {count} of {} confirm", listed(by)),
                };
                let short =
                    if count < wanted { format!(" ({wanted} standbys should)") } else { String::new() };
                let lost = match count {
                    1 => "1 member is lost".to_owned(),
                    _ => format!("{count} members are lost"),
                };
                write!(
                    f,
                    "Synchronous: {mode}{who} each commit{short}; no acknowledged commit is lost if {lost}"
                )
            }
            Guarantee::Leaderless { among: 1, holders } => {
                let verb = if holders.len() == 1 { "holds" } else { "hold" };
                let who = joined(holders);
                write!(f, "Synchronous: nobody leads; {who} {verb} every acknowledged commit")
            }
            Guarantee::Leaderless { among, holders } => {
                let who = listed(holders);
                write!(
                    f,
                    "Synchronous: nobody leads; among any {among} of {who} one holds every acknowledged commit"
                )
            }
        }
    }
}

fn listed(names: &BTreeSet<MemberName>) -> String {
    names.iter().map(MemberName::as_str).collect::<Vec<_>>().join(", ")
}

/// `a, b and c`.
fn joined(names: &BTreeSet<MemberName>) -> String {
    let mut names: Vec<&str> = names.iter().map(MemberName::as_str).collect();
    match names.pop() {
        Some(last) if !names.is_empty() => format!("{} and {last}", names.join(", ")),
        last => last.unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LeaderKey, SyncKey, SyncRecord, Term};
    use SyncMode::{Off, On, Quorum};

    fn name(text: &str) -> MemberName {
        MemberName::new(text).expect("a name")
    }

    fn view(leader: &str, record: Option<(&str, usize, &str)>) -> ClusterView {
        let names = |list: &str| list.split_whitespace().map(name).collect::<BTreeSet<_>>();
        let key = |(leader, quorum, voters): (&str, usize, &str)| SyncKey {
            record: SyncRecord { leader: names(leader).pop_first(), quorum, voters: names(voters) },
            mod_revision: 1,
        };
        let leader = names(leader).pop_first().map(|name| LeaderKey { name, lease: None, term: Term(1) });
        ClusterView { leader, sync: record.map(key), ..ClusterView::default() }
    }

    fn settings(mode: SyncMode, node_count: usize) -> SyncSettings {
        SyncSettings { mode, node_count, ..SyncSettings::default() }
    }

    type Case =
        (SyncMode, usize, &'static str, Option<(&'static str, usize, &'static str)>, usize, &'static str);

    fn check(cases: &[Case], sentence_of: impl Fn(&str) -> String) {
        for (mode, node_count, leader, record, losses, words) in cases.iter().copied() {
            let found = Guarantee::of(&settings(mode, node_count), &view(leader, record));
            assert_eq!(found.to_string(), sentence_of(words), "{mode:?} {leader} {record:?}");
            assert_eq!(found.failures_tolerated(), losses, "{mode:?} {leader} {record:?}");
        }
    }

    #[test]
    fn standbys_that_confirm_are_named() {
        let one: &[Case] = &[
            (On, 1, "a", Some(("a", 0, "b")), 1, "b confirms each commit"),
            (On, 2, "a", Some(("a", 0, "b")), 1, "b confirms each commit (2 standbys should)"),
            (Quorum, 1, "a", Some(("a", 0, "b")), 1, "quorum, b confirms each commit"),
            (Quorum, 1, "a", Some(("a", 1, "b c")), 1, "quorum, any 1 of b, c confirms each commit"),
            // The new leader has not rewritten the key: the former leader is among the members that confirm.
            (Quorum, 1, "b", Some(("a", 1, "b c")), 1, "quorum, any 1 of a, c confirms each commit"),
        ];
        check(one, |who| format!("Synchronous: {who}; no acknowledged commit is lost if 1 member is lost"));
        let two: &[Case] = &[
            (On, 2, "a", Some(("a", 0, "b c")), 2, "b and c confirm each commit"),
            (Quorum, 2, "A", Some(("a", 1, "b c d")), 2, "quorum, any 2 of b, c, d confirm each commit"),
        ];
        check(two, |who| format!("Synchronous: {who}; no acknowledged commit is lost if 2 members are lost"));
    }

    #[test]
    fn missing_guarantees_are_reported() {
        let asynchronous = "Asynchronous: a failover may lose the last commits";
        let not_yet = "Synchronous: not in force yet; a failover may lose the last commits";
        let alone = "Synchronous: no standby confirms commits now; a failover may lose the last ones";
        let cases: &[Case] = &[
            (Off, 1, "a", None, 0, asynchronous),
            // Just switched off: the key will be deleted soon.
            (Off, 1, "a", Some(("a", 0, "b")), 0, asynchronous),
            (On, 1, "a", None, 0, not_yet),
            (On, 1, "a", Some(("", 0, "b")), 0, not_yet),
            // An operator forced leadership upon a member that the key does not list.
            (On, 1, "c", Some(("a", 0, "b")), 0, not_yet),
            (On, 1, "a", Some(("a", 0, "")), 0, alone),
            (Quorum, 1, "a", Some(("a", 1, "b")), 0, alone),
        ];
        check(cases, str::to_owned);
        let strict = SyncSettings { strict: true, ..settings(On, 1) };
        let sentence = Guarantee::of(&strict, &view("a", Some(("a", 0, "")))).to_string();
        assert!(sentence.ends_with("they wait until one does (strict)"), "{sentence}");
    }

    #[test]
    fn without_a_leader_it_names_members_with_all_acknowledged_commits() {
        let cases: &[Case] = &[
            (On, 1, "", Some(("a", 0, "")), 0, "a holds every acknowledged commit"),
            (On, 1, "", Some(("a", 0, "b c")), 2, "a, b and c hold every acknowledged commit"),
            (
                Quorum,
                1,
                "",
                Some(("a", 1, "b c")),
                1,
                "among any 2 of a, b, c one holds every acknowledged commit",
            ),
        ];
        check(cases, |words| format!("Synchronous: nobody leads; {words}"));
    }

    #[test]
    fn the_sync_key_decides_the_kind_of_standby_while_a_mode_is_on() {
        use StandbyKind::{Asynchronous, Sync};
        let in_force = view("a", Some(("a", 0, "b")));
        let empty = view("a", Some(("", 0, "b")));
        for (mode, view, who, kind) in [
            (On, &in_force, "b", Sync),
            (On, &in_force, "B", Sync),
            (Quorum, &in_force, "b", StandbyKind::Quorum),
            (On, &in_force, "c", Asynchronous),
            (On, &in_force, "a", Asynchronous),
            (Off, &in_force, "b", Asynchronous),
            (On, &empty, "b", Asynchronous),
        ] {
            assert_eq!(StandbyKind::of(mode, view, &name(who)), kind, "{mode:?} {who}");
        }
    }
}
