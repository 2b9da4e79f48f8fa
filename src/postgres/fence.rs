//! The thread that stops Postgres when the lease's deadline passes, whatever the rest of this process does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::Error;
use super::handle::PreyCell;
use crate::model::Moment;
use crate::os::clock;

/// A condition variable's clock stands still in a suspend; this bounds how late a deadline is seen after one.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_millis(100);
/// A process in an uninterruptible wait dies late: it is looked for this often.
const KILL_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Armed with two deadlines by whoever renews the lease; dropping it disarms it and ends its thread.
pub struct Fence {
    shared: Arc<Shared>,
    fired: watch::Receiver<bool>,
}

struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    armed: Option<Armed>,
    ended: bool,
}

#[derive(Clone, Copy)]
struct Armed {
    stop_at: Moment,
    kill_at: Moment,
    stopped: bool,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fence {
    pub(super) fn start(prey: PreyCell) -> Result<Fence, Error> {
        let (report, fired) = watch::channel(false);
        let shared = Arc::new(Shared { orders: Mutex::default(), changed: Condvar::new() });
        let own = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("fence".to_owned())
            .spawn(move || guard(&own, &prey, &report))
            .map_err(|source| Error::Spawn { program: "the fence's thread".to_owned(), source })?;
        Ok(Fence { shared, fired })
    }

    /// From now on Postgres is stopped (SIGQUIT) at `stop_at` and killed at `kill_at`, unless armed anew before.
    pub fn arm(&self, stop_at: Moment, kill_at: Moment) {
        self.shared.orders().armed = Some(Armed { stop_at, kill_at, stopped: false });
        self.shared.changed.notify_one();
    }

    /// Postgres is no primary: nothing to fence.
    pub fn disarm(&self) {
        self.shared.orders().armed = None;
        self.shared.changed.notify_one();
    }

    /// True once it has fired; false again after the next `arm` was seen.
    pub fn fired(&self) -> watch::Receiver<bool> {
        self.fired.clone()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        self.shared.orders().ended = true;
        self.shared.changed.notify_one();
    }
}

fn guard(shared: &Shared, prey: &PreyCell, report: &watch::Sender<bool>) {
    let mut orders = shared.orders();
    while !orders.ended {
        let now = clock::now();
        let pause = match &mut orders.armed {
            None => LOOK_AT_LEAST_EVERY,
            Some(armed) if now < armed.stop_at => {
                report.send_if_modified(|fired| std::mem::replace(fired, false));
                now.until(armed.stop_at)
            }
            Some(armed) if now < armed.kill_at => {
                if !armed.stopped {
                    armed.stopped = true;
                    report.send_replace(true);
                    signal_postmaster(prey);
                }
                now.until(armed.kill_at)
            }
            Some(_) => {
                report.send_if_modified(|fired| !std::mem::replace(fired, true));
                if !kill_all(prey) {
                    orders.armed = None;
                }
                KILL_AGAIN_AFTER
            }
        };
        orders = shared
            .changed
            .wait_timeout(orders, pause.min(LOOK_AT_LEAST_EVERY))
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
}

fn signal_postmaster(prey: &PreyCell) {
    if let Some(prey) = &*prey.lock().unwrap_or_else(PoisonError::into_inner) {
        prey.signal(Signal::SIGQUIT);
    }
}

/// True while any process was left.
fn kill_all(prey: &PreyCell) -> bool {
    let prey = prey.lock().unwrap_or_else(PoisonError::into_inner).clone();
    prey.is_some_and(|prey| prey.kill_all())
}
