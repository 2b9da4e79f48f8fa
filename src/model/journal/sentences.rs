//! The sentences of the journal. "Here" is the member that recorded the fact.

use std::fmt;

use super::{CandidateVerdict, JournalFact, LossBound};

impl fmt::Display for JournalFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalFact::LastHeartbeat { leader } => write!(f, "the last heartbeat of {leader} arrived"),
            JournalFact::StillHeard { leader } => write!(f, "heartbeats of {leader} still arrived"),
            JournalFact::NeverHeard { leader } => {
                write!(f, "{leader} sent no heartbeats that could be missed")
            }
            JournalFact::SilentElsewhere { leader, member } => {
                write!(f, "{member} did not hear {leader}, either")
            }
            JournalFact::HeardElsewhere { leader, member } => write!(f, "{member} still heard {leader}"),
            JournalFact::LeaseEnded { leader } => write!(
                f,
                "the lease of {leader} ended in etcd: its leader key and its member key went together, so its \
                 supervisor had stopped renewing it or was gone"
            ),
            JournalFact::KeyReleased { leader, state } => write!(
                f,
                "the leader key went and the member key of {leader} stayed ({state}): {leader} released it, or \
                 somebody deleted it"
            ),
            JournalFact::KeyMoved { leader } => write!(f, "{leader} moved the leader key here"),
            JournalFact::Promised { leader } => {
                write!(f, "enough synchronous standbys had promised to receive nothing more from {leader}")
            }
            JournalFact::StoreWentBack { why } => {
                write!(f, "etcd's store went back in time or was emptied: {why}")
            }
            JournalFact::RenewalFailed { trouble } => write!(f, "the lease could not be renewed: {trouble}"),
            JournalFact::NotRenewed { seconds } => {
                write!(f, "no renewal of the lease was confirmed for {seconds} s")
            }
            JournalFact::Frozen { millis } => write!(
                f,
                "the supervisor did not run for at least {}.{} s: this process or its machine was frozen",
                millis / 1000,
                millis % 1000 / 100
            ),
            JournalFact::Unhealthy { death } => write!(f, "PostgreSQL was unhealthy: {death}"),
            JournalFact::Crashed { times } => {
                let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
                write!(f, "PostgreSQL crashed {times} within 5 minutes")
            }
            JournalFact::PostgresDown { exit } => write!(f, "PostgreSQL was down ({exit})"),
            JournalFact::EndAsked => write!(f, "the supervisor was asked to end"),
            JournalFact::PodEnds { end } => write!(f, "{end}"),
            JournalFact::WatchdogFailed => write!(f, "the required watchdog could not be used"),
            JournalFact::WritesRefused { why } => write!(f, "etcd refused writes: {why}"),
        }
    }
}

impl fmt::Display for CandidateVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CandidateVerdict::Unfit(why) => why.fmt(f),
            CandidateVerdict::NotAsked => write!(f, "was not asked"),
            CandidateVerdict::Behind(bytes) => write!(f, "is {bytes} bytes behind"),
            CandidateVerdict::Equal => write!(f, "has the same position, and was not faster"),
            CandidateVerdict::Ahead(bytes) => write!(f, "is {bytes} bytes ahead, and could not lead"),
        }
    }
}

impl fmt::Display for LossBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossBound::NothingHandedOver => {
                write!(
                    f,
                    "nothing: the old leader stopped cleanly, and its last WAL was here before the key moved"
                )
            }
            LossBound::NothingSynchronous => {
                write!(
                    f,
                    "no acknowledged commit: they were on the new leader, too (synchronous replication)"
                )
            }
            LossBound::NothingOwnData => write!(f, "nothing: the primary goes on with its own data"),
            LossBound::NothingYet => write!(f, "nothing: there was no data before"),
            LossBound::Asynchronous { missing: 0, limit: _ } => write!(
                f,
                "nothing that the old leader had published. What it committed afterwards and had not sent is lost: \
                 replication is asynchronous"
            ),
            LossBound::Asynchronous { missing, limit } => write!(
                f,
                "{missing} bytes that the old leader had published are missing here ({limit} are allowed), and what it \
                 committed afterwards: replication is asynchronous"
            ),
            LossBound::Accepted { missing } => {
                let missing = missing.map_or("an unknown number of".to_owned(), |bytes| bytes.to_string());
                write!(
                    f,
                    "{missing} bytes that the old leader had published, and every commit after them, acknowledged or \
                     not: an operator accepted that with the failover"
                )
            }
            LossBound::Unknown => {
                write!(f, "what the old leader had not sent: its position is not known")
            }
        }
    }
}
