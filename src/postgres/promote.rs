//! The promotion of a standby to primary.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::handle::PostgresInner;
use super::process::wait_until_ready;
use super::{Error, Setup, Started, files, running, sql};
use crate::model::Moment;
use crate::os::clock;
use crate::os::error_chain::ErrorChain;

/// The interval between questions whether Postgres is a primary.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// A promotion under way: the steps of `pg_ctl promote` without that program. When it is dropped before PostgreSQL has
/// read the trigger file, it removes the file: the next signal to the postmaster, from any sender, would promote.
pub struct PendingPromotion {
    inner: Arc<PostgresInner>,
    client: Client,
    deadline: Moment,
    within: Duration,
    trigger: Option<PromoteTrigger>,
}

impl PendingPromotion {
    /// Waits until it can begin, and resumes a paused replay; `None` if PostgreSQL is a primary already.
    pub(super) async fn prepare(
        inner: &Arc<PostgresInner>,
        within: Duration,
    ) -> Result<Option<PendingPromotion>, Error> {
        let deadline = clock::now() + within;
        // A promotion before consistency would end the recovery with an error.
        await_promotable(inner, within).await?;
        let client = client(inner).await?;
        let promotion = PendingPromotion { inner: inner.clone(), client, deadline, within, trigger: None };
        if !promotion.is_standby().await? {
            return Ok(None);
        }
        let resume = "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()";
        promotion.client.batch_execute(resume).await.map_err(Error::sql("resume replay"))?;
        running::take_primary_settings(inner, &promotion.client).await;
        Ok(Some(promotion))
    }

    async fn is_standby(&self) -> Result<bool, Error> {
        let asked = self.client.query_one("SELECT pg_is_in_recovery()", &[]);
        let row = tokio::time::timeout(clock::now().until(self.deadline), asked).await;
        let row = row.map_err(|_| self.late())?;
        Ok(row.map_err(Error::sql("ask whether postgres is promoted"))?.get(0))
    }

    fn late(&self) -> Error {
        Error::Deadline { what: "promoting", within: self.within }
    }

    /// Writes the trigger file. The postmaster checks for it at any signal, even from its own children: from now on
    /// this PostgreSQL may be a primary.
    pub fn write_trigger(&mut self) -> Result<(), Error> {
        self.inner.postmaster.may_be_primary();
        self.trigger = Some(PromoteTrigger::write(&self.inner.setup)?);
        Ok(())
    }

    /// Signals the postmaster. It is looked up again: it may be a child of the started program.
    pub fn signal(&self) -> Result<(), Error> {
        match self.inner.postmaster.signal(Signal::SIGUSR1) {
            true => Ok(()),
            false => {
                let text = "promote: the postmaster has ended, or cannot be signalled";
                Err(Error::Unfit(text.to_owned()))
            }
        }
    }

    /// Waits until it accepts writes.
    pub async fn await_primary(mut self) -> Result<(), Error> {
        while self.is_standby().await? {
            if !self.inner.postmaster.is_up() || clock::now() >= self.deadline {
                return Err(self.late());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if let Some(trigger) = &mut self.trigger {
            trigger.taken = true;
        }
        self.inner.connection.keep(self.client);
        Ok(())
    }
}

/// Waits until a promotion can begin; before that nothing is claimed for it.
pub(super) async fn await_promotable(inner: &PostgresInner, within: Duration) -> Result<(), Error> {
    if !inner.postmaster.is_up() {
        return Err(Error::Unfit("promote: postgres is down".to_owned()));
    }
    match wait_until_ready(inner, within).await? {
        Started::Ready => Ok(()),
        Started::StillRecovering => Err(Error::Deadline { what: "promoting", within }),
    }
}

/// The file `promote`, removed again unless PostgreSQL has read it.
struct PromoteTrigger {
    path: PathBuf,
    /// PostgreSQL has removed it.
    taken: bool,
}

impl PromoteTrigger {
    fn write(setup: &Setup) -> Result<PromoteTrigger, Error> {
        let trigger = PromoteTrigger { path: setup.data_dir.join("promote"), taken: false };
        files::write_promote(setup, &trigger.path)?;
        Ok(trigger)
    }
}

impl Drop for PromoteTrigger {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if let Err(error) = files::remove(&self.path) {
            tracing::warn!(error = error.chain(), "could not remove the trigger file of a failed promotion");
        }
    }
}

/// The heartbeat's connection if it is free: authentication takes longer than a promotion.
async fn client(inner: &PostgresInner) -> Result<Client, Error> {
    match inner.connection.take() {
        Some(client) => Ok(client),
        None => sql::heartbeat(inner).await,
    }
}
