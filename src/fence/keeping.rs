//! The thread that keeps a guard alive and tells it what was written down.
//!
//! **Invariants.** The guard's socket has the name that says armed before the first order to arm leaves. A guard that
//! was lost is killed before another is started, so that no forgotten deadline is left to fire. While something is
//! armed and no guard holds it, and past the deadline in any case, this thread is the fence: it kills at the deadline,
//! and after [`REPLACE_WITHIN`] without a guard at once.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::link::{Armed, End, GuardFacts, LinkSetup, Shared};
use super::message::{Command, VERSION};
use super::predecessor::Predecessor;
use super::running::{self, Lost, Running};
use super::{FenceError, Phase, WatchdogFacts, socket};
use crate::model::Moment;
use crate::os::clock;

/// An armed guard is asked this often whether it is well; with the time it has for the answer, one that is frozen is
/// known after one and a half seconds.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// One that is not armed matters less.
const ASK_IDLE_EVERY: Duration = Duration::from_secs(2);
/// How long a primary may run while one guard after the other cannot be started, if its deadline lies that far ahead.
const REPLACE_WITHIN: Duration = Duration::from_secs(3);
/// The pause after a guard could not be started.
const START_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// While the thread itself kills.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The thread's state.
pub(super) struct Keeping {
    shared: Arc<Shared>,
    setup: LinkSetup,
    listener: OwnedFd,
    guard: Option<Running>,
    dying: Vec<Child>,
    predecessor: Option<Predecessor>,
    /// Our socket has the name that says armed.
    named: bool,
    /// A former socket may still have it.
    stale_name: bool,
    /// Since when something is armed that no guard holds.
    lost_at: Option<Moment>,
    /// A guard was lost while something was armed.
    replacing: bool,
    /// Not before then is another guard started.
    start_at: Moment,
    /// The order whose prey this thread has killed itself.
    killed: Option<u32>,
    /// The first guard has introduced itself.
    told: bool,
    /// It was said that the kernel stands by for some of the server processes only.
    partial: bool,
    to_reader: watch::Sender<GuardFacts>,
}

impl Keeping {
    pub(super) fn new(
        shared: Arc<Shared>,
        setup: LinkSetup,
        listener: OwnedFd,
        predecessor: Option<Predecessor>,
        to_reader: watch::Sender<GuardFacts>,
    ) -> Keeping {
        Keeping {
            shared,
            setup,
            listener,
            guard: None,
            dying: Vec::new(),
            predecessor,
            named: false,
            stale_name: true,
            lost_at: None,
            replacing: false,
            start_at: Moment::default(),
            killed: None,
            told: false,
            partial: false,
            to_reader,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let end = self.shared.orders().end;
            if let Some(end) = end {
                return self.finish(end);
            }
            self.keep_one(clock::now());
            self.order(clock::now());
            let pause = self.pause(clock::now());
            socket::wait(
                [self.guard.as_ref().map(|guard| &guard.link), Some(&self.shared.wake)],
                Some(pause),
            );
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
            self.hear(clock::now());
            self.be_the_fence(clock::now());
            self.publish();
        }
    }

    /// Starts a guard when there is none.
    fn keep_one(&mut self, now: Moment) {
        running::reap(&mut self.dying);
        if self.guard.is_some() || now < self.start_at {
            return;
        }
        match Running::start(&self.setup, &self.listener, now) {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => {
                self.start_at = now + START_AGAIN_AFTER;
                tracing::warn!(error = chain(&error), "no guard could be started; trying again");
            }
        }
    }

    /// Tells the guard what it has not been told yet.
    fn order(&mut self, now: Moment) {
        let (armed, sequence, decided) = {
            let orders = self.shared.orders();
            (orders.armed, orders.sequence, orders.decided)
        };
        if armed.is_some() && !self.rename(true) {
            return;
        }
        let Some(guard) = &mut self.guard else { return };
        let every = if armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        if guard.sent == Some(sequence) {
            if guard.asked_at + every <= now {
                guard.send(sequence, Command::Ask, now);
            }
            return;
        }
        guard.sent = Some(sequence);
        let command = match armed {
            Some(Armed { deadlines, prey, watchdog_at }) => Command::Arm { deadlines, prey, watchdog_at },
            None if decided => Command::Disarm,
            None => Command::Ask,
        };
        guard.send(sequence, command, now);
    }

    /// Reads what the guard says, and ends it when it does not count any more.
    fn hear(&mut self, now: Moment) {
        let Some(guard) = &mut self.guard else { return };
        let heard = guard.receive(now);
        let answer = guard.answer;
        if let Err(lost) = heard {
            return self.lose(lost, now);
        }
        let Some(answer) = answer else { return };
        if !self.told {
            self.told = true;
            tracing::info!(pid = answer.guard, protection = %answer.protection, "the guard runs");
        }
        if answer.protection.partial && !std::mem::replace(&mut self.partial, true) {
            tracing::warn!(
                "the guard has too few file descriptors for a dead-man timer on every server process: raise the hard \
                 limit (ulimit -Hn) to more than max_connections"
            );
        }
        let mut orders = self.shared.orders();
        let agrees = match orders.armed {
            Some(armed) => answer.phase == Phase::Armed && answer.deadlines == armed.deadlines,
            None => answer.phase == Phase::Idle,
        };
        let held = (agrees && answer.sequence == orders.sequence && answer.version == VERSION)
            .then_some(orders.sequence);
        if held.is_none() || orders.held == held {
            return;
        }
        orders.held = held;
        let (decided, idle) = (orders.decided, orders.armed.is_none());
        drop(orders);
        // Whoever waited for the one reads the other.
        self.publish();
        self.shared.changed.notify_all();
        self.lost_at = None;
        if std::mem::take(&mut self.replacing) {
            tracing::warn!(pid = answer.guard, "another guard has taken over, with the same deadline");
        }
        if decided {
            self.dismiss_predecessor();
            if idle {
                self.rename(false);
            }
        }
    }

