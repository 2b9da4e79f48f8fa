//! The looks at PostgreSQL that the member asks for: `src/agent/observe.rs`.

use matriarch::core::member::{
    AskedPostgres, DATA_WITHIN, LOOK_WITHIN, LookAnswer, LookId, MemberEvent, PostgresTrouble, Question,
    SETTLED_WITHIN,
};
use matriarch::model::{DataDirectory, Process, SqlFacts, TimelineHistory};

use super::Agent;
use super::cycle::Cycle;

impl Cycle {
    /// Begins to find the answer to a question; the question before is given up.
    pub(super) fn look(&mut self, look: LookId, question: Question) {
        self.look = None;
        let agent = self.agent.clone();
        match question {
            Question::Prepare => self.prepare(look),
            Question::AskPostgres { .. } => {
                let settled = self.statements.idle();
                self.find(look, async move {
                    let asked = match agent.sim.exec.within(SETTLED_WITHIN, settled).await {
                        Some(()) => agent.ask_postgres().await,
                        None => AskedPostgres::silent("what it was told before has not ended".to_owned()),
                    };
                    LookAnswer::PostgresAnswered(Box::new(asked))
                });
            }
            Question::ReadDataDirectory => self.find(look, async move {
                let read = agent.sim.exec.within(DATA_WITHIN, agent.data_directory()).await;
                LookAnswer::DataDirectoryRead(read)
            }),
        }
    }

    fn find(&mut self, look: LookId, answer: impl Future<Output = LookAnswer> + 'static) {
        let agent = self.agent.clone();
        self.look = Some(self.looks.run_wanted("look", async move {
            agent.event(MemberEvent::Answered(look, answer.await));
        }));
    }

    /// Begins to bring PostgreSQL in line with the newest configuration, where it is not.
    fn prepare(&mut self, look: LookId) {
        self.take_config();
        let (parameters, passwords) = (self.outdated_parameters(), self.work_on_roles(look));
        if parameters.is_none() && passwords.is_none() {
            let answer = LookAnswer::Prepared { changed: false };
            return self.arrived.push(MemberEvent::Answered(look, answer));
        }
        let agent = self.agent.clone();
        self.statements.run("parameters", async move {
            let changed = parameters.is_some();
            if let Some(text) = parameters {
                let applied = agent.apply_parameters().await;
                agent.note_failure("parameters", &applied);
                agent.shared.configured.borrow_mut().applied.ended(text, applied.is_ok(), agent.now());
            }
            if let Some(due) = passwords
                && agent.follow_passwords(due).await
            {
                agent.shared.roles.borrow_mut().passwords_set(look);
            }
            agent.event(MemberEvent::Answered(look, LookAnswer::Prepared { changed }));
        });
    }

    /// Takes the configuration in force; true if it is another than before.
    pub(super) fn take_config(&mut self) -> bool {
        let text = self.agent.config_in_force();
        let changed = text != self.config;
        self.config = text;
        changed
    }

    /// The whole configuration stands for PostgreSQL's part of it.
    fn outdated_parameters(&self) -> Option<String> {
        let ready = matches!(self.agent.shared.status.borrow().postgres.data, DataDirectory::Ready(_));
        let outdated = self.agent.shared.configured.borrow().applied.is_due(&self.config, self.agent.now());
        (outdated && ready && self.core.job().is_none()).then(|| self.config.clone())
    }
}

impl Agent {
    async fn ask_postgres(&self) -> AskedPostgres {
        match self.sim.exec.within(LOOK_WITHIN, self.sql_facts()).await {
            None => AskedPostgres::silent("no answer in time".to_owned()),
            Some(sql) => AskedPostgres {
                sql: sql.map_err(|why| PostgresTrouble { why, turned_away: false }),
                pending_restart: None,
                unsynchronous: None,
            },
        }
    }

    async fn sql_facts(&self) -> Result<SqlFacts, String> {
        let number = match *self.shared.process.borrow() {
            Process::Up { pid, .. } => pid,
            Process::Down { .. } => return Err("postgres is down".to_owned()),
        };
        let asked_at = self.now();
        let takes = self.work_takes(|rng| rng.micros(100, 900));
        self.sleep(takes).await;
        self.sim.until_it_runs(self.member(), number).await?;
        self.reached();
        let facts = self.sim.world().machines[self.member()].sql_facts(asked_at);
        self.sleep(takes / 2).await;
        if facts.as_ref().is_some_and(SqlFacts::is_primary) {
            self.shared.liveness.borrow_mut().has_started(number, self.now());
        }
        facts.ok_or_else(|| "the database system is starting up".to_owned())
    }

    async fn data_directory(&self) -> (DataDirectory, TimelineHistory) {
        let takes = self.work_takes(|rng| rng.micros(50, 600));
        self.sleep(takes).await;
        self.sim.until_disk_answers(self.member()).await;
        let read = {
            let world = self.sim.world();
            let disk = &world.machines[self.member()].disk;
            (disk.seen(), disk.wal.history())
        };
        self.sleep(takes / 2).await;
        read
    }
}
