//! The looks at PostgreSQL that the member asks for. Each is work of a thread beside the loop, has a deadline, and
//! reports its answer as an event.

use super::cycle::Cycle;
use super::events::TaskReport;
use super::{dynamic, roles};
use crate::core::member::{
    AskedPostgres, DATA_WITHIN, LOOK_WITHIN, LookAnswer, LookId, MemberEvent, PostgresTrouble, Question,
    SETTLED_WITHIN,
};
use crate::model::{DataDirectory, LeaseFacts, Moment, TimelineHistory};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::postgres::Postgres;

impl Cycle {
    /// Begins to find the answer to a question; the question before is given up.
    pub(super) async fn look(&mut self, look: LookId, question: Question) {
        self.state.look = None;
        let postgres = self.tools.postgres.clone();
        match question {
            Question::Prepare => self.prepare(look).await,
            Question::AskPostgres { pending } => {
                let settled = self.tools.statements.idle();
                self.find(look, async move {
                    let asked = match tokio::time::timeout(SETTLED_WITHIN, settled).await {
                        Ok(()) => ask(&postgres, pending).await,
                        Err(_) => AskedPostgres::silent("what it was told before has not ended".to_owned()),
                    };
                    LookAnswer::PostgresAnswered(Box::new(asked))
                });
            }
            Question::ReadDataDirectory => {
                self.find(look, async move { LookAnswer::DataDirectoryRead(read(&postgres).await) });
            }
        }
    }

    fn find(&mut self, look: LookId, answer: impl Future<Output = LookAnswer> + Send + 'static) {
        let reports = self.tools.reports.clone();
        self.state.look = Some(self.tools.looks.run_wanted("look", async move {
            // The loop has ended when nobody listens.
            let _ = reports.send(MemberEvent::Answered(look, answer.await).into());
        }));
    }

    /// Begins to bring PostgreSQL in line with the newest configuration, where it is not.
    async fn prepare(&mut self, look: LookId) {
        let parameters = self.outdated_parameters().await;
        let passwords = self.work_on_roles(look);
        if parameters.is_none() && passwords.is_none() {
            let answer = LookAnswer::Prepared { changed: false };
            return self.state.arrived.push(MemberEvent::Answered(look, answer));
        }
        let (postgres, reports) = (self.tools.postgres.clone(), self.tools.reports.clone());
        let work = async move {
            let applied = match parameters {
                Some(parameters) => {
                    let taken = dynamic::apply(&postgres, &parameters).await;
                    Some((Box::new(parameters), taken))
                }
                None => None,
            };
            let passwords_set = match passwords {
                Some(due) => roles::follow(&postgres, due).await,
                None => false,
            };
            // The loop has ended when nobody listens.
            let _ = reports.send(TaskReport::Prepared { look, applied, passwords_set });
        };
        // Not given up half-way: rules that PostgreSQL refuses are taken back at the end.
        self.tools.statements.run("parameters", work);
    }
}

/// Asks PostgreSQL; with `pending` also for what can wait.
async fn ask(postgres: &Postgres, pending: bool) -> AskedPostgres {
    let sql = match tokio::time::timeout(LOOK_WITHIN, postgres.sql_facts()).await {
        Ok(Ok(sql)) => Ok(sql),
        Ok(Err(error)) => Err(PostgresTrouble { turned_away: error.is_turned_away(), why: error.chain() }),
        Err(_) => return AskedPostgres::silent(format!("no answer within {} ms", LOOK_WITHIN.as_millis())),
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
async fn read(postgres: &Postgres) -> Option<(DataDirectory, TimelineHistory)> {
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
