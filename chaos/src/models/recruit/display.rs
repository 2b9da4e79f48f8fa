//! A state as text, for the path to a broken promise.

use std::fmt;

use matriarch::model::SyncRecord;

use super::leader::OldLeader;
use super::standby::{Standby, name};
use super::state::State;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = &self.etcd.cluster;
        write!(f, "at {}:", self.time)?;
        match &cluster.leader {
            Some(leader) => write!(f, " {} leads in term {}", leader.name, leader.term)?,
            None => write!(f, " nobody leads")?,
        }
        if let Some(SyncRecord { quorum, voters, .. }) = cluster.sync.as_ref().map(|key| &key.record) {
            let voters: Vec<&str> = voters.iter().map(|voter| voter.as_str()).collect();
            write!(f, ", {quorum} of {}", voters.join(" "))?;
        }
        if let Some(key) = &cluster.recruit {
            write!(f, ", attempt {} by {}", key.attempt, key.candidate)?;
        }
        let OldLeader { runs, acknowledged, names, .. } = &self.leader;
        let up = if *runs { "runs" } else { "is down" };
        write!(f, "; b {up}, {acknowledged} acknowledged, waits for {:?}", names.to_string())?;
        for index in 1..3 {
            let Standby { postgres, hearing, .. } = self.standby(index);
            let from = match (postgres.source, postgres.receives) {
                (true, true) => "streams",
                (true, false) => "has b for its source",
                (false, true) => "is about to leave",
                (false, false) => "has left",
            };
            write!(f, "; {} {from}, has {}, {hearing:?}", name(index), postgres.wal)?;
            if let Some(attempt) = self.promised[index - 1] {
                write!(f, ", promised {attempt}")?;
            }
        }
        match self.sent.len() {
            0 => Ok(()),
            sent => write!(f, "; {sent} on the way"),
        }
    }
}
