//! The check whether a member may lead. The race, the hand-over, REST and the command line share it; a refusal is a
//! type.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ClusterView, Lsn, MemberName, Observation, PeerAnswer, StandbyKind, SyncMode, Tags, Timeline};

/// Why a member cannot lead. Its `Display` completes "member …".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ineligible {
    /// etcd knows no such member.
    NoMember,
    /// It already leads.
    Leads,
    /// It carries the tag `nofailover`.
    NoFailoverTag,
    /// It is not synchronous, and only synchronous standbys can take over without a loss.
    NotSynchronous,
    /// It does not answer.
    Silent {
        /// The reason, if it is known.
        trouble: Option<String>,
    },
    /// It cannot use its watchdog.
    WatchdogFailed,
    /// Its pod is being deleted or is gone.
    PodEnds,
    /// Its PostgreSQL is not in recovery.
    NotStandby,
    /// It gave the leader key away, or is too far behind by its own judgement.
    Yields,
    /// The key `failsafe` does not name it.
    NotInFailsafe,
    /// It would not receive the leader's last WAL.
    NotStreaming {
        /// The leader.
        from: MemberName,
    },
    /// It lacks more WAL than may be lost.
    TooFarBehind {
        /// How much it lacks.
        bytes: u64,
        /// `maximum_lag_on_failover`.
        limit: u64,
    },
    /// It is not on the leader's timeline.
    OtherTimeline,
    /// It may lack acknowledged commits, by the key `sync`.
    NotVouchedFor,
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ineligible::NoMember => write!(f, "does not exist"),
            Ineligible::Leads => write!(f, "is already the leader"),
            Ineligible::NoFailoverTag => write!(f, "has the tag nofailover"),
            Ineligible::NotSynchronous => write!(f, "is not synchronous"),
            Ineligible::Silent { trouble } => {
                write!(f, "does not answer: {}", trouble.as_deref().unwrap_or("no reason known"))
            }
            Ineligible::WatchdogFailed => write!(f, "cannot use its watchdog"),
            Ineligible::PodEnds => write!(f, "runs in a pod that ends or is gone"),
            Ineligible::NotStandby => write!(f, "is not a standby"),
            Ineligible::Yields => {
                write!(f, "released the leader key, or reports that it is too far behind")
            }
            Ineligible::NotInFailsafe => write!(f, "is not named by the key failsafe"),
            Ineligible::NotStreaming { from } => write!(
                f,
                "does not stream from {from}: see the log of its PostgreSQL, and check that pg_hba.conf and the \
                 replication user here permit it"
            ),
            Ineligible::TooFarBehind { bytes, limit } => {
                write!(f, "is {bytes} bytes behind, and maximum_lag_on_failover is {limit}")
            }
            Ineligible::OtherTimeline => write!(f, "is on another timeline"),
            Ineligible::NotVouchedFor => write!(f, "may lack acknowledged commits"),
        }
    }
}

/// A fault that keeps a member from leading, whatever its position and whichever member leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFault {
    /// It carries the tag `nofailover`.
    NoFailoverTag,
    /// It cannot use its watchdog.
    WatchdogFailed,
    /// Its pod is being deleted or is gone.
    PodEnds,
}

impl OwnFault {
    /// The first fault in the order of this list.
    fn of(tags: &Tags, watchdog_failed: bool, pod_ends: bool) -> Option<OwnFault> {
        let faults = [
            (tags.nofailover(), OwnFault::NoFailoverTag),
            (watchdog_failed, OwnFault::WatchdogFailed),
            (pod_ends, OwnFault::PodEnds),
        ];
        faults.into_iter().find(|(is_so, _)| *is_so).map(|(_, fault)| fault)
    }
}

impl From<OwnFault> for Ineligible {
    fn from(fault: OwnFault) -> Ineligible {
        match fault {
            OwnFault::NoFailoverTag => Ineligible::NoFailoverTag,
            OwnFault::WatchdogFailed => Ineligible::WatchdogFailed,
            OwnFault::PodEnds => Ineligible::PodEnds,
        }
    }
}

impl Observation {
    /// The fault that keeps this member from leading. In pause the end of its pod is no fault.
    pub fn own_fault(&self) -> Option<OwnFault> {
        let pod_ends = self.pod_end.is_some() && !self.settings.pause;
        OwnFault::of(&self.me.tags, self.watchdog_failed, pod_ends)
    }
}

impl PeerAnswer {
    /// Whether it may lead, whatever its position: it answers, and has no fault of its own.
    pub fn eligible(&self) -> Result<(), Ineligible> {
        refuse_unless(self.reachable, || Ineligible::Silent { trouble: self.trouble.clone() })?;
        let fault = OwnFault::of(&self.tags, self.watchdog_failed, self.pod_ends);
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    /// Whether it may also take over from another leader.
    pub fn eligible_standby(&self) -> Result<(), Ineligible> {
        self.eligible()?;
        refuse_unless(self.in_recovery, || Ineligible::NotStandby)
    }
}

/// The leader that hands over, for comparison with its candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandingOver<'a> {
    /// Its name.
    pub leader: &'a MemberName,
    /// Its position.
    pub lsn: Lsn,
    /// Its timeline.
    pub timeline: Option<Timeline>,
    /// `maximum_lag_on_failover`.
    pub limit: u64,
}

