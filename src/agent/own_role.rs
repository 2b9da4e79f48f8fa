//! The supervisor's own PostgreSQL role, for clusters that another program or an older supervisor created.

use std::time::Duration;

use super::cycle::Cycle;
use crate::model::AccessWay;
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// The pause between attempts: a role with that name may belong to another user, and every attempt adds a line to the
/// server's log.
const RETRY_EVERY: Duration = Duration::from_secs(60);

impl Cycle {
    /// As leader, creates the supervisor's own role if it could not log in with it. The loop does not wait for that.
    pub(super) fn make_own_role(&mut self) {
        let now = clock::now();
        if self.state.own_role_retry_at.is_some_and(|at| now < at) {
            return;
        }
        let status = self.status.borrow().clone();
        let primary = status.postgres.answering().is_some_and(|sql| sql.is_primary());
        if !primary || !status.is_leader(now) || status.postgres.access.way == Some(AccessWay::PrivateSocket)
        {
            return;
        }
        self.state.own_role_retry_at = Some(now + RETRY_EVERY);
        let postgres = self.tools.postgres.clone();
        tokio::spawn(async move {
            if let Err(error) = postgres.create_own_role().await {
                tracing::warn!(error = error.chain(), "could not create the supervisor's own role");
            }
        });
    }
}
