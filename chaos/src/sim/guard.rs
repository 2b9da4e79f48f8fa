//! The guard's process: the driver of the product's own machine, and the kernel's dead-man timer behind it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use matriarch::core::guard::{self as protocol, Deadlines, GuardAction, GuardAnswer, GuardInput};
use matriarch::model::Moment;

use super::executor::Pid;
use super::mutation::Mutation;
use super::signal::Signal;
use super::world::Sim;

/// As `fence::dead_man_timer::AFTER_GUARD`.
const TIMER_AFTER_GUARD: Duration = Duration::from_millis(100);

/// An order to a guard here: what it kills is the server of its machine.
pub(crate) type Order = protocol::GuardOrder<()>;

/// A guard's process and its socket. Sockets hold what was sent while either side is frozen.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) pid: Pid,
    orders: Rc<RefCell<VecDeque<(u32, Order)>>>,
    answers: Rc<RefCell<VecDeque<GuardAnswer>>>,
    ordered: Signal,
    /// Given when it answers.
    pub(crate) answered: Signal,
    process: Rc<RefCell<Process>>,
}

/// What the process knows, and what it has left to the kernel.
#[derive(Default)]
struct Process {
    guard: protocol::Guard,
    /// The kernel kills a little after this, whether the process runs or not.
    dead_man_timer: Option<Moment>,
    /// An order that a mutation holds back.
    overtaken: Option<Order>,
}

/// Where guards live on a machine.
#[derive(Default)]
pub(crate) struct GuardPlace {
    /// The present one, and a former one that was not dismissed yet.
    pub(crate) guards: Vec<Guard>,
    /// Whose socket has the name that says armed.
    pub(crate) named_armed: Option<Pid>,
}

impl Guard {
    /// Starts one; `answered` is given when it answers.
    pub(crate) fn start(sim: &Sim, member: usize, answered: &Signal) -> Guard {
        let guard = Guard {
            pid: sim.exec.fork(),
            orders: Rc::default(),
            answers: Rc::default(),
            ordered: Signal::default(),
            answered: answered.clone(),
            process: Rc::default(),
        };
        sim.exec.make_prompt(guard.pid);
        sim.world().machines[member].guard.guards.push(guard.clone());
        let (own, task) = (guard.clone(), sim.clone());
        sim.exec.spawn(guard.pid, async move { own.run(&task, member).await });
        guard
    }

    pub(crate) fn send(&self, sim: &Sim, sequence: u32, order: Order) {
        self.orders.borrow_mut().push_back((sequence, order));
        self.ordered.give(&sim.exec);
    }

    pub(crate) fn take_answer(&self) -> Option<GuardAnswer> {
        self.answers.borrow_mut().pop_front()
    }

    /// What it is armed with.
    pub(crate) fn armed(&self) -> Option<Deadlines> {
        self.process.borrow().guard.armed()
    }

    /// True if it is told, and frozen may not know yet, that PostgreSQL is proved to be no primary.
    pub(crate) fn is_dismissed(&self) -> bool {
        matches!(self.orders.borrow().back(), Some((_, Order::Disarm)))
    }

    async fn run(&self, sim: &Sim, member: usize) {
        loop {
            loop {
                let next = self.orders.borrow_mut().pop_front();
                let Some((sequence, order)) = next else { break };
                self.obey(sim, member, (sequence, order)).await;
            }
            self.step(sim, member, GuardInput::Tick).await;
            let wake_at = self.process.borrow().guard.wake_at(sim.read_clock(member));
            let waiting = self.orders.borrow().is_empty();
            match wake_at {
                _ if !waiting => {}
                None => self.ordered.wait(&sim.exec).await,
                Some(at) => {
                    sim.exec.by(sim.when(member, at), self.ordered.wait(&sim.exec)).await;
                }
            }
        }
    }

    /// One order, and what a mutation makes of it.
    async fn obey(&self, sim: &Sim, member: usize, (sequence, order): (u32, Order)) {
        self.step(sim, member, GuardInput::Ordered { sequence, order: &order }).await;
        if sim.world().options.mutation != Some(Mutation::DisarmOvertaken) {
            return;
        }
        match order {
            Order::Disarm => self.process.borrow_mut().overtaken = Some(order),
            Order::Arm(_) => {
                let Some(order) = self.process.borrow_mut().overtaken.take() else { return };
                let late = GuardInput::Ordered { sequence, order: &order };
                let guard_actions = self.process.borrow_mut().guard.step(late, sim.read_clock(member));
                for guard_action in guard_actions
                    .into_iter()
                    .filter(|guard_action| !matches!(guard_action, GuardAction::Answer(_)))
                {
                    let _nothing_is_killed = self.carry_out(sim, member, guard_action);
                }
            }
            Order::Ask | Order::Dismiss => {}
        }
    }

