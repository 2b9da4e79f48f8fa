//! The steps of the product's jobs (`matriarch::core::job`), as PostgreSQL and etcd do them here.

use std::time::Duration;

use matriarch::core::job::{Actor, JobAnswer, JobNext, JobStep, Machine, Now, PostgresStep, PromotionStep};
use matriarch::core::store::{Cas, Compare, KeyChange, Txn};
use matriarch::model::{Action, GenerationWrite, Job, JobKind, Outcome, PodEnd, Process, StopMode, Timeline};

use super::Agent;
use super::configured::written;
use super::starts::Held;
use super::write::reported;
use crate::invariant::{self, last_copy, one_job};
use crate::sim::executor::Pid;
use crate::sim::fault::recruit::DEPOSAL_DELAYED;
use crate::sim::mutation::Mutation;
use crate::sim::postgres::Phase;
use crate::sim::world::{Sim, index_of};

const PROMOTE_WITHIN: Duration = Duration::from_secs(60);
const IMMEDIATE_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a machine is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Job(Job),
    Aside(Action),
}

/// A long action whose task is there. A task that ends, or that is aborted, drops it.
pub(super) struct UnderWay {
    agent: Agent,
    kind: JobKind,
}

impl UnderWay {
    pub(super) fn begin(agent: &Agent, kind: JobKind) -> UnderWay {
        one_job::begins(&agent.sim, agent.member(), &agent.shared.under_way.borrow(), kind);
        agent.shared.under_way.borrow_mut().push(kind);
        UnderWay { agent: agent.clone(), kind }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.agent.shared.under_way.borrow_mut();
        if let Some(own) = under_way.iter().position(|kind| *kind == self.kind) {
            under_way.swap_remove(own);
        }
    }
}

/// Does a machine's steps.
struct Driver {
    agent: Agent,
    purpose: Purpose,
    trigger: Option<Trigger>,
    held: Option<Held>,
}

/// The file `promote` under way. Taken back when a task that was cancelled is dropped; a killed process leaves it.
struct Trigger {
    sim: Sim,
    member: usize,
    pid: Pid,
    taken: bool,
}

impl Drop for Trigger {
    fn drop(&mut self) {
        if !self.taken && self.sim.exec.is_alive(self.pid) {
            self.sim.world().machines[self.member].disk.promote_file = false;
        }
    }
}

impl Agent {
    pub(crate) fn actor(&self) -> Actor {
        let world = self.sim.world();
        Actor { name: world.machines[self.member()].name.clone(), keys: world.keys.clone() }
    }

    pub(crate) fn first_config(&self) -> String {
        written(&self.sim.world().options.settings, false).to_string()
    }

    pub(crate) async fn run_machine(&self, purpose: Purpose, mut machine: Machine) -> Outcome {
        let mut driver = Driver { agent: self.clone(), purpose, trigger: None, held: None };
        let mut answer = JobAnswer::Begin;
        loop {
            let lease = self.shared.lease.borrow().clone();
            match machine.next(answer, Now { lease: &lease, at: self.now() }) {
                JobNext::Do(step) => answer = driver.perform(step).await,
                JobNext::End(outcome) => return outcome,
            }
        }
    }

    pub(super) fn number(&self) -> Option<i32> {
        match *self.shared.process.borrow() {
            Process::Up { pid, .. } => Some(pid),
            Process::Down { .. } => None,
        }
    }

    async fn checkpoint(&self, number: i32) -> Result<(), String> {
        self.sim.until_it_runs(self.member(), number).await?;
        self.sim.checkpoint(self.member(), number).await
    }

