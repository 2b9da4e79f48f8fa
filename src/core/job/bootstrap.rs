//! The steps of the bootstrap of a new cluster.

use std::time::Duration;

use super::{Actor, JobAnswer, JobNext, JobStep, Now, PostgresStep, out_of_turn, outcome};
use crate::core::store::{Cas, WriteError};
use crate::model::{LeaseId, Outcome};

/// The pause before a key is read whose write has an unknown result.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Claims `initialize` under the lease, runs initdb or copies a remote primary, and writes `initialize` and `config`
/// without a lease. A failed bootstrap frees the key, so that another member may try. If the claim expired meanwhile
/// (its supervisor was frozen), no cluster was created: the directory that was made is set aside, and the member is
/// cloned like any other. If the result of the write is unknown, the key is read until it is known.
#[derive(Clone, Debug)]
pub(super) struct BootstrapJob {
    seen: i64,
    /// The step that makes the data.
    make: PostgresStep,
    first_config: String,
    at: BootstrapPhase,
}

#[derive(Clone, Debug)]
enum BootstrapPhase {
    Begin,
    Claiming(LeaseId),
    Making(LeaseId),
    Finishing(LeaseId, u64),
    Pausing(LeaseId, u64),
    Reading(LeaseId, u64),
    Freeing(String),
    SettingAside,
}

impl BootstrapJob {
    /// Fails if a member has registered after the revision `seen`.
    pub(super) fn of(seen: i64, make: PostgresStep, first_config: String) -> BootstrapJob {
        BootstrapJob { seen, make, first_config, at: BootstrapPhase::Begin }
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: JobAnswer, now: Now<'_>) -> JobNext {
        let keys = &actor.keys;
        match (std::mem::replace(&mut self.at, BootstrapPhase::Begin), answer) {
            (BootstrapPhase::Begin, _) => {
                let Some(lease) = now.lease.lease else { return JobNext::End(Outcome::Cancelled) };
                self.step(
                    BootstrapPhase::Claiming(lease),
                    JobStep::Commit(keys.win_initialize(lease, self.seen)),
                )
            }
            (BootstrapPhase::Claiming(lease), JobAnswer::Written(written)) => match written {
                Ok(Cas::Done(_)) => {
                    self.step(BootstrapPhase::Making(lease), JobStep::Postgres(self.make.clone()))
                }
                lost => JobNext::End(outcome(lost)),
            },
            (BootstrapPhase::Making(lease), JobAnswer::SystemId(id)) => self.finish(actor, lease, id),
            (BootstrapPhase::Making(lease), JobAnswer::Failed(why)) => {
                self.step(BootstrapPhase::Freeing(why), JobStep::Commit(keys.free_initialize(lease)))
            }
            (BootstrapPhase::Finishing(lease, id), JobAnswer::Written(written)) => match written {
                Ok(Cas::Done(_)) => JobNext::End(Outcome::Done),
                Ok(Cas::Lost) | Err(WriteError::LeaseNotFound) => {
                    self.step(BootstrapPhase::SettingAside, JobStep::Postgres(PostgresStep::SetAside))
                }
                Err(WriteError::NoSpace(_) | WriteError::Unknown(_)) => {
                    self.step(BootstrapPhase::Pausing(lease, id), JobStep::Pause(READ_AGAIN_AFTER))
                }
            },
            (BootstrapPhase::Pausing(lease, id), _) => {
                self.step(BootstrapPhase::Reading(lease, id), JobStep::Read(keys.path("initialize")))
            }
            (BootstrapPhase::Reading(_, id), JobAnswer::Key(Ok(Some(key))))
                if key.value == id.to_string().as_bytes() =>
            {
                JobNext::End(Outcome::Done)
            }
            (BootstrapPhase::Reading(lease, id), JobAnswer::Key(Ok(Some(key)))) if key.lease == lease.0 => {
                self.finish(actor, lease, id)
            }
            (BootstrapPhase::Reading(..), JobAnswer::Key(Ok(_))) => {
                self.step(BootstrapPhase::SettingAside, JobStep::Postgres(PostgresStep::SetAside))
            }
            (BootstrapPhase::Reading(lease, id), JobAnswer::Key(Err(_))) => {
                self.step(BootstrapPhase::Pausing(lease, id), JobStep::Pause(READ_AGAIN_AFTER))
            }
            (BootstrapPhase::Freeing(why), _) => JobNext::End(Outcome::Failed(why)),
            (BootstrapPhase::SettingAside, JobAnswer::Failed(why)) => JobNext::End(Outcome::Failed(why)),
            (BootstrapPhase::SettingAside, _) => JobNext::End(Outcome::Lost),
            (
                BootstrapPhase::Claiming(_)
                | BootstrapPhase::Making(_)
                | BootstrapPhase::Finishing(..)
                | BootstrapPhase::Reading(..),
                answer,
            ) => out_of_turn(&answer),
        }
    }

    fn finish(&mut self, actor: &Actor, lease: LeaseId, id: u64) -> JobNext {
        let txn = actor.keys.finish_initialize(lease, id, &self.first_config);
        self.step(BootstrapPhase::Finishing(lease, id), JobStep::Commit(txn))
    }

    fn step(&mut self, at: BootstrapPhase, step: JobStep) -> JobNext {
        self.at = at;
        JobNext::Do(step)
    }
}
