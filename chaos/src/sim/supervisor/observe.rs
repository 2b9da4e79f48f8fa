//! The looks at PostgreSQL that the member asks for.

use std::time::Duration;

use matriarch::core::member::{AskedPostgres, PostgresTrouble};
use matriarch::model::{DataDirectory, Process, SqlFacts, TimelineHistory};

use super::Agent;

const LOOK_WITHIN: Duration = Duration::from_millis(1500);

impl Agent {
    pub(super) async fn ask_postgres(&self) -> AskedPostgres {
        let asked = self.sim.exec.within(LOOK_WITHIN, self.sql_facts()).await;
        let sql = asked.unwrap_or_else(|| Err("no answer in time".to_owned()));
        AskedPostgres {
            sql: sql.map_err(|why| PostgresTrouble { why, turned_away: false }),
            pending_restart: None,
            unsynchronous: None,
        }
    }

    async fn sql_facts(&self) -> Result<SqlFacts, String> {
        let number = match *self.shared.process.borrow() {
            Process::Up { pid, .. } => pid,
            Process::Down { .. } => return Err("postgres is down".to_owned()),
        };
        let (asked_at, takes) = (self.now(), self.sim.exec.rng(|rng| rng.micros(100, 900)));
        self.sleep(takes).await;
        self.sim.until_it_runs(self.member(), number).await?;
        let facts = self.sim.world().machines[self.member()].sql_facts(asked_at);
        self.sleep(takes / 2).await;
        facts.ok_or_else(|| "the database system is starting up".to_owned())
    }

    pub(super) fn data_directory(&self) -> (DataDirectory, TimelineHistory) {
        let world = self.sim.world();
        let disk = &world.machines[self.member()].disk;
        (disk.seen(), disk.wal.history())
    }
}