    pub(crate) async fn stop(&self, mode: StopMode, within: Duration) -> Result<(), String> {
        let Some(number) = self.number() else { return Ok(()) };
        if mode == StopMode::Fast {
            let now = self.now();
            self.shared.liveness.borrow_mut().excuse_until(now + within);
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

    pub(super) fn is_primary(&self, number: i32) -> bool {
        let world = self.sim.world();
        let server = world.machines[self.member()].server.as_ref();
        server.is_some_and(|server| server.number == number && server.phase == Phase::Primary)
    }
}

impl Driver {
    async fn perform(&mut self, step: JobStep) -> JobAnswer {
        let agent = self.agent.clone();
        match step {
            JobStep::Read(path) => JobAnswer::Key(agent.read(path).await.map_err(reported)),
            JobStep::Commit(txn) => self.commit(txn).await,
            JobStep::RenewLease => {
                agent.renew_now();
                JobAnswer::Done
            }
            JobStep::ReadCluster => {
                agent.look_again();
                JobAnswer::Done
            }
            // Of labels there are the product's own tests; `invariant::labelled` judges what is decided.
            JobStep::Unlabel | JobStep::Unroute | JobStep::BeginStrip(_) | JobStep::AwaitStripped => {
                JobAnswer::Done
            }
            JobStep::Pause(span) => {
                agent.sleep(span).await;
                JobAnswer::Done
            }
            // No member of the simulation has scripts.
            JobStep::Script(_) => JobAnswer::Done,
            JobStep::Postgres(step) => agent.change(step).await,
            JobStep::StartPrimary(step) => agent.start_primary(step, &mut self.held).await,
            JobStep::Promote(step) => {
                agent.step().await;
                match agent.number() {
                    Some(number) if agent.mutation() == Some(Mutation::ArmAfterPromotion) => {
                        self.promote_before_arming(step, number).await
                    }
                    Some(number) => self.promote(step, number).await,
                    None => JobAnswer::Failed("promote: postgres is down".to_owned()),
                }
            }
        }
    }

    /// The step Arm comes after the last step instead of before the trigger.
    async fn promote_before_arming(&mut self, step: PromotionStep, number: i32) -> JobAnswer {
        match step {
            PromotionStep::Arm => JobAnswer::Done,
            PromotionStep::AwaitPrimary => {
                let _promoted = self.promote(step, number).await;
                self.promote(PromotionStep::Arm, number).await
            }
            _other => self.promote(step, number).await,
        }
    }

    async fn promote(&mut self, step: PromotionStep, number: i32) -> JobAnswer {
        let agent = self.agent.clone();
        let (sim, member) = (&agent.sim, agent.member());
        match step {
            PromotionStep::AwaitPromotable => ended(agent.wait_until_ready(number, PROMOTE_WITHIN).await),
            PromotionStep::ReserveTimelines(above) => {
                agent.reserve(above);
                JobAnswer::Done
            }
            PromotionStep::Prepare => {
                if let Err(why) = sim.until_it_runs(member, number).await {
                    return JobAnswer::Failed(why);
                }
                if agent.is_primary(number) { JobAnswer::AlreadyPrimary } else { JobAnswer::Done }
            }
            PromotionStep::Arm => {
                let lease = agent.shared.lease.borrow().clone();
                ended(match agent.promise(&lease).await {
                    true => Ok(()),
                    false => Err("the guard has not confirmed that it is armed".to_owned()),
                })
            }
            PromotionStep::WriteTrigger => {
                if let Process::Up { standby_start, .. } = &mut *agent.shared.process.borrow_mut() {
                    *standby_start = false;
                }
                agent.shared.process_bell.give(&sim.exec);
                agent.step().await;
                self.trigger =
                    Some(Trigger { sim: sim.clone(), member, pid: agent.shared.pid, taken: false });
                sim.write_promote_file(member, number);
                JobAnswer::Done
            }
            PromotionStep::Signal => {
                sim.signal_promote(member, number);
                JobAnswer::Done
            }
            PromotionStep::AwaitPrimary => {
                let give_up_at = sim.now() + PROMOTE_WITHIN;
                while !agent.is_primary(number) {
                    if agent.number() != Some(number) || give_up_at <= sim.now() {
                        return JobAnswer::Failed("promoting took too long".to_owned());
                    }
                    agent.sleep(Duration::from_millis(3)).await;
                }
                self.trigger.iter_mut().for_each(|trigger| trigger.taken = true);
                JobAnswer::Done
            }
        }
    }

    async fn commit(&self, mut txn: Txn) -> JobAnswer {
        let agent = &self.agent;
        self.mutate(&mut txn);
        if self.deposes() && agent.sim.strikes_deposal(agent.member()) {
            agent.sleep(DEPOSAL_DELAYED).await;
        }
        // An answer may come late: what etcd did it did before.
        let full = agent.sim.world().etcd.no_space;
        // The first transaction of a bootstrap claims the key, the second writes the cluster's identifier.
        let finishes = matches!(txn.when.first(), Some(Compare::Lease(..)));
        let written = agent.commit(txn).await;
        match (&self.purpose, &written) {
            (Purpose::Job(Job::ReleaseLeadership { .. }), Ok(Cas::Done(_))) if full => {
                let replaced = agent.sim.world().machines[agent.member()].pod_end == Some(PodEnd::Replaced);
                let ends = agent.shared.shutting_down.get() || replaced;
                invariant::released(&agent.sim, agent.member(), ends);
            }
            (Purpose::Job(Job::Bootstrap { .. }), Ok(Cas::Done(_))) if finishes => {
                last_copy::created(&agent.sim, agent.member());
            }
            (Purpose::Aside(Action::WriteGeneration(GenerationWrite::Begin { .. })), Ok(Cas::Done(_))) => {
                invariant::voided(&agent.sim, agent.member());
            }
            _unwatched => {}
        }
        JobAnswer::Written(written.map_err(reported))
    }

    fn deposes(&self) -> bool {
        matches!(&self.purpose, Purpose::Job(Job::TakeLeadership { by }) if by.deposes.is_some())
    }

    /// What a mutation makes of a transaction.
    fn mutate(&self, txn: &mut Txn) {
        let (mutation, led) = {
            let world = self.agent.sim.world();
            let led = world.etcd.store.keys.contains_key(&world.keys.path("status"));
            (world.options.mutation, led)
        };
        let path = |name| self.agent.path(name);
        match (&self.purpose, mutation) {
            (Purpose::Job(Job::TakeLeadership { .. }), Some(Mutation::TakeFromAnybody)) => txn.when.clear(),
            (Purpose::Job(Job::TakeLeadership { by }), Some(Mutation::IgnoreUnfenced)) => {
                let unfenced = Compare::Revision(path("unfenced"), by.unfenced);
                txn.when.retain(|compare| *compare != unfenced);
            }
            (Purpose::Job(Job::TakeLeadership { by }), Some(Mutation::DeposeOverOldSync)) => {
                let sync = Compare::Revision(path("sync"), by.sync);
                txn.when.retain(|compare| by.deposes.is_none() || *compare != sync);
            }
            (Purpose::Job(Job::TakeLeadership { by }), Some(Mutation::DeposeWithdrawn)) => {
                let attempt = by.deposes.map(|it| Compare::Revision(path("recruit"), it.attempt));
                txn.when.retain(|compare| Some(compare) != attempt.as_ref());
            }
            (Purpose::Job(Job::ReleaseLeadership { .. }), Some(Mutation::GiveToNobody)) => {
                txn.then.retain(|change| !matches!(change, KeyChange::Put(..)));
            }
            (Purpose::Job(Job::Bootstrap { .. }), Some(Mutation::ForgetCluster)) if led => {
                // The second transaction of a bootstrap compares the claim.
                let claim = matches!(txn.when.first(), Some(Compare::Absent(_)));
                if claim {
                    txn.when.clear();
                }
            }
            _sound => {}
        }
    }
}

impl Agent {
    async fn change(&self, step: PostgresStep) -> JobAnswer {
        let (sim, member) = (&self.sim, self.member());
        match step {
            // No parameter of the simulated PostgreSQL has a minimum.
            PostgresStep::LowerMinimums => JobAnswer::Done,
            PostgresStep::Initdb => {
                self.note_password();
                match sim.initdb(member, self.newest_password()).await {
                    Ok(system_id) => JobAnswer::SystemId(system_id),
                    Err(why) => JobAnswer::Failed(why),
                }
            }
            PostgresStep::CopyRemote { .. } => {
                JobAnswer::Failed("there is nothing outside of the simulated cluster".to_owned())
            }
            PostgresStep::SetAside => {
                self.step().await;
                sim.world().machines[member].disk.clear();
                JobAnswer::Done
            }
            PostgresStep::Clone { from, .. } => {
                ended(match from.and_then(|from| index_of(from.name.as_str())) {
                    Some(source) => self.clone_from(source).await,
                    None => Err("no such member".to_owned()),
                })
            }
            PostgresStep::UndoClone => ended(sim.undo_clone(member).await),
            PostgresStep::Start { follow, within, role: _ } => {
                ended(self.start_standby(follow.as_ref(), within).await)
            }
            PostgresStep::Stop { mode, within } => ended(self.stop(mode, within).await),
            PostgresStep::Checkpoint { .. } => ended(match self.number() {
                Some(number) => self.checkpoint(number).await,
                None => Err("postgres is down".to_owned()),
            }),
            PostgresStep::CrashRecovery => ended(sim.crash_recovery(member).await),
            PostgresStep::Rewind { from, .. } => {
                self.write_likeliest_password();
                ended(match index_of(from.name.as_str()) {
                    Some(source) => sim.rewind(member, source).await,
                    None => Err("no such member".to_owned()),
                })
            }
        }
    }

    /// Reserves the numbers of the timelines up to this one.
    fn reserve(&self, passed_over: Timeline) {
        let mut world = self.sim.world();
        if world.options.mutation == Some(Mutation::ReuseTimelines) {
            return;
        }
        let disk = &mut world.machines[self.member()].disk;
        let mine = disk.wal.timeline_at(disk.flushed);
        disk.reserved.extend(mine + 1..=passed_over.0.max(mine));
    }
}

pub(super) fn ended(done: Result<(), String>) -> JobAnswer {
    match done {
        Ok(()) => JobAnswer::Done,
        Err(why) => JobAnswer::Failed(why),
    }
}