impl HandingOver<'_> {
    /// Whether the member that gave `answer` can take over. `streams`: the leader's last WAL reaches it. `synchronous`:
    /// it is synchronous, or need not be.
    pub fn eligible(&self, answer: &PeerAnswer, streams: bool, synchronous: bool) -> Result<(), Ineligible> {
        let (bytes, limit) = (self.lsn.bytes_since(answer.lsn), self.limit);
        answer.eligible_standby()?;
        refuse_unless(streams, || Ineligible::NotStreaming { from: self.leader.clone() })?;
        refuse_unless(synchronous, || Ineligible::NotSynchronous)?;
        refuse_unless(bytes <= limit, || Ineligible::TooFarBehind { bytes, limit })?;
        refuse_unless(answer.timeline == self.timeline, || Ineligible::OtherTimeline)
    }
}

/// Whether WAL goes to `name`: `standbys` are those that stream, and `through` is the member that relays to it.
pub fn gets_wal(standbys: &[&str], name: &MemberName, through: Option<&MemberName>) -> bool {
    let streams = |name: &MemberName| standbys.iter().any(|it| it.eq_ignore_ascii_case(name.as_str()));
    streams(name) || through.is_some_and(streams)
}

impl ClusterView {
    /// Whether `name` is a member other than the leader.
    pub fn eligible(&self, name: &MemberName) -> Result<(), Ineligible> {
        let leads = self.leader.as_ref().is_some_and(|leader| leader.name == *name);
        refuse_unless(self.members.contains_key(name), || Ineligible::NoMember)?;
        refuse_unless(!leads, || Ineligible::Leads)
    }

    /// Whether the tags in the member's key allow it to lead. Its own answer is newer.
    pub fn eligible_by_tag(&self, name: &MemberName) -> Result<(), Ineligible> {
        let barred = self.members.get(name).is_some_and(|key| key.record.tags.nofailover());
        refuse_unless(!barred, || Ineligible::NoFailoverTag)
    }

    /// Whether `name` can take over without a loss in `mode`. In mode on each commit waits for certain standbys.
    pub fn eligible_in(&self, mode: SyncMode, name: &MemberName) -> Result<(), Ineligible> {
        let sync = mode != SyncMode::On || StandbyKind::of(mode, self, name) == StandbyKind::Sync;
        refuse_unless(sync, || Ineligible::NotSynchronous)
    }
}

fn refuse_unless(fit: bool, why: impl FnOnce() -> Ineligible) -> Result<(), Ineligible> {
    if fit { Ok(()) } else { Err(why()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Moment, Tags};

    fn well() -> PeerAnswer {
        PeerAnswer {
            reachable: true,
            in_recovery: true,
            lsn: Lsn(1000),
            timeline: Some(Timeline(1)),
            trouble: None,
            ..PeerAnswer::unreachable(Moment::default(), String::new())
        }
    }

    /// Each fault by itself; of two faults, the first in the list.
    #[test]
    fn every_fault_of_a_candidate_has_its_own_refusal() {
        let leader = MemberName::new("a").expect("a valid name");
        let hands_over =
            HandingOver { leader: &leader, lsn: Lsn(1500), timeline: Some(Timeline(1)), limit: 500 };
        let answer = |change: fn(&mut PeerAnswer)| {
            let mut answer = well();
            change(&mut answer);
            answer
        };
        let silent = PeerAnswer::unreachable(Moment::default(), "refused".to_owned());
        let tagged =
            answer(|it| it.tags = Tags([("nofailover".to_owned(), true.into())].into_iter().collect()));
        let cases = [
            (well(), true, true, None),
            (silent, false, false, Some("does not answer: refused")),
            (tagged, true, true, Some("has the tag nofailover")),
            (answer(|it| it.watchdog_failed = true), true, true, Some("cannot use its watchdog")),
            (answer(|it| it.pod_ends = true), true, true, Some("runs in a pod that ends or is gone")),
            (answer(|it| it.in_recovery = false), false, true, Some("is not a standby")),
            (well(), false, false, Some("does not stream from a: see")),
            (well(), true, false, Some("is not synchronous")),
            (
                answer(|it| it.lsn = Lsn(999)),
                true,
                true,
                Some("is 501 bytes behind, and maximum_lag_on_failover is 500"),
            ),
            (answer(|it| it.timeline = Some(Timeline(2))), true, true, Some("is on another timeline")),
        ];
        for (answer, streams, synchronous, refusal) in cases {
            let found = hands_over.eligible(&answer, streams, synchronous).err().map(|why| why.to_string());
            match (found, refusal) {
                (None, None) => {}
                (Some(text), Some(words)) => assert!(text.starts_with(words), "{text}"),
                (found, refusal) => panic!("{answer:?}: {found:?}, not {refusal:?}"),
            }
        }
    }

    #[test]
    fn wal_comes_directly_or_through_a_member_that_gets_it() {
        let name = |text: &str| MemberName::new(text).expect("a valid name");
        let (b, c) = (name("B"), name("c"));
        assert!(gets_wal(&["b"], &b, None), "names are compared as PostgreSQL compares them");
        assert!(!gets_wal(&["b"], &c, None));
        assert!(gets_wal(&["b"], &c, Some(&b)));
        assert!(!gets_wal(&[], &c, Some(&b)));
    }
}
