//! What wakes the loop: reports of the tasks beside it, and levels that are others than the loop has seen.

use tokio::sync::watch;

use super::jobs::Tools;
use super::peer_channel::PeerChannel;
use crate::core::member::{Levels, LookId, MemberEvent};
use crate::etcd::LeaseKeeper;
use crate::model::{LeaderHearing, Leading, LeaseFacts, LeaseId, LivenessVerdict, Process, WriteFacts};
use crate::postgres::{Parameters, Probe};

/// Levels come through their own watches, orders of the API through theirs.
#[derive(Debug)]
pub(super) enum TaskReport {
    /// For the member.
    Member(Box<MemberEvent>),
    /// PostgreSQL was prepared for this look.
    Prepared {
        /// The look.
        look: LookId,
        /// The parameters that were written, and whether PostgreSQL has taken them.
        applied: Option<(Box<Parameters>, bool)>,
        /// The roles have their new passwords.
        passwords_set: bool,
    },
    /// A file that holds a secret holds another one.
    SecretsChanged,
}

impl From<MemberEvent> for TaskReport {
    fn from(event: MemberEvent) -> TaskReport {
        TaskReport::Member(Box::new(event))
    }
}

/// The levels whose every change wakes the loop.
pub(super) struct WakeLevels {
    process: watch::Receiver<Process>,
    verdict: watch::Receiver<LivenessVerdict>,
    lease: watch::Receiver<LeaseFacts>,
    writes: watch::Receiver<WriteFacts>,
    hearing: watch::Receiver<LeaderHearing>,
    seen: Option<SeenLevels>,
}

/// What of them a decision can see. Renewals move the lease's deadline all the time: that is no reason to tick.
#[derive(PartialEq)]
struct SeenLevels {
    process: Process,
    verdict: LivenessVerdict,
    leading: Leading,
    lease: Option<LeaseId>,
    refused: Option<String>,
    hearing: LeaderHearing,
}

impl WakeLevels {
    /// No decision has seen any.
    pub(super) fn of(tools: &Tools, probe: &Probe, lease: &LeaseKeeper, channel: &PeerChannel) -> WakeLevels {
        WakeLevels {
            process: tools.postgres.process(),
            verdict: probe.verdict(),
            lease: lease.facts(),
            writes: tools.etcd.writes(),
            hearing: channel.hearing(),
            seen: None,
        }
    }

    /// What etcd does with writes.
    pub(super) fn writes(&self) -> WriteFacts {
        self.writes.borrow().clone()
    }

    /// What is heard of the leader.
    pub(super) fn hearing(&self) -> LeaderHearing {
        *self.hearing.borrow()
    }

    /// A decision has seen these.
    pub(super) fn saw(&mut self, levels: &Levels) {
        self.seen = Some(SeenLevels {
            process: levels.process.clone(),
            verdict: levels.liveness.verdict.clone(),
            leading: levels.lease.leading,
            lease: levels.lease.lease,
            refused: levels.writes.refused.clone(),
            hearing: levels.hearing,
        });
    }

    /// Ends when one is another than was seen.
    pub(super) async fn changed(&mut self) {
        loop {
            let newest = Some(self.newest());
            if newest != self.seen {
                self.seen = newest;
                return;
            }
            tokio::select! {
                Ok(()) = self.process.changed() => {}
                Ok(()) = self.verdict.changed() => {}
                Ok(()) = self.lease.changed() => {}
                Ok(()) = self.writes.changed() => {}
                Ok(()) = self.hearing.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    fn newest(&mut self) -> SeenLevels {
        let (leading, lease) = {
            let facts = self.lease.borrow_and_update();
            (facts.leading, facts.lease)
        };
        SeenLevels {
            process: self.process.borrow_and_update().clone(),
            verdict: self.verdict.borrow_and_update().clone(),
            leading,
            lease,
            refused: self.writes.borrow_and_update().refused.clone(),
            hearing: *self.hearing.borrow_and_update(),
        }
    }
}
