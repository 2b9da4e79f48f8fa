//! Parameters that are configured lower than the cluster has had them. A standby refuses to start with a lower value
//! than its primary had. So each start as a standby uses the values of the control file, and a promotion keeps them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rewind::single_user;
use super::{Error, Postgres, control, files};
use crate::model::ControlState;

/// After a clean stop there is no recovery.
const LOWER_WITHIN: Duration = Duration::from_secs(20);

impl Postgres {
    /// For the leader, before its start after a clean stop: writes the configured parameters into the control file and,
    /// as WAL, to the standbys. Clients cannot connect. If another member leads before this ends, the histories differ
    /// only by a record of the parameters and a checkpoint.
    pub async fn lower_minimums(&self) -> Result<(), Error> {
        let inner = &self.inner;
        inner.postmaster.must_be_down("lower parameters")?;
        let control = control::read(&inner.setup).await?;
        let clean = control.state == ControlState::ShutDown && !control.backup_label;
        let lowered = files::lowered(&inner.parameters(), &control.standby_minimums);
        if !clean || lowered.is_empty() {
            return Ok(());
        }
        tracing::info!(
            parameters = lowered.join(", "),
            "lowered: standbys follow with a restart of their own"
        );
        single_user(inner, &BTreeMap::new(), Some(LOWER_WITHIN)).await
    }
}