    /// One input, and one deed after the other: between two of them the process may be frozen or killed.
    async fn step(&self, sim: &Sim, member: usize, input: GuardInput<'_, ()>) {
        let guard_actions = self.process.borrow_mut().guard.step(input, sim.read_clock(member));
        for guard_action in guard_actions {
            let seen = matches!(
                guard_action,
                GuardAction::SetDeadManTimer(_)
                    | GuardAction::ClearDeadManTimer
                    | GuardAction::Stop
                    | GuardAction::Kill
                    | GuardAction::Answer(_)
            );
            if seen {
                sim.exec.sleep(sim.exec.rng(|rng| rng.micros(0, 20))).await;
            }
            let killed = self.carry_out(sim, member, guard_action);
            if let Some(input) = killed {
                Box::pin(self.step(sim, member, input)).await;
            }
        }
    }

    /// Carries one deed out; what a kill found is the next input.
    fn carry_out(
        &self,
        sim: &Sim,
        member: usize,
        guard_action: GuardAction<'_, ()>,
    ) -> Option<GuardInput<'static, ()>> {
        let kills = sim.world().options.mutation != Some(Mutation::GuardKillDropped);
        match guard_action {
            GuardAction::Stop if !kills => {}
            GuardAction::Kill if !kills => return Some(GuardInput::Killed { found: 1, none_left: true }),
            GuardAction::TakeTarget(()) | GuardAction::FollowProcesses | GuardAction::WarmUp => {}
            GuardAction::FeedWatchdog(_) | GuardAction::CloseWatchdog | GuardAction::Report { .. } => {}
            GuardAction::SetDeadManTimer(at) => self.process.borrow_mut().dead_man_timer = Some(at),
            GuardAction::ClearDeadManTimer => self.process.borrow_mut().dead_man_timer = None,
            GuardAction::Stop => {
                sim.note(|| format!("{member}: the guard stops"));
                sim.stop_immediately(member);
            }
            GuardAction::Kill => {
                sim.note(|| format!("{member}: the guard kills"));
                sim.kill_server(member);
                return Some(GuardInput::Killed { found: 1, none_left: true });
            }
            GuardAction::Answer(answer) => {
                self.answers.borrow_mut().push_back(answer);
                self.answered.give(&sim.exec);
            }
        }
        None
    }
}

impl Sim {
    /// SIGQUIT to the postmaster that runs there.
    pub(crate) fn stop_immediately(&self, member: usize) {
        let number = self.world().machines[member].server.as_ref().map(|server| server.number);
        if let Some(number) = number {
            self.ask_immediate_stop(member, number);
        }
    }

    /// To be called when guards are frozen: what they left to the kernel last, it does for them. An order that reaches
    /// a frozen guard changes nothing, and the end of a guard ends its timer.
    pub(crate) fn leave_to_kernel(&self, member: usize) {
        if self.world().options.mutation == Some(Mutation::NoDeadManTimer) {
            return;
        }
        let guards = self.world().machines[member].guard.guards.clone();
        for guard in guards {
            let timer = guard.process.borrow().dead_man_timer;
            let number = self.world().machines[member].server.as_ref().map(|server| server.number);
            let (Some(at), Some(number)) = (timer, number) else { continue };
            let sim = self.clone();
            self.spawn_environment(async move {
                sim.exec.sleep_until(sim.when(member, at + TIMER_AFTER_GUARD)).await;
                let holds = sim.exec.is_alive(guard.pid) && guard.process.borrow().dead_man_timer == Some(at);
                let same =
                    sim.world().machines[member].server.as_ref().map(|server| server.number) == Some(number);
                if holds && same {
                    sim.note(|| format!("{member}: the guard's dead-man timer fires"));
                    sim.kill_server(member);
                }
            });
        }
    }

    /// Whether a guard there is armed, or kills.
    pub(crate) fn is_guarded(&self, member: usize) -> bool {
        let world = self.world();
        let armed = |guard: &Guard| self.exec.is_alive(guard.pid) && guard.armed().is_some();
        world.machines[member].guard.guards.iter().any(armed)
    }
}
