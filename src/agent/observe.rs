//! The looks at PostgreSQL that the member asks for. Every look has a deadline, and none of them can hold up the lease.

use std::time::Duration;

use crate::core::member::{AskedPostgres, PostgresTrouble};
use crate::model::{DataDirectory, LeaseFacts, Moment, TimelineHistory};
use crate::os::clock;
use crate::postgres::Postgres;

/// A decision waits this long for PostgreSQL; a slower answer counts as none, and the next look asks again.
const LOOK_WITHIN: Duration = Duration::from_millis(1500);
/// A decision waits this long for the data directory.
const DATA_WITHIN: Duration = Duration::from_secs(1);

/// Asks PostgreSQL; with `pending` also for what can wait.
pub(super) async fn ask(postgres: &Postgres, pending: bool) -> AskedPostgres {
    let sql = match tokio::time::timeout(LOOK_WITHIN, postgres.sql_facts()).await {
        Ok(Ok(sql)) => Ok(sql),
        Ok(Err(error)) => Err(PostgresTrouble { turned_away: error.is_turned_away(), why: error.chain() }),
        Err(_) => Err(PostgresTrouble {
            turned_away: false,
            why: format!("no answer within {} ms", LOOK_WITHIN.as_millis()),
        }),
    };
    let mut asked = AskedPostgres { sql, pending_restart: None, unsynchronous: None };
    if pending && asked.sql.is_ok() {
        let answer = tokio::time::timeout(LOOK_WITHIN, postgres.pending_restart()).await;
        asked.pending_restart = answer.ok().and_then(Result::ok);
        let answer = tokio::time::timeout(LOOK_WITHIN, postgres.unsynchronous()).await;
        asked.unsynchronous = answer.ok().and_then(Result::ok);
    }
    asked
}

/// Reads the data directory; `None`: not in time.
pub(super) async fn read(postgres: &Postgres) -> Option<(DataDirectory, TimelineHistory)> {
    tokio::time::timeout(DATA_WITHIN, postgres.look()).await.ok()
}

/// How far the recovery of a server that does not answer yet is, seen from outside.
#[derive(Default)]
pub(super) struct RecoveryWatch {
    /// How far it was when it last advanced, and when that was.
    reached: Option<(String, Moment)>,
}

impl RecoveryWatch {
    /// Looks, where the server does not `answer`.
    pub(super) fn look(&mut self, postgres: &Postgres, answers: bool) {
        let reached = (!answers).then(|| postgres.recovery_mark()).flatten();
        self.reached = match (reached, self.reached.take()) {
            (Some(reached), Some((before, at))) if reached == before => Some((before, at)),
            (Some(reached), _) => Some((reached, clock::now())),
            (None, _) => None,
        };
    }

    /// When it last advanced.
    pub(super) fn advanced_at(&self) -> Option<Moment> {
        self.reached.as_ref().map(|(_, at)| *at)
    }
}

/// What the lease's task last said; nothing before there is one.
pub(super) fn lease_facts(keeper: Option<&crate::etcd::LeaseKeeper>) -> LeaseFacts {
    keeper.map(|keeper| keeper.facts().borrow().clone()).unwrap_or_default()
}
