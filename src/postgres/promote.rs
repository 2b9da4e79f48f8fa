//! From standby to primary.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Client;

use super::handle::Inner;
use super::process::wait_until_ready;
use super::{Error, Setup, Started, files, sql};
use crate::model::Process;
use crate::os::clock;

/// How often Postgres is asked whether it is a primary yet.
const ASK_EVERY: Duration = Duration::from_millis(3);

/// What `pg_ctl promote` does, and no process of its own for it.
pub(super) async fn promote(
    inner: &Inner,
    still_allowed: impl Fn() -> bool,
    within: Duration,
) -> Result<(), Error> {
    let what = "promoting";
    let deadline = clock::now() + within;
    let late = || Error::Deadline { what, within };
    // A promotion before consistency would end the recovery with an error.
    await_promotable(inner, within).await?;
    let setup = &inner.setup;
    let client = client(inner).await?;
    let ask = "SELECT pg_is_in_recovery()";
    let is_standby = async || -> Result<bool, Error> {
        let row = tokio::time::timeout(clock::now().until(deadline), client.query_one(ask, &[])).await;
        Ok(row.map_err(|_| late())?.map_err(Error::sql("ask whether postgres is promoted"))?.get(0))
    };
    if !is_standby().await? {
        return Ok(());
    }
    let resume = "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()";
    client.batch_execute(resume).await.map_err(Error::sql("resume replay"))?;
    // The postmaster looks for the file at any signal, also at one of its own children's: from the moment it exists
    // this may be a primary, so the permission (and with it the fence) comes first, and is asked once more after.
    if !still_allowed() {
        return Err(Error::NotAllowedAnyMore);
    }
    inner.may_be_primary();
    let mut trigger = Trigger::write(setup)?;
    if !still_allowed() {
        return Err(Error::NotAllowedAnyMore);
    }
    // Asked for anew: the postmaster may have turned out to be a child of what was started.
    if !inner.prey().is_some_and(|prey| prey.signal(Signal::SIGUSR1)) {
        return Err(Error::Unfit("promote: the postmaster has ended, or cannot be signalled".to_owned()));
    }
    while is_standby().await? {
        if matches!(*inner.process.borrow(), Process::Down { .. }) || clock::now() >= deadline {
            return Err(late());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    trigger.taken = true;
    if let Ok(mut kept) = inner.heartbeat.try_lock() {
        kept.get_or_insert(client);
    }
    Ok(())
}

/// Waits until a promotion can begin: until then nothing is claimed for it.
pub(super) async fn await_promotable(inner: &Inner, within: Duration) -> Result<(), Error> {
    if inner.prey().is_none() {
        return Err(Error::Unfit("promote: postgres is down".to_owned()));
    }
    match wait_until_ready(inner, within).await? {
        Started::Ready => Ok(()),
        Started::StillRecovering => Err(Error::Deadline { what: "promoting", within }),
    }
}

/// The file `promote`. A promotion that fails, or is cancelled, takes it back: the next signal to the postmaster, by
/// anybody, would promote.
struct Trigger {
    path: PathBuf,
    /// PostgreSQL has removed it.
    taken: bool,
}

impl Trigger {
    fn write(setup: &Setup) -> Result<Trigger, Error> {
        let trigger = Trigger { path: setup.data_dir.join("promote"), taken: false };
        files::write_promote(setup, &trigger.path)?;
        Ok(trigger)
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        if let Err(error) = files::remove(&self.path) {
            tracing::warn!(error = error.chain(), "a promotion that failed left its trigger behind");
        }
    }
}

/// The heartbeat's connection if nobody uses it now: authentication takes longer than a promotion.
async fn client(inner: &Inner) -> Result<Client, Error> {
    let kept = inner.heartbeat.try_lock().ok().and_then(|mut kept| kept.take());
    if let Some(client) = kept.filter(|client| !client.is_closed()) {
        return Ok(client);
    }
    sql::heartbeat(inner).await
}
