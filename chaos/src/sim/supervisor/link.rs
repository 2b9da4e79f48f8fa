//! Keeps a guard alive: the driver of the product's own machine, as `src/fence/keeping.rs` is.

use std::time::Duration;

use matriarch::core::guard::{ArmedDeadlines, GuardEffect, GuardEvent, GuardOrder, KeepGuard, LeftBehind};

use super::Agent;
use crate::sim::guard::Guard;
use crate::sim::mutation::Mutation;

const ANSWER_WITHIN: Duration = Duration::from_secs(1);

impl Agent {
    pub(crate) fn order(&self, armed: Option<ArmedDeadlines<()>>) {
        if self.sim.world().options.mutation == Some(Mutation::NoGuard) {
            return;
        }
        if self.shared.keep.borrow_mut().order(armed) {
            self.shared.link_bell.give(&self.sim.exec);
        }
    }

    /// True when the guard has acknowledged the last order.
    pub(crate) async fn holds(&self, within: Duration) -> bool {
        let wanted = self.shared.keep.borrow().sequence();
        let held = async {
            while !self.shared.keep.borrow().holds(wanted) {
                self.shared.held_bell.wait(&self.sim.exec).await;
            }
        };
        self.sim.exec.within(within, held).await.is_some()
    }

    /// Looks for the guard of a former supervisor: `src/fence/predecessor.rs`.
    pub(crate) async fn find_guard(&self) -> (LeftBehind, Vec<Guard>) {
        let (named, guards) = {
            let world = self.sim.world();
            let place = &world.machines[self.member()].guard;
            (place.named_armed, place.guards.clone())
        };
        *self.shared.keep.borrow_mut() = KeepGuard::new(!guards.is_empty());
        let Some(named) = named else { return (LeftBehind::Nothing, guards) };
        let lives = |guard: &&Guard| guard.pid == named && self.sim.exec.is_alive(named);
        let Some(guard) = guards.iter().find(lives) else {
            return (LeftBehind::judge(None), guards);
        };
        while guard.take_answer().is_some() {}
        guard.send(&self.sim, 1, GuardOrder::Ask);
        let answered = async {
            loop {
                match guard.take_answer() {
                    Some(answer) => return answer,
                    None => guard.answered.wait(&self.sim.exec).await,
                }
            }
        };
        (LeftBehind::judge(self.sim.exec.within(ANSWER_WITHIN, answered).await), guards)
    }

    /// The thread of the link.
    pub(crate) async fn keep_guard(self, predecessors: Vec<Guard>) {
        let mut driver = Driver { agent: self, guard: None, predecessors };
        loop {
            driver.hear();
            while let Some(effect) = driver.next_effect() {
                driver.carry_out(effect);
                driver.agent.step().await;
                driver.hear();
            }
            let wake_at = driver.agent.shared.keep.borrow().wake_at();
            let exec = driver.agent.sim.exec.clone();
            let bell = driver.agent.shared.link_bell.clone();
            let at = driver.agent.sim.when(driver.agent.member(), wake_at);
            exec.by(at, bell.wait(&exec)).await;
        }
    }
}

struct Driver {
    agent: Agent,
    guard: Option<Guard>,
    predecessors: Vec<Guard>,
}

impl Driver {
    fn next_effect(&self) -> Option<GuardEffect<()>> {
        self.agent.shared.keep.borrow_mut().poll(self.agent.now())
    }

    fn tell(&self, event: GuardEvent) {
        self.agent.shared.keep.borrow_mut().handle(event, self.agent.now());
    }

    /// Hands over what the guard has said.
    fn hear(&self) {
        let Some(guard) = &self.guard else { return };
        let heard = self.agent.mutation() != Some(Mutation::GuardUnheard);
        while let Some(answer) = guard.take_answer() {
            if heard {
                self.tell(GuardEvent::Answered(answer));
            }
        }
        if !self.agent.sim.exec.is_alive(guard.pid) {
            self.tell(GuardEvent::Closed);
        }
    }

    fn carry_out(&mut self, effect: GuardEffect<()>) {
        let (sim, member) = (self.agent.sim.clone(), self.agent.member());
        match effect {
            GuardEffect::StopPostgres(()) => sim.stop_immediately(member),
            GuardEffect::KillPostgres { sequence, .. } => {
                sim.kill_server(member);
                self.tell(GuardEvent::NoneLeft { sequence });
            }
            GuardEffect::EndGuard { .. } => {
                self.agent.note(|| "the guard is gone or frozen, another takes its place".to_owned());
                self.guard.take().into_iter().for_each(|guard| self.end(&guard));
            }
            GuardEffect::StartGuard => {
                self.guard = Some(Guard::start(&sim, member, &self.agent.shared.link_bell));
                self.tell(GuardEvent::Started);
                if sim.world().options.mutation == Some(Mutation::RelieveEarly) {
                    self.relieve();
                }
            }
            GuardEffect::NameArmed => {
                sim.world().machines[member].guard.named_armed = self.guard.as_ref().map(|guard| guard.pid);
                self.tell(GuardEvent::Renamed { armed: true });
            }
            GuardEffect::NameIdle { .. } => {
                sim.world().machines[member].guard.named_armed = None;
                self.tell(GuardEvent::Renamed { armed: false });
            }
            GuardEffect::Send { sequence, order } => {
                if let Some(guard) = &self.guard {
                    guard.send(&sim, sequence, order);
                }
            }
            GuardEffect::Held { .. } => self.agent.shared.held_bell.give(&sim.exec),
            GuardEffect::DismissPredecessor => self.relieve(),
        }
    }

    fn relieve(&mut self) {
        for former in std::mem::take(&mut self.predecessors) {
            self.end(&former);
        }
    }

    fn end(&self, guard: &Guard) {
        let place = &mut self.agent.sim.world().machines[self.agent.member()].guard;
        place.guards.retain(|other| other.pid != guard.pid);
        self.agent.sim.exec.kill(guard.pid);
    }
}
