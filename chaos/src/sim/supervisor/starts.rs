//! The starts of PostgreSQL, as a standby or as the primary that it was.

use std::time::Duration;

use matriarch::core::job::{JobAnswer, PrimaryStartStep};
use matriarch::model::{FollowTarget, Process};

use super::Agent;
use super::jobs::ended;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;
use crate::sim::world::Sim;

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A process that waits before it becomes the postmaster. However its supervisor's task ends, it notices.
pub(super) struct Held {
    sim: Sim,
    member: usize,
    number: i32,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sim.let_go_of(self.member, self.number);
    }
}

impl Agent {
    pub(super) async fn start_standby(
        &self,
        follow: Option<&FollowTarget>,
        within: Duration,
    ) -> Result<(), String> {
        self.must_be_down()?;
        self.write_files().await?;
        if follow.is_some() {
            self.write_likeliest_password();
        }
        let number = self.sim.launch(self.member(), self.source_of(follow))?;
        self.began(Process::Up { pid: number, since: self.now(), standby_start: true });
        self.wait_until_ready(number, within).await
    }

    fn must_be_down(&self) -> Result<(), String> {
        self.number().map_or(Ok(()), |_| Err("start: postgres runs".to_owned()))
    }

    async fn write_files(&self) -> Result<(), String> {
        self.write_file().await?;
        self.write_sync_names();
        self.write_client_lockout();
        self.note_password();
        self.step().await;
        Ok(())
    }

    fn began(&self, process: Process) {
        *self.shared.process.borrow_mut() = process;
        self.shared.process_bell.give(&self.sim.exec);
        self.shared.bell.give(&self.sim.exec);
    }

    pub(super) async fn wait_until_ready(&self, number: i32, within: Duration) -> Result<(), String> {
        let give_up_at = self.sim.now() + within;
        loop {
            if self.number() != Some(number) {
                return Err("it ended while starting".to_owned());
            }
            let phase = {
                let world = self.sim.world();
                world.machines[self.member()].server.as_ref().map(|server| server.phase)
            };
            if phase.is_some_and(|phase| phase != Phase::Starting) || give_up_at <= self.sim.now() {
                return Ok(());
            }
            self.sleep(LOOK_EVERY).await;
        }
    }

    pub(super) async fn start_primary(&self, step: PrimaryStartStep, held: &mut Option<Held>) -> JobAnswer {
        match (step, held) {
            (PrimaryStartStep::Hold, held) => match self.hold().await {
                Ok(number) => {
                    *held = Some(Held { sim: self.sim.clone(), member: self.member(), number });
                    JobAnswer::Done
                }
                Err(why) => JobAnswer::Failed(why),
            },
            (PrimaryStartStep::Release, Some(held)) => {
                self.step().await;
                ended(self.sim.release(self.member(), held.number))
            }
            (PrimaryStartStep::AwaitReady(within), Some(held)) => {
                let ready = self.wait_until_ready(held.number, within).await;
                if ready.is_ok() && self.is_primary(held.number) {
                    self.shared.liveness.borrow_mut().has_started(held.number, self.now());
                }
                ended(ready)
            }
            (PrimaryStartStep::Release | PrimaryStartStep::AwaitReady(_), None) => {
                JobAnswer::Failed("it was not prepared".to_owned())
            }
        }
    }

    async fn hold(&self) -> Result<i32, String> {
        self.must_be_down()?;
        let anybody = self.mutation() == Some(Mutation::GoesOnAfterAnybody);
        if !anybody && !self.sim.world().machines[self.member()].disk.was_primary() {
            return Err("start: this was no primary when it went down".to_owned());
        }
        self.write_files().await?;
        let number = self.sim.hold(self.member())?;
        self.shared.liveness.borrow_mut().starts(number);
        self.began(Process::Up { pid: number, since: self.now(), standby_start: false });
        Ok(number)
    }
}
