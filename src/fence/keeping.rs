//! The thread that keeps a guard alive: the driver of [`KeepGuard`].
//!
//! It hands over what the guard says, then carries out one effect after the other. What has to be done, and when, is
//! decided by the machine; what it means for sockets, processes and the log stands here.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::link::{End, GuardFacts, LinkSetup, Shared};
use super::message::{Order, Report};
use super::predecessor::Predecessor;
use super::running::{self, Running};
use super::{FenceError, WatchdogFacts, socket};
use crate::core::guard::{Effect, Event, Lost};
use crate::os::clock;
use crate::os::prey::Prey;

/// The thread's state.
pub(super) struct Keeping {
    shared: Arc<Shared>,
    setup: LinkSetup,
    listener: OwnedFd,
    guard: Option<Running>,
    dying: Vec<Child>,
    predecessor: Option<Predecessor>,
    /// The first guard has introduced itself.
    introduced: bool,
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
            introduced: false,
            partial: false,
            to_reader,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let end = self.shared.state().end;
            if let Some(end) = end {
                return self.finish(end);
            }
            self.hear();
            while let Some(effect) = self.next_effect() {
                self.carry_out(effect);
                self.hear();
            }
            running::reap(&mut self.dying);
            self.publish();
            let wake_at = self.shared.state().keep.wake_at();
            socket::wait(
                [self.guard.as_ref().map(|guard| &guard.link), Some(&self.shared.wake)],
                Some(clock::now().until(wake_at)),
            );
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
    }

    fn next_effect(&self) -> Option<Effect<Prey>> {
        self.shared.state().keep.poll(clock::now())
    }

    fn tell(&self, event: Event) {
        self.shared.state().keep.handle(event, clock::now());
    }

    /// Hands over what the guard has said.
    fn hear(&mut self) {
        while let Some(event) = self.guard.as_mut().and_then(Running::receive) {
            if let (Event::Answered(_), Some(report)) = (event, self.guard.as_ref().and_then(|it| it.report))
            {
                self.say(report);
            }
            // Whoever waits for the order to be held reads the facts then.
            self.publish();
            self.tell(event);
            if event == Event::Closed {
                return;
            }
        }
    }

    fn say(&mut self, report: Report) {
        if !std::mem::replace(&mut self.introduced, true) {
            tracing::info!(pid = report.guard, protection = %report.protection, "the guard runs");
        }
        if report.protection.partial && !std::mem::replace(&mut self.partial, true) {
            tracing::warn!(
                "the guard has too few file descriptors for a dead-man timer on every server process: raise the hard \
                 limit (ulimit -Hn) to more than max_connections"
            );
        }
    }

    fn carry_out(&mut self, effect: Effect<Prey>) {
        match effect {
            Effect::StopPostgres(target) => {
                target.signal(Signal::SIGQUIT);
            }
            Effect::KillPostgres { target, sequence, without_guard } => {
                self.kill_postgres(&target, sequence, without_guard);
            }
            Effect::EndGuard { lost, armed } => self.end_guard(lost, armed),
            Effect::StartGuard => self.start_guard(),
            Effect::NameArmed => self.name_armed(),
            Effect::NameIdle { ours } => self.name_idle(ours),
            Effect::Send { sequence, order } => {
                if let Some(guard) = &self.guard {
                    guard.send(sequence, order);
                }
            }
            Effect::Held { replaced } => {
                self.shared.changed.notify_all();
                if replaced {
                    let pid = self.guard.as_ref().and_then(Running::pid);
                    tracing::warn!(pid, "a new guard has taken over with the same deadline");
                }
            }
            Effect::DismissPredecessor => {
                if let Some(predecessor) = self.predecessor.take() {
                    predecessor.dismiss();
                }
            }
        }
    }

    fn kill_postgres(&self, target: &Prey, sequence: u32, without_guard: bool) {
        if target.kill_all() {
            return;
        }
        self.tell(Event::NoneLeft { sequence });
        match without_guard {
            true => tracing::error!(
                "could not start a guard: PostgreSQL was stopped, because no guard would have fenced it"
            ),
            false => tracing::warn!("the lease deadline passed without a renewal: PostgreSQL was killed"),
        }
    }

    fn start_guard(&mut self) {
        match Running::start(&self.setup, &self.listener) {
            Ok(guard) => {
                self.guard = Some(guard);
                self.tell(Event::Started);
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "could not start a guard; retrying");
            }
        }
    }

    fn end_guard(&mut self, lost: Lost, armed: bool) {
        let Some(guard) = self.guard.take() else { return };
        let pid = guard.pid();
        self.dying.extend(guard.kill());
        match lost {
            Lost::Died => tracing::warn!(pid, armed, "the guard died; replacing it"),
            Lost::Frozen => {
                tracing::warn!(pid, armed, "the guard does not answer and was killed; replacing it")
            }
        }
    }

    fn name_armed(&self) {
        let (idle, named) =
            (socket::idle_name(&self.setup.data_dir), socket::armed_name(&self.setup.data_dir));
        match std::fs::rename(idle, named) {
            Ok(()) => self.tell(Event::Renamed { armed: true }),
            Err(error) => tracing::warn!(%error, armed = true, "cannot rename the guard's socket"),
        }
    }

    fn name_idle(&self, ours: bool) {
        let (idle, named) =
            (socket::idle_name(&self.setup.data_dir), socket::armed_name(&self.setup.data_dir));
        let done = if ours { std::fs::rename(named, idle) } else { std::fs::remove_file(named) };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, armed = false, "cannot rename the guard's socket");
            }
            Ok(()) | Err(_) => self.tell(Event::Renamed { armed: false }),
        }
    }

    fn publish(&self) {
        let report = self.guard.as_ref().and_then(|guard| guard.report).unwrap_or_default();
        let facts = GuardFacts {
            pid: self.guard.as_ref().and_then(Running::pid),
            phase: report.answer.phase,
            // A former guard may still have it open.
            watchdog: match self.predecessor {
                Some(_) => WatchdogFacts::Off,
                None => report.watchdog,
            },
            protection: report.protection,
        };
        self.to_reader.send_if_modified(|shown| std::mem::replace(shown, facts) != facts);
    }

    fn finish(mut self, end: End) {
        if end == End::Dismiss {
            if let Some(guard) = self.guard.take() {
                guard.send(0, Order::Dismiss);
                self.dying.extend(guard.release());
            }
            for name in [socket::armed_name(&self.setup.data_dir), socket::idle_name(&self.setup.data_dir)] {
                // Not there is as good.
                let _ = std::fs::remove_file(name);
            }
        }
        self.shared.state().ended = true;
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