    fn lose(&mut self, lost: Lost, now: Moment) {
        let Some(guard) = self.guard.take() else { return };
        let armed = {
            let mut orders = self.shared.orders();
            orders.held = None;
            orders.armed.is_some()
        };
        let (pid, answered) = (guard.pid(), guard.answer.is_some());
        self.dying.extend(guard.kill());
        if armed {
            self.replacing = true;
            self.lost_at = self.lost_at.or(Some(now));
        }
        // At once the first time; a guard that dies on its first breath is not started in a tight loop.
        self.start_at = if answered { now } else { now + START_AGAIN_AFTER };
        self.keep_one(now);
        match lost {
            Lost::Died => tracing::warn!(pid, armed, "the guard died; replacing it"),
            Lost::Frozen => {
                tracing::warn!(pid, armed, "the guard does not answer and was killed; replacing it")
            }
        }
    }

    /// The former guard goes when this one holds what was decided. Its watchdog is free only then: told once more, the
    /// new one opens it.
    fn dismiss_predecessor(&mut self) {
        let Some(predecessor) = self.predecessor.take() else { return };
        predecessor.dismiss();
        if let Some(guard) = &mut self.guard {
            guard.sent = None;
        }
    }

    /// While something is armed and no guard holds it, and past the deadline in any case.
    fn be_the_fence(&mut self, now: Moment) {
        let (armed, sequence, held) = {
            let orders = self.shared.orders();
            (orders.armed, orders.sequence, orders.held)
        };
        let Some(armed) = armed.filter(|_| self.killed != Some(sequence)) else {
            self.lost_at = None;
            return;
        };
        if held.is_none() {
            self.lost_at = self.lost_at.or(Some(now));
        }
        let given_up = self.lost_at.is_some_and(|at| held.is_none() && at + REPLACE_WITHIN <= now);
        if armed.deadlines.stop_at <= now && now < armed.deadlines.kill_at && held.is_none() {
            armed.prey.signal(Signal::SIGQUIT);
        }
        if !given_up && now < armed.deadlines.kill_at {
            return;
        }
        if !armed.prey.kill_all() {
            self.killed = Some(sequence);
            match given_up {
                true => tracing::error!(
                    "no guard could be had: PostgreSQL was stopped, because nothing would have fenced it"
                ),
                false => {
                    tracing::warn!("the lease's deadline passed and no renewal came: PostgreSQL was killed")
                }
            }
        }
    }

    /// How long there is nothing to do.
    fn pause(&self, now: Moment) -> Duration {
        let orders = self.shared.orders();
        let Some(guard) = &self.guard else { return START_AGAIN_AFTER.min(now.until(self.start_at)) };
        let every = if orders.armed.is_some() { ASK_EVERY } else { ASK_IDLE_EVERY };
        let mut next = guard.asked_at + every;
        if let Some(at) = guard.frozen_at() {
            next = next.min(at);
        }
        if let Some(armed) = orders.armed.filter(|_| self.killed != Some(orders.sequence)) {
            next = next.min(armed.deadlines.kill_at.max(now + KILL_AGAIN_AFTER));
            if orders.held.is_none() {
                next = next.min(armed.deadlines.stop_at.max(now + KILL_AGAIN_AFTER));
            }
        }
        now.until(next)
    }

    /// Gives our socket the name that says armed, or takes that name away; true when it is so.
    fn rename(&mut self, armed: bool) -> bool {
        if self.named == armed && (armed || !self.stale_name) {
            return true;
        }
        let (idle, named) =
            (socket::idle_name(&self.setup.data_dir), socket::armed_name(&self.setup.data_dir));
        let renamed = match (armed, self.named) {
            (true, _) => std::fs::rename(&idle, &named),
            (false, true) => std::fs::rename(&named, &idle),
            (false, false) => std::fs::remove_file(&named),
        };
        match renamed {
            Ok(()) => (self.named, self.stale_name) = (armed, false),
            Err(error) if !armed && error.kind() == std::io::ErrorKind::NotFound => {
                (self.named, self.stale_name) = (false, false);
            }
            Err(error) => tracing::warn!(%error, armed, "cannot rename the guard's socket"),
        }
        self.named == armed
    }

    fn publish(&self) {
        let answer = self.guard.as_ref().and_then(|guard| guard.answer).unwrap_or_default();
        let facts = GuardFacts {
            pid: self.guard.as_ref().and_then(Running::pid),
            phase: answer.phase,
            // A former guard may still have it open.
            watchdog: match self.predecessor {
                Some(_) => WatchdogFacts::Off,
                None => answer.watchdog,
            },
            protection: answer.protection,
        };
        self.to_reader.send_if_modified(|shown| std::mem::replace(shown, facts) != facts);
    }

    fn finish(mut self, end: End) {
        if end == End::Dismiss {
            if let Some(mut guard) = self.guard.take() {
                guard.send(0, Command::Dismiss, clock::now());
                self.dying.extend(guard.release());
            }
            for name in [socket::armed_name(&self.setup.data_dir), socket::idle_name(&self.setup.data_dir)] {
                // Not there is as good.
                let _ = std::fs::remove_file(name);
            }
        }
        self.shared.orders().held = Some(u32::MAX);
        self.shared.changed.notify_all();
        running::reap(&mut self.dying);
    }
}

/// An error with its cause, on one line.
fn chain(error: &FenceError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
