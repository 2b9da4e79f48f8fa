//! Tasks on a virtual line of time, in processes that can be frozen and killed between any two of their steps.
//!
//! A task is an `async` block that reads like the code it stands for. It gives way only at an `.await`, so what lies
//! between two of them is one step, and the order of all steps follows from the seed. Wakers are not used: a task that
//! waits is polled when a time comes or a [`Signal`](super::signal::Signal) is given, and looks again at what it waits
//! for.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::At;
use crate::rng::Rng;

/// A process: it is frozen, thawed and killed with all its tasks. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pid(pub(crate) usize);

/// What cannot be frozen: the network, and the hand that makes the faults.
pub(crate) const NATURE: Pid = Pid(0);

/// One task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    slot: usize,
    generation: u64,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    generation: u64,
    process: Pid,
    /// Taken out while it runs.
    work: Option<Work>,
    used: bool,
}

#[derive(Default)]
struct Process {
    dead: bool,
    /// How many faults hold it.
    frozen: u32,
    parked: Vec<TaskId>,
    /// It is never late.
    prompt: bool,
}

struct Core {
    now: At,
    order: u64,
    steps: u64,
    due: BinaryHeap<Reverse<(At, u64, usize, u64)>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    processes: Vec<Process>,
    current: Option<TaskId>,
    rng: Rng,
    /// Out of ten thousand waits, so many last up to a third of a second longer: the machine is busy.
    stalls: u64,
}

/// The handle; clones share it.
#[derive(Clone)]
pub(crate) struct Executor(Rc<RefCell<Core>>);

impl Executor {
    pub(crate) fn new(seed: u64) -> Executor {
        Executor(Rc::new(RefCell::new(Core {
            now: At(0),
            order: 0,
            steps: 0,
            due: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            processes: vec![Process { prompt: true, ..Process::default() }],
            current: None,
            rng: Rng::new(seed),
            stalls: 0,
        })))
    }

    pub(crate) fn now(&self) -> At {
        self.0.borrow().now
    }

    /// Steps taken so far.
    pub(crate) fn steps(&self) -> u64 {
        self.0.borrow().steps
    }

