//! Keeps a guard alive and tells it what was written down: `src/fence/link.rs` and `src/fence/keeping.rs`.

use std::time::Duration;

use matriarch::model::Moment;

use super::Agent;
use crate::sim::clock::At;
use crate::sim::guard::{Command, Deadlines, Guard, Phase};
use crate::sim::mutation::Mutation;

const ASK_EVERY: Duration = Duration::from_millis(500);
const ASK_IDLE_EVERY: Duration = Duration::from_secs(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const REPLACE_WITHIN: Duration = Duration::from_secs(3);
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// What was written down.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) armed: Option<Deadlines>,
    sequence: u32,
    held: Option<u32>,
    decided: bool,
}

/// What a supervisor finds when it starts.
pub(crate) enum Found {
    Nothing,
    Armed(Deadlines),
    Unguarded,
}

impl Agent {
    pub(crate) fn order(&self, armed: Option<Deadlines>) {
        if self.sim.world().options.mutation == Some(Mutation::NoGuard) {
            return;
        }
        let mut orders = self.shared.orders.borrow_mut();
        if orders.armed != armed || !orders.decided {
            orders.armed = armed;
            orders.sequence += 1;
            orders.decided = true;
            self.shared.link_bell.give(&self.sim.exec);
        }
    }

    /// True when the guard has acknowledged the last order.
    pub(crate) async fn holds(&self, within: Duration) -> bool {
        let wanted = self.shared.orders.borrow().sequence;
        let held = async {
            while self.shared.orders.borrow().held.is_none_or(|held| held < wanted) {
                self.shared.held_bell.wait(&self.sim.exec).await;
            }
        };
        self.sim.exec.within(within, held).await.is_some()
    }

    /// Looks for the guard of a former supervisor.
    pub(crate) async fn find_guard(&self) -> (Found, Vec<Guard>) {
        let (named, guards) = {
            let world = self.sim.world();
            let place = &world.machines[self.member()].guard;
            (place.named_armed, place.guards.clone())
        };
        let Some(named) = named else { return (Found::Nothing, guards) };
        let lives = |guard: &&Guard| guard.pid == named && self.sim.exec.is_alive(named);
        let Some(guard) = guards.iter().find(lives) else {
            return (Found::Unguarded, guards);
        };
        while guard.take_answer().is_some() {}
        guard.send(&self.sim, 1, Command::Ask);
        let answered = async {
            loop {
                match guard.take_answer() {
                    Some(answer) => return answer,
                    None => guard.answered.wait(&self.sim.exec).await,
                }
            }
        };
        let found = match self.sim.exec.within(ANSWER_WITHIN, answered).await {
            None => Found::Unguarded,
            Some(answer) => match (answer.phase, answer.deadlines) {
                (Phase::Armed, Some(deadlines)) => Found::Armed(deadlines),
                (Phase::Idle, _) => Found::Nothing,
                (Phase::Armed | Phase::Over, _) => Found::Unguarded,
            },
        };
        (found, guards)
    }

    /// The thread of the link.
    pub(crate) async fn keep_guard(self, predecessors: Vec<Guard>) {
        let mut keeping =
            Keeping { agent: self, guard: None, predecessors, start_at: Moment::default(), lost_at: None };
        loop {
            keeping.keep_one();
            keeping.tell();
            let pause = keeping.pause();
            let exec = keeping.agent.sim.exec.clone();
            let bell = keeping.agent.shared.link_bell.clone();
            exec.within(pause, bell.wait(&exec)).await;
            keeping.hear();
            keeping.be_the_fence();
        }
    }
}

struct Held {
    guard: Guard,
    sent: Option<u32>,
    asked_at: Moment,
    unanswered: Option<Moment>,
}

struct Keeping {
    agent: Agent,
    guard: Option<Held>,
    predecessors: Vec<Guard>,
    start_at: Moment,
    lost_at: Option<Moment>,
}

impl Keeping {
    fn keep_one(&mut self) {
        let now = self.agent.now();
        if self.guard.is_some() || now < self.start_at {
            return;
        }
        let guard = Guard::start(&self.agent.sim, self.agent.member(), &self.agent.shared.link_bell);
        self.guard = Some(Held { guard, sent: None, asked_at: now, unanswered: None });
    }

