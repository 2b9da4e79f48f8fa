//! Long actions: `src/agent/jobs.rs`, and the parts of `src/postgres` that they call.

use std::time::Duration;

use matriarch::model::{
    FollowTarget, Job, LeaseFacts, LeaseTiming, Moment, Outcome, Process, StopMode, Term, Timeline,
};

use super::Agent;
use super::write::Cas;
use crate::sim::etcd::Refusal;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;
use crate::sim::world::index_of;

const PROMOTE_WITHIN: Duration = Duration::from_secs(60);
const IMMEDIATE_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(5);

impl Agent {
    pub(crate) async fn run_job(&self, job: Job) -> Outcome {
        let ended = match job {
            Job::TakeLeadership { .. }
            | Job::HandOver { .. }
            | Job::ReleaseLeadership { .. }
            | Job::ReclaimLeadership { .. } => return self.write_leader_key(job).await,
            Job::Bootstrap { seen } => return self.bootstrap(seen).await,
            Job::Clone { from } => match index_of(from.name.as_str()) {
                Some(source) => self.sim.clone_from(self.member(), source).await,
                None => Err("no such member".to_owned()),
            },
            Job::StartStandby { follow, within } => self.start_standby(follow.as_ref(), within).await,
            Job::Stop { mode, within } => self.stop(mode, within).await,
            Job::Checkpoint => match self.number() {
                Some(number) => self.checkpoint(number).await,
                None => Err("postgres is down".to_owned()),
            },
            Job::Promote { term, above } => match self.promotion_timeline(term, above).await {
                Ok(()) => self.promote(term).await,
                Err(outcome) => return outcome,
            },
            Job::CrashRecovery => self.sim.crash_recovery(self.member()).await,
            Job::Rewind { from, .. } => match index_of(from.name.as_str()) {
                Some(source) => self.sim.rewind(self.member(), source).await,
                None => Err("no such member".to_owned()),
            },
        };
        match ended {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Failed(why),
        }
    }

    fn number(&self) -> Option<i32> {
        match *self.shared.process.borrow() {
            Process::Up { pid, .. } => Some(pid),
            Process::Down { .. } => None,
        }
    }

    async fn checkpoint(&self, number: i32) -> Result<(), String> {
        self.sim.until_it_runs(self.member(), number).await?;
        self.sim.checkpoint(self.member(), number).await
    }

    async fn start_standby(&self, follow: Option<&FollowTarget>, within: Duration) -> Result<(), String> {
        if self.number().is_some() {
            return Err("start: postgres runs".to_owned());
        }
        self.write_sync_names();
        self.step().await;
        let number = self.sim.launch(self.member(), self.source_of(follow))?;
        *self.shared.process.borrow_mut() =
            Process::Up { pid: number, since: self.now(), standby_start: true };
        self.shared.process_bell.give(&self.sim.exec);
        self.shared.bell.give(&self.sim.exec);
        self.wait_until_ready(number, within).await
    }

