//! The guard: knows one pair of deadlines, and kills when they pass.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use matriarch::model::Moment;

use super::executor::Pid;
use super::mutation::Mutation;
use super::signal::Signal;
use super::world::Sim;

/// As `fence::fuse::AFTER_GUARD`.
const FUSE_AFTER_GUARD: Duration = Duration::from_millis(100);

/// As `fence::Deadlines` of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadlines {
    pub(crate) stop_at: Moment,
    pub(crate) kill_at: Moment,
}

/// As `fence::Phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Idle,
    Armed,
    Over,
}

/// As `fence::message::Command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Ask,
    Arm(Deadlines),
    Disarm,
}

/// What a guard answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) sequence: u32,
    pub(crate) phase: Phase,
    pub(crate) deadlines: Option<Deadlines>,
}

/// A guard's process and its socket. Sockets hold what was sent while either side is frozen.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) pid: Pid,
    orders: Rc<RefCell<VecDeque<(u32, Command)>>>,
    answers: Rc<RefCell<VecDeque<Answer>>>,
    ordered: Signal,
    /// Given when it answers.
    pub(crate) answered: Signal,
    pub(crate) state: Rc<RefCell<GuardState>>,
}

/// What the process knows.
#[derive(Default)]
pub(crate) struct GuardState {
    pub(crate) phase: Phase,
    pub(crate) deadlines: Option<Deadlines>,
    stopped: bool,
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
            state: Rc::default(),
        };
        sim.exec.make_prompt(guard.pid);
        sim.world().machines[member].guard.guards.push(guard.clone());
        let (own, task) = (guard.clone(), sim.clone());
        sim.exec.spawn(guard.pid, async move { own.run(&task, member).await });
        guard
    }

    pub(crate) fn send(&self, sim: &Sim, sequence: u32, command: Command) {
        self.orders.borrow_mut().push_back((sequence, command));
        self.ordered.give(&sim.exec);
    }

    pub(crate) fn take_answer(&self) -> Option<Answer> {
        self.answers.borrow_mut().pop_front()
    }

    /// What it is armed with.
    pub(crate) fn armed(&self) -> Option<Deadlines> {
        let state = self.state.borrow();
        state.deadlines.filter(|_| state.phase == Phase::Armed)
    }

    /// True if it is told, and frozen may not know yet, that PostgreSQL is proved to be no primary.
    pub(crate) fn is_dismissed(&self) -> bool {
        matches!(self.orders.borrow().back(), Some((_, Command::Disarm)))
    }

    fn answer(&self, sim: &Sim, sequence: u32) {
        let state = self.state.borrow();
        let answer = Answer { sequence, phase: state.phase, deadlines: state.deadlines };
        self.answers.borrow_mut().push_back(answer);
        self.answered.give(&sim.exec);
    }

    async fn run(&self, sim: &Sim, member: usize) {
        loop {
            loop {
                let order = self.orders.borrow_mut().pop_front();
                let Some((sequence, command)) = order else { break };
                match command {
                    Command::Ask => {}
                    Command::Disarm => *self.state.borrow_mut() = GuardState::default(),
                    Command::Arm(deadlines) => {
                        *self.state.borrow_mut() =
                            GuardState { phase: Phase::Armed, deadlines: Some(deadlines), stopped: false };
                    }
                }
                self.answer(sim, sequence);
            }
            self.look(sim, member);
            let next = {
                let state = self.state.borrow();
                let armed = state.deadlines.filter(|_| state.phase == Phase::Armed);
                armed.map(|at| if state.stopped { at.kill_at } else { at.stop_at })
            };
            match next {
                None => self.ordered.wait(&sim.exec).await,
                Some(at) => {
                    sim.exec.by(sim.when(member, at), self.ordered.wait(&sim.exec)).await;
                }
            }
        }
    }

    /// Does what is due.
    fn look(&self, sim: &Sim, member: usize) {
        let now = sim.read_clock(member);
        let due = {
            let state = self.state.borrow();
            state.deadlines.filter(|_| state.phase == Phase::Armed).map(|at| (at, state.stopped))
        };
        let Some((at, stopped)) = due else { return };
        if at.kill_at <= now {
            self.state.borrow_mut().phase = Phase::Over;
            sim.note(|| format!("{member}: the guard kills"));
            sim.kill_server(member);
        } else if at.stop_at <= now && !stopped {
            self.state.borrow_mut().stopped = true;
            sim.note(|| format!("{member}: the guard stops"));
            let number = sim.world().machines[member].server.as_ref().map(|server| server.number);
            if let Some(number) = number {
                sim.ask_immediate_stop(member, number);
            }
        }
    }
}

impl Sim {
    /// To be called when guards are frozen: what they armed last the kernel does for them. An order that reaches a
    /// frozen guard changes nothing, and the end of a guard puts its fuse out.
    pub(crate) fn leave_to_fuses(&self, member: usize) {
        if self.world().options.mutation == Some(Mutation::NoFuse) {
            return;
        }
        let guards = self.world().machines[member].guard.guards.clone();
        for guard in guards {
            let armed = guard.armed();
            let number = self.world().machines[member].server.as_ref().map(|server| server.number);
            let (Some(at), Some(number)) = (armed, number) else { continue };
            let sim = self.clone();
            self.nature(async move {
                sim.exec.sleep_until(sim.when(member, at.kill_at + FUSE_AFTER_GUARD)).await;
                let holds = sim.exec.is_alive(guard.pid) && guard.state.borrow().deadlines == Some(at);
                let same =
                    sim.world().machines[member].server.as_ref().map(|server| server.number) == Some(number);
                if holds && same {
                    sim.note(|| format!("{member}: the guard's fuse burns"));
                    sim.kill_server(member);
                }
            });
        }
    }

    /// Whether a guard there is armed, or has been until the kill.
    pub(crate) fn is_guarded(&self, member: usize) -> bool {
        let world = self.world();
        let armed =
            |guard: &Guard| self.exec.is_alive(guard.pid) && guard.state.borrow().phase == Phase::Armed;
        world.machines[member].guard.guards.iter().any(armed)
    }
}
