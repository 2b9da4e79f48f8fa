//! Making a cluster that never was.

use std::time::Duration;

use super::{Actor, Answer, Next, Now, PostgresStep, Step, out_of_turn, outcome};
use crate::core::store::{Cas, WriteError};
use crate::model::{LeaseId, Outcome};

/// The pause before a key is read that may or may not have been written.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Claim `initialize` on the lease, run initdb, write `initialize` and `config` for good. A bootstrap that fails frees
/// the key, so that another member may try. A bootstrap whose claim ran out meanwhile (its supervisor was frozen) made
/// no cluster: what initdb made is set aside, and the member is cloned like any other. Where nobody knows whether the
/// key was written, it is read until it is known.
#[derive(Clone, Debug)]
pub(super) struct Bootstrap {
    seen: i64,
    first_config: String,
    at: At,
}

#[derive(Clone, Debug)]
enum At {
    Begin,
    Claiming(LeaseId),
    Making(LeaseId),
    Finishing(LeaseId, u64),
    Pausing(LeaseId, u64),
    Reading(LeaseId, u64),
    Freeing(String),
    SettingAside,
}

impl Bootstrap {
    /// Not where a member has registered after the revision `seen`.
    pub(super) fn of(seen: i64, first_config: String) -> Bootstrap {
        Bootstrap { seen, first_config, at: At::Begin }
    }

    pub(super) fn next(&mut self, actor: &Actor, answer: Answer, now: Now<'_>) -> Next {
        let keys = &actor.keys;
        match (std::mem::replace(&mut self.at, At::Begin), answer) {
            (At::Begin, _) => {
                let Some(lease) = now.lease.lease else { return Next::End(Outcome::Cancelled) };
                self.step(At::Claiming(lease), Step::Commit(keys.win_initialize(lease, self.seen)))
            }
            (At::Claiming(lease), Answer::Written(written)) => match written {
                Ok(Cas::Done(_)) => self.step(At::Making(lease), Step::Postgres(PostgresStep::Initdb)),
                lost => Next::End(outcome(lost)),
            },
            (At::Making(lease), Answer::SystemId(id)) => self.finish(actor, lease, id),
            (At::Making(lease), Answer::Failed(why)) => {
                self.step(At::Freeing(why), Step::Commit(keys.free_initialize(lease)))
            }
            (At::Finishing(lease, id), Answer::Written(written)) => match written {
                Ok(Cas::Done(_)) => Next::End(Outcome::Done),
                Ok(Cas::Lost) | Err(WriteError::LeaseNotFound) => {
                    self.step(At::SettingAside, Step::Postgres(PostgresStep::SetAside))
                }
                Err(WriteError::NoSpace(_) | WriteError::Unknown(_)) => {
                    self.step(At::Pausing(lease, id), Step::Pause(READ_AGAIN_AFTER))
                }
            },
            (At::Pausing(lease, id), _) => {
                self.step(At::Reading(lease, id), Step::Read(keys.path("initialize")))
            }
            (At::Reading(_, id), Answer::Key(Ok(Some(key)))) if key.value == id.to_string().as_bytes() => {
                Next::End(Outcome::Done)
            }
            (At::Reading(lease, id), Answer::Key(Ok(Some(key)))) if key.lease == lease.0 => {
                self.finish(actor, lease, id)
            }
            (At::Reading(..), Answer::Key(Ok(_))) => {
                self.step(At::SettingAside, Step::Postgres(PostgresStep::SetAside))
            }
            (At::Reading(lease, id), Answer::Key(Err(_))) => {
                self.step(At::Pausing(lease, id), Step::Pause(READ_AGAIN_AFTER))
            }
            (At::Freeing(why), _) => Next::End(Outcome::Failed(why)),
            (At::SettingAside, Answer::Failed(why)) => Next::End(Outcome::Failed(why)),
            (At::SettingAside, _) => Next::End(Outcome::Lost),
            (At::Claiming(_) | At::Making(_) | At::Finishing(..) | At::Reading(..), answer) => {
                out_of_turn(&answer)
            }
        }
    }

    fn finish(&mut self, actor: &Actor, lease: LeaseId, id: u64) -> Next {
        let txn = actor.keys.finish_initialize(lease, id, &self.first_config);
        self.step(At::Finishing(lease, id), Step::Commit(txn))
    }

    fn step(&mut self, at: At, step: Step) -> Next {
        self.at = at;
        Next::Do(step)
    }
}