    async fn wait_until_ready(&self, number: i32, within: Duration) -> Result<(), String> {
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

    pub(crate) async fn stop(&self, mode: StopMode, within: Duration) -> Result<(), String> {
        let Some(number) = self.number() else { return Ok(()) };
        if mode == StopMode::Fast {
            let now = self.now();
            self.shared.liveness.borrow_mut().excuse(now + within);
            self.sim.ask_fast_stop(self.member(), number);
            if self.is_down_within(number, within).await {
                return Ok(());
            }
        }
        self.sim.ask_immediate_stop(self.member(), number);
        let patience = if mode == StopMode::Fast { IMMEDIATE_WITHIN } else { within };
        if self.is_down_within(number, patience).await {
            return Ok(());
        }
        loop {
            if self.sim.runs(self.member(), number) {
                self.sim.kill_server(self.member());
            }
            if self.is_down_within(number, LOOK_EVERY).await {
                return Ok(());
            }
        }
    }

    async fn is_down_within(&self, number: i32, within: Duration) -> bool {
        let down = async {
            while self.number() == Some(number) {
                self.shared.process_bell.wait(&self.sim.exec).await;
            }
        };
        self.sim.exec.within(within, down).await.is_some()
    }

    /// Claims the number of the timeline, and reserves the numbers before it.
    async fn promotion_timeline(&self, term: Term, above: Timeline) -> Result<(), Outcome> {
        let failed = |why: &str| Outcome::Failed(why.to_owned());
        if self.sim.world().options.mutation == Some(Mutation::ReuseTimelines) {
            return Ok(());
        }
        let lease = self.shared.lease.borrow().lease.ok_or_else(|| failed("there is no lease"))?;
        let passed_over = match self.claim_timeline((term, lease), above.0).await {
            Ok(claimed) => claimed.ok_or_else(|| failed("the leader key is not mine any more"))?,
            Err(Refusal::NoSpace) => return Err(Outcome::Refused("database space exceeded".to_owned())),
            Err(refusal) => return Err(failed(&format!("{refusal:?}"))),
        };
        let mut world = self.sim.world();
        let disk = &mut world.machines[self.member()].disk;
        let mine = disk.wal.timeline_at(disk.flushed);
        disk.reserved.extend(mine + 1..=passed_over.max(mine));
        Ok(())
    }

    /// Every line of `src/agent/jobs.rs` and `src/postgres/promote.rs`, in their order.
    async fn promote(&self, term: Term) -> Result<(), String> {
        self.step().await;
        let Some(number) = self.number() else { return Err("promote: postgres is down".to_owned()) };
        self.wait_until_ready(number, PROMOTE_WITHIN).await?;
        self.sim.until_it_runs(self.member(), number).await?;
        if self.is_primary(number) {
            return Ok(());
        }
        self.step().await;
        if !self.still_allowed(term).await {
            return Err("not allowed any more".to_owned());
        }
        if let Process::Up { standby_start, .. } = &mut *self.shared.process.borrow_mut() {
            *standby_start = false;
        }
        self.shared.process_bell.give(&self.sim.exec);
        self.step().await;
        self.sim.write_promote_file(self.member(), number);
        self.step().await;
        if !self.still_allowed(term).await {
            self.sim.world().machines[self.member()].disk.promote_file = false;
            return Err("not allowed any more".to_owned());
        }
        self.step().await;
        self.sim.signal_promote(self.member(), number);
        let give_up_at = self.sim.now() + PROMOTE_WITHIN;
        while !self.is_primary(number) {
            if self.number() != Some(number) || give_up_at <= self.sim.now() {
                return Err("promoting took too long".to_owned());
            }
            self.sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    fn is_primary(&self, number: i32) -> bool {
        let world = self.sim.world();
        let server = world.machines[self.member()].server.as_ref();
        server.is_some_and(|server| server.number == number && server.phase == Phase::Primary)
    }

    async fn still_allowed(&self, term: Term) -> bool {
        let lease = self.shared.lease.borrow().clone();
        let fenced = self.promise(&lease).await;
        fenced && allows(&lease, term, self.now())
    }

    async fn write_leader_key(&self, job: Job) -> Outcome {
        let Some(lease) = self.shared.lease.borrow().lease else {
            return Outcome::Failed("there is no lease".to_owned());
        };
        let result = match job {
            Job::TakeLeadership { by } => self.take_leadership(lease, by).await,
            Job::HandOver { term, to, to_lease, status } => {
                self.hand_over((term, lease), &to, to_lease, &status).await
            }
            Job::ReleaseLeadership { term, status } => {
                self.release_leadership((term, lease), status.as_ref()).await
            }
            Job::ReclaimLeadership { term } => {
                self.commit(self.keys().move_leadership((term, lease), lease)).await
            }
            _postgres_job => return Outcome::Failed("not a write to the leader key".to_owned()),
        };
        self.renew_now();
        match result {
            Ok(Cas::Done) => Outcome::Done,
            Ok(Cas::Lost) => Outcome::Lost,
            Err(Refusal::NoSpace) => Outcome::Refused("database space exceeded".to_owned()),
            Err(Refusal::LeaseNotFound) => Outcome::LeaseGone,
            Err(refusal) => Outcome::Unknown(format!("{refusal:?}")),
        }
    }

    async fn bootstrap(&self, seen: i64) -> Outcome {
        let Some(lease) = self.shared.lease.borrow().lease else { return Outcome::Cancelled };
        match self.win_initialize(lease, seen).await {
            Ok(Cas::Done) => {}
            Ok(Cas::Lost) => return Outcome::Lost,
            Err(Refusal::LeaseNotFound) => return Outcome::LeaseGone,
            Err(_) => return Outcome::Cancelled,
        }
        match self.sim.initdb(self.member()).await {
            Ok(system_id) => match self.finish_initialize(lease, system_id).await {
                Ok(Cas::Done) => Outcome::Done,
                Ok(Cas::Lost) => Outcome::Failed("the initialize key was lost".to_owned()),
                Err(Refusal::LeaseNotFound) => Outcome::Unknown("lease not found".to_owned()),
                Err(refusal) => Outcome::Unknown(format!("{refusal:?}")),
            },
            Err(why) => {
                let _ = self.commit(self.keys().free_initialize(lease)).await;
                Outcome::Failed(why)
            }
        }
    }
}

fn allows(lease: &LeaseFacts, term: Term, now: Moment) -> bool {
    let before = LeaseTiming { ttl: lease.ttl }.demote_before();
    lease.leading_at(now + before) == Some(term)
}
