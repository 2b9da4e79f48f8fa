//! The thread that keeps a guard alive: the driver of [`KeepGuard`](crate::core::guard::KeepGuard).
//!
//! It passes on the guard's answers, then carries out one effect after the other. The machine decides what is to be
//! done, and when; this file does it with sockets, processes and the log.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::link::{End, GuardFacts, LinkSetup, LinkShared};
use super::message::{GuardReport, PostgresOrder};
use super::predecessor::Predecessor;
use super::program::GuardPrograms;
use super::running::{self, RunningGuard};
use super::{WatchdogFacts, socket};
use crate::core::guard::{GuardEffect, GuardEvent, GuardLoss};
use crate::os::clock;
use crate::os::error_chain::ErrorChain;
use crate::os::postgres_processes::PostgresProcesses;

/// The thread's state.
pub(super) struct GuardThread {
    shared: Arc<LinkShared>,
    setup: LinkSetup,
    programs: GuardPrograms,
    listener: OwnedFd,
    guard: Option<RunningGuard>,
    dying: Vec<Child>,
    predecessor: Option<Predecessor>,
    /// The first guard's protection was logged.
    introduced: bool,
    /// It was logged that the dead-man timer covers only some of the server processes.
    partial: bool,
    to_reader: watch::Sender<GuardFacts>,
}

impl GuardThread {
    pub(super) fn new(
        shared: Arc<LinkShared>,
        setup: LinkSetup,
        listener: OwnedFd,
        predecessor: Option<Predecessor>,
        to_reader: watch::Sender<GuardFacts>,
    ) -> GuardThread {
        GuardThread {
            shared,
            programs: GuardPrograms::open(&setup),
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
            self.receive_answers();
            while let Some(effect) = self.next_effect() {
                self.carry_out(effect);
                self.receive_answers();
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

    fn next_effect(&self) -> Option<GuardEffect<PostgresProcesses>> {
        self.shared.state().keep.poll(clock::now())
    }

    fn pass_event(&self, event: GuardEvent) {
        self.shared.state().keep.handle(event, clock::now());
    }

    /// Hands over the guard's answers.
    fn receive_answers(&mut self) {
        while let Some(event) = self.guard.as_mut().and_then(RunningGuard::receive) {
            if let (GuardEvent::Answered(_), Some(report)) =
                (event, self.guard.as_ref().and_then(|it| it.report))
            {
                self.log_report(report);
            }
            // A thread that waits for the acknowledgement reads the facts then.
            self.publish();
            self.pass_event(event);
            if event == GuardEvent::Closed {
                return;
            }
        }
    }

    fn log_report(&mut self, report: GuardReport) {
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

    fn carry_out(&mut self, effect: GuardEffect<PostgresProcesses>) {
        match effect {
            GuardEffect::StopPostgres(target) => {
                target.signal(Signal::SIGQUIT);
            }
            GuardEffect::KillPostgres { target, sequence, without_guard } => {
                self.kill_postgres(&target, sequence, without_guard);
            }
            GuardEffect::EndGuard { lost, armed } => self.end_guard(lost, armed),
            GuardEffect::StartGuard => self.start_guard(),
            GuardEffect::NameArmed => self.name_armed(),
            GuardEffect::NameIdle { ours } => self.name_idle(ours),
            GuardEffect::Send { sequence, order } => {
                if let Some(guard) = &self.guard {
                    guard.send(sequence, order);
                }
            }
            GuardEffect::Held { replaced } => {
                self.shared.changed.notify_all();
                if replaced {
                    let pid = self.guard.as_ref().and_then(RunningGuard::pid);
                    tracing::warn!(pid, "a new guard has taken over with the same deadline");
                }
            }
            GuardEffect::DismissPredecessor => {
                if let Some(predecessor) = self.predecessor.take() {
                    predecessor.dismiss();
                }
            }
        }
    }

    fn kill_postgres(&self, target: &PostgresProcesses, sequence: u32, without_guard: bool) {
        if target.kill_all() {
            return;
        }
        self.pass_event(GuardEvent::NoneLeft { sequence });
        match without_guard {
            true => tracing::error!(
                "could not start a guard: PostgreSQL was stopped, because no guard would have fenced it"
            ),
            false => tracing::warn!("the lease deadline passed without a renewal: PostgreSQL was killed"),
        }
    }

    fn start_guard(&mut self) {
        match RunningGuard::start(&self.programs, &self.listener) {
            Ok(guard) => {
                self.guard = Some(guard);
                self.pass_event(GuardEvent::Started);
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "could not start a guard; retrying");
            }
        }
    }

    fn end_guard(&mut self, lost: GuardLoss, armed: bool) {
        let Some(guard) = self.guard.take() else { return };
        let pid = guard.pid();
        if guard.report.is_none() && self.programs.give_up(guard.program) {
            tracing::warn!("`matriarch-guard` does not work with this `matriarch`, which guards itself now");
        }
        self.dying.extend(guard.kill());
        match lost {
            GuardLoss::Died => tracing::warn!(pid, armed, "the guard died; replacing it"),
            GuardLoss::Frozen => {
                tracing::warn!(pid, armed, "the guard does not answer and was killed; replacing it")
            }
        }
    }

    fn name_armed(&self) {
        let (idle, named) =
            (socket::idle_name(&self.setup.data_dir), socket::armed_name(&self.setup.data_dir));
        match std::fs::rename(idle, named) {
            Ok(()) => self.pass_event(GuardEvent::Renamed { armed: true }),
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
            Ok(()) | Err(_) => self.pass_event(GuardEvent::Renamed { armed: false }),
        }
    }

    fn publish(&self) {
        let report = self.guard.as_ref().and_then(|guard| guard.report).unwrap_or_default();
        let facts = GuardFacts {
            pid: self.guard.as_ref().and_then(RunningGuard::pid),
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
                guard.send(0, PostgresOrder::Dismiss);
                self.dying.extend(guard.release());
            }
            for name in [socket::armed_name(&self.setup.data_dir), socket::idle_name(&self.setup.data_dir)] {
                // A missing file is fine.
                let _ = std::fs::remove_file(name);
            }
        }
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        running::reap(&mut self.dying);
    }
}