    fn tell(&mut self) {
        let (armed, sequence, decided) = {
            let orders = self.agent.shared.orders.borrow();
            (orders.armed, orders.sequence, orders.decided)
        };
        let now = self.agent.now();
        let Some(held) = &mut self.guard else { return };
        if armed.is_some() {
            let named = Some(held.guard.pid);
            self.agent.sim.world().machines[self.agent.member()].guard.named_armed = named;
        }
        let every = if armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        let command = if held.sent != Some(sequence) {
            match armed {
                Some(deadlines) => Command::Arm(deadlines),
                None if decided => Command::Disarm,
                None => Command::Ask,
            }
        } else if held.asked_at + every <= now {
            Command::Ask
        } else {
            return;
        };
        (held.sent, held.asked_at) = (Some(sequence), now);
        held.unanswered = held.unanswered.or(Some(now));
        held.guard.send(&self.agent.sim, sequence, command);
    }

    fn hear(&mut self) {
        let now = self.agent.now();
        let Some(held) = &mut self.guard else { return };
        let mut last = None;
        while let Some(answer) = held.guard.take_answer() {
            (held.unanswered, last) = (None, Some(answer));
        }
        let frozen = held.unanswered.is_some_and(|since| since + ANSWER_WITHIN <= now);
        if frozen || !self.agent.sim.exec.is_alive(held.guard.pid) {
            return self.lose();
        }
        let Some(answer) = last else { return };
        let mut orders = self.agent.shared.orders.borrow_mut();
        let agrees = match orders.armed {
            Some(armed) => answer.phase == Phase::Armed && answer.deadlines == Some(armed),
            None => answer.phase == Phase::Idle,
        };
        if !agrees || answer.sequence != orders.sequence || orders.held == Some(orders.sequence) {
            return;
        }
        orders.held = Some(orders.sequence);
        let (decided, idle) = (orders.decided, orders.armed.is_none());
        drop(orders);
        self.lost_at = None;
        if decided {
            for former in self.predecessors.drain(..) {
                self.agent.sim.world().machines[self.agent.member()]
                    .guard
                    .guards
                    .retain(|other| other.pid != former.pid);
                self.agent.sim.exec.kill(former.pid);
            }
            if idle {
                self.agent.sim.world().machines[self.agent.member()].guard.named_armed = None;
            }
        }
        self.agent.shared.held_bell.give(&self.agent.sim.exec);
    }

    fn lose(&mut self) {
        let Some(held) = self.guard.take() else { return };
        let now = self.agent.now();
        let mut orders = self.agent.shared.orders.borrow_mut();
        orders.held = None;
        if orders.armed.is_some() {
            self.lost_at = self.lost_at.or(Some(now));
        }
        self.start_at = now;
        drop(orders);
        self.agent.note(|| "the guard is gone or frozen, another takes its place".to_owned());
        self.agent.sim.world().machines[self.agent.member()]
            .guard
            .guards
            .retain(|other| other.pid != held.guard.pid);
        self.agent.sim.exec.kill(held.guard.pid);
    }

    fn be_the_fence(&mut self) {
        let now = self.agent.now();
        let (armed, held) = {
            let orders = self.agent.shared.orders.borrow();
            (orders.armed, orders.held)
        };
        let Some(armed) = armed else {
            self.lost_at = None;
            return;
        };
        if held.is_none() {
            self.lost_at = self.lost_at.or(Some(now));
        }
        let given_up = self.lost_at.is_some_and(|at| held.is_none() && at + REPLACE_WITHIN <= now);
        if given_up || armed.kill_at <= now {
            self.agent.sim.kill_server(self.agent.member());
        }
    }

    fn pause(&self) -> Duration {
        let now = self.agent.now();
        let orders = self.agent.shared.orders.borrow();
        let every = if orders.armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        let Some(held) = &self.guard else { return Duration::from_millis(100) };
        let mut next = held.asked_at + every;
        if let Some(since) = held.unanswered {
            next = next.min(since + ANSWER_WITHIN);
        }
        if let Some(armed) = orders.armed {
            next = next.min(armed.kill_at.max(now + KILL_AGAIN_AFTER));
        }
        let at: At = self.agent.sim.when(self.agent.member(), next);
        at.since(self.agent.sim.now())
    }
}
