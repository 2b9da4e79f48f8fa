//! The signals a supervisor listens to.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A request by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalEvent {
    /// SIGTERM: end in good order.
    Terminate,
    /// SIGINT: the same, from a terminal.
    Interrupt,
    /// SIGQUIT: end at once.
    Quit,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The stream of signals.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    reload: Signal,
}

impl Signals {
    /// Makes these signals events; they no longer end the process.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal. Can be dropped and called again.
    pub async fn next(&mut self) -> SignalEvent {
        tokio::select! {
            _ = self.terminate.recv() => SignalEvent::Terminate,
            _ = self.interrupt.recv() => SignalEvent::Interrupt,
            _ = self.quit.recv() => SignalEvent::Quit,
            _ = self.reload.recv() => SignalEvent::Reload,
        }
    }
}
