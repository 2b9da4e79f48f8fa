//! Changes to PostgreSQL and its files beside the long actions, one at a time: `src/agent/perform.rs` and
//! `src/postgres/running.rs`.

use std::time::Duration;

use matriarch::core::member::MemberEvent;
use matriarch::model::{FollowTarget, Process, SlotChanges, SyncOwner};

use super::Agent;
use super::cycle::Cycle;
use crate::rng::Rng;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;

const LOCAL_WITHIN: Duration = Duration::from_secs(3);
pub(super) const APPLY_WITHIN: Duration = Duration::from_secs(5);
const WRITE_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Cycle {
    /// Has PostgreSQL told something, after what it was told before.
    pub(super) fn tell(
        &mut self,
        what: &'static str,
        statement: impl Future<Output = Result<(), String>> + 'static,
    ) {
        self.core.statement_waits();
        let agent = self.agent.clone();
        self.statements.run(what, async move {
            agent.note_failure(what, &statement.await);
        });
    }

    pub(super) fn lock_clients_out(&mut self, closed: bool) {
        self.core.statement_waits();
        let agent = self.agent.clone();
        if closed && agent.mutation() == Some(Mutation::NoLockoutInPlace) {
            return;
        }
        agent.shared.clients_locked_out.set(closed);
        self.statements.run("client lockout", async move {
            let written = agent.write_file().await;
            agent.note_failure("client lockout", &written);
            match written {
                Ok(()) => agent.write_client_lockout(),
                Err(_) if closed => {
                    if let Process::Up { .. } = *agent.shared.process.borrow() {
                        agent.shared.clients_locked_out.set(false);
                    }
                }
                Err(_) => agent.report_later(MemberEvent::ClientsNotLetIn),
            }
        });
    }

    pub(super) fn follow(&mut self, target: Option<FollowTarget>) {
        self.core.statement_waits();
        let agent = self.agent.clone();
        self.statements.run("follow", async move {
            let followed = agent.follow_local(target).await;
            agent.note_failure("follow", &followed);
            if followed.is_err() {
                agent.report_later(MemberEvent::NotFollowed);
            }
        });
    }
}

impl Agent {
    /// How long a look or a statement takes: as it usually does, or in some stories now and then much longer.
    pub(super) fn work_takes(&self, usually: impl FnOnce(&mut Rng) -> Duration) -> Duration {
        let (slow, slowest_ms) = {
            let world = self.sim.world();
            (world.slow_work, world.slowest_work_ms)
        };
        self.sim.exec.rng(|rng| match rng.permille(slow) {
            true => rng.millis(300, slowest_ms),
            false => usually(rng),
        })
    }

    fn report_later(&self, event: MemberEvent) {
        let agent = self.clone();
        self.spawn(async move {
            agent.sleep(WRITE_AGAIN_AFTER).await;
            agent.event(event);
        });
    }

    /// A write to a file, which no deadline cuts short.
    pub(super) async fn write_file(&self) -> Result<(), String> {
        let takes = self.work_takes(|rng| rng.micros(20, 400));
        self.sleep(takes).await;
        self.sim.until_disk_answers(self.member()).await;
        match self.sim.world().machines[self.member()].disk.full {
            true => Err("no space left on device".to_owned()),
            false => Ok(()),
        }
    }

    pub(super) fn note_failure(&self, what: &str, ended: &Result<(), String>) {
        if let Err(why) = ended {
            self.note(|| format!("{what} failed: {why}"));
        }
    }

    /// Ends when the server answers.
    pub(super) async fn connect(&self, within: Duration) -> Result<(), String> {
        let connected = self.sim.exec.within(within, self.answered()).await;
        connected.unwrap_or_else(|| Err("it took too long".to_owned()))
    }

    async fn answered(&self) -> Result<(), String> {
        let number = match *self.shared.process.borrow() {
            Process::Up { pid, .. } => pid,
            Process::Down { .. } => return Err("postgres is down".to_owned()),
        };
        let takes = self.work_takes(|rng| rng.micros(100, 900));
        self.sleep(takes).await;
        self.sim.until_it_runs(self.member(), number).await?;
        let world = self.sim.world();
        let server = world.machines[self.member()].server.as_ref();
        match server.is_some_and(|server| server.phase != Phase::Starting && !server.stopping) {
            true => Ok(()),
            false => Err("the database system is starting up".to_owned()),
        }
    }

    /// A reload of `primary_conninfo`, and a look whether it is in force.
    async fn follow_local(&self, target: Option<FollowTarget>) -> Result<(), String> {
        self.write_file().await?;
        if target.is_some() {
            self.write_likeliest_password();
        }
        {
            let mut world = self.sim.world();
            let server = world.machines[self.member()].server.as_mut().ok_or("postgres is down")?;
            server.follow = self.source_of(target.as_ref());
            server.changed.give(&self.sim.exec);
        }
        self.connect(LOCAL_WITHIN).await
    }

    /// The simulated disks remove no WAL, so no slot has to be moved.
    pub(super) async fn set_slots(self, changes: SlotChanges) -> Result<(), String> {
        self.connect(LOCAL_WITHIN).await?;
        let mut world = self.sim.world();
        let slots = &mut world.machines[self.member()].disk.slots;
        slots.retain(|slot| !changes.drop.contains(slot));
        slots.extend(changes.create);
        Ok(())
    }

    /// Written down, then told.
    pub(super) async fn put_sync_names_in_force(self) -> Result<(), String> {
        if let Err(error) = self.write_file().await {
            let owner = &mut *self.shared.sync_owner.borrow_mut();
            if *owner == SyncOwner::Operator {
                *owner = SyncOwner::Undecided;
            }
            return Err(error);
        }
        self.write_sync_names();
        self.step().await;
        self.sim.reload(self.member());
        Ok(())
    }

    /// Before it is decided what they are, those in the file stay.
    pub(super) fn write_sync_names(&self) {
        if self.mutation() == Some(Mutation::NamesNotWritten) {
            return;
        }
        let names = match self.shared.sync_owner.borrow().clone() {
            SyncOwner::Undecided => return,
            SyncOwner::Operator => String::new(),
            SyncOwner::Supervisor(names) => names,
        };
        self.sim.world().machines[self.member()].disk.sync_names = names;
    }

    pub(super) fn write_client_lockout(&self) {
        let closed = self.shared.clients_locked_out.get();
        self.sim.world().machines[self.member()].disk.clients_locked_out = closed;
    }

    /// The files that hold parameters and rules hold names and lockout, too.
    pub(super) async fn apply_parameters(&self) -> Result<(), String> {
        self.write_file().await?;
        self.write_sync_names();
        self.write_client_lockout();
        if matches!(*self.shared.process.borrow(), Process::Up { .. }) {
            // Whether the rules are good: the postmaster judges them itself where it does not answer.
            let _unanswered = self.connect(APPLY_WITHIN).await;
            self.sim.reload(self.member());
        }
        Ok(())
    }
}