    /// The one source of chance.
    pub(crate) fn rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.0.borrow_mut().rng)
    }

    pub(crate) fn set_stalls(&self, per_ten_thousand: u64) {
        self.0.borrow_mut().stalls = per_ten_thousand;
    }

    /// A new process.
    pub(crate) fn fork(&self) -> Pid {
        let mut core = self.0.borrow_mut();
        core.processes.push(Process::default());
        Pid(core.processes.len() - 1)
    }

    /// From now on it runs before all others, whatever the load.
    pub(crate) fn make_prompt(&self, pid: Pid) {
        self.0.borrow_mut().processes[pid.0].prompt = true;
    }

    pub(crate) fn is_alive(&self, pid: Pid) -> bool {
        !self.0.borrow().processes[pid.0].dead
    }

    pub(crate) fn is_frozen(&self, pid: Pid) -> bool {
        0 < self.0.borrow().processes[pid.0].frozen
    }

    pub(crate) fn freeze(&self, pid: Pid) {
        self.0.borrow_mut().processes[pid.0].frozen += 1;
    }

    /// Lets it go on, `after` that long, if nothing else holds it.
    pub(crate) fn thaw(&self, pid: Pid, after: Duration) {
        let parked = {
            let mut core = self.0.borrow_mut();
            let process = &mut core.processes[pid.0];
            process.frozen = process.frozen.saturating_sub(1);
            if 0 < process.frozen { Vec::new() } else { std::mem::take(&mut process.parked) }
        };
        for task in parked {
            let late = self.rng(|rng| rng.micros(1, 200));
            self.wake_at(task, self.now() + after + late);
        }
    }

    /// Whatever held them, all go on, or only those that are never late.
    pub(crate) fn thaw_all(&self, prompt: bool) {
        let processes = self.0.borrow().processes.len();
        for pid in (0..processes).map(Pid) {
            let first = self.0.borrow().processes[pid.0].prompt;
            if self.is_frozen(pid) && (first || !prompt) {
                self.0.borrow_mut().processes[pid.0].frozen = 1;
                self.thaw(pid, Duration::ZERO);
            }
        }
    }

    /// Ends it with all its tasks, at once.
    pub(crate) fn kill(&self, pid: Pid) {
        let mut ended: Vec<Work> = Vec::new();
        let mut core = self.0.borrow_mut();
        core.processes[pid.0].dead = true;
        core.processes[pid.0].parked.clear();
        for index in 0..core.slots.len() {
            if core.slots[index].used && core.slots[index].process == pid {
                ended.extend(core.slots[index].work.take());
                Self::release(&mut core, index);
            }
        }
        drop(core);
        drop(ended);
    }

    fn release(core: &mut Core, index: usize) {
        core.slots[index].used = false;
        core.slots[index].generation += 1;
        core.free.push(index);
    }

    /// Begins a task of that process; of a dead one, never.
    pub(crate) fn spawn(&self, process: Pid, work: impl Future<Output = ()> + 'static) -> TaskId {
        let late = self.rng(|rng| rng.micros(0, 20));
        let mut core = self.0.borrow_mut();
        let index = match core.free.pop() {
            Some(index) => index,
            None => {
                core.slots.push(Slot { generation: 0, process, work: None, used: false });
                core.slots.len() - 1
            }
        };
        let slot = &mut core.slots[index];
        let work: Work = Box::pin(work);
        (slot.process, slot.work, slot.used) = (process, Some(work), true);
        let task = TaskId { slot: index, generation: slot.generation };
        if core.processes[process.0].dead {
            let ended = core.slots[index].work.take();
            Self::release(&mut core, index);
            drop(core);
            drop(ended);
            return task;
        }
        drop(core);
        self.wake_at(task, self.now() + late);
        task
    }

    /// Ends a task where it stands.
    pub(crate) fn abort(&self, task: TaskId) {
        let mut core = self.0.borrow_mut();
        if core.slots[task.slot].generation == task.generation && core.slots[task.slot].used {
            let ended = core.slots[task.slot].work.take();
            Self::release(&mut core, task.slot);
            drop(core);
            drop(ended);
        }
    }

    pub(super) fn wake_at(&self, task: TaskId, at: At) {
        let mut core = self.0.borrow_mut();
        core.order += 1;
        let order = core.order;
        core.due.push(Reverse((at, order, task.slot, task.generation)));
    }

    /// Takes the next step; false when nothing is due before `end`.
    pub(crate) fn step(&self, end: At) -> bool {
        let mut core = self.0.borrow_mut();
        let Some(Reverse((at, _, index, generation))) = core.due.pop() else { return false };
        if end < at {
            core.due.push(Reverse((at, 0, index, generation)));
            core.now = end;
            return false;
        }
        core.now = core.now.max(at);
        let slot = &core.slots[index];
        if !slot.used || slot.generation != generation {
            return true;
        }
        let (task, process) = (TaskId { slot: index, generation }, slot.process);
        if 0 < core.processes[process.0].frozen {
            if !core.processes[process.0].parked.contains(&task) {
                core.processes[process.0].parked.push(task);
            }
            return true;
        }
        let Some(mut work) = core.slots[index].work.take() else { return true };
        core.current = Some(task);
        core.steps += 1;
        drop(core);
        let done = work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut core = self.0.borrow_mut();
        core.current = None;
        let slot = &mut core.slots[index];
        if slot.used && slot.generation == generation {
            if done {
                Self::release(&mut core, index);
            } else {
                slot.work = Some(work);
                return true;
            }
        }
        drop(core);
        drop(work);
        true
    }

    /// Drops every task: the world and they hold each other.
    pub(crate) fn clear(&self) {
        let slots = std::mem::take(&mut self.0.borrow_mut().slots);
        drop(slots);
        self.0.borrow_mut().due.clear();
    }

    pub(super) fn current(&self) -> Option<TaskId> {
        self.0.borrow().current
    }

    /// Waits until that time, and a little longer: nobody is woken to the nanosecond.
    pub(crate) async fn sleep_until(&self, at: At) {
        let stalls = {
            let core = self.0.borrow();
            let process = core.current.map(|task| core.slots[task.slot].process);
            let prompt = process.is_some_and(|pid| core.processes[pid.0].prompt);
            if prompt { 0 } else { core.stalls }
        };
        let late = self.rng(|rng| match rng.below(10_000) < stalls {
            true => rng.millis(1, 350),
            false => rng.micros(0, 60),
        });
        let at = at.max(self.now()) + late;
        let mut asked = false;
        std::future::poll_fn(|_| {
            if asked && at <= self.now() {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asked, true)
                && let Some(task) = self.current()
            {
                self.wake_at(task, at);
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits that long, and a little longer.
    pub(crate) async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + span).await;
    }

    /// What `work` gives, or `None` when it has not by then.
    pub(crate) async fn by<T>(&self, at: At, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut late = std::pin::pin!(self.sleep_until(at));
        std::future::poll_fn(|context| {
            if let Poll::Ready(value) = work.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            late.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// What `work` gives within that span.
    pub(crate) async fn within<T>(&self, span: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.by(self.now() + span, work).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::Reply;
    use super::*;

    #[test]
    fn a_frozen_process_goes_on_where_it_was_and_a_killed_one_does_not() {
        let executor = Executor::new(1);
        let (frozen, killed) = (executor.fork(), executor.fork());
        let ran: Rc<RefCell<Vec<&str>>> = Rc::default();
        for (pid, name) in [(frozen, "frozen"), (killed, "killed")] {
            let (executor, ran) = (executor.clone(), ran.clone());
            executor.clone().spawn(pid, async move {
                executor.sleep(Duration::from_secs(1)).await;
                ran.borrow_mut().push(name);
            });
        }
        executor.freeze(frozen);
        executor.kill(killed);
        while executor.step(At::seconds(5)) {}
        assert!(ran.borrow().is_empty());
        executor.thaw(frozen, Duration::ZERO);
        while executor.step(At::seconds(10)) {}
        assert_eq!(*ran.borrow(), ["frozen"]);
    }

    #[test]
    fn late_events_are_not_awaited() {
        let executor = Executor::new(1);
        let ended: Rc<RefCell<Option<Option<u8>>>> = Rc::default();
        let (inner, told) = (executor.clone(), ended.clone());
        executor.spawn(NATURE, async move {
            let never: Reply<u8> = Reply::new();
            *told.borrow_mut() = Some(inner.within(Duration::from_secs(1), never.wait(&inner)).await);
        });
        while executor.step(At::seconds(2)) {}
        assert_eq!(*ended.borrow(), Some(None));
    }
}
