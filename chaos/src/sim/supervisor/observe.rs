//! Looking at the local Postgres: `src/agent/observe.rs`.

use std::time::Duration;

use matriarch::model::{DataDirectory, JobKind, Moment, PostgresFacts, Process, SqlFacts, TimelineHistory};

use super::Agent;

const LOOK_WITHIN: Duration = Duration::from_millis(1500);
const LOOK_FRESH: Duration = Duration::from_millis(10);
const DATA_FRESH: Duration = Duration::from_secs(5);

/// What is known of the local Postgres, kept between ticks.
#[derive(Default)]
pub(crate) struct PostgresWatch {
    data: DataDirectory,
    history: TimelineHistory,
    data_seen_at: Option<Moment>,
    sql: Option<SqlFacts>,
    sql_trouble: Option<String>,
    sql_asked_at: Option<Moment>,
    pid: Option<i32>,
}

impl PostgresWatch {
    pub(crate) fn forget_data(&mut self) {
        self.data_seen_at = None;
    }

    pub(crate) async fn look(&mut self, agent: &Agent, job: Option<JobKind>, anew: bool) -> PostgresFacts {
        let process = agent.shared.process.borrow().clone();
        let pid = match &process {
            Process::Up { pid, .. } => Some(*pid),
            Process::Down { .. } => None,
        };
        if pid != self.pid {
            self.pid = pid;
            (self.sql, self.sql_trouble, self.sql_asked_at) = (None, None, None);
            self.forget_data();
        }
        match (pid, job) {
            (Some(_), Some(JobKind::Stop)) => self.sql_trouble = Some("it is being stopped".to_owned()),
            (Some(_), Some(JobKind::StartStandby)) => {
                self.sql_trouble = Some("it is being started".to_owned())
            }
            (Some(pid), _) => self.ask(agent, pid, anew).await,
            (None, _) => {}
        }
        let rewritten = matches!(job, Some(JobKind::Bootstrap | JobKind::Clone | JobKind::Rewind));
        let now = agent.now();
        let stale = match pid {
            Some(_) => self.data_seen_at.is_none(),
            None => self.data_seen_at.is_none_or(|at| at + DATA_FRESH <= now),
        };
        if stale && !rewritten {
            agent.step().await;
            let (data, history) = {
                let world = agent.sim.world();
                let disk = &world.machines[agent.member()].disk;
                (disk.seen(), disk.wal.history())
            };
            if matches!(data, DataDirectory::Ready(_)) || pid.is_none() {
                (self.data, self.history) = (data, history);
                self.data_seen_at = Some(now);
            }
        }
        let verdict = agent.shared.verdict.borrow().clone();
        PostgresFacts {
            data: self.data.clone(),
            process,
            sql: self.sql.clone(),
            sql_trouble: self.sql_trouble.clone(),
            history: self.history.clone(),
            pending_restart: Default::default(),
            turned_away_since: None,
            unsynchronous: Vec::new(),
            access: Default::default(),
            gated: agent.sim.world().machines[agent.member()].disk.gated,
            sync_owner: agent.shared.sync_owner.borrow().clone(),
            liveness: agent.shared.liveness.borrow().facts(verdict),
        }
    }

    async fn ask(&mut self, agent: &Agent, number: i32, anew: bool) {
        let now = agent.now();
        if !anew && self.sql_asked_at.is_some_and(|at| now < at + LOOK_FRESH) {
            return;
        }
        self.sql_asked_at = Some(now);
        let timeline = self.sql.as_ref().and_then(|sql| sql.timeline);
        let asked = async {
            let takes = agent.sim.exec.chance(|chance| chance.micros(100, 900));
            agent.sleep(takes).await;
            agent.sim.until_it_runs(agent.member(), number).await?;
            let facts = agent.sim.world().machines[agent.member()].sql_facts(now);
            agent.sleep(takes / 2).await;
            facts.ok_or_else(|| "the database system is starting up".to_owned())
        };
        match agent.sim.exec.within(LOOK_WITHIN, asked).await {
            Some(Ok(sql)) => {
                if sql.timeline != timeline {
                    self.forget_data();
                }
                (self.sql, self.sql_trouble) = (Some(sql), None);
            }
            Some(Err(why)) => self.sql_trouble = Some(why),
            None => self.sql_trouble = Some("no answer in time".to_owned()),
        }
    }
}
