//! The watchdog notifications to the service manager: they stop if the main loop hangs.

use std::thread;

use crate::os::notify::Systemd;
use crate::postgres::Probe;

/// Starts the thread that answers the service manager's watchdog, if there is one. It stops answering when the loop
/// hangs. The service manager then ends this supervisor and starts the next, which continues with the running
/// PostgreSQL.
pub(super) fn ping_while_it_beats(service: &Systemd, probe: &Probe) {
    let Some(every) = service.ping_every() else { return };
    let (service, probe) = (service.clone(), probe.clone());
    let pinging = thread::Builder::new().name("service ping".to_owned()).spawn(move || {
        loop {
            if !probe.loop_hangs() {
                service.ping();
            }
            thread::sleep(every);
        }
    });
    if let Err(error) = pinging {
        tracing::warn!(%error, "could not notify the watchdog of the service manager");
    }
}
